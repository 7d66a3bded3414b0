"""The planes that a report shows: their positions, directions and field of view."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.maps.figure_layers import outline_levels
from dipy_dl_reg.maps.html.volumes import Volumes

#: Name of the planes across each axis, axes along their rows and columns, and letters
#: of the directions at the left, right, bottom and top.
_PLANES = (
    ("axial", 2, (1, 0), "LRPA"),
    ("coronal", 1, (2, 0), "LRIS"),
    ("sagittal", 0, (2, 1), "PAIS"),
)
_AXIS_NAMES = "xyz"
#: Planes of each kind: at most, and for images of several channels.
_COUNT, _COUNT_CHANNELS = 7, 5
#: Part of the object's extent, at each end, in which no plane lies.
_MARGIN = 0.1
#: Width, as a part of the longest side, of the border around the object.
_BORDER = 0.03
#: Angle in degrees from which a grid counts as oblique.
_OBLIQUE = 0.5


class Plane(NamedTuple):
    """One plane through the images.

    Attributes
    ----------
    kind : str
        "axial", "coronal", "sagittal" or, in 2D, "image".
    place : tuple
        Index of the plane in the arrays, cropped to the field of view.
    transpose, flip : bool
        Whether the rows are columns of the array, and whether the first row is below.
    spacing : tuple of float
        Distance between rows and between columns, mm.
    axes : tuple of int
        Axes along the rows and the columns.
    letters : str
        Letters of the directions left, right, bottom and top; empty if unknown.
    coordinate : str
        Where the plane lies, such as "z = 12 mm".
    """

    kind: str
    place: tuple[slice | int, ...]
    transpose: bool
    flip: bool
    spacing: tuple[float, float]
    axes: tuple[int, int]
    letters: str
    coordinate: str

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Cut this plane out of a volume.

        Parameters
        ----------
        volume : ndarray
            The volume.

        Returns
        -------
        plane : ndarray, shape (rows, columns)
            The first row is at the top of the picture.
        """
        plane = volume[self.place]
        plane = plane.T if self.transpose else plane
        return plane[::-1] if self.flip else plane


def choose_planes(volumes: Volumes) -> dict[str, list[Plane]]:
    """Choose the planes of a report, equally spaced through static's object.

    Parameters
    ----------
    volumes : Volumes
        The images.

    Returns
    -------
    planes : dict of list of Plane
        For each kind, up to seven planes (five if there are several channels).
    """
    shape = volumes.log_jacobian.shape
    field_of_view = _find_field_of_view(volumes)
    if len(shape) == 2:
        first, second = volumes.spacing
        plane = Plane(
            *("image", tuple(field_of_view), False, False),
            *((float(first), float(second)), (0, 1), "", ""),
        )
        return {"image": [plane]}
    count = _COUNT if len(volumes.channels) == 1 else _COUNT_CHANNELS
    inside = find_object(volumes)
    planes = {}
    for kind, axis, axes, letters in _PLANES:
        indices = _choose_indices(inside, axis, count)
        if min(shape[a] for a in axes) > 1:
            planes[kind] = [
                _make_plane(volumes, field_of_view, kind, axis, index, axes, letters)
                for index in indices
            ]
    return planes


def _make_plane(
    volumes: Volumes,
    field_of_view: list[slice],
    kind: str,
    axis: int,
    index: int,
    axes: tuple[int, int],
    letters: str,
) -> Plane:
    """One plane of a volume."""
    place: list[slice | int] = list(field_of_view)
    place[axis] = index
    known = volumes.grid2world is not None
    rows, columns = (float(volumes.spacing[a]) for a in axes)
    coordinate = _describe_coordinate(volumes, axis, index)
    shown = letters if known else ""
    return Plane(
        *(kind, tuple(place), axes[0] > axes[1], True, (rows, columns)),
        *(axes, shown, coordinate),
    )


def _describe_coordinate(volumes: Volumes, axis: int, index: int) -> str:
    """World coordinate of the middle of a plane, along the axis next to its normal."""
    if volumes.grid2world is None:
        return f"{'ijk'[axis]} = {index}"
    middle = (np.array(volumes.log_jacobian.shape) - 1) / 2
    middle[axis] = index
    position = volumes.grid2world[axis, :3] @ middle + volumes.grid2world[axis, 3]
    # Adding 0 turns -0 into 0.
    return f"{_AXIS_NAMES[axis]} = {round(float(position), 1) + 0.0:g} mm"


def obliqueness(volumes: Volumes) -> float:
    """Find the largest angle between an axis of the grid and its axis of the world.

    Parameters
    ----------
    volumes : Volumes
        The images.

    Returns
    -------
    angle : float
        Degrees; 0 if it is below half a degree, for slices, or if it is unknown.
    """
    if volumes.grid2world is None or len(volumes.spacing) == 2:
        return 0.0
    cosines = np.abs(np.diag(volumes.grid2world[:3, :3])) / volumes.spacing
    angle = float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))
    return angle if angle >= _OBLIQUE else 0.0


def find_object(volumes: Volumes) -> np.ndarray:
    """Find static's object: its mask, or the voxels above Otsu's threshold.

    Parameters
    ----------
    volumes : Volumes
        The images.

    Returns
    -------
    inside : ndarray of bool
        All voxels if there is no object.
    """
    if volumes.mask is not None and volumes.mask.any():
        return volumes.mask
    return _foreground(volumes.channels[0]["static"], volumes.spacing)


def _foreground(image: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Voxels above half of Otsu's threshold, without speckle."""
    smooth = gaussian_filter(np.nan_to_num(image), np.maximum(0.5, 1.5 / spacing))
    lowest = image[np.isfinite(image)].min(initial=0)
    level = outline_levels(smooth)[0]
    inside = smooth > lowest + 0.5 * (level - lowest)
    return inside if inside.any() else np.ones(image.shape, dtype=bool)


def _find_field_of_view(volumes: Volumes) -> list[slice]:
    """The box around the objects of static and of moving, before and after."""
    shape, spacing = volumes.log_jacobian.shape, volumes.spacing
    box = np.zeros(shape, dtype=bool)
    for channel in volumes.channels:
        for image in channel.values():
            box |= _foreground(image, spacing) if np.ptp(image) > 0 else False
    box = box if box.any() else np.ones(shape, dtype=bool)
    border = _BORDER * (np.array(shape) * spacing).max() / spacing
    slices = []
    for axis, size in enumerate(shape):
        found = np.flatnonzero(
            box.any(tuple(a for a in range(len(shape)) if a != axis))
        )
        low, high = found[0] - border[axis], found[-1] + 1 + border[axis]
        slices.append(slice(max(0, int(low)), min(size, int(np.ceil(high)))))
    return slices


def _choose_indices(inside: np.ndarray, axis: int, count: int) -> list[int]:
    """Indices of equally spaced planes through an object, without its ends."""
    others = tuple(a for a in range(inside.ndim) if a != axis)
    found = np.flatnonzero(inside.any(others))
    low, high = int(found[0]), int(found[-1])
    if high - low + 1 <= count:
        return list(range(low, high + 1))
    ends = low + _MARGIN * (high - low), high - _MARGIN * (high - low)
    return sorted({int(np.rint(i)) for i in np.linspace(*ends, count)})
