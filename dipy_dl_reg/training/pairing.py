"""Selects, pairs and resamples the training images.

`open_training_images` checks the headers first; `read_pairs` reads the values later.
Images are resampled to the standard grid on which networks are applied
(`Grid.to_standard`), so that training images are similar to those of registration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.options import takes_options
from dipy_dl_reg.training.image_tensors import normalize
from dipy_dl_reg.training.lazy_image import LazyImage, open_lazy_image
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.subjects import Subject, check_together, open_subjects
from dipy_dl_reg.training.training_images import Case, TrainingImages
from dipy_dl_reg.training.training_options import DataOptions
from dipy_dl_reg.training.training_set import (
    AtlasPairs,
    CrossSubject,
    ListedPairs,
    Pairs,
)


@takes_options(DataOptions, "data")
def open_training_images(
    images: Any, *, seed: int = 0, data: DataOptions
) -> TrainingImages:
    """Open the training images, and check that they can be used together.

    Parameters
    ----------
    images : str, Path, or sequence
        See `dipy_dl_reg.fit`.
    seed : int, optional
        Determines which images are held out for validation.
    data : DataOptions
        Options of labels, pairs, grid and validation images.

    Returns
    -------
    images : TrainingImages
        The images, whose values are not read yet.

    Raises
    ------
    FileNotFoundError
        If a file or folder is missing.
    ValueError
        If an image cannot be used, or options contradict each other.
    """
    cases, held_out = _open_cases(images, data.labels, "images"), []
    atlas = _open_atlas(data)
    if atlas is not None and cases[0].static is not None:
        raise ValueError("atlas cannot be given with pairs, which have static images")
    if data.validation is not None and data.validation_part is None:
        held_out = _open_cases(data.validation, data.validation_labels, "validation")
        if (held_out[0].static is None) != (cases[0].static is None):
            raise ValueError("images and validation must both be pairs, or neither")
    reference = None
    if data.reference is not None:
        reference = open_lazy_image(data.reference, "reference")
    grid_image = reference or (cases[0].static or atlas or cases[0].subject).image
    opened = TrainingImages(
        cases=tuple(cases),
        held_out=tuple(held_out),
        atlas=atlas,
        reference=reference,
        first=(atlas or cases[0].subject).image,
        spacing=float(data.spacing or _finest_spacing(grid_image.grid)),
        prealign_kind=data.prealign_kind,
    )
    _check_all(opened, grid_image)
    count = len(cases) + len(held_out)
    opened = opened.with_prealigns(data.matrices(count, grid_image.grid.dim))
    if data.validation_part is not None:
        opened = _hold_out(opened, data.validation_part, seed)
    _check_counts(opened)
    return opened


def read_pairs(
    images: TrainingImages, limit: TimeLimit | None = None
) -> tuple[Pairs, Pairs | None]:
    """Read all images, and resample them to their grids.

    Parameters
    ----------
    images : TrainingImages
        The images, with their prealigns.
    limit : TimeLimit, optional
        Checked before each image.

    Returns
    -------
    pairs : CrossSubject, AtlasPairs or ListedPairs
        The training pairs.
    validation : AtlasPairs, ListedPairs or None
        Pairs of the images that were held out; without an atlas, each image is paired
        with the next one.

    Raises
    ------
    ValueError
        If a file is damaged, or an image is constant or has only missing values.
    TimeoutError
        If the time limit is reached before all images are read.
    """
    count = len(images.cases) + len(images.held_out)
    shapes = ", ".join("x".join(map(str, shape)) for shape in images.grids()[:3])
    logger.info(f"Reading {count} images: {shapes} voxels of {images.spacing:g} mm")
    limit = limit or TimeLimit()
    pairs = _read_cases(images, images.cases, limit, CrossSubject)
    if not images.held_out:
        return pairs, None
    return pairs, _read_cases(images, images.held_out, limit, _pair_with_next)


def _read_cases(
    images: TrainingImages, cases: Sequence[Case], limit: TimeLimit, pair: Any
) -> Pairs:
    """Read some cases; `pair` makes pairs of subjects without an atlas."""
    grids = [images.grid_of(case) for case in cases]
    read = [_read(c.subject, g, c.prealign, limit) for c, g in zip(cases, grids)]
    moving, labels = _split(read)
    if images.kind == "cross-subject":
        return pair(moving, labels, normalized=True)
    if images.atlas is not None:
        atlas, atlas_map = _read(images.atlas, grids[0], images.atlas_prealign, limit)
        return AtlasPairs(atlas, moving, atlas_map, labels, normalized=True)
    listed = [(c.static, g) for c, g in zip(cases, grids) if c.static is not None]
    static, static_labels = _split([_read(s, g, None, limit) for s, g in listed])
    maps = None
    if labels is not None and static_labels is not None:
        maps = list(zip(static_labels, labels))
    return ListedPairs(list(zip(static, moving)), maps, normalized=True)


def _read(
    subject: Subject, grid: Grid, prealign: np.ndarray | None, limit: TimeLimit
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image scaled to about [0, 1] and label map, on a grid."""
    if limit.exceeded():
        limit.stop("all images were read")
    image = normalize(subject.image.values_on(grid, prealign)).numpy()
    if subject.labels is None:
        return image, None
    return image, subject.labels.labels_on(grid, prealign)


def _split(
    read: Sequence[tuple[np.ndarray, np.ndarray | None]],
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Images, and label maps if there are any."""
    labels = [label for _, label in read if label is not None]
    return [image for image, _ in read], labels or None


def _pair_with_next(
    images: list[np.ndarray], labels: list[np.ndarray] | None, *, normalized: bool
) -> ListedPairs:
    """Pair each image with the next one, because there are too many pairs in all."""
    pairs = list(zip(images, images[1:] + images[:1]))
    maps = None if labels is None else list(zip(labels, labels[1:] + labels[:1]))
    return ListedPairs(pairs, maps, normalized=normalized)


def _open_cases(images: Any, labels: Any, name: str) -> list[Case]:
    """Make a case for each image or pair, without reading values."""
    found = open_subjects(images, labels, name=name)
    return [
        Case(item) if isinstance(item, Subject) else Case(item[1], item[0])
        for item in found
    ]


def _open_atlas(data: DataOptions) -> Subject | None:
    """Open the atlas, without reading its values."""
    if data.atlas is None:
        return None
    atlas, labels = open_lazy_image(data.atlas, "atlas"), None
    if data.atlas_labels is not None:
        labels = open_lazy_image(data.atlas_labels, "atlas_labels")
    return Subject.with_labels(atlas, labels)


def _check_all(images: TrainingImages, reference: LazyImage) -> None:
    """Check that all images can be resampled onto a grid of the reference."""
    cases = images.cases + images.held_out
    subjects = [s for c in cases for s in (c.static, c.subject) if s is not None]
    if images.atlas is not None:
        subjects.insert(0, images.atlas)
    check_together([reference, *(subject.image for subject in subjects)])


def _hold_out(images: TrainingImages, part: float, seed: int) -> TrainingImages:
    """Hold out a fraction of the cases for validation, chosen by the seed."""
    order = np.random.default_rng(seed).permutation(len(images.cases))
    count = max(_least_count(images), round(part * len(order)))
    chosen = set(order[:count].tolist())
    return replace(
        images,
        held_out=tuple(c for i, c in enumerate(images.cases) if i in chosen),
        cases=tuple(c for i, c in enumerate(images.cases) if i not in chosen),
    )


def _check_counts(images: TrainingImages) -> None:
    """Check that there are enough images to make pairs."""
    least = _least_count(images)
    for cases, name in ((images.cases, "images"), (images.held_out, "validation")):
        if len(cases) < least and (cases or name == "images"):
            left = " besides those held out" if images.held_out else ""
            raise ValueError(
                f"{name} must be {least} at least{left}, got {len(cases)}: "
                "give more, an atlas, or pairs (static, moving)"
            )


def _least_count(images: TrainingImages) -> int:
    """Minimum number of cases to make a pair."""
    case = (images.cases or images.held_out)[0]
    return 2 if case.static is None and images.atlas is None else 1


def _finest_spacing(grid: Grid) -> float:
    """The smallest voxel size, of axes that have more than one."""
    return min((s for s, n in zip(grid.spacing, grid.shape) if n > 1), default=1.0)
