"""The training images: pairs, grids, and division into training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.training.lazy_image import LazyImage
from dipy_dl_reg.training.subjects import Subject


class Case(NamedTuple):
    """A training image, and the image to which it is registered.

    Attributes
    ----------
    subject : Subject
        The image, with its label map if there is one.
    static : Subject or None
        The static image of a listed pair.
    prealign : ndarray, shape (D + 1, D + 1), "affine" or None
        From the world of the reference (or of `static`) to that of the image; "affine"
        until it is computed.
    """

    subject: Subject
    static: Subject | None = None
    prealign: Any = None


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The training images: headers are checked, values are not read yet.

    Parameters
    ----------
    cases : tuple of Case
        Cases for training.
    held_out : tuple of Case
        Cases for validation.
    atlas : Subject or None
        Static image of every pair.
    reference : LazyImage or None
        Image that was given for the grid.
    first : LazyImage
        The atlas, or the first image given (also if it is held out); it is the
        reference of all images that have no reference of their own.
    spacing : float
        Voxel size, mm, of all grids.
    prealign_kind : {"none", "affine", "matrices"}
        Kind of the prealign, for a network's card.
    atlas_prealign : ndarray or None
        From the world of the reference to that of the atlas.
    """

    cases: tuple[Case, ...]
    held_out: tuple[Case, ...]
    atlas: Subject | None
    reference: LazyImage | None
    first: LazyImage
    spacing: float
    prealign_kind: str
    atlas_prealign: np.ndarray | None = None

    @property
    def kind(self) -> str:
        """How images are paired.

        Returns
        -------
        kind : {"cross-subject", "atlas", "pairs"}
            Images are paired with each other or with the atlas, or pairs were given.
        """
        if self.cases[0].static is not None:
            return "pairs"
        return "cross-subject" if self.atlas is None else "atlas"

    @property
    def has_labels(self) -> bool:
        """Whether the images have label maps.

        Returns
        -------
        has_labels : bool
            All have, or none.
        """
        return self.cases[0].subject.labels is not None

    @property
    def dim(self) -> int:
        """Dimension of the images.

        Returns
        -------
        dim : {2, 3}
            The same for all images.
        """
        return self.first.grid.dim

    @property
    def has_affine(self) -> bool:
        """Whether the images have affines.

        Returns
        -------
        has_affine : bool
            All have, or none.
        """
        return self.first.has_affine

    def grid_of(self, case: Case) -> Grid:
        """The grid to which an image is resampled.

        Parameters
        ----------
        case : Case
            The image.

        Returns
        -------
        grid : Grid
            The grid, with the field of view of the image's reference.
        """
        reference = self.reference or self.own_reference(case)
        return reference.grid.to_standard(self.spacing)

    def own_reference(self, case: Case) -> LazyImage:
        """Reference of an image if the user gave none.

        Parameters
        ----------
        case : Case
            The image.

        Returns
        -------
        reference : LazyImage
            The static image of its pair, the atlas, or the first image.
        """
        return self.first if case.static is None else case.static.image

    def registered_pairs(self) -> list[tuple[LazyImage, LazyImage]]:
        """Static and moving image of each affine registration.

        Returns
        -------
        pairs : list of (LazyImage, LazyImage)
            A pair for each case and, last, for the atlas if it has another reference.
        """
        pairs = []
        for case in self.cases + self.held_out:
            static = self.own_reference(case)
            if self.kind == "cross-subject" and self.reference is not None:
                static = self.reference
            pairs.append((static, case.subject.image))
        if self.atlas is not None and self.reference is not None:
            pairs.append((self.reference, self.atlas.image))
        return pairs

    def with_prealigns(self, matrices: Sequence[Any]) -> TrainingImages:
        """Replace the prealigns of the images.

        Parameters
        ----------
        matrices : sequence of array
            A matrix for each case; cases for validation are last.

        Returns
        -------
        images : TrainingImages
            A copy.
        """
        cases = self.cases + self.held_out
        cases = tuple(c._replace(prealign=m) for c, m in zip(cases, matrices))
        count = len(self.cases)
        return replace(self, cases=cases[:count], held_out=cases[count:])

    def grids(self) -> list[tuple[int, ...]]:
        """Shapes of the grids to which images are resampled.

        Returns
        -------
        shapes : list of tuple
            The distinct shapes.
        """
        cases = self.cases + self.held_out
        return list(dict.fromkeys(self.grid_of(case).shape for case in cases))

    def summary(self) -> dict[str, Any]:
        """Describe the images by numbers, without names.

        Returns
        -------
        summary : dict
            Values that JSON can hold.
        """
        return {
            "images": len(self.cases),
            "validation": len(self.held_out),
            "pairs": self.kind,
            "labels": self.has_labels,
            "prealign": self.prealign_kind,
            "spacing": self.spacing,
            "shapes": [list(shape) for shape in self.grids()],
        }
