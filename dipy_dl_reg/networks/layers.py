"""Layers by the number of spatial axes, so that 2D and 3D are one definition."""

from contextlib import contextmanager
from threading import RLock

import torch
from torch import nn
import torch.nn.functional as F

#: Layers by dimension.
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_LOCK = RLock()


@contextmanager
def torch_defaults():
    """Make layers in float32 on the CPU, whatever torch's defaults are.

    Yields
    ------
    nothing : None
        The user's defaults are back afterwards.
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


def conv(dim, inputs, outputs, *, width=3, stride=1):
    """A convolution that keeps the size (or divides it by its stride).

    Parameters
    ----------
    dim : {2, 3}
        Spatial axes.
    inputs, outputs : int
        Channels.
    width : int, optional
        Of the kernel; odd.
    stride : int, optional
        Distance between its outputs.

    Returns
    -------
    layer : torch.nn.Module
        With zeros beyond the edges.
    """
    layer = CONV[dim](inputs, outputs, width, stride=stride, padding=width // 2)
    # Torch's own start shrinks what passes through a layer, and ten of them pass on
    # next to nothing: training then takes several times longer to begin.
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    nn.init.zeros_(layer.bias)
    return layer


def flow_conv(dim, inputs, *, std=1e-5):
    """The layer that ends a network: a linear convolution to D components.

    Parameters
    ----------
    dim : {2, 3}
        Spatial axes, and components.
    inputs : int
        Channels.
    std : float, optional
        Of the normal distribution that its weights begin with; near 0, so that an
        untrained network is nearly the identity map.

    Returns
    -------
    layer : torch.nn.Module
        3 voxels wide.
    """
    layer = conv(dim, inputs, dim)
    nn.init.normal_(layer.weight, std=std) if std else nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def upsample(x, like):
    """Each voxel repeated, up to the size of a finer tensor.

    Parameters
    ----------
    x : Tensor, shape (B, C, *shape)
        Features.
    like : Tensor, shape (B, any, *finer)
        Gives the size.

    Returns
    -------
    y : Tensor, shape (B, C, *finer)
        The same, finer.
    """
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


class _Total(torch.autograd.Function):
    """Sum over all processes; so is its gradient, every process having a loss.

    Torch's own differentiable sum holds on to the processes' group: its threads then
    outlive the group, and one that still lets go of a tensor as Python ends aborts.
    """

    @staticmethod
    def forward(ctx, x):
        total = x.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _Total.forward(ctx, gradient)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all processes of a distributed training.

    Torch's own synchronised layer is for GPUs alone; this one gives the same numbers
    for a batch on one process as for its parts on several, on any device.
    """

    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        """Normalise, by the batch while training, by the running statistics after.

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
        return self._together(x)

    def _together(self, x):
        # Under autocast x comes in half precision, which cannot count.
        x = x.to(self.weight.dtype)
        axes = [0, *range(2, x.ndim)]
        count = x.new_tensor(x.numel() / x.shape[1])
        total = _Total.apply(torch.cat([x.sum(axes), count[None]]))
        count = total[-1]
        mean = (total[:-1] / count).view(1, -1, *[1] * (x.ndim - 2))
        variance = _Total.apply((x - mean).square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = variance * count / (count - 1).clamp_min(1)
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        shape = mean.shape
        scale = (self.weight / (variance + self.eps).sqrt()).view(shape)
        return (x - mean) * scale + self.bias.view(shape)
