"""What all metrics share: their options, and two ways to be evaluated.

``metric(static, warped, mask=None)``
    a scalar to differentiate by autograd (training), the mean over a batch;
``metric.bind(static, mask=None, moving=None)``
    a function ``warped -> (value, d value / d warped)`` that keeps what depends
    on the static image alone (refinement calls it hundreds of times).

The gradients are written out, not traced: that spares the graph's memory.  Values
are to be minimised.  Images are ``(B, 1, *shape)`` and the mask, if any, is 0 or 1
on the same grid; voxels outside of it count for nothing.
"""

import math
from typing import Any
import warnings

import torch


class _Analytic(torch.autograd.Function):
    """Hand a bound metric's own gradient to autograd."""

    @staticmethod
    def forward(ctx, warped, bound):
        value, gradient = bound(warped)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale):
        return scale * ctx.saved_tensors[0], None


class _RenamedAttribute:
    """A former name of an attribute: reads and writes the present one, and warns."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, former: str) -> None:
        self.former = former

    def __get__(self, metric: Any, owner: type) -> Any:
        if metric is None:  # also what lists the members of a class: no warning
            return getattr(owner, self.name)
        self._warn()
        return getattr(metric, self.name)

    def __set__(self, metric: Any, value: Any) -> None:
        self._warn()
        setattr(metric, self.name, value)

    def take_from(self, owner: type) -> None:
        """Rename the attribute of a class that was written with the former name."""
        if self.former in vars(owner):
            self._warn(stacklevel=4)
            setattr(owner, self.name, vars(owner)[self.former])
            delattr(owner, self.former)

    def _warn(self, stacklevel: int = 3) -> None:
        message = f"{self.former} is deprecated; its name is {self.name}."
        warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


class Metric:
    """Common part of all metrics.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images, as DIPY's metrics have it; by default that of the
        images as they come.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field at each iteration.

    Raises
    ------
    ValueError
        If `dim` is neither None, 2 nor 3, or `sigma_diff` is negative.
    """

    name = None
    #: Part of the largest gradient below which a voxel moves in proportion to its
    #: gradient; above it all voxels move by a full step.  A local metric can judge each
    #: voxel by itself.  A metric computed from the statistics of whole images cannot:
    #: with equal steps it follows the noise, away from the true field.
    gradient_floor = 0.01
    #: Number of steps by which the voxels of the largest gradient move in one
    #: iteration.  A value above 1 makes up for a large `gradient_floor`, with which
    #: most voxels move by less than a step.
    max_step_factor = 1.0
    #: Former names of these two; still read and written, with a warning.
    weak_gradient = _RenamedAttribute("gradient_floor")
    stride = _RenamedAttribute("max_step_factor")
    #: Standard deviation, in voxels, of the Gaussian that smooths the whole field after
    #: each iteration, if not told otherwise.
    sigma_field = 0.7
    #: What a level of refinement takes in all, for each voxel of it; measured.
    bytes_per_voxel = 240
    #: Whether `bind`, given a batch without a mask, takes the mean over its entries by
    #: itself.  Refinement has one entry, and MI and CR know no more than that.
    batched = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for former in ("weak_gradient", "stride"):
            vars(Metric)[former].take_from(cls)

    def __init__(self, dim=None, *, sigma_diff=1.0):
        if dim not in (None, 2, 3):
            raise ValueError(f"dim must be 2, 3 or None, got {dim!r}.")
        self.dim = dim
        self.sigma_diff = real_number("sigma_diff", sigma_diff)

    def bind(self, static, mask=None, *, moving=None):
        """Prepare for many evaluations against one static image.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            Taken as constant.
        mask : Tensor, shape (B, 1, *shape), optional
            1 where a voxel counts, 0 elsewhere; by default all do.
        moving : Tensor, shape (B, 1, *any), optional
            The image that will come warped; only its range of intensities matters,
            and only to `MIMetric`.

        Returns
        -------
        evaluate : callable
            ``evaluate(warped) -> (value, gradient)``, the gradient shaped as
            `warped`.
        """
        return self._bind(static, mask, moving)

    def _bind(self, static, mask, moving):
        raise NotImplementedError

    def __call__(self, static, warped, mask=None):
        """Value as a scalar that autograd differentiates by `warped`.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            Taken as constant.
        warped : Tensor, shape (B, 1, *shape)
            Moving image on the static grid.
        mask : Tensor, shape (B, 1, *shape), optional
            1 where a voxel counts, 0 elsewhere.

        Returns
        -------
        value : Tensor, shape ()
            Lower is better.  The mean over the batch, each entry with its own mask.
        """
        static, count = static.detach(), len(warped)
        if count == 1 or (self.batched and mask is None):
            bound = self.bind(static, mask, moving=warped.detach())
            return _Analytic.apply(warped, bound)
        masks = [None] * count if mask is None else mask.split(1)
        entries = zip(static.split(1), warped.split(1), masks)
        return torch.stack([self(*entry) for entry in entries]).mean()

    def __repr__(self):
        options = ", ".join(f"{key}={value}" for key, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def whole_number(name, value, least):
    """An option that must be a whole number.

    Parameters
    ----------
    name : str
        The option's, for the message.
    value : int
        What was given.
    least : int
        The smallest that will do.

    Returns
    -------
    value : int
        As given.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        good = int(value) == value and value >= least
    except (TypeError, ValueError, OverflowError):  # None, "a", NaN, infinity
        good = False
    if not good:
        raise ValueError(f"{name} must be a whole number from {least}, got {value!r}.")
    return int(value)


def real_number(name, value, least=0, *, above=False):
    """An option that must be a finite number.

    Parameters
    ----------
    name : str
        The option's, for the message.
    value : float
        What was given.
    least : float, optional
        The smallest that will do.
    above : bool, optional
        The smallest will not do, but all above it.

    Returns
    -------
    value : float
        As given.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        good = value > least if above else value >= least
        good = not isinstance(value, str) and bool(good) and math.isfinite(value)
    except (TypeError, ValueError):
        good = False
    if not good:
        range_ = f"above {least}" if above else f"{least} or more"
        raise ValueError(f"{name} must be {range_} and finite, got {value!r}.")
    return float(value)
