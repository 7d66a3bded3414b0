"""How one registration is drawn; `dipy_dl_reg.maps.report` says what for.

Everything is brought onto the grid of the field, with its axes turned along the
world's, and cut into planes; one function draws one panel from one plane.
"""

from typing import NamedTuple

from dipy.segment.threshold import otsu
from dipy.utils.optpkg import optional_package
import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.maps.dipy_map import make_mapping

PANEL_WIDTH = 2.6  # inches
LINES_HEIGHT = 0.8
LINE_HEIGHT = 0.2
TITLE_HEIGHT = 0.35
NAMES_HEIGHT = 0.3
OUTLINES = ("#ffb000", "#ff5c00")
FOLDED = "#00c000"


class View(NamedTuple):
    """One plane through the images, and how it lies on paper.

    Attributes
    ----------
    index : tuple
        Where it lies in the reoriented arrays.
    axes : tuple of int
        The arrays' axes along the rows and along the columns of the picture.
    origin : {"lower", "upper"}
        Whether rows count upwards.
    letters : str
        What lies left, right, below and above; empty if unknown.
    """

    index: tuple
    axes: tuple
    origin: str
    letters: str


def load_matplotlib():
    """Matplotlib's figures, without pyplot: nothing global, no window.

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
    static,
    moving,
    mapping,
    *,
    static_grid2world=None,
    moving_grid2world=None,
    warped=None,
    jacobian,
    lines=(),
    title=None,
):
    """Draw one registration.

    Parameters
    ----------
    static, moving : ndarray
        The images.
    mapping : DiffeomorphicMap
        The map.
    static_grid2world, moving_grid2world : ndarray, optional
        Their matrices; the map's own by default.
    warped : ndarray, optional
        Moving on the grid of the field; computed by default.
    jacobian : ndarray
        Jacobian determinant of the field from static to moving.
    lines : sequence of str, optional
        Written below.
    title : str, optional
        Written above.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The sheet: a row for each plane, a column for each panel.
    """
    layers = _images(
        mapping, static, moving, static_grid2world, moving_grid2world, warped
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        layers["log_jacobian"] = np.where(jacobian > 0, np.log(jacobian), np.nan)
    shape, grid = layers["static"].shape, mapping.disp_grid2world
    spacing = np.ones(len(shape)) if grid is None else nib.affines.voxel_sizes(grid)
    places = _places(mapping, spacing)
    layers.update({f"place {a}": place for a, place in enumerate(places)})
    layers, spacing = _reoriented(layers, grid, spacing)
    views = _views(layers["static"], known=grid is not None)
    return _sheet(layers, views, spacing, lines, title)


# What is drawn ----------------------------------------------------------------------


def _images(mapping, static, moving, static_grid2world, moving_grid2world, warped):
    """Static, moving before and moving after, on the grid of the field."""
    grid = mapping.disp_grid2world
    shape = tuple(int(n) for n in mapping.disp_shape)
    nothing = np.zeros_like(mapping.backward, dtype=np.float32)
    identity = make_mapping(nothing, nothing, shape, grid, shape, grid)
    straight = mapping.shallow_copy()
    straight.forward = straight.backward = nothing
    if static_grid2world is None and static.shape == tuple(mapping.codomain_shape):
        static_grid2world = mapping.codomain_grid2world
    onto = {
        "out_shape": shape,
        "out_grid2world": np.eye(len(shape) + 1) if grid is None else grid,
        "image_grid2world": moving_grid2world,
    }
    after = transform_array(mapping, moving, **onto) if warped is None else warped
    return {
        "static": transform_array(identity, static, image_grid2world=static_grid2world),
        "before": transform_array(straight, moving, **onto),
        "after": after,
    }


def _places(mapping, spacing):
    """Where each voxel's content comes from: mm along the grid's axes, prealign apart.

    Their contours are a regular grid of moving, carried to static.
    """
    field, dim, grid = mapping.get_forward_field(), mapping.dim, mapping.disp_grid2world
    matrix = np.eye(dim) if grid is None else grid[:dim, :dim]
    moved = np.moveaxis(field @ np.linalg.inv(matrix).T, -1, 0)
    return (np.indices(field.shape[:-1]) + moved) * spacing.reshape(-1, *[1] * dim)


def _reoriented(layers, grid, spacing):
    """The layers with their axes along the world's: to the right, forward, up."""
    if len(spacing) == 2 or grid is None:
        return layers, spacing
    orientation = nib.io_orientation(grid)
    order = np.argsort(orientation[:, 0])
    turned = {k: nib.apply_orientation(v, orientation) for k, v in layers.items()}
    for new, old in enumerate(order):
        turned[f"place {new}"] = nib.apply_orientation(
            layers[f"place {old}"], orientation
        )
    return turned, spacing[order]


def _views(static, *, known):
    """The planes through the middle of static's foreground."""
    if static.ndim == 2:
        return [View((slice(None), slice(None)), (0, 1), "upper", "")]
    foreground = static > _levels(static)[0]
    if not foreground.any():
        foreground = np.ones(static.shape, dtype=bool)
    middle = [int(np.rint(where.mean())) for where in np.nonzero(foreground)]
    views = []
    for axis, axes, letters in (
        (0, (2, 1), "PAIS"),
        (1, (2, 0), "LRIS"),
        (2, (1, 0), "LRPA"),
    ):
        index = [slice(None)] * 3
        index[axis] = middle[axis]
        views.append(View(tuple(index), axes, "lower", letters if known else ""))
    return views


def _levels(image):
    """Intensities that part background from foreground, and the foreground in two."""
    values = image[np.isfinite(image)]
    lowest = _threshold(values)
    return [lowest, _threshold(values[values > lowest])]


def _threshold(values):
    """Otsu's threshold; infinite where rounding is all the difference there is."""
    if not values.size or np.ptp(values) <= 1e-4 * np.abs(values).max():
        return np.inf
    return float(otsu(values))


def _window(image):
    """Intensities shown black and white."""
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    foreground = values[values > _levels(image)[0]]
    low = np.percentile(values, 1)
    high = np.percentile(foreground if foreground.size else values, 99)
    return low, high if high > low else low + 1.0


def _log_limit(log_jacobian):
    """End of the colour scale: most of what there is, in tenths, never over 2."""
    values = np.abs(log_jacobian[np.isfinite(log_jacobian)])
    if not values.size:
        return 0.1
    return float(np.clip(np.ceil(np.percentile(values, 99.5) * 10) / 10, 0.1, 2.0))


# How it is drawn --------------------------------------------------------------------


def _sheet(layers, views, spacing, lines, title):
    """A row of panels for each view, the lines of text below."""
    extents = np.multiply(layers["static"].shape, spacing)
    heights = [PANEL_WIDTH * extents[v.axes[0]] / extents[v.axes[1]] for v in views]
    heights = np.clip(heights, 0.3 * PANEL_WIDTH, 1.5 * PANEL_WIDTH)
    top = NAMES_HEIGHT + TITLE_HEIGHT * bool(title)
    below = max(LINES_HEIGHT, LINE_HEIGHT * (len(lines) + 1) + 0.1)
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
    windows = {name: _window(layers[name]) for name in ("static", "before", "after")}
    windows["log_jacobian"] = _log_limit(layers["log_jacobian"])
    levels = [level for level in _levels(layers["static"]) if np.isfinite(level)]
    layers = {**layers, "smooth": _smoothed(layers["static"], spacing)}
    for row, view in enumerate(views):
        planes = {name: _plane(layer, view) for name, layer in layers.items()}
        planes["places"] = [planes[f"place {a}"] for a in view.axes]
        sides = [extents[a] for a in view.axes]
        for column, (name, draw) in enumerate(PANELS.items()):
            axes = figure.add_subplot(rows[row, column])
            drawn = draw(axes, planes, windows, view.origin, sides)
            if draw in OUTLINED:
                _draw_lines(axes, planes["smooth"], levels, OUTLINES)
            elif draw is _draw_jacobian:
                _draw_lines(axes, planes["smooth"], levels[:1], "0.3")
            _frame(axes, [spacing[a] for a in view.axes])
            if row == 0:
                axes.set_title(name, fontsize=11, pad=4)
            if column == 0:
                _write_letters(axes, view.letters)
    _write_below(figure, lines, axes, drawn)
    if title:
        figure.suptitle(title, y=1 - 0.08 / height, va="top", fontsize=13)
    return figure


def _plane(layer, view):
    """A view's plane of a layer, rows first."""
    return layer[view.index].T if view.axes[0] > view.axes[1] else layer[view.index]


def _smoothed(image, spacing):
    """Static for its outlines: without speckle, and without what is missing."""
    return gaussian_filter(np.nan_to_num(image), np.maximum(0.7, 1.2 / spacing))


def _draw_image(name):
    """A panel that shows one image in grey."""

    def draw(axes, planes, windows, origin, sides):
        low, high = windows[name]
        return axes.imshow(planes[name], "gray", vmin=low, vmax=high, origin=origin)

    return draw


def _draw_checkerboard(axes, planes, windows, origin, sides):
    """Static and moving after, in turns."""
    both = []
    for name in ("static", "after"):
        low, high = windows[name]
        both.append(np.clip((planes[name] - low) / (high - low), 0, 1))
    square = max(sides) / 8
    rows, columns = (
        (np.arange(n) * side / n // square).astype(int)
        for n, side in zip(both[0].shape, sides, strict=True)
    )
    mixed = np.where((rows[:, None] + columns) % 2, *both)
    return axes.imshow(mixed, "gray", vmin=0, vmax=1, origin=origin)


def _draw_grid(axes, planes, windows, origin, sides):
    """A regular grid of moving, carried to static, over moving after."""
    low, high = windows["after"]
    drawn = axes.imshow(
        planes["after"], "gray", vmin=low, vmax=low + 2 * (high - low), origin=origin
    )
    step = max(sides) / 26
    for place in planes["places"]:
        levels = np.arange(place.min() // step + 1, place.max() / step) * step
        _draw_lines(axes, place, levels, "#7fdbff")
    return drawn


def _draw_jacobian(axes, planes, windows, origin, sides):
    """Logarithm of the determinant; folded voxels stand out."""
    limit, values = windows["log_jacobian"], planes["log_jacobian"]
    colours = load_matplotlib().mpl.colormaps["RdBu_r"].with_extremes(bad=FOLDED)
    return axes.imshow(values, colours, vmin=-limit, vmax=limit, origin=origin)


def _draw_lines(axes, plane, levels, colours):
    """Contours, where the plane is wide enough to have any."""
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


def _frame(axes, spacing):
    """True proportions, no ticks, black where there is nothing."""
    axes.set_aspect(spacing[0] / spacing[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("black")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_letters(axes, letters):
    """Which way is left, right, below and above."""
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
    """The numbers and the key; the colour scale below its own column."""
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
