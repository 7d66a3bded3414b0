"""Pictures of planes, as data URIs and as paths of SVG, in true proportions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
import io
from typing import Any, NamedTuple

from dipy.utils.optpkg import optional_package
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.maps.figure import load_matplotlib
from dipy_dl_reg.maps.figure_layers import (
    intensity_range,
    log_limit,
    outline_levels,
)
from dipy_dl_reg.maps.html.planes import Plane, find_object
from dipy_dl_reg.maps.html.volumes import Volumes

#: Pixels along the longest side of the pictures, and quality of their JPEG.
_PIXELS, _QUALITY = 300, 82
#: Colours of the Jacobian: brown where moving is smaller, purple where it is larger;
#: both kinds of colour blindness distinguish them. Folded voxels are yellow.
_COLOURS, _FOLDED = "PuOr", (255, 225, 0)
#: Colour around the object in the picture of the Jacobian.
_OUTSIDE = (64, 64, 64)
#: Shortest outline that is drawn, mm per voxel size.
_LEAST_OUTLINE = 6
#: Lines of the grid along the longest side.
_GRID_LINES = 30
#: Lengths of scale bars, mm, and the longest part of the picture that one may cover.
_BARS, _LONGEST_BAR = (100, 50, 20, 10, 5, 2, 1), 0.4
#: Pixels along the longest side of a thumbnail.
_THUMBNAIL = 96


class Picture(NamedTuple):
    """The pictures of one plane.

    Attributes
    ----------
    plane : Plane
        The plane.
    width, height : float
        Size in mm.
    pixels : tuple of int
        Width and height of the images.
    channels : list of dict of str
        For each channel the images "static", "before" and "after", as data URIs.
    outlines : list of str
        Path of static's outlines for each level, in mm, for each channel's first level
        and second level.
    jacobian : str
        Image of the Jacobian.
    mask : str
        Path of the outline of static's object.
    grid : str
        Path of the warped grid.
    bar : int
        Length of the scale bar, mm.
    """

    plane: Plane
    width: float
    height: float
    pixels: tuple[int, int]
    channels: list[dict[str, str]]
    outlines: list[list[str]]
    jacobian: str
    mask: str
    grid: str
    bar: int


class _Shared(NamedTuple):
    """What all pictures of a report have in common."""

    volumes: Volumes
    inside: np.ndarray
    smooth: list[np.ndarray]
    levels: list[list[float]]
    ranges: list[dict[str, tuple[float, float]]]
    limit: float
    pixel: float


def load_imaging() -> tuple[Any, Any]:
    """Import the packages that draw, which matplotlib requires.

    Returns
    -------
    image : module
        ``PIL.Image``.
    contourpy : module
        The module of that name.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    load_matplotlib()
    return optional_package("PIL.Image")[0], optional_package("contourpy")[0]


def draw_pictures(
    volumes: Volumes, planes: dict[str, list[Plane]]
) -> dict[str, list[Picture]]:
    """Draw all planes of a report.

    Parameters
    ----------
    volumes : Volumes
        The images.
    planes : dict of list of Plane
        The planes of each kind.

    Returns
    -------
    pictures : dict of list of Picture
        In the same order.
    """
    every = [plane for each in planes.values() for plane in each]
    longest = max(max(_measure(p, volumes.log_jacobian)) for p in every)
    static_images = [channel["static"] for channel in volumes.channels]
    smooth = [
        gaussian_filter(np.nan_to_num(s), np.maximum(0.7, 1.2 / volumes.spacing))
        for s in static_images
    ]
    inside = find_object(volumes)
    shared = _Shared(
        volumes,
        inside,
        smooth,
        [[v for v in outline_levels(s) if np.isfinite(v)] for s in static_images],
        [_find_ranges(channel) for channel in volumes.channels],
        jacobian_limit(volumes, inside),
        longest / _PIXELS,
    )
    return {kind: [_draw(p, shared) for p in each] for kind, each in planes.items()}


def jacobian_limit(volumes: Volumes, inside: np.ndarray | None = None) -> float:
    """Find the end of the colour scale of the Jacobian.

    Parameters
    ----------
    volumes : Volumes
        The images.
    inside : ndarray of bool, optional
        Static's object.

    Returns
    -------
    limit : float
        For the logarithm of the determinant.
    """
    inside = find_object(volumes) if inside is None else inside
    return log_limit(volumes.log_jacobian[inside])


def _find_ranges(channel: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Intensities that are black and white; before is shown as after."""
    after = intensity_range(channel["after"])
    return {
        "static": intensity_range(channel["static"]),
        "before": after,
        "after": after,
    }


def _measure(plane: Plane, volume: np.ndarray) -> tuple[float, float]:
    """Width and height of a plane in mm."""
    rows, columns = plane.cut(volume).shape
    return columns * plane.spacing[1], rows * plane.spacing[0]


def _draw(plane: Plane, shared: _Shared) -> Picture:
    """All pictures of one plane."""
    volumes = shared.volumes
    width, height = _measure(plane, volumes.log_jacobian)
    pixels = max(1, round(width / shared.pixel)), max(1, round(height / shared.pixel))
    channels = []
    for channel, ranges in zip(volumes.channels, shared.ranges):
        channels.append(
            {
                name: encode_grey(plane.cut(image), ranges[name], pixels)
                for name, image in channel.items()
            }
        )
    inside = plane.cut(shared.inside)
    return Picture(
        *(plane, width, height, pixels, channels),
        outlines=[
            [_trace(plane, plane.cut(smooth), [level]) for level in levels]
            for smooth, levels in zip(shared.smooth, shared.levels)
        ],
        jacobian=_draw_jacobian(plane, shared, inside, pixels),
        mask=_trace(plane, inside.astype(float), [0.5]),
        grid=_trace_grid(plane, volumes),
        bar=_choose_bar(width),
    )


def encode_grey(
    plane: np.ndarray, limits: tuple[float, float], pixels: tuple[int, int]
) -> str:
    """Encode a plane as an image in grey.

    Parameters
    ----------
    plane : ndarray, shape (rows, columns)
        Intensities.
    limits : tuple of float
        Intensities that are black and white.
    pixels : tuple of int
        Width and height of the image.

    Returns
    -------
    uri : str
        JPEG as a data URI.
    """
    grey = _scale_to_bytes(plane, limits)
    return _encode(grey.resize(pixels, load_imaging()[0].Resampling.BICUBIC))


def _scale_to_bytes(plane: np.ndarray, limits: tuple[float, float]) -> Any:
    """A plane as an image of 256 greys."""
    low, high = limits
    scaled = np.clip((np.nan_to_num(plane, nan=low) - low) / (high - low), 0, 1)
    grey = np.ascontiguousarray(255 * scaled).astype(np.uint8)
    return load_imaging()[0].fromarray(grey)


def _encode(picture: Any, form: str = "JPEG", **options: Any) -> str:
    """An image as a data URI."""
    buffer = io.BytesIO()
    options = {"quality": _QUALITY, "optimize": True} | options
    picture.save(buffer, form, **options)
    return make_data_uri(buffer.getvalue(), f"image/{form.lower()}")


def make_data_uri(content: bytes, media_type: str) -> str:
    """Make a data URI.

    Parameters
    ----------
    content : bytes
        The content of a file.
    media_type : str
        Such as "image/png".

    Returns
    -------
    uri : str
        The URI, in base64.
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _draw_jacobian(
    plane: Plane, shared: _Shared, inside: np.ndarray, pixels: tuple[int, int]
) -> str:
    """The Jacobian within static's object; folded voxels have their own colour."""
    values = plane.cut(shared.volumes.log_jacobian)
    scaled = np.clip(0.5 + 0.5 * np.nan_to_num(values) / shared.limit, 0, 1)
    colours = (255 * load_matplotlib().mpl.colormaps[_COLOURS](scaled)[..., :3]).round()
    colours[~inside] = _OUTSIDE
    colours[~np.isfinite(values)] = _FOLDED
    image = load_imaging()[0]
    picture = image.fromarray(np.ascontiguousarray(colours.astype(np.uint8)))
    folds = bool((~np.isfinite(values)).any())
    method = image.Resampling.NEAREST if folds else image.Resampling.BILINEAR
    return _encode(picture.resize(pixels, method), quality=88)


def _trace(plane: Plane, values: np.ndarray, levels: Sequence[float]) -> str:
    """Contours of a plane as a path of SVG, in mm."""
    rows, columns = values.shape
    if min(rows, columns) < 2:
        return ""
    x = (np.arange(columns) + 0.5) * plane.spacing[1]
    y = (np.arange(rows) + 0.5) * plane.spacing[0]
    generator = load_imaging()[1].contour_generator(x, y, values)
    paths = []
    for level in levels:
        for line in generator.lines(float(level)):
            length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
            if length >= _LEAST_OUTLINE * min(plane.spacing):
                paths.append(_format_path(_thin(line, min(plane.spacing))))
    return "".join(paths)


def _thin(line: np.ndarray, spacing: float) -> np.ndarray:
    """A contour without vertices nearer than half of a voxel to the last one."""
    travelled = np.r_[0, np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()]
    steps = np.floor(travelled / (0.7 * spacing))
    keeps = np.r_[True, np.diff(steps) > 0]
    keeps[-1] = True
    return line[keeps]


def _format_path(line: np.ndarray) -> str:
    """The path of SVG through points, with relative steps of tenths of a mm."""
    tenths = np.rint(10 * line).astype(int)
    steps = np.diff(tenths, axis=0)
    moves = " ".join(f"{dx / 10:g} {dy / 10:g}" for dx, dy in steps)
    start = tenths[0] / 10
    return f"M{start[0]:g} {start[1]:g}l{moves}"


def _trace_grid(plane: Plane, volumes: Volumes) -> str:
    """A regular grid of moving, transformed to static."""
    extent = max(np.multiply(volumes.log_jacobian.shape, volumes.spacing))
    step = extent / _GRID_LINES
    paths = []
    for axis in plane.axes:
        position = plane.cut(volumes.positions[axis])
        levels = np.arange(position.min() // step + 1, position.max() / step) * step
        paths.append(_trace(plane, position, list(levels)))
    return "".join(paths)


def _choose_bar(width: float) -> int:
    """Length of the scale bar, mm."""
    return next((bar for bar in _BARS if bar <= _LONGEST_BAR * width), _BARS[-1])


def draw_colour_bar() -> str:
    """Draw the colours of the Jacobian from small to large.

    Returns
    -------
    uri : str
        PNG as a data URI.
    """
    scaled = np.linspace(0, 1, 256)[None].repeat(8, 0)
    colours = 255 * load_matplotlib().mpl.colormaps[_COLOURS](scaled)[..., :3]
    picture = load_imaging()[0].fromarray(colours.round().astype(np.uint8))
    return _encode(picture, "PNG")


def draw_thumbnail(volumes: Volumes, plane: Plane) -> str:
    """Draw a small picture of the result: moving after, with static's outline.

    Parameters
    ----------
    volumes : Volumes
        The images.
    plane : Plane
        The plane to draw.

    Returns
    -------
    uri : str
        JPEG as a data URI, a few kB.
    """
    image = load_imaging()[0]
    width, height = _measure(plane, volumes.log_jacobian)
    factor = _THUMBNAIL / max(width, height)
    pixels = max(1, round(width * factor)), max(1, round(height * factor))
    after = volumes.channels[0]["after"]
    grey = _scale_to_bytes(plane.cut(after), intensity_range(after)).resize(pixels)
    inside = image.fromarray(255 * plane.cut(find_object(volumes)).astype(np.uint8))
    inside = np.asarray(inside.resize(pixels)) > 127
    edge = inside & ~_erode(inside)
    colours = np.asarray(grey)[..., None].repeat(3, -1).copy()
    colours[edge] = (230, 159, 0)
    return _encode(image.fromarray(colours), quality=70)


def _erode(inside: np.ndarray) -> np.ndarray:
    """A region without its outermost pixels."""
    padded = np.pad(inside, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
