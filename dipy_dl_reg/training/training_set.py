"""Pairs of images for training, from arrays.

A network can be trained on any object with the interface `Pairs`.  The names of its
attributes with tensors are part of checkpoints (`fingerprint`) and must not change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch

from dipy_dl_reg.training.image_tensors import (
    check_one_shape,
    image_tensors,
    label_tensors,
)


class Example(NamedTuple):
    """A pair of images on one grid or, with an additional first axis B, a batch.

    Attributes
    ----------
    static, moving : Tensor, shape (1, *shape)
        Intensities in about [0, 1].
    static_labels, moving_labels : Tensor, optional
        Either label maps, whole numbers ``(1, *shape)`` with 0 for the background; or
        shares ``(K, *shape)``, the fraction of each voxel that each of K classes
        occupies.
    """

    static: torch.Tensor
    moving: torch.Tensor
    static_labels: torch.Tensor | None = None
    moving_labels: torch.Tensor | None = None


#: Images, their label maps, and an index.
_Side = tuple[list[torch.Tensor], list[torch.Tensor] | None, int]


class Pairs(Protocol):
    """Interface of the pairs on which a network can be trained."""

    def draw(self, generator: torch.Generator) -> Example:
        """Draw a pair.

        Parameters
        ----------
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        example : Example
            The pair.
        """

    def __len__(self) -> int:
        """Number of pairs of a fixed enumeration, for validation."""

    def __getitem__(self, index: int) -> Example:
        """Return a pair of this enumeration, always the same for an index."""


class _EquallyLikely:
    """Base class of pairs that are all drawn with the same probability."""

    #: Whether intensities were scaled here.
    scaled = False

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Example:
        raise NotImplementedError

    def draw(self, generator: torch.Generator) -> Example:
        """Draw a pair, each with the same probability.

        Parameters
        ----------
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        example : Example
            The pair.
        """
        index = torch.randint(len(self), (), generator=generator, device="cpu")
        return self[int(index)]


class CrossSubject(_EquallyLikely):
    """Ordered pairs of two different subjects.

    Parameters
    ----------
    images : sequence of array, shape (*shape)
        An image of each subject, all of one shape.
    labels : sequence of array of int, shape (*shape), optional
        A label map of each subject.
    groups : sequence, optional
        Subjects are paired only with those of the same group, such as one class of
        digits; by default with all.
    normalized : bool, optional
        If True, intensities are not scaled by `normalize`.

    Raises
    ------
    ValueError
        If there are no two images to pair, shapes differ, or an image cannot be used.
    """

    def __init__(
        self,
        images: Sequence[Any],
        labels: Sequence[Any] | None = None,
        groups: Sequence[Any] | None = None,
        *,
        normalized: bool = False,
    ) -> None:
        self.images = image_tensors(images, "images", normalized)
        self.scaled = not normalized
        self.labels = label_tensors(labels, self.images, "labels")
        check_one_shape(self.images, "images")
        groups = [0] * len(self.images) if groups is None else list(groups)
        if len(groups) != len(self.images):
            raise ValueError(
                f"groups must have a value for each of {len(self.images)} images, got "
                f"{len(groups)}."
            )
        members: dict[Any, list[int]] = {}
        for subject, group in enumerate(groups):
            members.setdefault(group, []).append(subject)
        self.members = [m for m in members.values() if len(m) > 1]
        if not self.members:
            raise ValueError(
                "images must have at least two images of a group, got "
                f"{len(self.images)}."
            )
        self._ends = list(accumulate(len(m) * (len(m) - 1) for m in self.members))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        """Return one of all ordered pairs.

        Parameters
        ----------
        index : int
            Index of the pair.

        Returns
        -------
        example : Example
            The pair.
        """
        _check_index(index, len(self))
        group = bisect_right(self._ends, index)
        members = self.members[group]
        index -= self._ends[group - 1] if group else 0
        first, second = divmod(index, len(members) - 1)
        return self._pair(members[first], members[second + (second >= first)])

    def _pair(self, static: int, moving: int) -> Example:
        images, labels = self.images, self.labels
        return _example((images, labels, static), (images, labels, moving))


class AtlasPairs(_EquallyLikely):
    """Pairs of every subject (moving) with an atlas (static).

    Parameters
    ----------
    atlas : array, shape (*shape)
        The static image of all pairs.
    images : sequence of array, shape (*shape)
        The moving images, on the atlas's grid.
    atlas_labels : array of int, shape (*shape), optional
        Label map of the atlas.
    labels : sequence of array of int, shape (*shape), optional
        Label maps of the moving images.
    normalized : bool, optional
        Take intensities as they are, without scaling by `normalize`.

    Raises
    ------
    ValueError
        If there is no image, shapes differ, only one side has labels, or an image
        cannot be used.
    """

    def __init__(
        self,
        atlas: Any,
        images: Sequence[Any],
        atlas_labels: Any = None,
        labels: Sequence[Any] | None = None,
        *,
        normalized: bool = False,
    ) -> None:
        if (atlas_labels is None) != (labels is None):
            raise ValueError("atlas_labels and labels go together: both, or neither.")
        self.scaled = not normalized
        maps = None if atlas_labels is None else [atlas_labels]
        self.atlas = image_tensors([atlas], "atlas", normalized)
        self.atlas_labels = label_tensors(maps, self.atlas, "atlas_labels")
        self.images = image_tensors(images, "images", normalized)
        self.labels = label_tensors(labels, self.images, "labels")
        check_one_shape(self.atlas + self.images, "atlas and images")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """Return the pair of the atlas and one image.

        Parameters
        ----------
        index : int
            Number of the image.

        Returns
        -------
        example : Example
            The pair of the atlas and the image.
        """
        _check_index(index, len(self))
        return _example(
            (self.atlas, self.atlas_labels, 0), (self.images, self.labels, index)
        )


class ListedPairs(_EquallyLikely):
    """The pairs of a list of one or more pairs.

    Parameters
    ----------
    pairs : sequence of (array, array), each of shape (*shape)
        Static and moving images.  Both images of a pair, and all pairs of a batch, must
        have the same shape.
    labels : sequence of (array of int, array of int), optional
        Label maps of both images of each pair.
    normalized : bool, optional
        Take intensities as they are, without scaling by `normalize`.

    Raises
    ------
    ValueError
        If there is no pair, shapes differ within one, or an image cannot be used.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Any, Any]],
        labels: Sequence[tuple[Any, Any]] | None = None,
        *,
        normalized: bool = False,
    ) -> None:
        self.scaled = not normalized
        sides = _sides(pairs, "pairs")
        self.static, self.moving = (
            image_tensors(x, "pairs", normalized) for x in sides
        )
        for pair in zip(self.static, self.moving):
            check_one_shape(pair, "the images of a pair")
        maps = (None, None) if labels is None else _sides(labels, "labels")
        self.static_labels = label_tensors(maps[0], self.static, "labels")
        self.moving_labels = label_tensors(maps[1], self.moving, "labels")

    def __len__(self) -> int:
        return len(self.static)

    def __getitem__(self, index: int) -> Example:
        """Return one of the pairs.

        Parameters
        ----------
        index : int
            Index of the pair in the list.

        Returns
        -------
        example : Example
            The pair.
        """
        _check_index(index, len(self))
        return _example(
            (self.static, self.static_labels, index),
            (self.moving, self.moving_labels, index),
        )


def as_pairs(data: Any) -> Pairs:
    """Convert images or pairs of images to an object with the interface `Pairs`.

    Parameters
    ----------
    data : array of shape (N, *shape), sequence of arrays, of pairs of arrays, or pairs
        Images become a `CrossSubject`, and a list of pairs becomes a `ListedPairs`; an
        object with ``draw`` is returned unchanged.

    Returns
    -------
    pairs : object
        An object with the interface `Pairs`.

    Raises
    ------
    ValueError
        If `data` is none of these.
    """
    if hasattr(data, "draw"):
        return data
    try:
        first = data[0]
    except (TypeError, IndexError, KeyError):
        raise ValueError(
            "pairs must be images, a list of (static, moving), or an object with "
            f"draw, got {type(data).__name__}."
        ) from None
    paired = isinstance(first, (tuple, list)) and len(first) == 2
    return ListedPairs(data) if paired else CrossSubject(data)


def _sides(pairs: Sequence[Any], name: str) -> tuple[list[Any], list[Any]]:
    """Split pairs into their first and second images."""
    if len(pairs) == 0 or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{name} must be a list of pairs (static, moving).")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _example(static: _Side, moving: _Side) -> Example:
    """Make an example from two tuples (images, labels or None, index)."""
    (image, labels), (other, other_labels) = (
        (images[i], None if maps is None else maps[i])
        for images, maps, i in (static, moving)
    )
    return Example(image, other, labels, other_labels)


def _check_index(index: int, count: int) -> None:
    """Raise for an invalid index of a pair."""
    if not 0 <= index < count:
        raise IndexError(f"pair {index} of {count}.")
