"""Functions that read and write maps in the files of this and of other programs.

`dipy_dl_reg.maps.formats` holds the formats, one module for each, and their table.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.maps.formats.map_format import MapFormat
from dipy_dl_reg.maps.formats.table import (
    describe_names,
    find_format,
    get_format,
    recognise_format,
)


def read_mapping(
    path: str | os.PathLike,
    *,
    inverse: str | os.PathLike | None = None,
    affine: str | os.PathLike | None = None,
    like: str | None = None,
    static: Any = None,
    moving: Any = None,
    prealign: np.ndarray | None = None,
) -> DiffeomorphicMap:
    """Read a map from the files of any program.

    Parameters
    ----------
    path : str or Path
        The file.  If a format stores each direction in a file of its own: the file
        that warps moving to static.
    inverse : str or Path, optional
        The file of the other direction, which warps static to moving.  Without it, if
        `path` does not contain this direction, the inverse is computed, and the log
        says so.  ANTs' inverse warp is found beside the warp.
    affine : str or Path, optional
        The file of the affine part, in formats that may leave it out of the field: the
        premat of FSL, the affine of ANTs, which is found beside the warp.
    like : str, optional
        Name of the format: "npz", "ants", "dipy", "itk", "mrtrix", "itk_composite",
        "x5", "fsl", "spm" ... (the error for another name lists all).  By default it is
        found from the suffix and the header.
    static, moving : str, Path, nibabel image or Grid, optional
        The images, of which only the grids are used.  A file that is not on static's
        grid is an error.  Files seldom hold moving's grid: without `moving` it is that
        of `inverse`, else static's, which decides on the shape of
        ``mapping.transform_inverse(static)``, not on what the map is.  For a file that
        holds the whole map (``.npz``), `moving` must be on the map's moving grid.
    prealign : ndarray, shape (dim + 1, dim + 1), optional
        Static world to moving world.  For a file that does not contain it, it is a part
        of the map (DIPY's format, ANTs' warps).  A file that contains the whole map
        does not need it; by default the affine is separated that is nearest to the map.
        It extends the map beyond static's grid.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map, in the form that registrations return: ``mapping.transform(moving)`` is
        moving on static's grid.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has the form of no format, is on another grid than
        static's, holds something else than its format says as far as that can be seen
        (voxels, other axes), or if a grid or an affine is missing.

    See Also
    --------
    write_mapping : the opposite.
    load_mapping : a map of this package in one file.
    read_affine : an affine registration without a displacement.
    compose_mappings : several maps in one.

    Notes
    -----
    :func:`dipy.align.read_mapping` is another function: it reads DIPY's format alone.

    Examples
    --------
    ANTs' warp; its inverse and its affine are found beside it:

    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, read_mapping, write_mapping
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> static, moving = (np.exp(-8 * (x**2 + k * y**2 + z**2)) for k in (1, 2))
    >>> grids = {"static_grid2world": np.eye(4), "moving_grid2world": np.eye(4)}
    >>> mapping = DeepRegistration("SSD").optimize(
    ...     static=static, moving=moving, **grids
    ... )
    >>> path = f"{mkdtemp()}/sub-01_1Warp.nii.gz"
    >>> write_mapping(mapping, path)
    >>> read = read_mapping(path)
    >>> bool(np.allclose(read.transform(moving), mapping.transform(moving), atol=1e-3))
    True
    """
    entry = recognise_format(path) if like is None else get_format(like)
    logger.info(f"{path} is read as {entry.description}")
    return entry.read(path, static, moving, prealign, inverse=inverse, affine=affine)


def write_mapping(
    mapping: DiffeomorphicMap,
    path: str | os.PathLike,
    *,
    inverse: str | os.PathLike | None = None,
    affine: str | os.PathLike | None = None,
    like: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a map to the files of any program.

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The map.
    path : str or Path
        The file.  If a format stores each direction in a file of its own: the file
        that warps moving to static.
    inverse : str or Path, optional
        The file of the other direction, in formats that store each in a file.  Without
        it this direction is not written, and the log says so.  ANTs' inverse warp is
        always written, beside the warp by default.
    affine : str or Path, optional
        The file of the affine part, in formats that may leave it out of the field: the
        premat of FSL, the affine of ANTs, by default beside the warp.
    like : str, optional
        Name of the format, as for `read_mapping`.  By default the suffix decides:
        ``.npz``, ``1Warp.nii.gz`` (ANTs), ``.h5``, ``.x5`` ...  For other NIfTI files
        it must be given, because many programs have them.
    overwrite : bool, optional
        Replace files that exist.

    Raises
    ------
    ValueError
        If `mapping` is no map, or the format cannot store it: a 2D map, one without
        affines, grids with shears.
    FileExistsError
        If a file exists and `overwrite` is False.

    See Also
    --------
    read_mapping : the opposite.
    save_mapping : one file, from which the same map is read, bit for bit.
    write_affine : an affine registration without a displacement.

    Notes
    -----
    :func:`dipy.align.write_mapping` is another function: it writes DIPY's format alone.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, write_mapping
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> static, moving = (np.exp(-8 * (x**2 + k * y**2 + z**2)) for k in (1, 2))
    >>> grids = {"static_grid2world": np.eye(4), "moving_grid2world": np.eye(4)}
    >>> mapping = DeepRegistration("SSD").optimize(
    ...     static=static, moving=moving, **grids
    ... )
    >>> folder = Path(mkdtemp())
    >>> write_mapping(mapping, folder / "sub-01_1Warp.nii.gz")  # ANTs
    >>> write_mapping(
    ...     mapping,
    ...     folder / "warp.nii.gz",
    ...     inverse=folder / "inverse.nii.gz",
    ...     like="mrtrix",
    ... )
    >>> sorted(file.name for file in folder.iterdir())[0]
    'inverse.nii.gz'
    """
    mapping = as_mapping(mapping)
    entry = choose_format(path, like)
    files = entry.name_files(path, inverse, affine)
    if len({os.path.abspath(file) for file in files}) < len(files):
        raise ValueError(f"path, inverse and affine must be different files: {path}")
    with write_all_or_none(files, overwrite=overwrite) as temporaries:
        at = dict(zip(files, temporaries, strict=True))
        others = [None if n is None else at[Path(n)] for n in (inverse, affine)]
        entry.write(mapping, temporaries[0], *others)
    logger.info(
        f"Written as {entry.description}: {', '.join(str(file) for file in files)}"
    )
    if entry.kind != "map" and len(files) == 1:
        logger.info(
            f"{path} holds the direction that warps moving to static; give inverse for "
            "a file of the other"
        )


def choose_format(path: str | os.PathLike, like: str | None = None) -> MapFormat:
    """Choose the format in which a map is written.

    Parameters
    ----------
    path : str or Path
        The file.
    like : str, optional
        Name of the format; by default the suffix decides, if one format has it.

    Returns
    -------
    entry : MapFormat
        An entry of `dipy_dl_reg.maps.formats.table.FORMATS`.

    Raises
    ------
    ValueError
        If there is no such format, or several programs use the suffix.
    """
    if like is not None:
        return get_format(like)
    entry = find_format(path)
    if entry is get_format("dipy"):
        raise ValueError(
            f"like must name the format of {path}, because several programs store maps "
            f"in such files: {describe_names()}"
        )
    return entry
