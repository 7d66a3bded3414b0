r"""Gradient tables and maps: rotation of whole tables, and rotations of each voxel.

A map that is affine rotates all gradients alike, and the table can be rotated once. One
that deforms rotates them differently in each voxel: either the signal is reoriented, by
`transform_dwi`, or the rotations are kept for a fit with a table in each voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
import os

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.core.gradients import GradientTable, gradient_table
import nibabel as nib
import numpy as np

from dipy_dl_reg.diffusion.frames import frame_to_world
from dipy_dl_reg.diffusion.gradient_tables import (
    GradientTableLike,
    check_gradient_table,
    frame_of_table,
)
from dipy_dl_reg.diffusion.jacobians import rotation_of
from dipy_dl_reg.diffusion.resampling import Resampling, plan_resampling
from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.validation import check_affine, wrong_value


def reorient_gradients(
    mapping: DiffeomorphicMap | AffineMap,
    gtab: GradientTableLike,
    *,
    frame: str | None = None,
    image_grid2world: np.ndarray | None = None,
    out_grid2world: np.ndarray | None = None,
    inverse: bool = False,
) -> GradientTable:
    r"""Rotate a gradient table by the affine part of a map, for a series resampled so.

    With :math:`P` the linear part of the prealign, or of the affine map, from the
    output to the input space, and :math:`R = P^{-1} (P^{-T} P^{-1})^{-1/2}` its
    rotation, a b-vector :math:`g` becomes

    .. math:: g' = V_{out}^\top\, R\, V_{in}\, g

    where :math:`V` takes directions of the frames of the two images to the world.

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The map, in 3D. The rotations of a displacement field differ from voxel to voxel
        and are not included: `transform_dwi` and `local_rotations` are for these.
    gtab : GradientTable or pair (bvals, bvecs)
        The table of the series in the input space.
    frame : {"voxel", "fsl", "world"}, optional
        Axes of the b-vectors, of the table given and of the one returned; see
        :ref:`frames`. By default "fsl" for b-vectors in a file, else "voxel", with a
        warning where "fsl" differs.
    image_grid2world, out_grid2world : ndarray, shape (4, 4), optional
        Voxel-to-world matrices of the series and of the result; those of the map's two
        images by default.
    inverse : bool, optional
        The series is transformed from static to moving.

    Returns
    -------
    gtab : GradientTable
        The table of the resampled series.

    Raises
    ------
    ValueError
        If the table, the map or the frame cannot be used.

    See Also
    --------
    rotate_gradients :
        for a series that was corrected for motion, each volume of which has its own
        affine.
    local_rotations, transform_dwi : for maps with a displacement field.

    Notes
    -----
    The rotation is the finite strain of :footcite:t:`Alexander2001`.  The matrix
    :math:`P` is ``mapping.prealign_inv`` of the map of a registration, not
    ``mapping.prealign``, which is its inverse.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    A series that is resampled by a quarter turn:

    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy_dl_reg import reorient_gradients
    >>> quarter_turn = np.array(
    ...     [[0, 1, 0, 0], [-1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]
    ... )
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> table = np.array([0, 1000]), np.array([[0, 0, 0], [1, 0, 0]])
    >>> gtab = reorient_gradients(AffineMap(quarter_turn, **grid), table)
    >>> bool(np.allclose(gtab.bvecs[1], [0, 1, 0]))
    True
    """
    default = frame_of_table(gtab)
    gtab = check_gradient_table(gtab)
    resampling = _plan(
        mapping, frame, default, image_grid2world, None, out_grid2world, inverse
    )
    grids, used = resampling.grids, resampling.mapping
    rotation = np.eye(3)
    if used.prealign is not None:
        # From the input to the output space: inverse of the map of the resampling.
        forward = used.prealign[:3, :3]
        if bool(used.is_inverse) == inverse:
            forward = np.linalg.inv(forward)
        rotation = rotation_of(forward)
    to_world = frame_to_world(grids.image_grid2world, resampling.frame)
    from_world = frame_to_world(grids.out_grid2world, resampling.frame).T
    turn = from_world @ rotation @ to_world
    btens = None if gtab.btens is None else turn @ gtab.btens @ turn.T
    return gradient_table(
        gtab.bvals,
        bvecs=gtab.bvecs @ turn.T,
        big_delta=gtab.big_delta,
        small_delta=gtab.small_delta,
        b0_threshold=gtab.b0_threshold,
        btens=btens,
        atol=np.inf,  # lengths were checked, and a rotation does not change them
    )


def local_rotations(
    mapping: DiffeomorphicMap | AffineMap,
    *,
    frame: str | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    inverse: bool = False,
) -> np.ndarray:
    r"""Rotations of directions at each voxel of the output grid: finite strain.

    A series whose volumes were transformed by `apply_mapping`, without reorientation,
    was measured in voxel x with the b-vectors :math:`R(x)\, g_k`. A fit that takes a
    table for each voxel needs no reorientation of the signal.

    .. math:: R = F (F^\top F)^{-1/2}, \qquad F = J^{-1}

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The map, in 3D.
    frame : {"voxel", "fsl", "world"}, optional
        Axes of the directions before and after; see :ref:`frames`. By default
        "voxel", with a warning where "fsl" differs.
    image_grid2world : ndarray, shape (4, 4), optional
        Voxel-to-world matrix of the series; moving's (static's with `inverse`) by
        default.
    out_shape : tuple of int, optional
        Shape of the result; static's (moving's with `inverse`) by default.
    out_grid2world : ndarray, shape (4, 4), optional
        Voxel-to-world matrix of the result; static's (moving's with `inverse`) by
        default.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    rotations : ndarray of float64, shape (*out_shape, 3, 3)
        Orthogonal matrices from the frame of the series to the frame of the result.

    Raises
    ------
    ValueError
        If the map is not 3D, a shape does not fit its grid, or the frame is unknown.

    See Also
    --------
    save_local_rotations : stores the rotations.
    transform_dwi : rotates the signal instead, so that the table stays valid.
    reorient_gradients : one rotation for the whole image, of an affine map.

    Notes
    -----
    :math:`J` is the Jacobian matrix of the map from the output to the input space,
    prealign included.  :math:`R` is the rotation nearest to :math:`F`, the finite
    strain of :footcite:t:`Alexander2001`.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy_dl_reg import local_rotations
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> rotations = local_rotations(AffineMap(np.eye(4), **grid))
    >>> bvecs = np.eye(3)
    >>> bvecs_of_voxel = bvecs @ rotations[2, 3, 1].T
    """
    resampling = _plan(
        mapping, frame, "voxel", image_grid2world, out_shape, out_grid2world, inverse
    )
    everywhere = np.ones(resampling.grids.out_shape, dtype=bool)
    rotations = rotation_of(resampling.direction_matrices(everywhere))
    return rotations.reshape(*everywhere.shape, 3, 3)


def save_local_rotations(
    path: str | os.PathLike,
    rotations: np.ndarray,
    affine: np.ndarray,
    *,
    overwrite: bool = False,
) -> None:
    """Write the rotations of each voxel to a NIfTI file of nine volumes.

    Volume ``3 i + j`` is the entry of row i and column j, so that
    ``data.reshape(*data.shape[:3], 3, 3)`` is the array again.

    Parameters
    ----------
    path : str or Path
        The file, ``.nii`` or ``.nii.gz``.
    rotations : ndarray, shape (X, Y, Z, 3, 3)
        From `local_rotations`.
    affine : ndarray, shape (4, 4)
        Voxel-to-world matrix of the grid.
    overwrite : bool, optional
        Replace an existing file.

    Raises
    ------
    ValueError
        If the array has another shape, or the matrix is not affine.
    OSError
        If the file cannot be written.

    See Also
    --------
    local_rotations : computes the rotations.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from dipy_dl_reg import save_local_rotations
    >>> path = f"{mkdtemp()}/rotations.nii.gz"
    >>> rotations = np.broadcast_to(np.eye(3), (4, 4, 4, 3, 3))
    >>> save_local_rotations(path, rotations, np.eye(4))
    >>> data = nib.load(path).get_fdata()
    >>> data.shape, bool((data.reshape(4, 4, 4, 3, 3) == rotations).all())
    ((4, 4, 4, 9), True)
    """
    rotations = np.asarray(rotations)
    if rotations.ndim != 5 or rotations.shape[3:] != (3, 3):
        raise wrong_value("rotations", "of shape (X, Y, Z, 3, 3)", rotations.shape)
    affine = check_affine(affine, 3, "affine")
    data = rotations.reshape(*rotations.shape[:3], 9).astype(np.float32)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"rotation matrices, row by row"
    with write_atomically(path, overwrite=overwrite) as temporary:
        nib.save(image, temporary)


def _plan(
    mapping: DiffeomorphicMap | AffineMap,
    frame: str | None,
    default_frame: str,
    image_grid2world: np.ndarray | None,
    out_shape: Sequence[int] | None,
    out_grid2world: np.ndarray | None,
    inverse: bool,
) -> Resampling:
    """Plan a resampling of an image that is not given: one on the map's own grid."""
    mapping = as_mapping(mapping)
    from_domain = bool(mapping.is_inverse) != inverse
    return plan_resampling(
        mapping,
        mapping.domain_shape if from_domain else mapping.codomain_shape,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        frame=frame,
        default_frame=default_frame,
        inverse=inverse,
    )
