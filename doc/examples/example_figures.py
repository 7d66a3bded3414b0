"""Figures of the examples: slices with letters and a scale bar, a colour for a method.

The examples import this file. To run a copy of an example, put this file beside it; in
the repository, set ``PYTHONPATH=doc/examples``.
"""

from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
import nibabel as nib
import numpy as np

#: Colours that people with colour blindness can distinguish (Okabe and Ito).
COLOURS = {
    "before": "#7f7f7f",
    "affine": "#7f7f7f",
    "SyN": "#D55E00",
    "default": "#0072B2",
    "refinement alone": "#009E73",
    "network alone": "#CC79A7",
    "DIPY": "#D55E00",
}
#: Colour of outlines, and of a second outline in the same picture.
OUTLINE, SECOND_OUTLINE = "#E69F00", "#56B4E9"
#: Colour maps: of errors and other lengths, of values that are above or below 0.
ERRORS, SIGNED = "cividis", "RdBu_r"
#: Width of a figure, inches: its text can be read on a page of 390 pixels.
WIDTH = 6.5

_STYLE = {
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(
        color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
    ),
    "legend.frameon": False,
    "savefig.dpi": 130,
}
#: Axis across each plane, and letters at the left, right, bottom and top.
_PLANES = {"axial": (2, "LRPA"), "coronal": (1, "LRIS"), "sagittal": (0, "PAIS")}
_BLACK_EDGE = [patheffects.withStroke(linewidth=2, foreground="black")]


def new_figure(
    alt: str,
    rows: int = 1,
    columns: int = 1,
    *,
    aspect: float = 1.0,
    bar: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Make a figure with rows and columns of axes.

    Parameters
    ----------
    alt : str
        What the figure shows, for those who do not see it; the label of the figure.
    rows, columns : int, optional
        Number of axes.
    aspect : float, optional
        Height of each of the axes by its width.
    bar : bool, optional
        Leave room for a colour bar below.

    Returns
    -------
    figure : Figure
    axes : ndarray of Axes, shape (rows, columns)
    """
    plt.rcParams.update(_STYLE)
    height = rows * (aspect * WIDTH / columns + 0.35) + 0.8 * bar
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, height),
        layout="constrained",
        squeeze=False,
    )
    figure.set_label(alt)
    return figure, axes


def draw_slice(
    ax: Axes,
    image: np.ndarray,
    grid2world: np.ndarray | None = None,
    *,
    plane: str = "axial",
    at: float | None = None,
    title: str = "",
    outlines: np.ndarray | None = None,
    levels: tuple[float, ...] = (0.5,),
    colour: str = OUTLINE,
    window: tuple[float, float, float, float] | None = None,
    **options,
) -> AxesImage:
    """Draw a plane of a volume, or a 2D image, in true proportions.

    With `grid2world`, left is at the left, and letters and a scale bar in mm are drawn.
    Without it, the rows of a 2D image are drawn from top to bottom, and the bar is in
    pixels.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    image : ndarray
        A volume, or an image in 2D; a last axis of 3 are red, green and blue.
    grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Grid-to-world matrix.
    plane : str, optional
        "axial", "coronal" or "sagittal".
    at : float, optional
        Position of the plane, mm; the middle by default.
    title : str, optional
        Title.
    outlines : ndarray, optional
        Another image on the same grid, of which contours are drawn.
    levels : tuple of float, optional
        Values at which contours are drawn.
    colour : str, optional
        Colour of the contours.
    window : tuple of float, optional
        The part to show: left, right, bottom and top in mm (pixels without
        `grid2world`) from the lower left corner; all by default.
    **options
        Options of ``imshow``, such as ``cmap``, ``vmin`` and ``vmax``.

    Returns
    -------
    drawn : AxesImage
        The image, for a colour bar.
    """
    cut, extent = cut_plane(image, grid2world, plane, at)
    options = {"cmap": "gray", "interpolation": "nearest"} | options
    if options["cmap"] == "gray" and cut.ndim == 2:
        options.setdefault("vmax", np.nanpercentile(cut, 99.5))
    drawn = ax.imshow(cut, extent=extent, origin="lower", **options)
    ax.set(title=title, xticks=[], yticks=[], facecolor="black")
    ax.spines[:].set_visible(False)
    if outlines is not None:
        draw_contour(ax, outlines, grid2world, plane, at, levels, colour)
    letters = "" if grid2world is None else _PLANES[plane][1]
    _draw_letters(ax, letters)
    _draw_scale(ax, window or extent, "px" if grid2world is None else "mm")
    return drawn


def draw_contour(
    ax: Axes,
    image: np.ndarray,
    grid2world: np.ndarray | None = None,
    plane: str = "axial",
    at: float | None = None,
    levels: tuple[float, ...] = (0.5,),
    colour: str = OUTLINE,
) -> None:
    """Draw contours of an image on a plane that `draw_slice` has drawn."""
    lines, extent = cut_plane(image, grid2world, plane, at)
    ax.contour(lines, levels, colors=colour, linewidths=1, extent=extent)


def cut_plane(
    image: np.ndarray,
    grid2world: np.ndarray | None,
    plane: str = "axial",
    at: float | None = None,
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Cut a plane; return its rows from below to above, and its extent for imshow."""
    image = np.asarray(image)
    if image.dtype in (bool, np.int64):  # types that NIfTI does not have
        image = image.astype(np.int32)
    if grid2world is None:  # a 2D image, whose first row is above
        rows, columns = image.shape[:2]
        return image[::-1], (0, columns, 0, rows)
    if len(grid2world) == 3:  # a 2D image in world coordinates
        image, grid2world = image[:, :, None], _add_axis(grid2world)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(image, grid2world))
    values, matrix = np.asanyarray(canonical.dataobj), canonical.affine
    axis = _PLANES[plane][0]
    values = np.take(values, _index(values.shape, matrix, axis, at), axis).swapaxes(
        0, 1
    )
    across, up = np.delete(nib.affines.voxel_sizes(matrix), axis)
    return values, (0, values.shape[1] * across, 0, values.shape[0] * up)


def _add_axis(grid2world: np.ndarray) -> np.ndarray:
    """The matrix of a 2D image as that of a volume of one slice."""
    matrix = np.eye(4)
    matrix[np.ix_([0, 1, 3], [0, 1, 3])] = grid2world
    return matrix


def _index(
    shape: tuple[int, ...], matrix: np.ndarray, axis: int, at: float | None
) -> int:
    """Index of the plane whose middle is at a position."""
    middle = (np.array(shape[:3]) - 1) / 2
    if at is not None:
        here = matrix[axis, :3] @ middle + matrix[axis, 3]
        middle[axis] += (at - here) / matrix[axis, axis]
    return int(np.clip(round(middle[axis]), 0, shape[axis] - 1))


def _draw_letters(ax: Axes, letters: str) -> None:
    """Letters of the directions at the left, right, bottom and top."""
    places = (0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98)
    sides = ("left", "center"), ("right", "center"), ("center", "bottom")
    sides += (("center", "top"),)
    for letter, place, (across, up) in zip(letters, places, sides, strict=False):
        ax.text(
            *(*place, letter),
            transform=ax.transAxes,
            ha=across,
            va=up,
            color="white",
            fontsize=11,
            fontweight="bold",
            path_effects=_BLACK_EDGE,
        )


def _draw_scale(ax: Axes, window: tuple[float, float, float, float], unit: str) -> None:
    """A bar of a round length at the lower left."""
    left, right, bottom, top = window
    width, height = right - left, top - bottom
    length = max(n for n in (1, 2, 5, 10, 20, 50, 100) if n == 1 or n < 0.4 * width)
    start, below = left + 0.04 * width, bottom + 0.04 * height
    ax.plot(
        [start, start + length],
        [below, below],
        color="white",
        linewidth=2.5,
        solid_capstyle="butt",
        path_effects=_BLACK_EDGE,
    )
    ax.text(
        start,
        below + 0.015 * height,
        f"{length} {unit}",
        color="white",
        fontsize=11,
        va="bottom",
        path_effects=_BLACK_EDGE,
    )
    ax.set(xlim=window[:2], ylim=window[2:])
