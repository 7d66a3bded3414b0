"""Augmentation: random changes of the training examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.training.training_set import Example
from dipy_dl_reg.validation import check_number


class Augment:
    """Random changes of position and intensity, different for the two images of a pair.

    An image is sampled at ``M (x - c) + c + t + s(x)``, with ``c`` the middle of the
    grid, ``M`` a rotation times a symmetric stretch and ``s`` a smooth random field.
    Its intensity ``I``, in [0, 1], becomes
    ``exp(b(x)) (I**gamma * contrast) + noise``, ``b`` a smooth random field too.
    Flips are the same for both images.  Labels are warped like their image: label maps
    by nearest neighbour, class fractions by linear interpolation.  An option of 0 has
    no effect.

    Parameters
    ----------
    flips : sequence of int, optional
        Axes along which both images are mirrored, with probability 0.5.
    rotation : float, optional
        Standard deviation of the angles, degrees.
    scale : float, optional
        Standard deviation of the stretch along any direction.
    translation : float, optional
        Standard deviation of the shift, as a fraction of the image's size.
    bending : float, optional
        Standard deviation of the smooth field's control points, voxels.
    bending_scale : int, optional
        Voxels between the control points.
    gamma, contrast : float, optional
        Standard deviations of the logarithms of both.
    bias : float, optional
        Standard deviation of the 4 control points per axis of the bias field's
        logarithm.
    noise : float, optional
        Largest standard deviation of the noise; drawn for each image.

    Raises
    ------
    ValueError
        If an option is negative.
    """

    def __init__(
        self,
        *,
        flips: Sequence[int] = (),
        rotation: float = 3.0,
        scale: float = 0.03,
        translation: float = 0.01,
        bending: float = 0.0,
        bending_scale: float = 10,
        gamma: float = 0.1,
        contrast: float = 0.05,
        bias: float = 0.1,
        noise: float = 0.02,
    ) -> None:
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
            check_number(name, value)

    def __call__(self, example: Example, generator: torch.Generator) -> Example:
        """Change a copy of an example at random.

        Parameters
        ----------
        example : Example
            A pair.
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        example : Example
            Of the same shape.
        """
        drawn = torch.rand(len(self.flips), generator=generator, **SINGLE).tolist()
        axes = [axis + 1 for axis, number in zip(self.flips, drawn) if number < 0.5]
        flipped = Example._make(x if x is None else x.flip(axes) for x in example)
        static, s = self._change(flipped.static, flipped.static_labels, generator)
        moving, m = self._change(flipped.moving, flipped.moving_labels, generator)
        return Example(static, moving, s, m)

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"Augment(flips={self.flips}, {options})"

    def _change(
        self,
        image: torch.Tensor,
        labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Warp one image and its labels; then change the image's intensities."""
        u = self._draw_displacement(image.shape[1:], generator)
        if u is not None:
            image, labels = _warp_one(image, u, "linear"), _warp_labels(labels, u)
        return self._change_intensity(image, generator), labels

    def _draw_displacement(
        self, shape: Sequence[int], generator: torch.Generator
    ) -> torch.Tensor | None:
        """Draw a displacement (1, D, *shape); None if all its options are 0."""
        o, u = self.options, None
        if o["rotation"] or o["scale"] or o["translation"]:
            u = self._draw_affine(shape, generator)
        if o["bending"]:
            knots = [max(4, round(n / max(1, o["bending_scale"]))) for n in shape]
            bend = torch.randn(1, len(shape), *knots, generator=generator, **SINGLE)
            bend = resize_image(bend, shape) * o["bending"]
            u = bend if u is None else u + bend
        return u

    def _draw_affine(
        self, shape: Sequence[int], generator: torch.Generator
    ) -> torch.Tensor:
        """Displacement of a random affine about the middle of the grid."""
        dim, o = len(shape), self.options
        turn, stretch = torch.randn(2, dim, dim, generator=generator, **SINGLE)
        # Each entry of these sums and differences has the requested standard deviation.
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

    def _change_intensity(
        self, image: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Change contrast, bias and noise."""
        o = self.options
        gamma, contrast, noise = torch.randn(3, generator=generator, **SINGLE)
        if o["gamma"]:
            image = image.clamp_min(0) ** (o["gamma"] * gamma).exp()
        if o["contrast"]:
            image = image * (o["contrast"] * contrast).exp()
        if o["bias"]:
            knots = [4] * (image.ndim - 1)
            bias = torch.randn(1, 1, *knots, generator=generator, **SINGLE)
            bias = resize_image(bias, image.shape[1:])[0]
            image = image * (o["bias"] * bias).exp()
        if o["noise"]:
            sigma = o["noise"] * torch.rand((), generator=generator, **SINGLE)
            noise = torch.randn(image.shape, generator=generator, **SINGLE)
            image = image + sigma * noise
        return image


def _warp_one(channels: torch.Tensor, u: torch.Tensor, mode: str) -> torch.Tensor:
    """Warp channels (K, *shape) by a displacement."""
    return warp(channels[None], u.to(channels), mode=mode)[0]


def _warp_labels(labels: torch.Tensor | None, u: torch.Tensor) -> torch.Tensor | None:
    """Warp labels by a displacement; label maps remain whole numbers."""
    if labels is None:
        return None
    if labels.is_floating_point():
        return _warp_one(labels, u, "linear")
    return _warp_one(labels.float(), u, "nearest").to(labels.dtype)
