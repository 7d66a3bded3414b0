"""Pairs of images made from label maps, new at every draw.

A label map says where the tissues are and nothing of how they look: drawing the
intensities anew for every pair, a network trained on them learns anatomy, not a
scanner :footcite:p:`Hoffmann2022`.  And what it was trained on holds nobody's image.

Maps are kept as shares: for each class, how much of a voxel it fills.  An image is
then the shares weighted by the classes' intensities, partial volume included, and
labels move smoothly, so that their overlap can be differentiated.

All that is random in a pair comes from one generator on the CPU: its seed gives the
pair again, whoever draws it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.examples.acquisition import Acquisition, uniform
from dipy_dl_reg.training.examples.deformation import Bending
from dipy_dl_reg.training.training_set import Example

#: Classes outside the brain get any intensity, up to this one.
_BRIGHTEST_OUTSIDE = 0.9


class Contrast(NamedTuple):
    """What the classes look like under one kind of acquisition.

    Attributes
    ----------
    means, spreads : sequence of float, length K
        Mean and standard deviation of the intensity of each class.
    weight : float
        How often it is drawn, compared with the others.
    acquisition : Acquisition, optional
        Its defects; by default those of the pairs.
    """

    means: tuple
    spreads: tuple
    weight: float = 1.0
    acquisition: Acquisition | None = None


def shares(labels, classes, factor):
    """How much of each coarser voxel each class fills.

    Parameters
    ----------
    labels : array of int, shape (*fine)
        A label map.
    classes : sequence of int
        The labels wanted; others count as background.
    factor : int
        How many fine voxels a coarse one has along each axis.

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

    Each draw takes two subjects, bends each by a small random affine and the flow of
    a smooth random velocity, gives every group of classes an intensity, and adds the
    defects of an acquisition.

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
        How often a pair is drawn without those.
    masked : float, optional
        How often an image without them is 0 outside, as after brain extraction; else
        there is noise.
    scored : int, optional
        Classes drawn from the brain to carry along as labels.
    always : sequence of int, optional
        Classes carried along in any case.
    random_contrast : float, optional
        How often the two images get any intensities, drawn for each by itself,
        instead of those around the means.
    contrasts : sequence of Contrast, optional
        Others than that of `means` and `spreads`, whose own weight is 1.
    across : float, optional
        How often each of the two images draws its contrast by itself; else one is
        drawn for both.
    acquisition : Acquisition, optional
        Defects of the images.  By default those that `noise`, `blur` and `bias` say.
    rotation, scale, translation, bending, bending_scale : float, optional
        See `Bending`.
    noise, blur, bias : float, optional
        See `Acquisition`.

    Raises
    ------
    ValueError
        If there are fewer than two maps, they differ in shape, or a contrast is not
        of as many classes as they.
    """

    def __init__(
        self,
        maps,
        means,
        spreads,
        *,
        groups=None,
        outside=(),
        stripped=0.5,
        masked=0.0,
        scored=6,
        always=(),
        random_contrast=0.0,
        contrasts=(),
        across=0.0,
        acquisition=None,
        rotation=2.0,
        scale=0.02,
        translation=0.5,
        bending=0.7,
        bending_scale=10,
        noise=0.05,
        blur=0.5,
        bias=0.3,
    ):
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
                    f"means and spreads must be of {classes} classes, got "
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
        self.bent = Bending(
            rotation=rotation, scale=scale, translation=translation, bending=bending,
            bending_scale=bending_scale,
        )  # fmt: skip
        if acquisition is None:
            acquisition = Acquisition(noise=noise, blur=blur, bias=bias)
        self.acquisition = acquisition

    def __len__(self):
        return len(self.maps) * (len(self.maps) - 1)

    def __getitem__(self, index):
        """One of `len` pairs, always the same.

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

    def draw(self, generator):
        """A new pair.

        Parameters
        ----------
        generator : torch.Generator
            All that is random comes from it.

        Returns
        -------
        example : Example
            Labels are shares, of the classes carried along.
        """
        return self._example(permutation(len(self.maps), generator)[:2], generator)

    def _example(self, subjects, generator):
        choice = permutation(len(self.rest), generator)[: self.scored]
        carried = self.always + [self.rest[i] for i in choice]
        contrasts = self._contrasts(generator)
        stripped = uniform(generator) < self.stripped
        sides = []
        for subject, contrast in zip(subjects, contrasts):
            maps = self.maps[subject].float()
            weights = self._intensities(contrast, generator)
            if stripped:
                weights[self.outside] = 0.0
            image = torch.einsum("k,k...->...", weights, maps)
            masked = stripped and uniform(generator) < self.masked
            mask = [maps[self.brain].sum(0, keepdim=True)] if masked else []
            channels = torch.cat([image[None], maps[carried], *mask])
            field = self.bent(image.shape, generator)
            image, labels = warp(channels[None], field)[0].split_with_sizes(
                [1, len(channels) - 1]
            )
            image = self._acquired(image, contrast, generator)
            if masked:
                image, labels = image * (labels[-1:] > 0.5), labels[:-1]
            sides.append((image, labels))
        (static, static_labels), (moving, moving_labels) = sides
        return Example(static, moving, static_labels, moving_labels)

    def _contrasts(self, generator):
        """Contrast of each image; None is any."""
        if uniform(generator) < self.random_contrast:
            return None, None
        if len(self.contrasts) == 1:
            return (self.contrasts[0],) * 2
        weights = torch.tensor([float(c.weight) for c in self.contrasts], **SINGLE)
        drawn = torch.multinomial(weights, 2, replacement=True, generator=generator)
        first, second = (self.contrasts[i] for i in drawn.tolist())
        return (first, second) if uniform(generator) < self.across else (first, first)

    def _intensities(self, contrast, generator):
        """Intensity of each class, one for a group."""
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

    def _acquired(self, image, contrast, generator):
        """An image with the defects of its kind."""
        own = None if contrast is None else contrast.acquisition
        return (self.acquisition if own is None else own)(image, generator)


def permutation(count, generator):
    """Numbers in random order.

    Parameters
    ----------
    count : int
        How many.
    generator : torch.Generator
        Where the order comes from.

    Returns
    -------
    numbers : list of int
        From 0 to ``count - 1``.
    """
    return torch.randperm(count, generator=generator, device="cpu").tolist()
