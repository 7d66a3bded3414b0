"""What a scanner and its protocol do to an image, at random."""

import torch

from dipy_dl_reg.geometry.resampling import resize_image
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.training.examples import SINGLE


class Acquisition:
    """Random defects of one image, in the order in which a scanner adds them.

    Blur; a bias field ``exp(b(x))``, ``b`` smooth; low resolution, as a part of the
    image's own along every axis and more along one, as thick slices are; noise,
    Gaussian or of a magnitude image (Rician, which has a floor where nothing is); and
    an end of the field of view missing.  The result is scaled so that its largest
    value is 1, and nothing is below 0.

    Parameters
    ----------
    noise : float, optional
        Largest standard deviation, as a part of the brightest intensity.
    blur : float, optional
        Largest standard deviation, voxels.
    bias : float, optional
        Largest standard deviation of ``b`` at its 4 control points along each axis.
    rician : float, optional
        How often the noise is that of a magnitude image.
    coarse : float, optional
        Largest size of the voxels that the image is read at, in its own; 1 is no loss.
    thick : float, optional
        Largest thickness of its slices, in voxels; 1 is no loss.
    slices : float, optional
        How often there are such slices, along any axis.
    cut : float, optional
        How often an end of the field of view is missing: the image is 0 there.
    largest_cut : float, optional
        How much of an axis is missing at most.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    def __init__(
        self, *, noise=0.05, blur=0.5, bias=0.3, rician=0.0, coarse=1.0, thick=1.0,
        slices=0.0, cut=0.0, largest_cut=0.25,
    ):  # fmt: skip
        self.options = {
            "noise": noise, "blur": blur, "bias": bias, "rician": rician,
            "coarse": coarse, "thick": thick, "slices": slices, "cut": cut,
            "largest_cut": largest_cut,
        }  # fmt: skip
        for name, value in self.options.items():
            least = 1 if name in ("coarse", "thick") else 0
            most = 1 if name in ("rician", "slices", "cut", "largest_cut") else None
            if not (least <= value < float("inf") and (most is None or value <= most)):
                span = f"{least} or more" if most is None else f"from {least} to {most}"
                raise ValueError(f"{name} must be {span}, got {value!r}.")

    def __call__(self, image, generator):
        """An image as it might come from a scanner.

        Parameters
        ----------
        image : Tensor, shape (1, *shape)
            Without any defect.
        generator : torch.Generator
            All that is random comes from it.

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
        image = self._coarse(image, generator)
        image = image / image.amax().clamp_min(1e-6)
        image = self._noisy(image, generator)[0]
        if o["cut"] and uniform(generator) < o["cut"]:
            image = _cut(image, o["largest_cut"], generator)
        return (image / image.amax().clamp_min(1e-6)).clamp_min_(0)

    def _coarse(self, image, generator):
        """The image read at larger voxels, and brought back."""
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
        # What a voxel of that size holds is a mean over it.
        image = smooth(image, [0.4 * (f * f - 1) ** 0.5 for f in factors])
        return resize_image(resize_image(image, sizes), shape)

    def _noisy(self, image, generator):
        """The image, whose largest value is 1, with noise."""
        o = self.options
        sigma = o["noise"] * uniform(generator) ** 2
        noise = sigma * torch.randn(image.shape, generator=generator, **SINGLE)
        if not (o["rician"] and uniform(generator) < o["rician"]):
            return image + noise
        other = sigma * torch.randn(image.shape, generator=generator, **SINGLE)
        return torch.hypot(image + noise, other)

    def __repr__(self):
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"Acquisition({options})"


def _cut(image, largest, generator):
    """The image (1, *shape) without one end along one axis."""
    axis = int(torch.randint(image.ndim - 1, (), generator=generator, device="cpu")) + 1
    count = int(largest * uniform(generator) * image.shape[axis])
    first = 0 if uniform(generator) < 0.5 else image.shape[axis] - count
    image = image.clone()
    image.narrow(axis, first, count).zero_()
    return image


def uniform(generator):
    """A number from 0 to 1.

    Parameters
    ----------
    generator : torch.Generator
        Where it comes from.

    Returns
    -------
    number : float
        Below 1.
    """
    return float(torch.rand((), generator=generator, **SINGLE))
