"""Synthesis of image pairs from label maps; each draw is a new pair.

A label map contains the positions of the tissues, not their intensities.  Intensities
are drawn for every pair, so that a network learns anatomy and not the contrast of a
scanner :footcite:p:`Hoffmann2022`.  No image of a person is used.

Label maps are stored as fractions (called shares): for each class, the fraction of each
voxel that it occupies.  An image is the sum of the fractions weighted by the
intensities of the classes, so that it has partial volume effects.  Warped labels vary
smoothly, so that their overlap can be differentiated.

All random numbers of a pair are drawn from one generator on the CPU.  Its seed
determines the pair, independently of the process that draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.examples.acquisition import Acquisition, uniform
from dipy_dl_reg.training.examples.deformation import Bending
from dipy_dl_reg.training.training_set import Example

#: Largest intensity of the classes outside the brain.
_BRIGHTEST_OUTSIDE = 0.9


class Contrast(NamedTuple):
    """Intensities of the classes for one type of acquisition.

    Attributes
    ----------
    means, spreads : sequence of float, length K
        Mean and standard deviation of the intensity of each class.
    weight : float
        Relative probability of this contrast.
    acquisition : Acquisition, optional
        Defects of images with this contrast; by default those of the pairs.
    """

    means: Sequence[float]
    spreads: Sequence[float]
    weight: float = 1.0
    acquisition: Acquisition | None = None


def shares(labels: Any, classes: Sequence[int], factor: int) -> torch.Tensor:
    """Compute the fraction of each coarser voxel that each class occupies.

    Parameters
    ----------
    labels : array of int, shape (*fine)
        A label map.
    classes : sequence of int
        The labels to be counted; others are background.
    factor : int
        Fine voxels along each axis of a coarse one.

    Returns
    -------
    shares : Tensor of float16, shape (K, *(fine // factor))
        Between 0 and 1.
    """
    if not isinstance(labels, torch.Tensor):
        labels = torch.as_tensor(labels, device="cpu")
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[labels.ndim]
    parts = [pool((labels == k).float()[None], factor)[0] for k in classes]
    return torch.stack(parts).half()


class SynthesisedPairs:
    """Pairs from the label maps of different subjects, aligned affinely.

    Each draw selects two subjects, deforms each by a small random affine and the flow
    of a smooth random velocity, draws an intensity for every group of classes, and adds
    the defects of an acquisition.

    Parameters
    ----------
    maps : sequence of Tensor, shape (K, *shape)
        Shares of the K classes (`shares`), one tensor for each subject, on one grid.
    means, spreads : sequence of float, length K
        Mean and standard deviation of the intensity of each class.
    groups : sequence of int, length K, optional
        Classes with the same number have the same intensity, such as left and
        right; by default each has its own.
    outside : sequence of int, optional
        Classes (numbers from 0 to K - 1) that are not brain.
    stripped : float, optional
        Probability of a pair without these classes, as after brain extraction.
    masked : float, optional
        Probability that an image without these classes is 0 outside the brain;
        otherwise there is noise.
    scored : int, optional
        Number of classes, drawn from the brain, that become labels.
    always : sequence of int, optional
        Classes that become labels in every pair.
    random_contrast : float, optional
        Probability that the two images have random intensities, drawn for each of
        them, instead of those around the means.
    contrasts : sequence of Contrast, optional
        Further contrasts; the contrast of `means` and `spreads` has the weight 1.
    across : float, optional
        Probability that a contrast is drawn for each of the two images; otherwise one
        contrast is drawn for both.
    acquisition : Acquisition, optional
        Defects of the images.  By default those of `noise`, `blur` and `bias`.
    rotation, scale, translation, bending, bending_scale : float, optional
        See `Bending`.
    noise, blur, bias : float, optional
        See `Acquisition`.

    Raises
    ------
    ValueError
        If there are fewer than two maps, the maps differ in shape, or a contrast has
        another number of classes.
    """

    def __init__(
        self,
        maps: Sequence[torch.Tensor],
        means: Sequence[float],
        spreads: Sequence[float],
        *,
        groups: Sequence[int] | None = None,
        outside: Sequence[int] = (),
        stripped: float = 0.5,
        masked: float = 0.0,
        scored: int = 6,
        always: Sequence[int] = (),
        random_contrast: float = 0.0,
        contrasts: Sequence[Contrast] = (),
        across: float = 0.0,
        acquisition: Acquisition | None = None,
        rotation: float = 2.0,
        scale: float = 0.02,
        translation: float = 0.5,
        bending: float = 0.7,
        bending_scale: float = 10,
        noise: float = 0.05,
        blur: float = 0.5,
        bias: float = 0.3,
    ) -> None:
        if len(maps) < 2 or len({tuple(m.shape) for m in maps}) > 1:
            raise ValueError(
                "maps must be two or more tensors of one shape, got "
                f"{[tuple(m.shape) for m in maps]}."
            )
        self.maps = list(maps)
        classes = self.maps[0].shape[0]
        self.contrasts = [Contrast(means, spreads), *contrasts]
        for contrast in self.contrasts:
            if not len(contrast.means) == len(contrast.spreads) == classes:
                raise ValueError(
                    f"means and spreads must have {classes} values, got "
                    f"{len(contrast.means)} and {len(contrast.spreads)}."
                )
        groups = range(classes) if groups is None else groups
        self.groups = torch.tensor(groups, device="cpu")
        self.outside, self.stripped, self.masked = list(outside), stripped, masked
        self.brain = sorted(set(range(classes)) - set(outside))
        self.always = list(always)
        rest = set(range(classes)) - set(outside) - set(always)
        self.rest, self.scored = sorted(rest), scored
        self.random_contrast, self.across = random_contrast, across
        self.bending = Bending(
            rotation=rotation, scale=scale, translation=translation, bending=bending,
            bending_scale=bending_scale,
        )  # fmt: skip
        if acquisition is None:
            acquisition = Acquisition(noise=noise, blur=blur, bias=bias)
        self.acquisition = acquisition

    def __len__(self) -> int:
        return len(self.maps) * (len(self.maps) - 1)

    def __getitem__(self, index: int) -> Example:
        """Return a pair of a fixed enumeration.

        Parameters
        ----------
        index : int
            Number of the ordered pair of subjects.

        Returns
        -------
        example : Example
            Drawn with the number as seed.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        first, second = divmod(index, len(self.maps) - 1)
        return self._example((first, second + (second >= first)), generator)

    def draw(self, generator: torch.Generator) -> Example:
        """Draw a new pair.

        Parameters
        ----------
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        example : Example
            Labels are shares, of the classes chosen.
        """
        return self._example(permutation(len(self.maps), generator)[:2], generator)

    def _example(self, subjects: Sequence[int], generator: torch.Generator) -> Example:
        """Synthesise a pair of two subjects."""
        choice = permutation(len(self.rest), generator)[: self.scored]
        chosen = self.always + [self.rest[i] for i in choice]
        contrasts = self._draw_contrasts(generator)
        stripped = uniform(generator) < self.stripped
        sides = []
        for subject, contrast in zip(subjects, contrasts):
            maps = self.maps[subject].float()
            weights = self._draw_intensities(contrast, generator)
            if stripped:
                weights[self.outside] = 0.0
            image = torch.einsum("k,k...->...", weights, maps)
            masked = stripped and uniform(generator) < self.masked
            mask = [maps[self.brain].sum(0, keepdim=True)] if masked else []
            channels = torch.cat([image[None], maps[chosen], *mask])
            field = self.bending(image.shape, generator)
            image, labels = warp(channels[None], field)[0].split_with_sizes(
                [1, len(channels) - 1]
            )
            image = self._add_defects(image, contrast, generator)
            if masked:
                image, labels = image * (labels[-1:] > 0.5), labels[:-1]
            sides.append((image, labels))
        (static, static_labels), (moving, moving_labels) = sides
        return Example(static, moving, static_labels, moving_labels)

    def _draw_contrasts(
        self, generator: torch.Generator
    ) -> tuple[Contrast | None, Contrast | None]:
        """Contrast of each image; None stands for random intensities."""
        if uniform(generator) < self.random_contrast:
            return None, None
        if len(self.contrasts) == 1:
            return (self.contrasts[0],) * 2
        weights = torch.tensor([float(c.weight) for c in self.contrasts], **SINGLE)
        drawn = torch.multinomial(weights, 2, replacement=True, generator=generator)
        first, second = (self.contrasts[i] for i in drawn.tolist())
        return (first, second) if uniform(generator) < self.across else (first, first)

    def _draw_intensities(
        self, contrast: Contrast | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Intensity of each class, the same within a group."""
        noise = torch.randn(len(self.groups), generator=generator, **SINGLE)
        if contrast is None:
            drawn = torch.rand(len(self.groups), generator=generator, **SINGLE)
            return drawn[self.groups]
        means, spreads = (torch.tensor(x, **SINGLE) for x in contrast[:2])
        drawn = (means + spreads * noise[self.groups]).clamp_min(0)
        drawn[self.outside] = _BRIGHTEST_OUTSIDE * torch.rand(
            len(self.outside), generator=generator
        )
        return drawn

    def _add_defects(
        self,
        image: torch.Tensor,
        contrast: Contrast | None,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Add the defects of an image's contrast."""
        own = None if contrast is None else contrast.acquisition
        return (self.acquisition if own is None else own)(image, generator)


def permutation(count: int, generator: torch.Generator) -> list[int]:
    """Draw a random order of numbers.

    Parameters
    ----------
    count : int
        Number of elements.
    generator : torch.Generator
        Source of the order.

    Returns
    -------
    numbers : list of int
        From 0 to ``count - 1``.
    """
    return torch.randperm(count, generator=generator, device="cpu").tolist()
