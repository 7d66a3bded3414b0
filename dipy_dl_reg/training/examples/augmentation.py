"""Random changes to examples, so that a network sees more than it is given."""

import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.training.examples import SINGLE


class Augment:
    """Random changes of place and intensity, of each of the two images by itself.

    An image is taken at ``M (x - c) + c + t + s(x)``, with ``c`` the middle of the
    grid, ``M`` a rotation times a symmetric stretch and ``s`` a smooth random field.
    Its intensity ``I``, in [0, 1], becomes
    ``exp(b(x)) (I**gamma * contrast) + noise``, ``b`` a smooth random field too.
    Flips are the same for both images.  Labels go along: maps by nearest neighbour,
    shares by linear interpolation.  Options at 0 change nothing.

    Parameters
    ----------
    flips : sequence of int, optional
        Axes along which both images are mirrored, every other time.
    rotation : float, optional
        Standard deviation of the angles, degrees.
    scale : float, optional
        Standard deviation of the stretch along any direction.
    translation : float, optional
        Standard deviation of the shift, as a part of the image's size.
    bending : float, optional
        Standard deviation of the smooth field's control points, voxels.
    bending_scale : int, optional
        Voxels between them.
    gamma, contrast : float, optional
        Standard deviations of the logarithms of both.
    bias : float, optional
        Standard deviation of the 4 control points per axis of the bias field's
        logarithm.
    noise : float, optional
        Largest standard deviation of the noise; each image draws its own.

    Raises
    ------
    ValueError
        If an option is negative.
    """

    def __init__(
        self, *, flips=(), rotation=3.0, scale=0.03, translation=0.01, bending=0.0,
        bending_scale=10, gamma=0.1, contrast=0.05, bias=0.1, noise=0.02,
    ):  # fmt: skip
        self.flips = tuple(flips)
        self.options = {
            "rotation": rotation,
            "scale": scale,
            "translation": translation,
            "bending": bending,
            "bending_scale": bending_scale,
            "gamma": gamma,
            "contrast": contrast,
            "bias": bias,
            "noise": noise,
        }
        for name, value in self.options.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {value!r}.")

    def __call__(self, example, generator):
        """A changed copy of an example.

        Parameters
        ----------
        example : Example
            A pair.
        generator : torch.Generator
            All that is random comes from it.

        Returns
        -------
        example : Example
            Of the same shapes.
        """
        drawn = torch.rand(len(self.flips), generator=generator, **SINGLE).tolist()
        axes = [axis + 1 for axis, number in zip(self.flips, drawn) if number < 0.5]
        static, moving, *labels = (x if x is None else x.flip(axes) for x in example)
        sides = zip((static, moving), labels)
        (static, s), (moving, m) = (self._side(*side, generator) for side in sides)
        return type(example)(static, moving, s, m)

    def __repr__(self):
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"Augment(flips={self.flips}, {options})"

    def _side(self, image, labels, generator):
        """One image and its labels, moved; then the image's new intensities."""
        u = self._field(image.shape[1:], generator)
        if u is not None:
            image, labels = _moved(image, u, "linear"), _labels_moved(labels, u)
        return self._intensity(image, generator), labels

    def _field(self, shape, generator):
        """Random displacement (1, D, *shape); None if nothing is to move."""
        o, u = self.options, None
        if o["rotation"] or o["scale"] or o["translation"]:
            u = self._affine(shape, generator)
        if o["bending"]:
            knots = [max(4, round(n / max(1, o["bending_scale"]))) for n in shape]
            bend = torch.randn(1, len(shape), *knots, generator=generator, **SINGLE)
            bend = resize_image(bend, shape) * o["bending"]
            u = bend if u is None else u + bend
        return u

    def _affine(self, shape, generator):
        """Displacement of a random affine about the middle of the grid."""
        dim, o = len(shape), self.options
        turn, stretch = torch.randn(2, dim, dim, generator=generator, **SINGLE)
        # Of the entries of a difference (or half a sum) each has the deviation wanted.
        turn = (turn - turn.T) / 2**0.5 * (o["rotation"] * torch.pi / 180)
        stretch = (stretch + stretch.T) / 2 * o["scale"]
        matrix = torch.matrix_exp(turn) @ torch.matrix_exp(stretch)
        matrix -= torch.eye(dim, **SINGLE)
        size = torch.tensor(shape, **SINGLE)
        shift = torch.randn(dim, generator=generator, **SINGLE)
        shift = shift * o["translation"] * size
        lines = [torch.arange(n, **SINGLE) - (n - 1) / 2 for n in shape]
        places = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        moved = torch.einsum("ij,j...->i...", matrix, places)
        return (moved + shift.view(-1, *[1] * dim))[None]

    def _intensity(self, image, generator):
        """New contrast, bias and noise."""
        o = self.options
        gamma, contrast, noise = torch.randn(3, generator=generator, **SINGLE)
        if o["gamma"]:
            image = image.clamp_min(0) ** (o["gamma"] * gamma).exp()
        if o["contrast"]:
            image = image * (o["contrast"] * contrast).exp()
        if o["bias"]:
            knots = [4] * (image.ndim - 1)
            bias = torch.randn(1, 1, *knots, generator=generator, **SINGLE)
            image = image * (o["bias"] * resize_image(bias, image.shape[1:]))[0].exp()
        if o["noise"]:
            sigma = o["noise"] * torch.rand((), generator=generator, **SINGLE)
            noise = torch.randn(image.shape, generator=generator, **SINGLE)
            image = image + sigma * noise
        return image


def _moved(channels, u, mode):
    """Channels (K, *shape) through a displacement."""
    return warp(channels[None], u.to(channels), mode=mode)[0]


def _labels_moved(labels, u):
    """Labels through a displacement: maps stay whole numbers, shares need not."""
    if labels is None:
        return None
    if labels.is_floating_point():
        return _moved(labels, u, "linear")
    return _moved(labels.float(), u, "nearest").to(labels.dtype)
