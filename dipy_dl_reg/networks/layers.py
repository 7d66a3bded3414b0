"""Layers for 2D and 3D with a common definition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import nn
import torch.nn.functional as F

#: Layers by dimension.
CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOL: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_LOCK = RLock()


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Make layers in float32 on the CPU, independently of Torch's defaults.

    Yields
    ------
    nothing : None
        The user's defaults are restored afterwards.
    """
    with _LOCK, torch.device("cpu"):
        before = torch.get_default_dtype()
        if before == torch.float32:
            yield
            return
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def conv(
    dim: int, inputs: int, outputs: int, *, width: int = 3, stride: int = 1
) -> nn.Conv2d | nn.Conv3d:
    """Make a convolution that preserves the size (or divides it by the stride).

    Parameters
    ----------
    dim : {2, 3}
        Spatial axes.
    inputs, outputs : int
        Channels.
    width : int, optional
        Width of the kernel; odd.
    stride : int, optional
        Distance between its outputs.

    Returns
    -------
    layer : torch.nn.Module
        The convolution, with zero padding.
    """
    layer = CONV[dim](inputs, outputs, width, stride=stride, padding=width // 2)
    # With Torch's default initial weights, the output of each layer is smaller than its
    # input, and the output of ten layers is almost 0: training would be several times
    # slower at the beginning.
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    _zero_bias(layer)
    return layer


def flow_conv(dim: int, inputs: int, *, std: float = 1e-5) -> nn.Conv2d | nn.Conv3d:
    """Make the last layer of a network: a linear convolution to D components.

    Parameters
    ----------
    dim : {2, 3}
        Spatial axes, and components.
    inputs : int
        Channels.
    std : float, optional
        Standard deviation of the initial weights; near 0, so that an untrained network
        predicts nearly the identity map.

    Returns
    -------
    layer : torch.nn.Module
        3 voxels wide.
    """
    layer = conv(dim, inputs, dim)
    nn.init.normal_(layer.weight, std=std) if std else nn.init.zeros_(layer.weight)
    _zero_bias(layer)
    return layer


def _zero_bias(layer: nn.Conv2d | nn.Conv3d) -> None:
    """Set the bias to 0."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def upsample(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Upsample a tensor to the size of a finer one, by repetition of voxels.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Features.
    like : Tensor, shape (B, any, *finer)
        A tensor of the wanted size.

    Returns
    -------
    y : Tensor, shape (B, C, *finer)
        The upsampled features.
    """
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


class _Total(torch.autograd.Function):
    """Sum over all processes; the gradient is also summed, over the losses of all.

    Torch's differentiable sum has a reference to the process group, so that the group's
    threads exist until Python ends.  If such a thread then frees a tensor, the process
    aborts.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Total.forward(ctx, gradient)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over all processes of a distributed training.

    The result for a batch on one process is the same as for its parts on several
    processes, on any device.  Torch's synchronised layer supports only GPUs.
    """

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Accept tensors of any dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the batch in training, by the running statistics afterwards.

        Parameters
        ----------
        x : Tensor, shape (B, C, *shape)
            Features.

        Returns
        -------
        y : Tensor, same shape
            ``weight * (x - mean) / sqrt(variance + eps) + bias``.
        """
        distributed = torch.distributed
        alone = not (distributed.is_available() and distributed.is_initialized())
        if not self.training or alone or distributed.get_world_size() == 1:
            return super().forward(x)
        return self._normalise_together(x)

    def _normalise_together(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the batches of all processes."""
        # Under autocast x has half precision, which is not sufficient for large sums.
        x = x.to(self.weight.dtype)
        axes = [0, *range(2, x.ndim)]
        count = x.new_tensor(x.numel() / x.shape[1])
        total = _Total.apply(torch.cat([x.sum(axes), count[None]]))
        count = total[-1]
        mean = (total[:-1] / count).view(1, -1, *[1] * (x.ndim - 2))
        variance = _Total.apply((x - mean).square().sum(axes)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp_min(1)
            self._update_statistics(mean.flatten(), unbiased)
        shape = mean.shape
        scale = (self.weight / (variance + self.eps).sqrt()).view(shape)
        return (x - mean) * scale + self.bias.view(shape)

    def _update_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        weight = self.momentum
        for name, value in (("running_mean", mean), ("running_var", variance)):
            self.get_buffer(name).lerp_(value, weight)  # type: ignore[arg-type]
        self.get_buffer("num_batches_tracked").add_(1)
