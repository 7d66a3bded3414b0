"""Selects, pairs and resamples the training images.

Headers are checked by `open_training_images`, before any work; values are read by
`read_pairs`.  Grids have the form in which networks are applied, `Grid.to_standard`: a
network is trained on images as it meets them later.
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
    """Open images to train on, and check that they go together.

    Parameters
    ----------
    images : str, Path, or sequence
        As `dipy_dl_reg.fit` takes them.
    seed : int, optional
        Determines which images are held out.
    data : DataOptions
        Labels, pairs, grid, those held out.

    Returns
    -------
    images : TrainingImages
        Their values still unread.

    Raises
    ------
    FileNotFoundError
        If a file or folder is missing.
    ValueError
        If an image cannot be trained on, or arguments do not go together.
    """
    cases, held_out = _open_cases(images, data.labels, "images"), []
    atlas = _open_atlas(data)
    if atlas is not None and cases[0].static is not None:
        raise ValueError("atlas: images are pairs, which have their static images")
    if data.validation is not None and data.validation_part is None:
        held_out = _open_cases(data.validation, data.validation_labels, "validation")
        if (held_out[0].static is None) != (cases[0].static is None):
            raise ValueError("validation must be pairs as images are, or not")
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
    """Read all images, and resample them onto their grids.

    Parameters
    ----------
    images : TrainingImages
        With their prealigns.
    limit : TimeLimit, optional
        Checked before each image.

    Returns
    -------
    pairs : CrossSubject, AtlasPairs or ListedPairs
        To train on.
    validation : AtlasPairs, ListedPairs or None
        Of those held out; without an atlas, each of them once with the next.

    Raises
    ------
    ValueError
        If a file is damaged, or there is nothing in it to be registered.
    TimeoutError
        If the time is over before all are read.
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
    """Pair each image with the next one: not all pairs, which are many."""
    pairs = list(zip(images, images[1:] + images[:1]))
    maps = None if labels is None else list(zip(labels, labels[1:] + labels[:1]))
    return ListedPairs(pairs, maps, normalized=normalized)


def _open_cases(images: Any, labels: Any, name: str) -> list[Case]:
    """A case of each image or pair given, unread."""
    found = open_subjects(images, labels, name=name)
    return [
        Case(item) if isinstance(item, Subject) else Case(item[1], item[0])
        for item in found
    ]


def _open_atlas(data: DataOptions) -> Subject | None:
    """The atlas, unread."""
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
    """Move a part of the cases, chosen by the seed, to those held out."""
    order = np.random.default_rng(seed).permutation(len(images.cases))
    count = max(_least_count(images), round(part * len(order)))
    chosen = set(order[:count].tolist())
    return replace(
        images,
        held_out=tuple(c for i, c in enumerate(images.cases) if i in chosen),
        cases=tuple(c for i, c in enumerate(images.cases) if i not in chosen),
    )


def _check_counts(images: TrainingImages) -> None:
    """Check that there is an image to pair each one with."""
    least = _least_count(images)
    for cases, name in ((images.cases, "images"), (images.held_out, "validation")):
        if len(cases) < least and (cases or name == "images"):
            left = " besides those held out" if images.held_out else ""
            raise ValueError(
                f"{name} must be {least} at least{left}, got {len(cases)}: "
                "give more, an atlas, or pairs (static, moving)"
            )


def _least_count(images: TrainingImages) -> int:
    """How many cases make a pair."""
    case = (images.cases or images.held_out)[0]
    return 2 if case.static is None and images.atlas is None else 1


def _finest_spacing(grid: Grid) -> float:
    """The smallest voxel size, of axes that have more than one."""
    return min((s for s, n in zip(grid.spacing, grid.shape) if n > 1), default=1.0)
