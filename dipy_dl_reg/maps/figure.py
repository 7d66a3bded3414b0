"""Drawing one registration with matplotlib; `dipy_dl_reg.maps.report` calls it.

All images are resampled on the grid of the field, their axes are oriented along the
world's, and planes are cut from them; one function draws one panel from one plane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.segment.threshold import otsu
from dipy.utils.optpkg import optional_package
import nibabel as nib
from nibabel.affines import voxel_sizes
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.maps.dipy_map import displacement_to_voxels, make_mapping

# in inches
PANEL_WIDTH = 2.6
LINES_HEIGHT = 0.8
LINE_HEIGHT = 0.2
TITLE_HEIGHT = 0.35
NAMES_HEIGHT = 0.3
OUTLINES = ("#ffb000", "#ff5c00")
FOLDED = "#00c000"


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


def load_matplotlib() -> Any:
    """Import matplotlib's figures, without pyplot, which has global state.

    Returns
    -------
    module : module
        ``matplotlib.figure``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    module, found, _ = optional_package("matplotlib.figure")
    if not found:
        raise ImportError('pictures need matplotlib: pip install "dipy_dl_reg[report]"')
    return module


def draw_registration(
    static: np.ndarray,
    moving: np.ndarray,
    mapping: DiffeomorphicMap,
    *,
    static_grid2world: np.ndarray | None = None,
    moving_grid2world: np.ndarray | None = None,
    warped: np.ndarray | None = None,
    jacobian: np.ndarray,
    lines: Sequence[str] = (),
    title: str | None = None,
) -> Any:
    """Draw one registration.

    Parameters
    ----------
    static, moving : ndarray
        The images.
    mapping : DiffeomorphicMap
        The map.
    static_grid2world, moving_grid2world : ndarray, optional
        Their grid-to-world matrices; by default those of the map.
    warped : ndarray, optional
        Moving on the grid of the field; computed by default.
    jacobian : ndarray
        Jacobian determinant of the field from static to moving.
    lines : sequence of str, optional
        Lines written below the picture.
    title : str, optional
        Line written above the picture.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure, with a row for each plane and a column for each panel.
    """
    layers = _resample_images(
        mapping, static, moving, static_grid2world, moving_grid2world, warped
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        layers["log_jacobian"] = np.where(jacobian > 0, np.log(jacobian), np.nan)
    shape, grid = layers["static"].shape, mapping.disp_grid2world
    spacing = np.ones(len(shape)) if grid is None else voxel_sizes(grid)
    positions = _find_moving_positions(mapping, spacing)
    layers.update({f"position {a}": p for a, p in enumerate(positions)})
    layers, spacing = _reorient(layers, grid, spacing)
    views = _choose_views(layers["static"], known=grid is not None)
    return _draw_figure(layers, views, spacing, lines, title)


# The images ---------------------------------------------------------------------------


def _resample_images(
    mapping: DiffeomorphicMap,
    static: np.ndarray,
    moving: np.ndarray,
    static_grid2world: np.ndarray | None,
    moving_grid2world: np.ndarray | None,
    warped: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Static, moving before and moving after, on the grid of the field."""
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


def _find_moving_positions(
    mapping: DiffeomorphicMap, spacing: np.ndarray
) -> np.ndarray:
    """The position in moving of each voxel: mm along the grid's axes, without prealign.

    Their contours are a regular grid of moving, transformed to static.
    """
    field = mapping.get_forward_field()
    voxels = displacement_to_voxels(field, mapping.disp_grid2world)
    positions = np.indices(field.shape[:-1]) + np.moveaxis(voxels, -1, 0)
    return positions * spacing.reshape(-1, *[1] * mapping.dim)


def _reorient(
    layers: dict[str, np.ndarray], grid: np.ndarray | None, spacing: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The layers with their axes along the world's: to the right, forward, up."""
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


def _choose_views(static: np.ndarray, *, known: bool) -> list[View]:
    """The planes through the middle of static's foreground."""
    if static.ndim == 2:
        return [View((slice(None), slice(None)), (0, 1), "upper", "")]
    foreground = static > _outline_levels(static)[0]
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


def _outline_levels(image: np.ndarray) -> list[float]:
    """Thresholds between background and foreground, and within the foreground."""
    values = image[np.isfinite(image)]
    lowest = _find_threshold(values)
    return [lowest, _find_threshold(values[values > lowest])]


def _find_threshold(values: np.ndarray) -> float:
    """Otsu's threshold; infinite if values differ by no more than rounding."""
    if not values.size or np.ptp(values) <= 1e-4 * np.abs(values).max():
        return np.inf
    return float(otsu(values))


def _intensity_range(image: np.ndarray) -> tuple[float, float]:
    """The intensities that are drawn black and white."""
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    foreground = values[values > _outline_levels(image)[0]]
    low = np.percentile(values, 1)
    high = np.percentile(foreground if foreground.size else values, 99)
    return low, high if high > low else low + 1.0


def _log_limit(log_jacobian: np.ndarray) -> float:
    """End of the colour scale: the 99.5th percentile, rounded up; 0.1 to 2."""
    values = np.abs(log_jacobian[np.isfinite(log_jacobian)])
    if not values.size:
        return 0.1
    return float(np.clip(np.ceil(np.percentile(values, 99.5) * 10) / 10, 0.1, 2.0))


# Drawing ----------------------------------------------------------------------------


def _draw_figure(
    layers: dict[str, np.ndarray],
    views: list[View],
    spacing: np.ndarray,
    lines: Sequence[str],
    title: str | None,
) -> Any:
    """A row of panels for each view, and the lines of text below."""
    extents = np.multiply(layers["static"].shape, spacing)
    figure, rows = _make_grid(views, extents, len(lines), bool(title))
    ranges: dict[str, Any] = {
        name: _intensity_range(layers[name]) for name in ("static", "before", "after")
    }
    ranges["log_jacobian"] = _log_limit(layers["log_jacobian"])
    levels = [
        level for level in _outline_levels(layers["static"]) if np.isfinite(level)
    ]
    layers = {**layers, "smooth": _smooth_for_outlines(layers["static"], spacing)}
    for row, view in enumerate(views):
        planes: dict[str, Any] = {k: _cut_plane(v, view) for k, v in layers.items()}
        planes["positions"] = [planes[f"position {a}"] for a in view.axes]
        sides = [extents[a] for a in view.axes]
        for column, (name, draw) in enumerate(PANELS.items()):
            axes = figure.add_subplot(rows[row, column])
            drawn = draw(axes, planes, ranges, view.origin, sides)
            _draw_outlines(axes, draw, planes["smooth"], levels)
            _format_axes(axes, [spacing[a] for a in view.axes])
            if row == 0:
                axes.set_title(name, fontsize=11, pad=4)
            if column == 0:
                _write_letters(axes, view.letters)
    _write_below(figure, lines, axes, drawn)
    if title:
        top = 1 - 0.08 / figure.get_figheight()
        figure.suptitle(title, y=top, va="top", fontsize=13)
    return figure


def _make_grid(
    views: list[View], extents: np.ndarray, number_of_lines: int, has_title: bool
) -> tuple[Any, Any]:
    """An empty figure and its grid of panels, with room for the text."""
    proportional = [
        PANEL_WIDTH * extents[v.axes[0]] / extents[v.axes[1]] for v in views
    ]
    heights = np.clip(proportional, 0.3 * PANEL_WIDTH, 1.5 * PANEL_WIDTH)
    top = NAMES_HEIGHT + TITLE_HEIGHT * has_title
    below = max(LINES_HEIGHT, LINE_HEIGHT * (number_of_lines + 1) + 0.1)
    width, height = PANEL_WIDTH * len(PANELS), heights.sum() + top + below
    figure = load_matplotlib().Figure(figsize=(width, height))
    rows = figure.add_gridspec(
        len(views),
        len(PANELS),
        height_ratios=heights,
        left=0.004,
        right=0.996,
        top=1 - top / height,
        bottom=below / height,
        wspace=0.03,
        hspace=0.03,
    )
    return figure, rows


def _draw_outlines(axes, draw, smooth, levels):
    """Draw static's outlines over the panels that have them."""
    if draw in OUTLINED:
        _draw_contours(axes, smooth, levels, OUTLINES)
    elif draw is _draw_jacobian:
        _draw_contours(axes, smooth, levels[:1], "0.3")


def _cut_plane(layer: np.ndarray, view: View) -> np.ndarray:
    """The plane of a view, rows first."""
    return layer[view.plane].T if view.axes[0] > view.axes[1] else layer[view.plane]


def _smooth_for_outlines(image: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Static without speckle and missing values, for its outlines."""
    return gaussian_filter(np.nan_to_num(image), np.maximum(0.7, 1.2 / spacing))


def _draw_image(name: str) -> Callable[..., Any]:
    """A panel that shows one image in grey."""

    def draw(axes, planes, ranges, origin, sides):
        low, high = ranges[name]
        return axes.imshow(planes[name], "gray", vmin=low, vmax=high, origin=origin)

    return draw


def _draw_checkerboard(axes, planes, ranges, origin, sides):
    """Static and moving after, in alternating squares."""
    both = []
    for name in ("static", "after"):
        low, high = ranges[name]
        both.append(np.clip((planes[name] - low) / (high - low), 0, 1))
    square = max(sides) / 8
    rows, columns = (
        (np.arange(n) * side / n // square).astype(int)
        for n, side in zip(both[0].shape, sides, strict=True)
    )
    mixed = np.where((rows[:, None] + columns) % 2, *both)
    return axes.imshow(mixed, "gray", vmin=0, vmax=1, origin=origin)


def _draw_grid(axes, planes, ranges, origin, sides):
    """A regular grid of moving, transformed to static, over moving after."""
    low, high = ranges["after"]
    drawn = axes.imshow(
        planes["after"], "gray", vmin=low, vmax=low + 2 * (high - low), origin=origin
    )
    step = max(sides) / 26
    for position in planes["positions"]:
        levels = np.arange(position.min() // step + 1, position.max() / step) * step
        _draw_contours(axes, position, levels, "#7fdbff")
    return drawn


def _draw_jacobian(axes, planes, ranges, origin, sides):
    """The logarithm of the determinant, and folded voxels in their own colour."""
    limit, values = ranges["log_jacobian"], planes["log_jacobian"]
    colours = load_matplotlib().mpl.colormaps["RdBu_r"].with_extremes(bad=FOLDED)
    return axes.imshow(values, colours, vmin=-limit, vmax=limit, origin=origin)


def _draw_contours(axes, plane, levels, colours):
    """Contours, if the plane is more than one voxel wide."""
    if min(plane.shape) > 1 and len(levels):
        axes.contour(plane, levels, colors=colours, linewidths=0.65)


PANELS = {
    "static": _draw_image("static"),
    "moving before": _draw_image("before"),
    "moving after": _draw_image("after"),
    "checkerboard": _draw_checkerboard,
    "warped grid": _draw_grid,
    "log Jacobian": _draw_jacobian,
}
OUTLINED = [PANELS[name] for name in ("static", "moving before", "moving after")]


def _format_axes(axes, spacing):
    """Set true proportions, no ticks and a black background."""
    axes.set_aspect(spacing[0] / spacing[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("black")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_letters(axes, letters):
    """Write the letters of the directions at the left, right, bottom and top."""
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.02, "center", "bottom"),
        (0.5, 0.98, "center", "top"),
    )
    for letter, (x, y, ha, va) in zip(letters, places, strict=False):
        style = {"ha": ha, "va": va, "color": "white", "fontsize": 9}
        axes.text(x, y, letter, transform=axes.transAxes, **style)


def _write_below(figure, lines, axes, drawn):
    """Write the lines and the key, and draw the colour scale below its column."""
    height = figure.get_figheight()
    key = (
        "before: through the prealign alone; lines: static's outlines; checkerboard: "
        "static and moving after; green: folded"
    )
    for k, line in enumerate(reversed((*lines, key))):
        figure.text(0.006, (0.12 + LINE_HEIGHT * k) / height, line, fontsize=9)
    box = axes.get_position()
    bottom = box.y0 - 0.16 / height
    place = [box.x0 + 0.02 * box.width, bottom, 0.96 * box.width, 0.12 / height]
    scale = figure.add_axes(place)
    bar = figure.colorbar(drawn, cax=scale, orientation="horizontal", extend="both")
    bar.ax.tick_params(labelsize=8, pad=1)
    bar.set_label("moving is smaller < 0 < moving is larger", fontsize=8, labelpad=1)
