"""Makes the images for the picture of a registration, all on one grid.

All images are resampled to the grid of the field, and their axes are oriented along
those of the world; `View` defines which planes are drawn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.segment.threshold import otsu
import nibabel as nib
from nibabel.affines import voxel_sizes
import numpy as np

from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.maps.dipy_map import displacement_to_voxels, make_mapping


class View(NamedTuple):
    """One plane through the images, and how it is drawn.

    Attributes
    ----------
    plane : tuple
        Index of the plane in the reoriented arrays.
    axes : tuple of int
        Axes of the arrays along the rows and the columns of the picture.
    origin : {"lower", "upper"}
        Whether the first row is at the bottom or at the top.
    letters : str
        Letters of the directions left, right, below and above; empty if unknown.
    """

    plane: tuple
    axes: tuple[int, int]
    origin: str
    letters: str


class Layers(NamedTuple):
    """The images of a picture, and the planes to draw.

    Attributes
    ----------
    images : dict of ndarray
        Arrays of one shape: "static", "before" and "after" (moving by the prealign
        alone and by the map), "log_jacobian", and "position 0" ... (position in moving
        along each axis, mm).
    spacing : ndarray, shape (dim,)
        Voxel size along each axis.
    views : list of View
        The planes.
    """

    images: dict[str, np.ndarray]
    spacing: np.ndarray
    views: list[View]


def make_layers(
    static: np.ndarray,
    moving: np.ndarray,
    mapping: DiffeomorphicMap,
    *,
    static_grid2world: np.ndarray | None,
    moving_grid2world: np.ndarray | None,
    warped: np.ndarray | None,
    jacobian: np.ndarray,
) -> Layers:
    """Make the images of a picture.

    Parameters
    ----------
    static, moving, mapping, static_grid2world, moving_grid2world, warped, jacobian
        As in `dipy_dl_reg.maps.figure.draw_registration`.

    Returns
    -------
    layers : Layers
        The images, and the planes through the middle of static's foreground.
    """
    images = resample_images(
        mapping, static, moving, static_grid2world, moving_grid2world, warped
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        images["log_jacobian"] = np.where(jacobian > 0, np.log(jacobian), np.nan)
    grid = mapping.disp_grid2world
    spacing = np.ones(mapping.dim) if grid is None else voxel_sizes(grid)
    positions = find_moving_positions(mapping, spacing)
    images.update({f"position {a}": p for a, p in enumerate(positions)})
    images, spacing = reorient(images, grid, spacing)
    return Layers(images, spacing, _choose_views(images["static"], grid is not None))


def resample_images(
    mapping: DiffeomorphicMap,
    static: np.ndarray,
    moving: np.ndarray,
    static_grid2world: np.ndarray | None,
    moving_grid2world: np.ndarray | None,
    warped: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Resample static, moving before and moving after to the grid of the field.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    static, moving : ndarray
        The images.
    static_grid2world, moving_grid2world : ndarray or None
        Their grid-to-world matrices; by default those of the map.
    warped : ndarray or None
        Moving after, if it is known already.

    Returns
    -------
    images : dict of ndarray
        "static", "before" (moving by the prealign alone) and "after".
    """
    grid = mapping.disp_grid2world
    shape = tuple(int(n) for n in mapping.disp_shape)
    zeros = np.zeros_like(mapping.backward, dtype=np.float32)
    identity = make_mapping(zeros, zeros, shape, grid, shape, grid)
    prealign_only = mapping.shallow_copy()
    prealign_only.forward = prealign_only.backward = zeros
    if static_grid2world is None and static.shape == tuple(mapping.codomain_shape):
        static_grid2world = mapping.codomain_grid2world
    grids: dict[str, Any] = {
        "out_shape": shape,
        "out_grid2world": np.eye(len(shape) + 1) if grid is None else grid,
        "image_grid2world": moving_grid2world,
    }
    after = transform_array(mapping, moving, **grids) if warped is None else warped
    return {
        "static": transform_array(identity, static, image_grid2world=static_grid2world),
        "before": transform_array(prealign_only, moving, **grids),
        "after": after,
    }


def find_moving_positions(mapping: DiffeomorphicMap, spacing: np.ndarray) -> np.ndarray:
    """Find the position in moving of each voxel: mm along the axes, without prealign.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    spacing : ndarray, shape (dim,)
        Voxel size of the field.

    Returns
    -------
    positions : ndarray, shape (dim, *field_shape)
        Their contours are a regular grid of moving, transformed to static.
    """
    field = mapping.get_forward_field()
    voxels = displacement_to_voxels(field, mapping.disp_grid2world)
    positions = np.indices(field.shape[:-1]) + np.moveaxis(voxels, -1, 0)
    return positions * spacing.reshape(-1, *[1] * mapping.dim)


def reorient(
    layers: dict[str, np.ndarray], grid: np.ndarray | None, spacing: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Orient the axes of images along the world's: to the right, forward, up.

    Parameters
    ----------
    layers : dict of ndarray
        Images on the grid of the field; "position 0" ... belong to its axes.
    grid : ndarray, shape (dim + 1, dim + 1), or None
        Grid-to-world matrix of the field; 2D images and None change nothing.
    spacing : ndarray, shape (dim,)
        Voxel size.

    Returns
    -------
    layers : dict of ndarray
        The images.
    spacing : ndarray, shape (dim,)
        Voxel size along the new axes.
    """
    if len(spacing) == 2 or grid is None:
        return layers, spacing
    orientation = nib.io_orientation(grid)
    order = np.argsort(orientation[:, 0])
    turned = {k: nib.apply_orientation(v, orientation) for k, v in layers.items()}
    for new, old in enumerate(order):
        turned[f"position {new}"] = nib.apply_orientation(
            layers[f"position {old}"], orientation
        )
    return turned, spacing[order]


def _choose_views(static: np.ndarray, known: bool) -> list[View]:
    """The planes through the middle of static's foreground."""
    if static.ndim == 2:
        return [View((slice(None), slice(None)), (0, 1), "upper", "")]
    foreground = static > outline_levels(static)[0]
    if not foreground.any():
        foreground = np.ones(static.shape, dtype=bool)
    middle = [int(np.rint(where.mean())) for where in np.nonzero(foreground)]
    views = []
    for axis, axes, letters in (
        (0, (2, 1), "PAIS"),
        (1, (2, 0), "LRIS"),
        (2, (1, 0), "LRPA"),
    ):
        plane: list[slice | int] = [slice(None)] * 3
        plane[axis] = middle[axis]
        views.append(View(tuple(plane), axes, "lower", letters if known else ""))
    return views


def outline_levels(image: np.ndarray) -> list[float]:
    """Find thresholds for static's outlines.

    Parameters
    ----------
    image : ndarray
        The image.

    Returns
    -------
    levels : list of float
        Otsu's threshold between background and foreground, and the one within the
        foreground; infinite where there is none.
    """
    values = image[np.isfinite(image)]
    lowest = _find_threshold(values)
    return [lowest, _find_threshold(values[values > lowest])]


def _find_threshold(values: np.ndarray) -> float:
    """Otsu's threshold; infinite if values differ by no more than rounding."""
    if not values.size or np.ptp(values) <= 1e-4 * np.abs(values).max():
        return np.inf
    return float(otsu(values))


def intensity_range(image: np.ndarray) -> tuple[float, float]:
    """Find the intensities that are drawn black and white.

    Parameters
    ----------
    image : ndarray
        The image.

    Returns
    -------
    low, high : float
        The 1st percentile, and the 99th of the foreground.
    """
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    foreground = values[values > outline_levels(image)[0]]
    low = np.percentile(values, 1)
    high = np.percentile(foreground if foreground.size else values, 99)
    return low, high if high > low else low + 1.0


def log_limit(log_jacobian: np.ndarray) -> float:
    """Find the end of the colour scale of the Jacobian.

    Parameters
    ----------
    log_jacobian : ndarray
        Logarithm of the determinant; NaN where it folds.

    Returns
    -------
    limit : float
        The 99.5th percentile of the magnitude, rounded up to tenths; 0.1 to 2.
    """
    values = np.abs(log_jacobian[np.isfinite(log_jacobian)])
    if not values.size:
        return 0.1
    return float(np.clip(np.ceil(np.percentile(values, 99.5) * 10) / 10, 0.1, 2.0))
