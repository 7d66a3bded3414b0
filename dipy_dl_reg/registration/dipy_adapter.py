"""Conversion between NumPy arrays or DIPY's maps and Torch tensors.

`make_pair` checks arrays, affines and a prealign once, before the registration, and
converts them to a `Pair` of tensors.  `make_map` converts displacements in voxels to a
`DiffeomorphicMap` like that of SyN.
"""

from __future__ import annotations

from typing import Protocol

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np
from scipy.ndimage import distance_transform_edt
import torch

from dipy_dl_reg.geometry.intensity import (
    extreme_limits,
    scale_intensities,
)
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.pair_scaling import (
    scale_by_compared_voxels,
    scale_separately,
)
from dipy_dl_reg.geometry.point_pairs import Landmarks
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.dipy_map import displacement_to_voxels
from dipy_dl_reg.registration.head_masks import find_brain_masks
from dipy_dl_reg.registration.image_checks import (
    check_affine_or_none,
    check_image,
    check_mask,
    log_clipped_values,
    refuse_colour_pair,
)


class GridPair(Protocol):
    """An object with the grids of two images, such as a `Pair`."""

    @property
    def static_grid(self) -> Grid:
        """Grid of the static image."""

    @property
    def moving_grid(self) -> Grid:
        """Grid of the moving image."""


def mask_of_nonzero(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the given mask or, without one, the mask of voxels other than 0.

    Parameters
    ----------
    image : array
        The image.
    mask : array or None
        The user's mask.

    Returns
    -------
    mask : array
        `mask` if it is given, else True where the image is not 0.
    """
    return np.not_equal(image, 0) if mask is None else mask


def exact_tensor(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """Convert an array to a tensor in double precision.

    Parameters
    ----------
    array : array
        Real numbers.
    device : torch.device or str
        Device of the tensor; the CPU is used if the device has no double precision.

    Returns
    -------
    tensor : Tensor
        The values as float64.
    """
    device = torch.device(device)
    device = torch.device("cpu") if device.type == "mps" else device
    return torch.from_numpy(np.array(array, dtype=np.float64)).to(device)


def make_pair(
    static: np.ndarray,
    moving: np.ndarray,
    *,
    static_grid2world: np.ndarray | None = None,
    moving_grid2world: np.ndarray | None = None,
    prealign: np.ndarray | None = None,
    static_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    apart: bool = False,
    find_masks: bool = False,
) -> Pair:
    """Check two images and their geometry, and convert them to tensors.

    Parameters
    ----------
    static, moving : array, 2D or 3D
        The images; NaN and masked values of a masked array are missing data.  Values
        far outside the range of all others are clipped.
    static_grid2world, moving_grid2world : array, shape (dim + 1, dim + 1), optional
        Voxels to world, mm; by default the identity.
    prealign : array, shape (dim + 1, dim + 1), optional
        Static world to moving world; by default the identity.
    static_mask, moving_mask : array, optional
        Arrays of the shapes of the images; only voxels other than 0 are compared.
        Masked values of a masked array are not compared.
    device : torch.device or str, optional
        Device of the tensors.
    apart : bool, optional
        If True, the images need not overlap yet, and the intensities of each image are
        scaled independently of the other image.
    find_masks : bool, optional
        If True, no mask is given, and one image shows a brain without skull and the
        other a whole head, the former is masked with its brain (`find_brain_mask`); if
        both show whole heads, both are masked (`find_head_masks`).

    Returns
    -------
    pair : Pair
        The images, with intensities scaled to about [0, 1].

    Raises
    ------
    ValueError
        If an image is not 2D or 3D, is too small or constant, or contains only NaN or
        an infinite value; if the images differ in dimension; if a mask is empty or has
        another shape; if a matrix has the wrong shape, is singular or not finite; if
        the images do not overlap.
    """
    images = {"static": static, "moving": moving}
    images = {role: check_image(image, role) for role, image in images.items()}
    affines = {"static": static_grid2world, "moving": moving_grid2world}
    grids = make_grids(images, affines)
    refuse_colour_pair(images)
    prealign = check_affine_or_none(prealign, "prealign", grids["static"].dim)
    masks = {"static": static_mask, "moving": moving_mask}
    if find_masks and static_mask is None and moving_mask is None:
        masks = find_brain_masks(images, grids)
    tensors, counted = {}, {}
    for role, image in images.items():
        mask = check_mask(masks[role], image, role)
        tensors[role], counted[role] = _to_tensors(image, mask, role, device)
    pair = Pair(
        tensors["static"],
        tensors["moving"],
        grids["static"],
        grids["moving"],
        prealign,
        counted["static"],
        counted["moving"],
    )
    if apart:
        return scale_separately(pair)
    if not bool(pair.overlap().any()):
        raise ValueError(
            "static and moving do not overlap: with the affines and prealign given, no "
            "static voxel lies inside the moving image. Check that none is missing, "
            "or use a pipeline that begins with center_of_mass."
        )
    return scale_by_compared_voxels(pair)


def make_grids(
    images: dict[str, np.ndarray], affines: dict[str, np.ndarray | None]
) -> dict[str, Grid]:
    """Make the grids of two images, which must have the same number of dimensions.

    Parameters
    ----------
    images, affines : dict
        The images, and voxels to world or None, by "static" and "moving".

    Returns
    -------
    grids : dict of Grid
        By the same names.

    Raises
    ------
    ValueError
        If the dimensions differ, or a matrix cannot be used.
    """
    dim = images["static"].ndim
    if images["moving"].ndim != dim:
        raise ValueError(
            f"static and moving must have the same number of dimensions, got shapes "
            f"{images['static'].shape} and {images['moving'].shape}."
        )
    return {
        role: Grid(
            image.shape, check_affine_or_none(affines[role], f"{role}_grid2world", dim)
        )
        for role, image in images.items()
    }


def with_landmarks(pair: Pair, landmarks: tuple[np.ndarray, np.ndarray] | None) -> Pair:
    """Add landmarks to a pair.

    Parameters
    ----------
    pair : Pair
        The images.
    landmarks : tuple of array, shape (N, dim), or None
        Points in static's world and in moving's, mm.

    Returns
    -------
    pair : Pair
        The pair with the landmarks; the same pair for None.

    Raises
    ------
    ValueError
        If the landmarks and the images differ in dimension.
    """
    if landmarks is None:
        return pair
    dim = pair.static_grid.dim
    static_points, moving_points = landmarks
    if static_points.shape[1] != dim:
        raise ValueError(
            f"landmarks are {static_points.shape[1]}D, but the images are {dim}D."
        )
    back = np.linalg.inv(pair.prealign)
    targets = moving_points @ back[:dim, :dim].T + back[:dim, dim]
    device = pair.static.device
    points = (exact_tensor(p, device) for p in (static_points, targets))
    return pair._replace(landmarks=Landmarks(*points))


def _to_tensors(image, mask, role, device):
    """Scale an image to [0, 1], and make its mask without NaN.

    The mask is None if all voxels are valid.  Masked voxels are filled with the value
    of the nearest valid voxel, so that smoothing and derivatives at the edge of the
    mask use valid values.
    """
    missing = np.isnan(image)
    if missing.any():
        logger.info(
            f"{role}: {100 * missing.mean():.1f} % of the voxels are NaN; they are "
            "treated as missing data and masked during the registration."
        )
        mask = ~missing if mask is None else mask & ~missing
    values = image if mask is None else image[mask]
    low, high = extreme_limits(values)
    if not high > low:
        raise ValueError(f"{role} is constant and cannot be registered.")
    if not high - low < np.inf:
        raise ValueError(f"{role} has a range beyond double precision.")
    log_clipped_values(values, (low, high), role)
    if mask is not None:
        nearest = distance_transform_edt(
            ~mask, return_distances=False, return_indices=True
        )
        image = image[tuple(nearest)]
    # Double precision, because a large offset would reduce the precision of float32.
    clipped = np.clip(image, low, high, dtype=np.float64)
    scaled = scale_intensities(clipped, low, high)
    image = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
    if mask is not None:
        mask = torch.from_numpy(mask.astype(np.float32))[None, None].to(device)
    return image[None, None].to(device), mask


def make_map(
    u: torch.Tensor,
    v: torch.Tensor,
    pair: GridPair,
    *,
    static_grid2world: np.ndarray | None = None,
    moving_grid2world: np.ndarray | None = None,
    prealign: np.ndarray | None = None,
) -> DiffeomorphicMap:
    """Make a DIPY map, in the form that SyN returns, from fields in voxels.

    Parameters
    ----------
    u : Tensor, shape (1, dim, *static_shape)
        Displacement from each static voxel to the point at which the prealigned moving
        image is sampled.
    v : Tensor, shape (1, dim, *static_shape)
        The inverse of `u`.
    pair : GridPair
        The grids of the registered images.
    static_grid2world, moving_grid2world, prealign : array or None
        The user's values; None stays None in the map.

    Returns
    -------
    mapping : dipy.align.imwarp.DiffeomorphicMap
        ``mapping.transform(moving)`` lies on the static grid.  The domain of the map is
        moving, its codomain is static, its `prealign` is the inverse of the given
        prealign, and its fields are float32, in mm along the world axes.
    """
    mapping = _empty_map(
        pair, pair.moving_grid.shape, static_grid2world, moving_grid2world, prealign
    )
    mapping.forward = _to_world(v, pair.static_grid)
    mapping.backward = _to_world(u, pair.static_grid)
    mapping.is_inverse = True
    return mapping


def make_halves(
    mapping: DiffeomorphicMap, pair: Pair
) -> tuple[DiffeomorphicMap, DiffeomorphicMap]:
    """Make the two intermediate maps that `get_intermediate_maps` returns.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The whole map.
    pair : Pair
        The registered images.

    Returns
    -------
    static_to_ref : DiffeomorphicMap
        The whole map on the static grid.
    moving_to_ref : DiffeomorphicMap
        Only the prealign.  The composition of both, from static through the reference
        to moving, equals `mapping`.  Both have ``is_inverse=False``.
    """
    static_grid2world = mapping.codomain_grid2world
    static_to_ref = _empty_map(
        pair, pair.static_grid.shape, static_grid2world, static_grid2world, None
    )
    static_to_ref.forward = mapping.backward.copy()
    static_to_ref.backward = mapping.forward.copy()
    moving_to_ref = _empty_map(
        pair,
        pair.moving_grid.shape,
        static_grid2world,
        mapping.domain_grid2world,
        mapping.prealign_inv,
    )
    moving_to_ref.allocate()
    return static_to_ref, moving_to_ref


def _empty_map(pair, domain_shape, static_grid2world, domain_grid2world, prealign):
    """Make a map on the static grid without fields, with copies of the matrices."""

    def own(matrix):
        return None if matrix is None else np.array(matrix, dtype=np.float64)

    return DiffeomorphicMap(
        dim=pair.static_grid.dim,
        disp_shape=pair.static_grid.shape,
        disp_grid2world=pair.static_grid.affine.copy(),
        domain_shape=domain_shape,
        domain_grid2world=own(domain_grid2world),
        codomain_shape=pair.static_grid.shape,
        codomain_grid2world=own(static_grid2world),
        prealign=None if prealign is None else np.linalg.inv(own(prealign)),
    )


def _to_world(u, grid):
    """Convert a field (1, dim, *shape) in voxels to (*shape, dim) in mm, float32."""
    linear = exact_tensor(grid.affine[: grid.dim, : grid.dim], "cpu")
    flat = u[0].flatten(1).cpu().T
    world = (flat.double() @ linear.T).float().view(*grid.shape, grid.dim)
    return np.require(world.numpy(), requirements=["C", "W", "O"])


def displacement_to_tensor(displacement: np.ndarray, grid: Grid) -> torch.Tensor:
    """Convert a map's displacement to a field in voxels.

    Parameters
    ----------
    displacement : ndarray, shape (*shape, dim)
        In mm along the world axes.
    grid : Grid
        Grid of the displacement.

    Returns
    -------
    field : Tensor, shape (1, dim, *shape)
        In voxels, float32.
    """
    voxels = displacement_to_voxels(displacement, grid.affine)
    moved = np.ascontiguousarray(np.moveaxis(voxels, -1, 0), dtype=np.float32)
    return torch.from_numpy(moved)[None]
