"""Images of many subjects and their label maps, found and checked by their headers."""

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
#: What may follow an image's name in the name of its label map.
LABEL_SUFFIXES = ("", "_labels", "_label", "_seg", "_dseg")


class Subject(NamedTuple):
    """An image, and the label map that belongs to it.

    Attributes
    ----------
    image : LazyImage
        The image.
    labels : LazyImage or None
        Its label map, on whatever grid.
    """

    image: LazyImage
    labels: LazyImage | None = None

    @classmethod
    def with_labels(cls, image: LazyImage, labels: LazyImage | None = None) -> Subject:
        """Pair an image with its label map, if the map can be resampled onto its grid.

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
            If their shapes differ, and there are no affines that relate them.
        """
        if labels is not None and labels.grid.shape != image.grid.shape:
            have_affines = labels.has_affine and image.has_affine
            if not have_affines or labels.grid.dim != image.grid.dim:
                raise ValueError(
                    f"{labels.name} has the shape {labels.grid.shape}, and "
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
        A folder, of which all NIfTI files are taken, by name; a sequence of files,
        nibabel images or arrays; an array of several images; or a sequence of pairs
        (static, moving) of these.
    labels : str, Path, or sequence, optional
        A sequence as `images` is; or a folder with a file for each image, of the
        image's name or of that and one of `LABEL_SUFFIXES`.
    name : str, optional
        What errors call the images.

    Returns
    -------
    subjects : list of Subject, or list of (Subject, Subject)
        Pairs if pairs were given.

    Raises
    ------
    FileNotFoundError
        If a folder or a file is missing, or an image's label map is.
    ValueError
        If there is no image, one cannot be used, or labels do not match.
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
    """Open each image of a list; errors name its place in the list."""
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
    """The NIfTI files of a folder, by name."""
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
    """The label map of each image, in their order."""
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
            f"labels of {name} must be as many as the images, {len(images)}, got "
            f"{len(labels)}"
        )
    return labels


def _label_file(image: Image, files: dict[str, Path], folder: Path) -> Path:
    """The one label file of a folder whose name matches that of an image."""
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(
            "labels can be a folder only if images are files; give a list of label maps"
        )
    stem = _stem(image)
    wanted = [stem + suffix + end for suffix in LABEL_SUFFIXES for end in ENDINGS]
    found = [files[name] for name in wanted if name in files]
    if not found:
        raise FileNotFoundError(
            f"labels: {folder} holds none for {image}: neither {stem}.nii.gz nor "
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
    """Check that images can be resampled onto one grid.

    Parameters
    ----------
    images : sequence of LazyImage
        The images, the reference first.

    Raises
    ------
    ValueError
        If they differ in their number of axes; if only some have affines; or if none
        has, and they differ in shape.
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
                "images must all have affines or none: arrays cannot be placed beside "
                "files; give nibabel images"
            )
        if not image.has_affine and image.grid.shape != first.grid.shape:
            raise ValueError(
                "arrays must be of one shape, since they have no affines, got "
                f"{image.grid.shape} and {first.grid.shape}"
            )
