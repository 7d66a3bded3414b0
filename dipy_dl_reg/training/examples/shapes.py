"""Pairs of images of shapes that are nothing: they need no data at all.

A network that saw brains alone would know brains alone.  Random blobs
:footcite:p:`Hoffmann2022` have neither anatomy nor a usual place, so that what is
learned from them is to find the same shape again, whatever it looks like.
"""

import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.metrics.base import whole_number
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.examples.acquisition import Acquisition, uniform
from dipy_dl_reg.training.examples.deformation import Bending
from dipy_dl_reg.training.examples.synthesis import permutation
from dipy_dl_reg.training.training_set import Example


class ShapePairs:
    """Pairs of one set of random blobs, bent in two ways and of two contrasts.

    For each class a smooth random image is drawn; where one is largest, its class is.
    The outermost are background.  Half of the time there is a shell around the rest,
    as a skull is around a brain, and half of the time the background is dark.

    Parameters
    ----------
    shape : sequence of int
        Of the images, 2D or 3D.
    classes : int, optional
        Blobs, background included.
    size : int, optional
        Voxels between the control points of the smooth images.
    edge : float, optional
        Voxels over which one class goes over into the next, about.
    scored : int, optional
        Classes carried along as labels.
    count : int, optional
        Pairs that have a number.
    acquisition : Acquisition, optional
        Defects of the images.
    **geometry : dict
        See `Bending`; `bending` is 2 voxels by default.

    Raises
    ------
    ValueError
        If `shape` is not of 2 or 3 numbers, or others are out of range.

    References
    ----------
    .. footbibliography::
    """

    def __init__(
        self, shape, *, classes=12, size=8, edge=1.0, scored=6, count=20,
        acquisition=None, **geometry,
    ):  # fmt: skip
        self.shape = tuple(shape)
        if len(self.shape) not in (2, 3):
            raise ValueError(f"shape must be 2 or 3 numbers, got {self.shape}.")
        self.classes = whole_number("classes", classes, 3)
        self.size = whole_number("size", size, 1)
        self.scored = min(whole_number("scored", scored, 1), self.classes - 1)
        self.count = whole_number("count", count, 1)
        if not 0 < edge < float("inf"):
            raise ValueError(f"edge must be above 0 voxels, got {edge!r}.")
        self.edge = edge
        self.acquisition = Acquisition() if acquisition is None else acquisition
        self.bent = Bending(**({"bending": 2.0} | geometry))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        """One of `len` pairs, always the same.

        Parameters
        ----------
        index : int
            Its number, which is the seed.

        Returns
        -------
        example : Example
            As `draw` gives it.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.draw(torch.Generator().manual_seed(index))

    def draw(self, generator):
        """A new pair.

        Parameters
        ----------
        generator : torch.Generator
            All that is random comes from it.

        Returns
        -------
        example : Example
            Labels are shares, of classes drawn from all but the background.
        """
        blobs = self._blobs(generator)
        choice = permutation(self.classes - 1, generator)[: self.scored]
        carried = blobs[[k + 1 for k in choice]]
        sides = []
        dark = uniform(generator) < 0.5
        for _ in range(2):
            intensities = torch.rand(self.classes, generator=generator, **SINGLE)
            intensities[0] *= not dark
            image = torch.einsum("k,k...->...", intensities, blobs)
            field = self.bent(self.shape, generator)
            side = warp(torch.cat([image[None], carried])[None], field)[0]
            sides.append((self.acquisition(side[:1], generator), side[1:]))
        (static, static_labels), (moving, moving_labels) = sides
        return Example(static, moving, static_labels, moving_labels)

    def _blobs(self, generator):
        """Shares of all classes, 0 the background, (K, *shape); they add up to 1."""
        few = [max(4, round(n / self.size)) for n in self.shape]
        knots = torch.randn(1, self.classes, *few, generator=generator, **SINGLE)
        height = resize_image(knots, self.shape)[0]
        # How far from the middle, 1 at the faces; the surface is as rough as blobs are.
        lines = [torch.linspace(-1, 1, n, **SINGLE) for n in self.shape]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        away = grid.square().sum(0).sqrt() + 0.15 * height[0]
        border = 0.7 + 0.2 * uniform(generator)
        # A unit of height takes about as many voxels as control points are apart.
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
        See `dipy_dl_reg.training.training_set`.
    weights : sequence of float
        How often a pair is drawn from each, compared with the others.

    Raises
    ------
    ValueError
        If there is no source, there are not as many weights, or one is negative.
    """

    def __init__(self, sources, weights):
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

    def __len__(self):
        return sum(map(len, self.sources))

    def __getitem__(self, index):
        """One of `len` pairs, those of the first source first.

        Parameters
        ----------
        index : int
            Its number.

        Returns
        -------
        example : Example
            Always the same.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        for source in self.sources:
            if index < len(source):
                return source[index]
            index -= len(source)

    def draw(self, generator):
        """A new pair.

        Parameters
        ----------
        generator : torch.Generator
            All that is random comes from it.

        Returns
        -------
        example : Example
            From one of the sources.
        """
        which = torch.multinomial(self.weights, 1, generator=generator)
        return self.sources[int(which)].draw(generator)
