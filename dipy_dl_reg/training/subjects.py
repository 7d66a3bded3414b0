"""Finds images of many subjects and their label maps, and checks their headers."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any, NamedTuple

from dipy_dl_reg.training.image_tensors import as_array
from dipy_dl_reg.training.lazy_image import LazyImage, open_lazy_image

#: A file, or an image in memory.
Image = Any

ENDINGS = (".nii.gz", ".nii")
#: Possible suffixes of an image's name in the name of its label map.
LABEL_SUFFIXES = ("", "_labels", "_label", "_seg", "_dseg")


class Subject(NamedTuple):
    """An image, and the label map that belongs to it.

    Attributes
    ----------
    image : LazyImage
        The image.
    labels : LazyImage or None
        Its label map, on any grid.
    """

    image: LazyImage
    labels: LazyImage | None = None

    @classmethod
    def with_labels(cls, image: LazyImage, labels: LazyImage | None = None) -> Subject:
        """Combine an image with its label map, after a check of their grids.

        Parameters
        ----------
        image : LazyImage
            The image.
        labels : LazyImage, optional
            Its label map.

        Returns
        -------
        subject : Subject
            Both.

        Raises
        ------
        ValueError
            If their shapes differ, but one of them has no affine.
        """
        if labels is not None and labels.grid.shape != image.grid.shape:
            have_affines = labels.has_affine and image.has_affine
            if not have_affines or labels.grid.dim != image.grid.dim:
                raise ValueError(
                    f"{labels.name} has the shape {labels.grid.shape}, but "
                    f"{image.name} {image.grid.shape}"
                )
        return cls(image, labels)


def open_subjects(
    images: Any, labels: Any = None, *, name: str = "images"
) -> list[Subject] | list[tuple[Subject, Subject]]:
    """Find images and their label maps, and check their headers.

    Parameters
    ----------
    images : str, Path, or sequence
        A folder, of which all NIfTI files are used, by name; a sequence of files,
        nibabel images or arrays; an array of several images; or a sequence of pairs
        (static, moving) of these.
    labels : str, Path, or sequence, optional
        A sequence like `images`; or a folder with a file for each image, whose name is
        that of the image, with or without one of `LABEL_SUFFIXES`.
    name : str, optional
        Name of the images in error messages.

    Returns
    -------
    subjects : list of Subject, or list of (Subject, Subject)
        Pairs if pairs were given.

    Raises
    ------
    FileNotFoundError
        If a folder, a file, or an image's label map is missing.
    ValueError
        If there is no image, an image cannot be used, or labels do not match.
    """
    items = _list_images(images, name)
    are_pairs = [isinstance(item, (tuple, list)) and len(item) == 2 for item in items]
    if any(are_pairs) != all(are_pairs):
        raise ValueError(f"{name} must be all pairs (static, moving), or all images")
    paired = all(are_pairs)
    if paired:
        items = [image for pair in items for image in pair]
    opened = _open_all(items, name, paired)
    maps: Sequence[LazyImage | None] = [None] * len(opened)
    if labels is not None:
        labels = _match_labels(labels, items, name, paired)
        maps = _open_all(labels, f"labels of {name}", paired)
    subjects = [Subject.with_labels(*both) for both in zip(opened, maps)]
    return list(zip(subjects[::2], subjects[1::2])) if paired else subjects


def _open_all(items: Sequence[Image], name: str, paired: bool) -> list[LazyImage]:
    """Open each image of a list; error messages contain its position in the list."""
    places = [f"[{i // 2}][{i % 2}]" if paired else f"[{i}]" for i in range(len(items))]
    return [
        open_lazy_image(
            item, name if isinstance(item, (str, os.PathLike)) else name + place
        )
        for item, place in zip(items, places)
    ]


def _list_images(images: Any, name: str) -> list[Image]:
    """List the images of a folder, a sequence or an array, at least one."""
    if isinstance(images, (str, os.PathLike)):
        return _nifti_files(Path(images), name)
    if getattr(images, "ndim", 0) > 2 and not hasattr(images, "dataobj"):
        images = list(as_array(images))  # a stack
    if not isinstance(images, (list, tuple)):
        raise ValueError(
            f"{name} must be a folder, or a list of files, nibabel images or arrays, "
            f"got one {type(images).__name__}"
        )
    if len(images) == 0:
        raise ValueError(f"{name} must hold at least one image, got none")
    return list(images)


def _nifti_files(folder: Path, name: str) -> list[Path]:
    """List the NIfTI files of a folder, by name."""
    if not folder.exists():
        raise FileNotFoundError(f"{name}: no such folder: {folder}")
    if not folder.is_dir():
        raise ValueError(f"{name}: {folder} is one file; give its folder, or a list")
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.name.endswith(ENDINGS) and not path.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"{name}: no NIfTI file (.nii, .nii.gz) in {folder}")
    return files


def _match_labels(
    labels: Any, images: Sequence[Image], name: str, paired: bool
) -> list[Image]:
    """Find the label map of each image, in the order of the images."""
    if isinstance(labels, (str, os.PathLike)):
        files = {
            path.name: path for path in _nifti_files(Path(labels), f"labels of {name}")
        }
        return [_label_file(image, files, Path(labels)) for image in images]
    labels = _list_images(labels, f"labels of {name}")
    if paired:
        labels = [one for pair in labels for one in pair]
    if len(labels) != len(images):
        raise ValueError(
            f"labels must have a map for each of {len(images)} {name}, got "
            f"{len(labels)}"
        )
    return labels


def _label_file(image: Image, files: dict[str, Path], folder: Path) -> Path:
    """Find the label file of a folder whose name matches that of an image."""
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(
            "labels can only be a folder if images are files; give a list of label maps"
        )
    stem = _stem(image)
    wanted = [stem + suffix + end for suffix in LABEL_SUFFIXES for end in ENDINGS]
    found = [files[name] for name in wanted if name in files]
    if not found:
        raise FileNotFoundError(
            f"labels: {folder} has no file for {image}: neither {stem}.nii.gz nor "
            f"{stem}_labels.nii.gz"
        )
    if len(found) > 1:
        raise ValueError(f"labels: {found[0]} and {found[1]} are both for {image}")
    return found[0]


def _stem(path: str | os.PathLike) -> str:
    """A file's name without the ending."""
    name = Path(path).name
    for end in ENDINGS:
        name = name.removesuffix(end)
    return name


def check_together(images: Sequence[LazyImage]) -> None:
    """Check that images can be resampled to a common grid.

    Parameters
    ----------
    images : sequence of LazyImage
        The images, the reference first.

    Raises
    ------
    ValueError
        If the images differ in their number of axes, if only some have affines, or if
        none has an affine and they differ in shape.
    """
    first = images[0]
    for image in images[1:]:
        if image.grid.dim != first.grid.dim:
            raise ValueError(
                f"images must have the same number of axes, got {image.grid.shape} "
                f"({image.name}) and {first.grid.shape} ({first.name})"
            )
        if image.has_affine != first.has_affine:
            raise ValueError(
                "all images or none must have affines: arrays cannot be combined with "
                "files; give nibabel images"
            )
        if not image.has_affine and image.grid.shape != first.grid.shape:
            raise ValueError(
                "arrays must have the same shape, because they have no affines, got "
                f"{image.grid.shape} and {first.grid.shape}"
            )
