"""Functions that write maps to files and read them.

`save_mapping` and `load_mapping` store the whole map; `write_dipy_mapping` and
`read_dipy_mapping` exchange its displacements with DIPY.  `dipy_dl_reg.maps.formats`
holds the formats.
"""

from __future__ import annotations

import os
import warnings

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.io.images import ImageLike
from dipy_dl_reg.maps.dipy_map import check_mapping
from dipy_dl_reg.maps.formats.dipy import check_storable
from dipy_dl_reg.maps.formats.table import FORMATS, find_format, whole_map_suffixes


def save_mapping(
    mapping: DiffeomorphicMap, path: str | os.PathLike, *, overwrite: bool = False
) -> None:
    """Write a map to one file, from which `load_mapping` reads the same map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        Any map of DIPY, 2D or 3D.
    path : str or Path
        The file, ending in ``.npz``: NumPy's archive without pickles, with the
        entries ``forward``, ``backward`` (mm, float32), the shapes and matrices of all
        grids, the prealign as the map holds it, ``is_inverse``, ``dim``, and the name
        and version of this format.  Another suffix stands for another format that
        stores the whole map, if there is one.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ValueError
        If `mapping` is no map or has no fields, `path` does not end in ``.npz`` or in
        the suffix of another such format, or this format cannot store the map.
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    load_mapping : the opposite.
    write_mapping : files for other programs, such as ANTs, FSL and MRtrix3.
    write_dipy_mapping : the file of DIPY.

    Notes
    -----
    Only this format stores everything: both fields, all grids, and the prealign in both
    directions (``mapping.prealign`` is the inverse of the `prealign` of the
    registration, ``mapping.prealign_inv`` is the `prealign` itself).  Reading it runs
    no code.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, load_mapping, save_mapping
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> mapping = DeepRegistration("SSD").optimize(static=static, moving=moving)
    >>> path = f"{mkdtemp()}/mapping.npz"
    >>> save_mapping(mapping, path)
    >>> loaded = load_mapping(path)
    >>> bool((loaded.transform(moving) == mapping.transform(moving)).all())
    True
    """
    check_mapping(mapping)
    suffixes = whole_map_suffixes()
    if not os.fspath(path).endswith(suffixes):
        raise ValueError(f"path must end in {' or '.join(suffixes)}, got {path}")
    with write_atomically(path, overwrite=overwrite) as temporary:
        find_format(path).write(mapping, temporary)


def load_mapping(path: str | os.PathLike) -> DiffeomorphicMap:
    """Read a map that `save_mapping` wrote.

    Parameters
    ----------
    path : str or Path
        The file.  Its suffix decides on the format; a file of any other suffix is read
        as ``.npz``.

    Returns
    -------
    mapping : DiffeomorphicMap
        From ``.npz`` the same map: transformed images and points, and the inverse, are
        bit for bit the same. Its fields are float32, contiguous and writable, as DIPY
        needs them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is empty, cut off, damaged, of another kind, of a later version
        of this format, or declares larger arrays than it can hold.

    See Also
    --------
    save_mapping : the opposite; its example reads the map again.
    read_mapping : maps of other programs, such as ANTs, FSL and MRtrix3.
    read_dipy_mapping : the file of DIPY.

    Examples
    --------
    >>> from dipy_dl_reg import load_mapping
    >>> load_mapping("subject_mapping.npz")  # this file does not exist
    Traceback (most recent call last):
        ...
    FileNotFoundError: ...
    """
    suffixes = whole_map_suffixes()
    if os.fspath(path).lower().endswith(suffixes):
        return find_format(path).read(path)
    try:
        return FORMATS["npz"].read(path)
    except ValueError as error:
        known = " or ".join(suffixes)
        raise ValueError(f"{error}; load_mapping reads files in {known}") from error


def write_dipy_mapping(
    mapping: DiffeomorphicMap, path: str | os.PathLike, *, overwrite: bool = False
) -> None:
    """Write a map in the NIfTI format of :func:`dipy.align.write_mapping`.

    The file has shape (X, Y, Z, 3, 2): in each voxel of static, the forward and the
    backward displacement in mm; its affine is the inverse of static's. DIPY's
    `dipy.align.read_mapping` reads it correctly when called as
    ``read_mapping(path, moving, static, prealign=np.linalg.inv(prealign))``.

    `read_dipy_mapping` and `read_mapping` also find the prealign and moving's grid,
    which are in an extension of the header. **DIPY does not read the prealign**: pass
    it there (a warning is given), or use `save_mapping`. NIfTI rounds the affine to
    float32.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        A 3D map as registrations return it, made with affines.
    path : str or Path
        The file, ending in ``.nii`` or ``.nii.gz``.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ValueError
        If the format cannot hold the map: it is 2D, has no affines, is not in the
        form registrations return, or its field is not on static's grid.
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    read_dipy_mapping : the opposite.
    save_mapping : a file that stores the whole map.
    dipy.align.read_mapping : the function of DIPY that reads the file.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, write_dipy_mapping
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> static, moving = (np.exp(-8 * (x**2 + k * y**2 + z**2)) for k in (1, 2))
    >>> grids = {"static_grid2world": np.eye(4), "moving_grid2world": np.eye(4)}
    >>> mapping = DeepRegistration("SSD").optimize(
    ...     static=static, moving=moving, **grids
    ... )
    >>> write_dipy_mapping(mapping, f"{mkdtemp()}/mapping.nii.gz")
    """
    check_storable(mapping)
    if not str(path).endswith((".nii", ".nii.gz")):
        raise ValueError(f"path must end in .nii or .nii.gz, got {path}")
    with write_atomically(path, overwrite=overwrite) as temporary:
        FORMATS["dipy"].write(mapping, temporary)
    matrix = mapping.prealign
    if matrix is not None and not np.array_equal(matrix, np.eye(len(matrix))):
        warnings.warn(
            "the map has a prealign, which this package reads from the file, but DIPY "
            "does not: store it (np.savetxt) for DIPY's read_mapping",
            UserWarning,
            stacklevel=2,
        )


def read_dipy_mapping(
    path: str | os.PathLike,
    static: ImageLike,
    moving: ImageLike,
    *,
    prealign: np.ndarray | None = None,
) -> DiffeomorphicMap:
    """Read a map from the NIfTI format of :func:`dipy.align.write_mapping`.

    Parameters
    ----------
    path : str or Path
        The file, of shape (X, Y, Z, 3, 2).
    static, moving : str, Path or nibabel image
        The images that were registered. Only their grids are used.
    prealign : ndarray, shape (4, 4), optional
        The prealign of the registration: static world to moving world. Files written
        by DIPY do not contain it; without it the map is wrong.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form registrations return.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no map in this format, or was not made on static's grid.

    See Also
    --------
    write_dipy_mapping : the opposite.
    read_mapping : the same for the files of all programs.
    dipy.align.write_mapping : the function of DIPY that writes the file.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, read_dipy_mapping, write_dipy_mapping
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> static, moving = (np.exp(-8 * (x**2 + k * y**2 + z**2)) for k in (1, 2))
    >>> grids = {"static_grid2world": np.eye(4), "moving_grid2world": np.eye(4)}
    >>> mapping = DeepRegistration("SSD").optimize(
    ...     static=static, moving=moving, **grids
    ... )
    >>> path = f"{mkdtemp()}/mapping.nii.gz"
    >>> write_dipy_mapping(mapping, path)
    >>> images = [nib.Nifti1Image(image, np.eye(4)) for image in (static, moving)]
    >>> read = read_dipy_mapping(path, *images)
    >>> bool(np.allclose(read.transform(moving), mapping.transform(moving), atol=1e-3))
    True
    """
    return FORMATS["dipy"].read(path, static, moving, prealign)
