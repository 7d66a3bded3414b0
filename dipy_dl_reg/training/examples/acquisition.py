"""Simulation of random acquisition defects of images."""

from __future__ import annotations

import torch

from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.training.examples import SINGLE
from dipy_dl_reg.validation import check_number


class Acquisition:
    """Random defects of one image, in the order in which a scanner adds them.

    The defects are: blur; a bias field ``exp(b(x))`` with smooth ``b``; low resolution
    along every axis, and a lower one along one axis, as with thick slices; noise,
    either Gaussian or Rician (that of a magnitude image, whose mean is above 0 without
    signal); and a missing end of the field of view.  The result is scaled so that its
    maximum is 1, and negative values become 0.

    Parameters
    ----------
    noise : float, optional
        Largest standard deviation, as a part of the brightest intensity.
    blur : float, optional
        Largest standard deviation, voxels.
    bias : float, optional
        Largest standard deviation of ``b`` at its 4 control points along each axis.
    rician : float, optional
        Probability of the noise of a magnitude image.
    coarse : float, optional
        Largest size of the voxels at which the image is sampled, in its own voxels; 1
        is no loss.
    thick : float, optional
        Largest thickness of its slices, in its own voxels; 1 is no loss.
    slices : float, optional
        Probability of such slices, along any axis.
    cut : float, optional
        Probability that an end of the field of view is missing: the image is 0 there.
    largest_cut : float, optional
        Largest missing part of an axis.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    def __init__(
        self,
        *,
        noise: float = 0.05,
        blur: float = 0.5,
        bias: float = 0.3,
        rician: float = 0.0,
        coarse: float = 1.0,
        thick: float = 1.0,
        slices: float = 0.0,
        cut: float = 0.0,
        largest_cut: float = 0.25,
    ) -> None:
        self.options = {
            "noise": noise, "blur": blur, "bias": bias, "rician": rician,
            "coarse": coarse, "thick": thick, "slices": slices, "cut": cut,
            "largest_cut": largest_cut,
        }  # fmt: skip
        for name, value in self.options.items():
            is_part = name in ("rician", "slices", "cut", "largest_cut")
            low, high = 1.0 if name in ("coarse", "thick") else 0.0, float("inf")
            check_number(name, value, low=low, high=1.0 if is_part else high)

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Add random defects to an image.

        Parameters
        ----------
        image : Tensor, shape (1, *shape)
            Without defects.
        generator : torch.Generator
            Source of all random numbers.

        Returns
        -------
        image : Tensor, shape (1, *shape)
            Between 0 and 1.
        """
        o, shape = self.options, image.shape[1:]
        image = smooth(image[None], o["blur"] * uniform(generator))
        knots = torch.randn(1, 1, *[4] * len(shape), generator=generator, **SINGLE)
        bias = resize_image(knots, shape)
        image = image * (o["bias"] * uniform(generator) * bias).exp_()
        image = self._reduce_resolution(image, generator)
        image = image / image.amax().clamp_min(1e-6)
        image = self._add_noise(image, generator)[0]
        if o["cut"] and uniform(generator) < o["cut"]:
            image = _cut_end(image, o["largest_cut"], generator)
        return (image / image.amax().clamp_min(1e-6)).clamp_min_(0)

    def _reduce_resolution(
        self, image: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Sample an image at larger voxels, and interpolate it back."""
        o, shape = self.options, image.shape[2:]
        factors = [1.0] * len(shape)
        if o["coarse"] > 1:
            factors = [1 + (o["coarse"] - 1) * uniform(generator)] * len(shape)
        if o["slices"] and uniform(generator) < o["slices"]:
            axis = int(torch.randint(len(shape), (), generator=generator, device="cpu"))
            thick = 1 + (o["thick"] - 1) * uniform(generator)
            factors[axis] = max(factors[axis], thick)
        sizes = [max(2, round(n / f)) if n > 1 else 1 for n, f in zip(shape, factors)]
        if sizes == list(shape):
            return image
        # The value of a larger voxel is the mean over its volume.
        image = smooth(image, [0.4 * (f * f - 1) ** 0.5 for f in factors])
        return resize_image(resize_image(image, sizes), shape)

    def _add_noise(
        self, image: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Add noise to an image whose largest value is 1."""
        o = self.options
        sigma = o["noise"] * uniform(generator) ** 2
        noise = sigma * torch.randn(image.shape, generator=generator, **SINGLE)
        if not (o["rician"] and uniform(generator) < o["rician"]):
            return image + noise
        other = sigma * torch.randn(image.shape, generator=generator, **SINGLE)
        return torch.hypot(image + noise, other)

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"Acquisition({options})"


def _cut_end(
    image: torch.Tensor, largest: float, generator: torch.Generator
) -> torch.Tensor:
    """Set an image (1, *shape) to 0 at one end of one axis."""
    axis = int(torch.randint(image.ndim - 1, (), generator=generator, device="cpu")) + 1
    count = int(largest * uniform(generator) * image.shape[axis])
    first = 0 if uniform(generator) < 0.5 else image.shape[axis] - count
    image = image.clone()
    image.narrow(axis, first, count).zero_()
    return image


def uniform(generator: torch.Generator) -> float:
    """Draw a number between 0 and 1.

    Parameters
    ----------
    generator : torch.Generator
        Source of the number.

    Returns
    -------
    number : float
        Below 1.
    """
    return float(torch.rand((), generator=generator, **SINGLE))
