"""Synthetic pairs of random shapes, and mixtures of sources of pairs.

Random shapes :footcite:p:`Hoffmann2022` have no anatomy and no typical position.
Therefore a network that is trained on them learns to match shapes of any intensity, not
only brains.  No data are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.examples.acquisition import Acquisition, uniform
from dipy_dl_reg.training.examples.deformation import Bending
from dipy_dl_reg.training.examples.synthesis import permutation
from dipy_dl_reg.training.training_set import Example, Pairs
from dipy_dl_reg.validation import check_number, check_whole_number


class ShapePairs:
    """Pairs of images of the same random blobs, with two deformations and contrasts.

    For each class a smooth random image is drawn; a voxel belongs to the class whose
    image is largest there.  The outermost voxels are background.  With probability 0.5
    the blobs are in a shell, as a brain is in a skull, and with probability 0.5 the
    background is dark.

    Parameters
    ----------
    shape : sequence of int
        Shape of the images, 2D or 3D.
    classes : int, optional
        Number of blobs, background included.
    size : int, optional
        Voxels between the control points of the smooth images.
    edge : float, optional
        Width of the transition from one class to the next, voxels, about.
    scored : int, optional
        Number of classes that become labels.
    count : int, optional
        Number of pairs of the fixed enumeration.
    acquisition : Acquisition, optional
        Defects of the images.
    **geometry : dict
        Options of `Bending`; `bending` is 2 voxels by default.

    Raises
    ------
    ValueError
        If `shape` is not of 2 or 3 numbers, or another option is out of range.

    References
    ----------
    .. footbibliography::
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        classes: int = 12,
        size: int = 8,
        edge: float = 1.0,
        scored: int = 6,
        count: int = 20,
        acquisition: Acquisition | None = None,
        **geometry: Any,
    ) -> None:
        self.shape = tuple(shape)
        if len(self.shape) not in (2, 3):
            raise ValueError(f"shape must be 2 or 3 numbers, got {self.shape}.")
        self.classes = check_whole_number("classes", classes, low=3)
        self.size = check_whole_number("size", size, low=1)
        self.scored = min(check_whole_number("scored", scored, low=1), self.classes - 1)
        self.count = check_whole_number("count", count, low=1)
        self.edge = check_number("edge", edge, above=True)
        self.acquisition = Acquisition() if acquisition is None else acquisition
        self.bending = Bending(**({"bending": 2.0} | geometry))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        """Return a pair of a fixed enumeration.

        Parameters
        ----------
        index : int
            Index of the pair.

        Returns
        -------
        example : Example
            Drawn with the number as seed.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.draw(torch.Generator().manual_seed(index))

    def draw(self, generator: torch.Generator) -> Example:
        """Draw a new pair.

        Parameters
        ----------
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        example : Example
            The pair; labels are fractions of classes, drawn from all but the
            background.
        """
        blobs = self._draw_blobs(generator)
        choice = permutation(self.classes - 1, generator)[: self.scored]
        chosen = blobs[[k + 1 for k in choice]]
        sides = []
        dark = uniform(generator) < 0.5
        for _ in range(2):
            intensities = torch.rand(self.classes, generator=generator, **SINGLE)
            intensities[0] *= not dark
            image = torch.einsum("k,k...->...", intensities, blobs)
            field = self.bending(self.shape, generator)
            side = warp(torch.cat([image[None], chosen])[None], field)[0]
            sides.append((self.acquisition(side[:1], generator), side[1:]))
        (static, static_labels), (moving, moving_labels) = sides
        return Example(static, moving, static_labels, moving_labels)

    def _draw_blobs(self, generator: torch.Generator) -> torch.Tensor:
        """Draw the fractions of all classes (K, *shape); class 0 is the background."""
        few = [max(4, round(n / self.size)) for n in self.shape]
        knots = torch.randn(1, self.classes, *few, generator=generator, **SINGLE)
        height = resize_image(knots, self.shape)[0]
        # Distance from the middle, 1 at the faces, with the roughness of the blobs.
        lines = [torch.linspace(-1, 1, n, **SINGLE) for n in self.shape]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        away = grid.square().sum(0).sqrt() + 0.15 * height[0]
        border = 0.7 + 0.2 * uniform(generator)
        # Heights change by about 1 over the distance of two control points.
        steep = self.size / self.edge
        height[0] = torch.where(away > border, 8.0, -8.0)
        if uniform(generator) < 0.5:
            height[-1] = torch.where((away - border + 0.12).abs() < 0.06, 8.0, -8.0)
        return torch.softmax(steep * height, 0)


class Mixture:
    """Pairs drawn from several sources.

    Parameters
    ----------
    sources : sequence of pairs
        Objects with the interface `dipy_dl_reg.training.training_set.Pairs`.
    weights : sequence of float
        Relative probability of drawing a pair from each.

    Raises
    ------
    ValueError
        If there is no source, the number of weights differs from that of the sources,
        or a weight is negative.
    """

    def __init__(self, sources: Sequence[Pairs], weights: Sequence[float]) -> None:
        self.sources = list(sources)
        self.weights = torch.tensor([float(w) for w in weights], **SINGLE)
        if not self.sources or len(self.sources) != len(self.weights):
            raise ValueError(
                f"weights must be one for each source, got {len(self.weights)} for "
                f"{len(self.sources)}."
            )
        if not (bool((self.weights >= 0).all()) and float(self.weights.sum()) > 0):
            raise ValueError(
                f"weights must be 0 or more and not all 0, got {list(weights)}."
            )

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, index: int) -> Example:
        """Return a pair of a fixed enumeration; the first source's pairs come first.

        Parameters
        ----------
        index : int
            Index of the pair.

        Returns
        -------
        example : Example
            The same for the same number.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        for source in self.sources[:-1]:
            if index < len(source):
                return source[index]
            index -= len(source)
        return self.sources[-1][index]

    def draw(self, generator: torch.Generator) -> Example:
        """Draw a new pair.

        Parameters
        ----------
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        example : Example
            From one of the sources.
        """
        which = torch.multinomial(self.weights, 1, generator=generator)
        return self.sources[int(which)].draw(generator)
