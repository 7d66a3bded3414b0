"""Draws a registration with matplotlib; `dipy_dl_reg.maps.report` calls it.

One function draws one panel from one plane of the images of `figure_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.optpkg import optional_package
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.maps.figure_layers import (
    Layers,
    View,
    intensity_range,
    log_limit,
    make_layers,
    outline_levels,
)

# in inches
PANEL_WIDTH = 2.6
LINES_HEIGHT = 0.8
LINE_HEIGHT = 0.2
TITLE_HEIGHT = 0.35
NAMES_HEIGHT = 0.3
OUTLINES = ("#ffb000", "#ff5c00")
FOLDED = "#00c000"

#: Planes of all layers, intensity ranges by image, and lengths along rows and columns.
Planes: TypeAlias = dict[str, Any]
Ranges: TypeAlias = dict[str, Any]
Sides: TypeAlias = Sequence[float]


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
    layers = make_layers(
        static,
        moving,
        mapping,
        static_grid2world=static_grid2world,
        moving_grid2world=moving_grid2world,
        warped=warped,
        jacobian=jacobian,
    )
    return _draw_figure(layers, lines, title)


def _draw_figure(layers: Layers, lines: Sequence[str], title: str | None) -> Any:
    """A row of panels for each view, and the lines of text below."""
    images, spacing, views = layers
    extents = np.multiply(images["static"].shape, spacing)
    figure, rows = _make_panels(views, extents, len(lines), bool(title))
    ranges: dict[str, Any] = {
        name: intensity_range(images[name]) for name in ("static", "before", "after")
    }
    ranges["log_jacobian"] = log_limit(images["log_jacobian"])
    levels = [level for level in outline_levels(images["static"]) if np.isfinite(level)]
    images = {**images, "smooth": _smooth_for_outlines(images["static"], spacing)}
    for row, view in enumerate(views):
        planes: dict[str, Any] = {k: _cut_plane(v, view) for k, v in images.items()}
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


def _make_panels(
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


def _draw_outlines(
    axes: Any, draw: Callable, smooth: np.ndarray, levels: list[float]
) -> None:
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

    def draw(
        axes: Any, planes: Planes, ranges: Ranges, origin: str, sides: Sides
    ) -> Any:
        low, high = ranges[name]
        return axes.imshow(planes[name], "gray", vmin=low, vmax=high, origin=origin)

    return draw


def _draw_checkerboard(
    axes: Any, planes: Planes, ranges: Ranges, origin: str, sides: Sides
) -> Any:
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


def _draw_grid(
    axes: Any, planes: Planes, ranges: Ranges, origin: str, sides: Sides
) -> Any:
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


def _draw_jacobian(
    axes: Any, planes: Planes, ranges: Ranges, origin: str, sides: Sides
) -> Any:
    """The logarithm of the determinant, and folded voxels in their own colour."""
    limit, values = ranges["log_jacobian"], planes["log_jacobian"]
    colours = load_matplotlib().mpl.colormaps["RdBu_r"].with_extremes(bad=FOLDED)
    return axes.imshow(values, colours, vmin=-limit, vmax=limit, origin=origin)


def _draw_contours(axes: Any, plane: np.ndarray, levels: Any, colours: Any) -> None:
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


def _format_axes(axes: Any, spacing: Sides) -> None:
    """Set true proportions, no ticks and a black background."""
    axes.set_aspect(spacing[0] / spacing[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("black")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_letters(axes: Any, letters: str) -> None:
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


def _write_below(figure: Any, lines: Sequence[str], axes: Any, drawn: Any) -> None:
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
