"""Adam for a displacement field, with one second moment for each voxel."""

from __future__ import annotations

import torch

from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels

#: Decay rates of the first and of the second moment.
_BETAS = (0.9, 0.99)
#: Lower bound of the largest gradient, for a mean over voxels of images scaled to
#: [0, 1], so that round-off between two equal images causes no displacement.
_LEAST_GRADIENT = 1e-2


class Adam:
    r"""Adam with one second moment for each voxel's vector, not for each component.

    With the gradient :math:`g` of a voxel, the moments are

    .. math::

        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        s \leftarrow \beta_2 s + (1 - \beta_2) |g|^2

    and with their corrections for the zeros that they start from,
    :math:`\hat m = m / (1 - \beta_1^t)` and :math:`\hat s = s / (1 - \beta_2^t)`, the
    voxel moves by

    .. math:: -\text{step} \, (1 + \epsilon) \,
        \hat m / (\sqrt{\hat s} + \epsilon \, g_\text{max})

    where :math:`g_\text{max}` is the largest :math:`\sqrt{\hat s}` of all voxels and
    iterations so far.  One second moment per voxel keeps the direction of the gradient.
    :math:`\epsilon` is relative to the largest gradient, so that round-off causes
    almost no displacement in a constant background, or if the images are equal.

    Parameters
    ----------
    like : Tensor, shape (1, D, *shape)
        A field with the shape, type and device of the gradients.
    epsilon : float
        Voxels with gradients below about this fraction of the largest gradient move in
        proportion to their gradient.

    Attributes
    ----------
    largest_gradient : Tensor, shape ()
        :math:`g_\text{max}`.
    """

    def __init__(self, like: torch.Tensor, *, epsilon: float) -> None:
        self.first = torch.zeros_like(like)
        self.second = torch.zeros_like(like[:, :1])
        self.epsilon, self.count = epsilon, 0
        least = _LEAST_GRADIENT / like[:, :1].numel()
        self.largest_gradient = like.new_tensor(least)

    def direction(self, gradient: torch.Tensor, step: float) -> torch.Tensor:
        """Displacement of the next iteration.

        Parameters
        ----------
        gradient : Tensor, shape (1, D, *shape)
            Gradient of the energy by the displacement; overwritten.
        step : float
            Length, in voxels, of the displacement where the gradient is steady.

        Returns
        -------
        displacement : Tensor, shape (1, D, *shape)
            In voxels; it occupies the memory of `gradient`.
        """
        self.count += 1
        # With 1 + epsilon the voxel of the largest gradient moves by the full step.
        rate = -step * (1 + self.epsilon) / (1 - _BETAS[0] ** self.count)
        unbias = 1 / (1 - _BETAS[1] ** self.count)
        if dispatch.supports(gradient):
            return self._compiled_direction(gradient, rate, unbias)
        return self._torch_direction(gradient, rate, unbias)

    def _compiled_direction(
        self, gradient: torch.Tensor, rate: float, unbias: float
    ) -> torch.Tensor:
        """Update the moments and compute the displacement by the compiled loops."""
        square = kernels.update_moments(gradient, self.first, self.second, betas=_BETAS)
        largest = (square * unbias).sqrt()
        self.largest_gradient = torch.maximum(self.largest_gradient, largest)
        floor = float(self.epsilon * self.largest_gradient)
        return kernels.adam_direction(
            self.first,
            self.second,
            unbias=unbias,
            floor=floor,
            rate=rate,
            out=gradient,
        )

    def _torch_direction(
        self, gradient: torch.Tensor, rate: float, unbias: float
    ) -> torch.Tensor:
        """Update the moments and compute the displacement with torch."""
        b1, b2 = _BETAS
        self.first.mul_(b1).add_(gradient, alpha=1 - b1)
        square = gradient.square_().sum(1, keepdim=True)
        self.second.mul_(b2).add_(square, alpha=1 - b2)
        root = (self.second * unbias).sqrt_()
        self.largest_gradient = torch.maximum(self.largest_gradient, root.amax())
        root += self.epsilon * self.largest_gradient
        return torch.div(self.first, root, out=gradient).mul_(rate)
