"""Checks the headers of two image files, and reads the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

import numpy as np

from dipy_dl_reg.io.image_kinds import check_planes, is_slice, slice_affine
from dipy_dl_reg.io.images import open_volume, read_image
from dipy_dl_reg.io.input_channels import read_input_channels


@dataclass(frozen=True)
class ImagePair:
    """Two images that are to be registered, with their masks.

    Attributes
    ----------
    name : str
        File names of both images, with folders if the names are equal; used in
        messages and in the picture.
    dim : {2, 3}
        Dimension of the registration.
    static_image, moving_image : nibabel image
        The images with their headers.
    static, moving : ndarray of float32
        Their values, of `dim` axes.
    static_grid2world, moving_grid2world : ndarray, shape (dim + 1, dim + 1)
        Their grid-to-world matrices.
    masks : dict
        Boolean arrays or None, by the names "static_mask" and "moving_mask".
    channels : tuple of tuple of ndarray
        Further images of static and of moving, as many of each, on the grids of the
        two; empty if there are none.
    """

    name: str
    dim: int
    static_image: Any
    moving_image: Any
    static: np.ndarray
    moving: np.ndarray
    static_grid2world: np.ndarray
    moving_grid2world: np.ndarray
    masks: dict[str, np.ndarray | None]
    channels: tuple[tuple[np.ndarray, ...], ...] = ((), ())

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return static and moving for `DeepRegistration.optimize`.

        Returns
        -------
        static, moving : ndarray
            With the further images as channels on the last axis, if there are any.
        """
        if not self.channels[0]:
            return self.static, self.moving
        first, second = (
            np.stack([image, *others], -1)
            for image, others in zip((self.static, self.moving), self.channels)
        )
        return first, second


def read_pair(
    static: str | os.PathLike,
    moving: str | os.PathLike,
    *,
    static_mask: str | os.PathLike | None = None,
    moving_mask: str | os.PathLike | None = None,
    channels: Sequence[Sequence[str | os.PathLike]] = ((), ()),
) -> ImagePair:
    """Read two images and their masks.

    Parameters
    ----------
    static, moving : str or Path
        The images' files: two volumes, or two slices, which are registered in 2D.
    static_mask, moving_mask : str or Path, optional
        Files of masks on the images' grids.
    channels : sequence of sequence of str or Path, optional
        Files of further images of static and of moving, on any grids of their worlds.

    Returns
    -------
    pair : ImagePair
        The images.

    Raises
    ------
    ValueError
        If an image cannot be registered, or a mask is empty.
    """
    static_image, moving_image = open_pair(static, moving)
    dim = registration_dimension(static_image, moving_image)
    masks = {"static_mask": static_mask, "moving_mask": moving_mask}
    return ImagePair(
        name=" to ".join(distinct_names(moving, static)),
        dim=dim,
        static_image=static_image,
        moving_image=moving_image,
        static=_drop_last_axis(_read_values(static_image, "static"), dim),
        moving=_drop_last_axis(_read_values(moving_image, "moving"), dim),
        static_grid2world=slice_affine(static_image.affine, dim),
        moving_grid2world=slice_affine(moving_image.affine, dim),
        masks={
            name: None if path is None else _drop_last_axis(_read_mask(path, name), dim)
            for name, path in masks.items()
        },
        channels=(
            _read_channels(static_image, channels[0], "static", dim),
            _read_channels(moving_image, channels[1], "moving", dim),
        ),
    )


def _read_channels(
    image: Any, paths: Sequence[str | os.PathLike], role: str, dim: int
) -> tuple[np.ndarray, ...]:
    """Read further images, and resample them to the grid of the first."""
    name = f"{role}_channels"
    others = [open_volume(path, name, slices=True) for path in paths]
    for other in others:
        _read_values(other, name)  # checks the values
    read = read_input_channels([image, *others], name=role) if others else []
    return tuple(
        _drop_last_axis(np.asarray(channel.values, dtype=np.float32), dim)
        for channel in read[1:]
    )


def _drop_last_axis(data: np.ndarray, dim: int) -> np.ndarray:
    """In 2D, convert an array of shape (X, Y, 1) to (X, Y)."""
    return data.reshape(data.shape[:dim])


def _read_values(image: Any, name: str) -> np.ndarray:
    """Read the values as float32, and check them."""
    data, _ = read_image(image, name=name, dtype=np.float32)
    where = f"{name}: {image.get_filename()}"
    if np.isinf(data).any():
        raise ValueError(f"{where} holds infinities")
    known = data[np.isfinite(data)]
    if not known.size:
        raise ValueError(f"{where} contains only NaN")
    if known.min() == known.max():
        raise ValueError(f"{where} is constant and cannot be registered")
    return data


def _read_mask(path: str | os.PathLike, name: str) -> np.ndarray:
    """A mask as booleans."""
    image = open_volume(path, name, slices=True)
    data, _ = read_image(image, name=name, dtype=np.float32)
    mask = data > 0
    if not mask.any():
        raise ValueError(f"{name}: {path} is empty")
    return mask


def distinct_names(first: str | os.PathLike, second: str | os.PathLike) -> list[str]:
    """Shorten two paths to the last parts in which they differ.

    Parameters
    ----------
    first, second : str or Path
        The files.

    Returns
    -------
    names : list of str
        The file names, with as many folders as are needed to distinguish them; without
        folders if both paths are the same file.
    """
    parts = [Path(os.path.abspath(path)).parts for path in (first, second)]
    if parts[0] == parts[1]:
        return [parts[0][-1], parts[1][-1]]
    length = 1
    while parts[0][-length:] == parts[1][-length:]:
        length += 1
    return [str(Path(*part[-length:])) for part in parts]


def open_pair(static: str | os.PathLike, moving: str | os.PathLike) -> tuple[Any, Any]:
    """Open the files of two images, and check that they can be registered together.

    Parameters
    ----------
    static, moving : str or Path
        The files: two volumes, or two slices of the same orientation.

    Returns
    -------
    static_image, moving_image : nibabel image
        The images; their values are still on the disk.

    Raises
    ------
    ValueError
        If one cannot be registered, or one is 2D and the other is not.
    """
    images = (
        open_volume(static, "static", slices=True),
        open_volume(moving, "moving", slices=True),
    )
    shapes = [image.shape for image in images]
    if registration_dimension(*images) == 2:
        check_planes(*(image.affine for image in images))
    elif 2 in map(len, shapes):
        raise ValueError(
            f"static and moving must be both 2D or both 3D, got shapes {shapes[0]} "
            f"and {shapes[1]}"
        )
    return images


def registration_dimension(static: Any, moving: Any) -> int:
    """Dimension in which two images are registered.

    Parameters
    ----------
    static, moving : nibabel image
        The images.

    Returns
    -------
    dim : {2, 3}
        2 for two slices.  A slice and a volume are registered in 3D.
    """
    return 2 if is_slice(static.shape) and is_slice(moving.shape) else 3


def check_pair(
    static: str | os.PathLike,
    moving: str | os.PathLike,
    masks: Mapping[str, str | os.PathLike | None],
    channels: Sequence[Sequence[str | os.PathLike]] = ((), ()),
) -> int:
    """Check by their headers that two images can be registered.

    Parameters
    ----------
    static, moving : str or Path
        The images' files.
    masks : dict
        Paths or None, by the names "static_mask" and "moving_mask".
    channels : sequence of sequence of str or Path, optional
        Files of further images of static and of moving.

    Returns
    -------
    dim : {2, 3}
        Dimension of their registration.

    Raises
    ------
    ValueError
        If an image is neither a volume nor a slice, one is 2D and the other is not, or
        a mask is on another grid.
    """
    images = open_pair(static, moving)
    for path, name, image in zip((static, moving), ("static", "moving"), images):
        mask = masks[f"{name}_mask"]
        if mask is None:
            continue
        other = open_volume(mask, f"{name}_mask", slices=True)
        shapes = [(*i.shape, 1)[:3] for i in (other, image)]
        if shapes[0] != shapes[1] or not np.allclose(
            other.affine, image.affine, atol=1e-2
        ):
            raise ValueError(f"{name}_mask: {mask} is not on the grid of {path}")
    for name, paths in zip(("static_channels", "moving_channels"), channels):
        for path in paths:
            open_volume(path, name, slices=True)
    return registration_dimension(*images)
