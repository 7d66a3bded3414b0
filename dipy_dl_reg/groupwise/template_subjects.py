"""The subjects of a template: reading, checks, scaling of intensities, files.

Each subject is read once and stored in the folder of the computation, so that worker
processes read it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any, NamedTuple

from dipy.segment.threshold import otsu
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.io.checksums import compute_image_checksum
from dipy_dl_reg.io.input_channels import read_input_channels
from dipy_dl_reg.registration.image_checks import check_image, check_mask
from dipy_dl_reg.validation import check_affine

#: Intensities beyond these quantiles are clipped before a threshold is computed.
_LOW, _HIGH = 0.001, 0.999
#: An image shows all of its object if at most this part of its faces is foreground.
_ON_FACES = 0.02
#: Suffixes of image files, removed from names of subjects.
_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mnc", ".hdr", ".img")


class TemplateSubject(NamedTuple):
    """An image of one or several channels, with scaled intensities.

    Attributes
    ----------
    values : ndarray of float32, shape (*shape, K)
        Intensities: 0 is the background of a channel, and 1 the median of its
        foreground.  NaN is missing data, which includes voxels outside the mask.
    grid : Grid
        Grid of the image.
    foreground : ndarray of bool, shape (*shape,)
        Voxels of the object, by the first channel.
    complete : bool
        Whether the field of view contains all of the object, so that there is only
        background beyond it.
    """

    values: np.ndarray
    grid: Grid
    foreground: np.ndarray
    complete: bool


def read_subject(image: Any, mask: Any, name: str) -> TemplateSubject:
    """Read the channels of a subject, check them, and scale their intensities.

    Parameters
    ----------
    image : str, Path, nibabel image, or sequence of these
        The image, or its channels; channels on other grids are resampled to the grid of
        the first.
    mask : str, Path, nibabel image, array or None
        Only voxels other than 0 are averaged and compared.
    name : str
        Name of the subject in error messages.

    Returns
    -------
    subject : TemplateSubject
        The subject.

    Raises
    ------
    ValueError
        If an image cannot be used.
    FileNotFoundError
        If a file is missing.
    """
    images = list(image) if isinstance(image, (list, tuple)) else [image]
    channels = read_input_channels(images, None, mask, name=name)
    affine = channels[0].grid2world
    if affine is None:
        raise ValueError(
            f"{name} must be a file or a nibabel image, which has an affine, got an "
            "array."
        )
    scaled = []
    for k, channel in enumerate(channels):
        label = name if len(channels) == 1 else f"{name} (channel {k + 1})"
        values = check_image(channel.values, label)
        inside = check_mask(channel.mask, values, label)
        values = np.asarray(values, dtype=np.float64)
        scaled.append(values if inside is None else np.where(inside, values, np.nan))
    dim = scaled[0].ndim
    grid = Grid(scaled[0].shape, check_affine(affine, dim, f"the affine of {name}"))
    foreground = find_foreground(scaled[0])
    values = np.stack([_scale_intensities(each, name) for each in scaled], -1)
    return TemplateSubject(
        values.astype(np.float32), grid, foreground, _is_complete(foreground)
    )


def find_foreground(image: np.ndarray) -> np.ndarray:
    """Find the voxels of the object, with those that are dark.

    The limit lies halfway between the background, which is the median of the voxels
    below Otsu's threshold, and this threshold.

    Parameters
    ----------
    image : ndarray
        Intensities; NaN is missing data.

    Returns
    -------
    foreground : ndarray of bool
        True in the object.
    """
    background, threshold = _find_levels(image)
    with np.errstate(invalid="ignore"):
        return image > (background + threshold) / 2


def _find_levels(image: np.ndarray) -> tuple[float, float]:
    """The intensity of the background, and Otsu's threshold."""
    known = image[np.isfinite(image)].astype(np.float64)
    low, high = np.quantile(known, (_LOW, _HIGH))
    threshold = otsu(np.clip(known, low, high)) if high > low else low
    return float(np.median(known[known <= threshold])), float(threshold)


def _scale_intensities(image: np.ndarray, name: str) -> np.ndarray:
    """Scale the background to 0 and the median of the foreground to 1."""
    background, _ = _find_levels(image)
    foreground = image[find_foreground(image)]
    if not foreground.size or not np.median(foreground) > background:
        raise ValueError(f"{name} must have an object brighter than its background.")
    return (image - background) / (np.median(foreground) - background)


def _is_complete(foreground: np.ndarray) -> bool:
    """Whether an object does not continue beyond the faces of its image."""
    faces = [
        foreground.take(end, axis).ravel()
        for axis in range(foreground.ndim)
        for end in (0, -1)
    ]
    return bool(np.concatenate(faces).mean() <= _ON_FACES)


def write_subject(subject: TemplateSubject, path: str | os.PathLike) -> None:
    """Store a subject.

    Parameters
    ----------
    subject : TemplateSubject
        The subject.
    path : str or Path
        A file of the suffix ``.npz``; an existing one is replaced.
    """
    with write_atomically(path, overwrite=True) as temporary:
        with open(temporary, "wb") as file:
            np.savez(
                file,
                values=subject.values,
                affine=subject.grid.affine,
                foreground=subject.foreground,
                complete=np.array(subject.complete),
            )


def load_subject(path: str | os.PathLike) -> TemplateSubject:
    """Read a subject that `write_subject` stored.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    subject : TemplateSubject
        The same subject.
    """
    with np.load(path) as stored:
        values = stored["values"]
        grid = Grid(values.shape[:-1], stored["affine"])
        return TemplateSubject(
            values, grid, stored["foreground"], bool(stored["complete"])
        )


def compute_digest(subject: TemplateSubject) -> str:
    """Compute a checksum of a subject's values and grid.

    Parameters
    ----------
    subject : TemplateSubject
        The subject.

    Returns
    -------
    digest : str
        64 hexadecimal digits.
    """
    return compute_image_checksum(subject.values, subject.grid.affine)


def name_subjects(images: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    """Name the subjects by the user's names or by their files.

    Parameters
    ----------
    images : sequence
        The images; of several channels, the first names the subject.
    names : sequence of str, optional
        The user's names.

    Returns
    -------
    names : list of str
        One for each subject, all different.

    Raises
    ------
    ValueError
        If the number of names differs from that of the images, a name cannot be part of
        a file name, or two subjects have the same name.
    """
    if names is None:
        names = [_name_by_file(image, k) for k, image in enumerate(images)]
    names = [str(name) for name in names]
    if len(names) != len(images):
        raise ValueError(
            f"names must have one entry for each of the {len(images)} images, got "
            f"{len(names)}."
        )
    for name in names:
        if not name or name != os.path.basename(name) or name.startswith("."):
            raise ValueError(f"names must be parts of file names, got {name!r}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two images have the name {twice[0]!r}: give names that differ."
        )
    return names


def _name_by_file(image: Any, index: int) -> str:
    """The name of an image's file without suffix, or a number."""
    first = image[0] if isinstance(image, (list, tuple)) else image
    path = first
    if not isinstance(first, (str, os.PathLike)):
        get_filename = getattr(first, "get_filename", lambda: None)
        path = get_filename()
    if path is None:
        return f"subject-{index + 1:03d}"
    name = Path(path).name
    suffix = next((s for s in _SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]
