"""Images of a report, resampled to one grid and oriented along the world's axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
from nibabel.affines import voxel_sizes
import numpy as np

from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.maps.dipy_map import make_mapping
from dipy_dl_reg.maps.figure_layers import (
    find_moving_positions,
    reorient,
    resample_images,
)


class ReportImages(NamedTuple):
    """The images of a registration, as the user gave them.

    Attributes
    ----------
    static, moving : list of ndarray
        One for each channel.
    static_grid2world, moving_grid2world : list of ndarray or None
        Their grid-to-world matrices; None for those of the map.
    warped : list of ndarray or None
        Moving on the grid of the field, if it is known already.
    mask : ndarray or None
        Mask of static, on static's grid in the map.
    """

    static: Sequence[np.ndarray]
    moving: Sequence[np.ndarray]
    static_grid2world: Sequence[np.ndarray | None]
    moving_grid2world: Sequence[np.ndarray | None]
    warped: Sequence[np.ndarray | None]
    mask: np.ndarray | None = None


class Volumes(NamedTuple):
    """The images of a report on one grid; axes to the right, forward and up.

    Attributes
    ----------
    channels : list of dict of ndarray
        For each channel "static", "before" (moving by the prealign alone) and "after"
        (moving by the whole map).
    log_jacobian : ndarray
        Logarithm of the Jacobian determinant; NaN where the map folds.
    positions : list of ndarray
        Position in moving along each axis, mm, without the prealign.
    mask : ndarray of bool, or None
        The user's mask of static.
    spacing : ndarray, shape (dim,)
        Voxel size along each axis, mm.
    grid2world : ndarray, shape (dim + 1, dim + 1), or None
        Matrix of the grid; None if it is unknown.
    """

    channels: list[dict[str, np.ndarray]]
    log_jacobian: np.ndarray
    positions: list[np.ndarray]
    mask: np.ndarray | None
    spacing: np.ndarray
    grid2world: np.ndarray | None


def make_volumes(
    images: ReportImages, mapping: DiffeomorphicMap, jacobian: np.ndarray
) -> Volumes:
    """Resample the images of a report.

    Parameters
    ----------
    images : ReportImages
        The images.
    mapping : DiffeomorphicMap
        The map.
    jacobian : ndarray
        Jacobian determinant of its forward field.

    Returns
    -------
    volumes : Volumes
        All images on the grid of the field, oriented along the axes of the world.
    """
    grid, dim = mapping.disp_grid2world, mapping.dim
    spacing = np.ones(dim) if grid is None else voxel_sizes(grid)
    layers: dict[str, np.ndarray] = {}
    for k, each in enumerate(zip(*images[:5])):
        static, moving, static_grid, moving_grid, warped = each
        resampled = resample_images(
            mapping, static, moving, static_grid, moving_grid, warped
        )
        layers.update({f"{name} {k}": image for name, image in resampled.items()})
    with np.errstate(divide="ignore", invalid="ignore"):
        layers["log_jacobian"] = np.where(jacobian > 0, np.log(jacobian), np.nan)
    positions = find_moving_positions(mapping, spacing)
    layers.update({f"position {a}": p for a, p in enumerate(positions)})
    if images.mask is not None:
        layers["mask"] = _resample_mask(mapping, images.mask)
    layers, turned_spacing = reorient(layers, grid, spacing)
    mask = layers.get("mask")
    return Volumes(
        channels=[
            {name: layers[f"{name} {k}"] for name in ("static", "before", "after")}
            for k in range(len(images.static))
        ],
        log_jacobian=layers["log_jacobian"],
        positions=[layers[f"position {a}"] for a in range(dim)],
        mask=None if mask is None else mask > 0,
        spacing=turned_spacing,
        grid2world=_turn_grid(grid, jacobian.shape),
    )


def _resample_mask(mapping: DiffeomorphicMap, mask: np.ndarray) -> np.ndarray:
    """A mask of static on the grid of the field."""
    shape, grid = tuple(int(n) for n in mapping.disp_shape), mapping.disp_grid2world
    if mask.shape == shape:
        return (mask != 0).astype(np.uint8)
    zeros = np.zeros((*shape, mapping.dim), dtype=np.float32)
    identity = make_mapping(zeros, zeros, shape, grid, shape, grid)
    return transform_array(
        identity,
        (mask != 0).astype(np.uint8),
        image_grid2world=mapping.codomain_grid2world,
        interpolation="nearest",
    )


def _turn_grid(grid: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Matrix of a grid whose axes are oriented along those of the world."""
    if grid is None or len(shape) == 2:
        return grid
    return grid @ nib.orientations.inv_ornt_aff(nib.io_orientation(grid), shape)
