"""The base class of all metrics: options, and two ways to evaluate a metric.

``metric(static, warped, mask=None)``
    returns a scalar that autograd can differentiate (for training), the mean over a
    batch;
``metric.bind(static, mask=None, moving=None)``
    returns a function ``warped -> (value, d value / d warped)`` that stores all
    quantities that depend only on the static image (refinement calls this function
    hundreds of times).

Gradients are implemented explicitly, because autograd would need more memory.
Values are to be minimized.  Images are ``(B, 1, *shape)`` and the mask, if any, is 0 or
1 on the same grid; voxels outside of it are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
import warnings

import torch

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.validation import check_number

#: Return type of `Metric.bind`: a function of a warped image that returns the value and
#: its derivative.
BoundMetric = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
#: A penalty on a displacement field.
Regularizer = Callable[[torch.Tensor], torch.Tensor]


class _Analytic(torch.autograd.Function):
    """Passes the gradient of a bound metric to autograd."""

    @staticmethod
    def forward(ctx: Any, warped: torch.Tensor, bound: BoundMetric) -> torch.Tensor:
        value, gradient = bound(warped)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, None]:
        return scale * ctx.saved_tensors[0], None


class _RenamedAttribute:
    """A deprecated name of an attribute: accesses the current one, with a warning."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, former: str) -> None:
        self.former = former

    def __get__(self, metric: Any, owner: type) -> Any:
        if metric is None:  # access through the class, such as by `dir`: no warning
            return getattr(owner, self.name)
        self._warn()
        return getattr(metric, self.name)

    def __set__(self, metric: Any, value: Any) -> None:
        self._warn()
        setattr(metric, self.name, value)

    def take_from(self, owner: type) -> None:
        """Rename an attribute of a class that uses the deprecated name.

        The attribute may be defined in a base class that is not a metric, such as a
        mixin.
        """
        for base in owner.__mro__:
            if issubclass(base, Metric) and base is not owner:
                return
            if self.former in vars(base):
                self._warn(stacklevel=4)
                setattr(owner, self.name, vars(base)[self.former])
                setattr(owner, self.former, self)
                return

    def _warn(self, stacklevel: int = 3) -> None:
        message = f"{self.former} is deprecated; its name is {self.name}."
        warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


class Metric:
    """Base class of all metrics.

    A subclass sets `name`, defines `_bind`, and may change the other class attributes.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images, as DIPY's metrics have it; by default that of the
        images given.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field at each iteration.

    Raises
    ------
    ValueError
        If `dim` is neither None, 2 nor 3, or `sigma_diff` is negative.
    """

    #: Its name in `dipy_dl_reg.metrics.registry.METRICS`.
    name: str | None = None
    #: Fraction of the largest gradient: voxels with a smaller gradient move in
    #: proportion to it; all others move by a full step.  Equal steps are suitable for a
    #: local metric.  With a metric that is computed from statistics of the whole
    #: images, equal steps would follow the noise, away from the true field.
    gradient_floor: float = 0.01
    #: Number of steps by which the voxels with the largest gradient move in one
    #: iteration.  A value above 1 compensates for a large `gradient_floor`, with which
    #: most voxels move by less than a step.
    max_step_factor: float = 1.0
    #: Deprecated names of these two attributes; they can still be used, with a warning.
    weak_gradient = _RenamedAttribute("gradient_floor")
    stride = _RenamedAttribute("max_step_factor")
    #: Standard deviation, in voxels, of the Gaussian that smooths the whole field after
    #: each iteration, unless the user sets another.
    sigma_field: float = 0.7
    #: Smoothing of the field at coarser levels, in voxels of the level, divided by that
    #: at the finest level.
    coarse_smoothing: float = 1.0
    #: Measured memory of one level of refinement, in bytes per voxel.
    bytes_per_voxel: int = 240
    #: Whether `bind` accepts a batch without a mask and computes the mean over it.  MI
    #: and CR accept only one entry, which is sufficient for refinement.
    batched: bool = False
    #: Whether refinement compares the images in both directions: the warped moving
    #: image with the static image, and the static image, warped by the inverse, with
    #: the moving image.
    symmetric: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for former in ("weak_gradient", "stride"):
            vars(Metric)[former].take_from(cls)

    def __init__(self, dim: int | None = None, *, sigma_diff: float = 1.0) -> None:
        if dim not in (None, 2, 3):
            raise ValueError(f"dim must be 2, 3 or None, got {dim!r}.")
        self.dim = dim
        self.sigma_diff = check_number("sigma_diff", sigma_diff)

    def for_grid(self, grid: Grid) -> Metric:
        """Choose the options that depend on the voxels of a level of refinement.

        Parameters
        ----------
        grid : Grid
            Grid of the static image at the level.

        Returns
        -------
        metric : Metric
            This metric if there are no such options.
        """
        return self

    def bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        moving: torch.Tensor | None = None,
    ) -> BoundMetric:
        """Prepare for many evaluations against one static image.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            The static image, which is treated as constant.
        mask : Tensor, shape (B, 1, *shape), optional
            1 at voxels that are compared, 0 elsewhere; by default all are compared.
        moving : Tensor, shape (B, 1, *any), optional
            The moving image before it is warped; `MIMetric` takes the range of its
            intensities.

        Returns
        -------
        evaluate : callable
            ``evaluate(warped) -> (value, gradient)``, the gradient shaped as
            `warped`.
        """
        return self._bind(static, mask, moving)

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        raise NotImplementedError

    def __call__(
        self,
        static: torch.Tensor,
        warped: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compare two images; autograd differentiates the value by `warped`.

        Parameters
        ----------
        static : Tensor, shape (B, 1, *shape)
            The static image, which is treated as constant.
        warped : Tensor, shape (B, 1, *shape)
            Moving image on the static grid.
        mask : Tensor, shape (B, 1, *shape), optional
            1 at voxels that are compared, 0 elsewhere.

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

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def on_selected_voxels(
    compare: BoundMetric, selected: torch.Tensor | None
) -> BoundMetric:
    """Convert a function of intensities to a function of an image's selected voxels.

    Parameters
    ----------
    compare : callable
        ``compare(values) -> (value, slope)`` of the N selected voxels.
    selected : Tensor of bool, shape (M,), or None
        Which of an image's voxels are selected; by default all.

    Returns
    -------
    evaluate : callable
        ``evaluate(warped) -> (value, gradient)`` of images of M voxels; the gradient is
        0 where a voxel is not selected.
    """

    def evaluate(warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if selected is None:
            value, slope = compare(warped.flatten())
            return value, slope.view_as(warped)
        value, slope = compare(warped.flatten()[selected])
        gradient = torch.zeros_like(warped)
        gradient.view(-1)[selected] = slope
        return value, gradient

    return evaluate
