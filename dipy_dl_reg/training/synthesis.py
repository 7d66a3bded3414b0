"""Pairs of images made from label maps, new at every draw.

A label map says where the tissues are and nothing of how they look: drawing the
intensities anew for every pair, a network trained on them learns anatomy, not a
scanner :footcite:p:`Hoffmann2022`.  And what it was trained on holds nobody's image.

Maps are kept as shares: for each class, how much of a voxel it fills.  An image is
then the shares weighted by the classes' intensities, partial volume included, and
labels move smoothly, so that their overlap can be differentiated.
"""

import torch
import torch.nn.functional as F

from dipy_dl_reg.engine.fields import resize, warp
from dipy_dl_reg.engine.smoothing import smooth
from dipy_dl_reg.training.data import Example

#: Classes outside the brain get any intensity, up to this one.
_BRIGHTEST_OUTSIDE = 0.9


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
    labels = torch.as_tensor(labels)
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[labels.ndim]
    parts = [pool((labels == k).float()[None], factor)[0] for k in classes]
    return torch.stack(parts).half()


class SynthesisedPairs:
    """Pairs from the label maps of different subjects, aligned affinely.

    Each draw takes two subjects, bends each by a small random affine and a smooth
    random deformation, gives every group of classes an intensity, and adds a bias
    field, blur and noise.

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
    scored : int, optional
        Classes drawn from the brain to carry along as labels.
    always : sequence of int, optional
        Classes carried along in any case.
    random_contrast : float, optional
        How often the two images get any intensities, drawn for each by itself,
        instead of those around `means`.
    rotation, scale, translation : float, optional
        Standard deviations of the random affine: degrees; a part of 1; voxels.
    bending : float, optional
        Standard deviation of the smooth deformation, voxels.
    bending_scale : int, optional
        Voxels between its control points.
    noise, blur, bias : float, optional
        Largest noise; largest blur in voxels; largest log of the bias field.

    Raises
    ------
    ValueError
        If there are fewer than two maps, or they differ in shape.
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
        scored=6,
        always=(),
        random_contrast=0.0,
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
        self.means, self.spreads = torch.tensor(means), torch.tensor(spreads)
        classes = self.maps[0].shape[0]
        self.groups = torch.tensor(range(classes) if groups is None else groups)
        self.outside, self.stripped = list(outside), stripped
        self.always = list(always)
        rest = set(range(classes)) - set(outside) - set(always)
        self.rest, self.scored = sorted(rest), scored
        self.random_contrast = random_contrast
        self.rotation, self.scale, self.translation = rotation, scale, translation
        self.bending, self.bending_scale = bending, bending_scale
        self.noise, self.blur, self.bias = noise, blur, bias

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
        return self._example(_permutation(len(self.maps), generator)[:2], generator)

    def _example(self, subjects, generator):
        choice = _permutation(len(self.rest), generator)[: self.scored]
        carried = self.always + [self.rest[i] for i in choice]
        agnostic = _uniform(generator) < self.random_contrast
        stripped = _uniform(generator) < self.stripped
        sides = []
        for subject in subjects:
            maps = self.maps[subject].float()
            weights = self._intensities(agnostic, generator)
            if stripped:
                weights[self.outside] = 0.0
            image = torch.einsum("k,k...->...", weights, maps)
            sides.append(self._bent(torch.cat([image[None], maps[carried]]), generator))
        (static, static_labels), (moving, moving_labels) = (
            (self._acquired(side[:1], generator), side[1:]) for side in sides
        )
        return Example(static, moving, static_labels, moving_labels)

    def _intensities(self, agnostic, generator):
        """Intensity of each class, one for a group."""
        noise = torch.randn(len(self.groups), generator=generator)
        if agnostic:
            drawn = torch.rand(len(self.groups), generator=generator)
        else:
            drawn = (self.means + self.spreads * noise[self.groups]).clamp_min(0)
            drawn[self.outside] = _BRIGHTEST_OUTSIDE * torch.rand(
                len(self.outside), generator=generator
            )
        return drawn[self.groups] if agnostic else drawn

    def _bent(self, channels, generator):
        """Channels through a random smooth deformation."""
        shape = channels.shape[1:]
        field = self._affine(shape, generator)
        coarse = [max(4, round(n / self.bending_scale)) for n in shape]
        bend = torch.randn(1, len(shape), *coarse, generator=generator)
        bend = resize(bend, shape)
        bend *= self.bending / bend.square().mean().sqrt()
        return warp(channels[None], field + bend)[0]

    def _affine(self, shape, generator):
        """Displacement of a random affine about the middle of the grid."""
        dim = len(shape)
        skew = torch.randn(dim, dim, generator=generator)
        skew = (skew - skew.T) * 0.5 * 2**0.5 * self.rotation * torch.pi / 180
        stretch = torch.randn(dim, dim, generator=generator) * self.scale
        matrix = torch.matrix_exp(skew + (stretch + stretch.T) / 2) - torch.eye(dim)
        shift = torch.randn(dim, generator=generator) * self.translation
        lines = [torch.arange(n) - (n - 1) / 2 for n in shape]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        moved = torch.einsum("ij,j...->i...", matrix, grid)
        return (moved + shift.view(-1, *[1] * dim))[None]

    def _acquired(self, image, generator):
        """The image as a scanner might give it, scaled to about [0, 1]."""
        shape = image.shape[1:]
        image = smooth(image[None], self.blur * _uniform(generator))
        knots = torch.randn(1, 1, *[4] * len(shape), generator=generator)
        mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
        bias = F.interpolate(knots, size=shape, mode=mode, align_corners=True)
        image = image * (self.bias * _uniform(generator) * bias).exp_()
        sigma = self.noise * _uniform(generator) ** 2
        image = image + sigma * torch.randn(image.shape, generator=generator)
        return (image / image.amax().clamp_min(1e-6)).clamp_min_(0)[0]


def _uniform(generator):
    return float(torch.rand((), generator=generator))


def _permutation(count, generator):
    return torch.randperm(count, generator=generator).tolist()
