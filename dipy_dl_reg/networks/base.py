"""What all networks share: two images of one grid in, a field on that grid out.

Fields follow `dipy_dl_reg.geometry.fields`.  An image of any size is padded at its far
ends to the next size that a network can halve as often as it does (for most a multiple
plus one, so that grids of all resolutions share their corners: voxel ``i`` of a grid
``2**k`` times coarser stands at voxel ``2**k i``), and the field is cropped back.
Nothing is ever resampled to a fixed size.  Voxels are taken as isotropic;
`dipy_dl_reg.initialization.network` brings images with other voxels there and back.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import exp

#: Squarings that make a displacement of a velocity: one of 8 voxels begins with steps
#: of a quarter, and each costs as much as a layer.
SQUARINGS = 5


class Prediction(NamedTuple):
    """What a network says about a pair of images.

    Attributes
    ----------
    displacement : Tensor, shape (B, D, *shape)
        In voxels, static to moving: ``warp(moving, displacement)`` resembles static.
    velocity : Tensor, shape (B, D, *shape), or None
        The stationary velocity whose flow it is, where the network predicts one.
    coarse : tuple of Tensor, shape (B, D, *ceil(shape / 2**k))
        Further displacements at 2, 4, ... times coarser grids, in voxels of theirs;
        for training.
    """

    displacement: torch.Tensor
    velocity: torch.Tensor | None = None
    coarse: tuple = ()


class RegistrationNetwork(nn.Module):
    """Common part of all networks; calling one gives a `Prediction`.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    spacing : float, optional
        Voxel size, mm, that the network is meant for: images are brought there
        before, and the field back afterwards.  None takes every image as it is,
        made isotropic.
    output : {"displacement", "velocity"}, optional
        What the last layer's numbers are: a displacement, or a stationary velocity
        whose flow is the displacement.
    **arguments : dict
        All other arguments of the subclass, so that a checkpoint can make it anew.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    #: Name in `dipy_dl_reg.networks.NETWORKS`.
    name = None
    #: Sizes it works on are ``multiple * k + remainder``.
    multiple, remainder = 1, 0
    #: Whether swapping the images changes the sign of the velocity, by construction.
    symmetric = False
    #: What the loss at each resolution counts in training, the finest first.
    level_weights = (1.0,)

    def __init__(self, dim, *, spacing=None, output="displacement", **arguments):
        super().__init__()
        if dim not in (2, 3):
            raise ValueError(f"dim must be 2 or 3, got {dim!r}.")
        if spacing is not None and not 0 < spacing < float("inf"):
            raise ValueError(f"spacing must be above 0 mm or None, got {spacing!r}.")
        if output not in ("displacement", "velocity"):
            raise ValueError(
                f"output must be 'displacement' or 'velocity', got {output!r}."
            )
        self.dim = dim
        self.spacing = None if spacing is None else float(spacing)
        self.output = output
        self.arguments = {
            "dim": dim,
            "spacing": self.spacing,
            "output": output,
            **arguments,
        }

    def forward(self, static, moving):
        """Predict the field that brings moving onto static.

        Parameters
        ----------
        static, moving : Tensor, shape (B, 1, *shape)
            Images on one grid, intensities scaled to about [0, 1].

        Returns
        -------
        prediction : Prediction
            The displacement is the first of it.

        Raises
        ------
        ValueError
            If the two differ in shape, or are not of this network's dimension, or
            have several channels.
        """
        fine, *coarse = self.said(static, moving)
        if self.output == "velocity":
            flow = partial(exp, steps=SQUARINGS)
            return Prediction(flow(fine), fine, tuple(map(flow, coarse)))
        return Prediction(fine, None, tuple(coarse))

    def said(self, static, moving):
        """The last layers' own fields, velocities still velocities.

        Parameters
        ----------
        static, moving : Tensor, shape (B, 1, *shape)
            As in `forward`.

        Returns
        -------
        fields : list of Tensor, shape (B, D, *ceil(shape / 2**k))
            The finest first.

        Raises
        ------
        ValueError
            As `forward` does.
        """
        shape = static.shape[2:]
        alike = static.shape == moving.shape and static.shape[1] == 1
        if not alike or len(shape) != self.dim:
            raise ValueError(
                f"static and moving must both be (B, 1, *shape) with {self.dim} axes, "
                f"got {tuple(static.shape)} and {tuple(moving.shape)}."
            )
        padded = self._pad(torch.cat([static, moving], 1))
        # Under autocast the layers' output is short of digits; the flow must not be.
        fields = (u.to(static.dtype) for u in self._fields(padded))
        return [_crop(u, [-(-n // 2**k) for n in shape]) for k, u in enumerate(fields)]

    def _fields(self, images):
        """Fields of padded images ``(B, 2, *padded)``, the finest first."""
        raise NotImplementedError

    def _pad(self, images):
        """Continue the images at their far ends up to a size that can be halved."""
        missing = [(self.remainder - n) % self.multiple for n in images.shape[2:]]
        widths = [w for m in reversed(missing) for w in (0, m)]
        return F.pad(images, widths, mode="replicate") if any(missing) else images

    def extra_repr(self):
        """Arguments, for `repr`.

        Returns
        -------
        text : str
            ``key=value`` of each.
        """
        return ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())


def _crop(u, shape):
    """The first voxels along every axis."""
    return u[(..., *(slice(n) for n in shape))]
