r"""FSL's relative warps, as FNIRT, ``applywarp`` and ``convertwarp`` use them.

The image has shape (X, Y, Z, 3), intent 2006, and the grid of the output image.  With
:math:`v` a voxel of the output image, :math:`S_A` and :math:`S_B` the matrices to FSL's
coordinates of the output and of the input image (`fsl_coordinates`), and :math:`y` the
point of the input image, in FSL's coordinates, it holds

.. math:: d(v) = M\,y - S_A v

:math:`M` is the ``premat``, a FLIRT matrix from the input image to the output image; it
is the identity if the field contains the whole map.

FNIRT's files with intent 2006 may also hold absolute positions :math:`M y`, which are
not read: FSL's programs must be told which of them is meant.
"""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io import affine_flirt
from dipy_dl_reg.io.affine_files import read_affine
from dipy_dl_reg.io.fsl_coordinates import flirt_matrix, fsl_coordinates, world_to_fsl
from dipy_dl_reg.io.images import open_image
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points
from dipy_dl_reg.maps.formats.plausibility import fit_linear, largest_scaling
from dipy_dl_reg.maps.formats.vector_images import make_vector_image, read_vectors
from dipy_dl_reg.validation import check_affine

#: Intent code of FNIRT's fields, and of its spline coefficients (cubic, discrete
#: cosine transform, quadratic), for which FSL has a program that converts them.
FIELD, COEFFICIENTS = 2006, (2007, 2008, 2009)


def matches(image: Any) -> bool:
    """Tell from the header whether an image is a warp of FSL.

    Parameters
    ----------
    image : nibabel image
        The image; its values are not read.

    Returns
    -------
    matches : bool
        True for fields, and for FNIRT's coefficients, which `read` refuses.
    """
    header = image.header
    if not isinstance(header, nib.Nifti1Header) or len(image.shape) != 4:
        return False
    return int(header["intent_code"]) in (FIELD, *COEFFICIENTS)


def write(
    field: DenseField, path: str | os.PathLike, *, premat: np.ndarray | None = None
) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions, with the grid of the input image.
    path : str or Path
        The file, of NIfTI.
    premat : ndarray, shape (4, 4), optional
        FLIRT's matrix from the input image to the output image, which the field leaves
        out: it must be given to ``applywarp --premat``.

    Raises
    ------
    ValueError
        If the grid of the input image is unknown.
    """
    input_grid = _check_input_grid(field.input_grid, path)
    matrix = world_to_fsl(input_grid)
    if premat is not None:
        matrix = check_affine(premat, 3, "premat") @ matrix
    relative = apply_affine(matrix, field.positions) - _output_points(field.grid)
    nib.save(
        make_vector_image(relative, field.grid.affine, axes=4, intent=FIELD),
        path,
    )


def read(
    path: str | os.PathLike,
    input_grid: Grid | None = None,
    *,
    premat: np.ndarray | None = None,
) -> DenseField:
    """Read one direction of a map.

    Parameters
    ----------
    path : str or Path
        The file.
    input_grid : Grid
        Grid of the image that the field warps.
    premat : ndarray, shape (4, 4), optional
        FLIRT's matrix from the input image to the output image, if the field was made
        to be applied after it.

    Returns
    -------
    field : DenseField
        The positions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no relative warp of FSL, or `input_grid` is None.
    """
    _check_no_coefficients(path)
    relative, affine, _ = read_vectors(path, axes=4, kind="FSL's warps")
    input_grid = _check_input_grid(input_grid, path)
    grid = Grid(relative.shape[:3], affine)
    _check_relative(relative, grid, path)
    matrix = world_to_fsl(input_grid)
    if premat is not None:
        matrix = check_affine(premat, 3, "premat") @ matrix
    positions = apply_affine(np.linalg.inv(matrix), relative + _output_points(grid))
    return DenseField(positions, grid, input_grid)


def write_with_affine(
    field: DenseField,
    prealign: np.ndarray,
    path: str | os.PathLike,
    affine: str | os.PathLike,
) -> None:
    """Write the direction of `transform`, with the prealign in another file.

    The files are applied by ``applywarp --rel --warp=path --premat=affine``.

    Parameters
    ----------
    field : DenseField
        The positions, on static's grid, with moving's grid.
    prealign : ndarray, shape (4, 4)
        Static world to moving world.
    path : str or Path
        The file of the warp, of NIfTI.
    affine : str or Path
        The file of the prealign, as FLIRT's matrix from moving to static.

    Raises
    ------
    ValueError
        If moving's grid is unknown.
    """
    moving = _check_input_grid(field.input_grid, path)
    write(field, path, premat=flirt_matrix(prealign, field.grid, moving))
    affine_flirt.write(prealign, affine, field.grid, moving)


def read_with_affine(
    path: str | os.PathLike, affine: str | os.PathLike, input_grid: Grid | None
) -> tuple[DenseField, np.ndarray]:
    """Read the direction of `transform`, with the prealign from another file.

    Parameters
    ----------
    path : str or Path
        The file of the warp.
    affine : str or Path
        The file of FLIRT's matrix from moving to static, which was given as a premat.
    input_grid : Grid
        Moving's grid.

    Returns
    -------
    field : DenseField
        The positions, prealign included.
    prealign : ndarray, shape (4, 4)
        Static world to moving world.

    Raises
    ------
    FileNotFoundError
        If one of the files does not exist.
    ValueError
        If one of the files has another content, or `input_grid` is None.
    """
    moving = _check_input_grid(input_grid, path)
    image = open_image(path, name="path")
    static = Grid(image.shape[:3], image.affine)
    prealign = read_affine(
        affine, static=static, moving=moving, like="fsl", dim=3, name="affine"
    )
    premat = flirt_matrix(prealign, static, moving)
    return read(path, moving, premat=premat), prealign


def _output_points(grid: Grid) -> np.ndarray:
    """FSL's coordinates of all voxels of a grid."""
    return grid_points(Grid(grid.shape, fsl_coordinates(grid)))


def _check_input_grid(grid: Grid | None, path: str | os.PathLike) -> Grid:
    """Check that the grid of the input image is known."""
    if grid is None:
        raise ValueError(
            "static and moving must be given for FSL's warps, whose coordinates are "
            f"counted from a corner of the image that is warped, got none for {path}"
        )
    return grid


def _check_no_coefficients(path: str | os.PathLike) -> None:
    """Check that a file does not hold coefficients of splines."""
    header = open_image(path, name="path").header
    if isinstance(header, nib.Nifti1Header):
        if int(header["intent_code"]) in COEFFICIENTS:
            raise ValueError(
                f"path: {path} must hold a displacement for each voxel, got FNIRT's "
                "coefficients (--cout): convert them with fnirtfileutils --in=... "
                "--ref=... --out=..."
            )


def _check_relative(relative: np.ndarray, grid: Grid, path: str | os.PathLike) -> None:
    """Check that a field holds displacements, not positions.

    FSL's coordinates have the same handedness in all images, so that the linear part
    of ``v + d(v)`` is near a rotation if `d` is a displacement.  If `d` is a position,
    that of `d` itself is.
    """
    points = _output_points(grid)
    as_displacement = largest_scaling(fit_linear(points, points + relative))
    as_position = largest_scaling(fit_linear(points, relative))
    if as_position < as_displacement:
        raise ValueError(
            f"path: {path} must hold relative displacements, got absolute positions: "
            "convert them with convertwarp --abs --relout"
        )
