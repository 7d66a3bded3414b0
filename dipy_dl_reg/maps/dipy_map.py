"""Functions for DIPY's `DiffeomorphicMap`: check, construction, units of its fields.

Directions: `mapping.transform(moving)` is moving on static's grid,
`mapping.transform_inverse(static)` is static on moving's grid.  With the user's
`prealign`, from static world to moving world, a point `x` of static corresponds to the
point ``prealign @ (x + backward(x))`` of moving, and `forward` is the displacement that
inverts ``x + backward(x)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.validation import check_affine

#: Names of the displacement fields of a map.
FIELDS = ("forward", "backward")


def check_mapping(mapping: object, *, name: str = "mapping") -> None:
    """Check that an object is a DIPY map that has its fields.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The user's value.
    name : str, optional
        Name of the map in the error message.

    Raises
    ------
    ValueError
        If `mapping` is of another type, or its fields do not have the shape of its
        grid.
    """
    if not isinstance(mapping, DiffeomorphicMap):
        raise ValueError(
            f"{name} must be a DiffeomorphicMap, got {type(mapping).__name__}"
        )
    wanted = (*(int(n) for n in mapping.disp_shape), mapping.dim)
    for field in FIELDS:
        shape = np.shape(getattr(mapping, field))
        if shape != wanted:
            raise ValueError(
                f"{name}.{field} must have the shape {wanted} of the map's grid, "
                f"got {shape}"
            )


def make_mapping(
    forward: np.ndarray,
    backward: np.ndarray,
    static_shape: Sequence[int],
    static_grid2world: np.ndarray | None,
    moving_shape: Sequence[int],
    moving_grid2world: np.ndarray | None,
    prealign: np.ndarray | None = None,
) -> DiffeomorphicMap:
    """Make a map, in the form that DIPY's registrations return, from its fields.

    Parameters
    ----------
    forward, backward : ndarray, shape (*static_shape, dim)
        Displacements in mm along the world axes, on static's grid: moving is sampled
        at ``prealign @ (x + backward(x))``, and `forward` inverts `backward`.
    static_shape : sequence of int
        Shape of static.
    static_grid2world : ndarray or None
        Grid-to-world matrix of static.
    moving_shape : sequence of int
        Shape of moving.
    moving_grid2world : ndarray or None
        Grid-to-world matrix of moving.
    prealign : ndarray, shape (dim + 1, dim + 1), optional
        Static world to moving world.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    ValueError
        If `prealign` is not an invertible affine matrix.
    """
    dim = len(static_shape)
    if prealign is not None:
        prealign = np.linalg.inv(check_affine(prealign, dim, "prealign"))
    mapping = DiffeomorphicMap(
        dim,
        static_shape,
        disp_grid2world=static_grid2world,
        domain_shape=moving_shape,
        domain_grid2world=moving_grid2world,
        codomain_shape=static_shape,
        codomain_grid2world=static_grid2world,
        prealign=prealign,
    )
    mapping.forward = np.require(forward, np.float32, ["C", "W", "O"])
    mapping.backward = np.require(backward, np.float32, ["C", "W", "O"])
    mapping.is_inverse = True
    return mapping


def as_mapping(mapping: object, *, name: str = "mapping") -> DiffeomorphicMap:
    """Check a map, and make a deformable one from an affine map.

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The user's value.
    name : str, optional
        Name of the map in the error message.

    Returns
    -------
    mapping : DiffeomorphicMap
        The map.

    Raises
    ------
    ValueError
        If `mapping` is of another type, an affine map does not have the grids of both
        images, or the fields do not have the shape of the map's grid.
    """
    if isinstance(mapping, AffineMap):
        return without_displacement(mapping)
    if isinstance(mapping, np.ndarray):
        raise ValueError(
            f"{name} must be a DiffeomorphicMap, or an AffineMap with the grids of "
            "both images, got a matrix, which has no grids: make "
            "dipy.align.imaffine.AffineMap(matrix, domain_grid_shape=static.shape[:3], "
            "domain_grid2world=static.affine, codomain_grid_shape=moving.shape[:3], "
            "codomain_grid2world=moving.affine) of it"
        )
    check_mapping(mapping, name=name)
    return mapping


def without_displacement(affine_map: AffineMap) -> DiffeomorphicMap:
    """Make a deformable map without displacement from an affine map.

    Parameters
    ----------
    affine_map : AffineMap
        The map of an affine registration, with the grids of both images.

    Returns
    -------
    mapping : DiffeomorphicMap
        A map that transforms images and points as the affine map does.

    Raises
    ------
    ValueError
        If the affine map does not have the grids of both images, or its matrix is not
        invertible.
    """
    static_shape, moving_shape = affine_map.domain_shape, affine_map.codomain_shape
    if static_shape is None or moving_shape is None:
        raise ValueError(
            "mapping must have the grids of both images, got an AffineMap without: "
            "give domain_grid_shape and codomain_grid_shape to AffineMap"
        )
    dim = len(static_shape)
    matrix = np.eye(dim + 1) if affine_map.affine is None else affine_map.affine
    # One voxel of field, as large as static's field of view, is enough.
    one_voxel = np.diag([*map(float, static_shape), 1.0])
    one_voxel[:dim, dim] = (np.array(static_shape) - 1) / 2
    static_grid2world = affine_map.domain_grid2world
    if static_grid2world is not None:
        one_voxel = static_grid2world @ one_voxel
    mapping = DiffeomorphicMap(
        dim,
        (1,) * dim,
        disp_grid2world=one_voxel,
        domain_shape=moving_shape,
        domain_grid2world=affine_map.codomain_grid2world,
        codomain_shape=static_shape,
        codomain_grid2world=static_grid2world,
        prealign=np.linalg.inv(check_affine(matrix, dim, "mapping.affine")),
    )
    mapping.allocate()
    mapping.is_inverse = True
    return mapping


def displacement_to_voxels(
    displacement: np.ndarray, grid2world: np.ndarray | None
) -> np.ndarray:
    """Convert a displacement from mm along the world axes to voxels.

    Parameters
    ----------
    displacement : ndarray, shape (..., dim)
        In mm along the world axes.
    grid2world : ndarray, shape (dim + 1, dim + 1), or None
        Matrix of the grid; the identity if None.

    Returns
    -------
    voxels : ndarray of float64, shape (..., dim)
        Component d is along grid axis d.
    """
    displacement = np.asarray(displacement, dtype=np.float64)
    if grid2world is None:
        return displacement
    dim = displacement.shape[-1]
    return displacement @ np.linalg.inv(grid2world[:dim, :dim]).T
