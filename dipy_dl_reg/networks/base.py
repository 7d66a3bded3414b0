"""The base class of all networks: predicts a field from two images on the same grid.

Fields have the convention of `dipy_dl_reg.geometry.fields`.  An image of any size is
padded at the end of each axis to the next size that can be halved as often as the
network requires, and the field is cropped.  For most networks this size is a multiple
plus one, so that the grids of all resolutions have the same corners: voxel ``i`` of a
grid ``2**k`` times coarser is at voxel ``2**k i``.  Images are never resampled to a
fixed size.  Voxels are assumed to be isotropic; `dipy_dl_reg.initialization.network`
resamples images with other voxels, and resamples the field to the original grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple
import warnings

import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import exp
from dipy_dl_reg.validation import check_choice, check_number, wrong_value

#: Number of squarings for the integration of a velocity.  With this number, a
#: displacement of 8 voxels begins with steps of a quarter of a voxel.  Each squaring
#: needs as much time as a layer.
SQUARINGS = 5


class Prediction(NamedTuple):
    """The prediction of a network for a pair of images.

    Attributes
    ----------
    displacement : Tensor, shape (B, D, *shape)
        In voxels, static to moving: ``warp(moving, displacement)`` resembles static.
    velocity : Tensor, shape (B, D, *shape), or None
        The stationary velocity whose flow is the displacement, if the network predicts
        a velocity.
    coarse : tuple of Tensor, shape (B, D, *ceil(shape / 2**k))
        Displacements on grids 2, 4, ... times coarser, in voxels of these grids; for
        training.
    """

    displacement: torch.Tensor
    velocity: torch.Tensor | None = None
    coarse: tuple[torch.Tensor, ...] = ()


class RegistrationNetwork(nn.Module):
    """Base class of all networks; a call returns a `Prediction`.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    spacing : float, optional
        Voxel size, mm, for which the network was trained: images are resampled to it,
        and the field is resampled to the original grid.  With None, each image is used
        with its own voxel size, made isotropic.
    output : {"displacement", "velocity"}, optional
        Output of the last layer: a displacement, or a stationary velocity whose flow is
        the displacement.
    **arguments : dict
        All other arguments of the subclass; `load_network` needs them to construct it.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    #: Name in `dipy_dl_reg.networks.NETWORKS`.
    name: ClassVar[str | None] = None
    #: Sizes of padded images are ``multiple * k + remainder``.
    multiple: int = 1
    remainder: int = 0
    #: Whether swapping the images changes the sign of the velocity, by construction.
    symmetric: ClassVar[bool] = False
    #: Weight of the loss at each resolution in training, the finest first.
    level_weights: ClassVar[tuple[float, ...]] = (1.0,)
    #: Information about the network, see `save_network`.
    card: dict[str, Any] | None = None
    #: History of its last training, see `train_network`.
    history: Any = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "said" in vars(cls):
            _warn_of_former_name(stacklevel=3)
            cls.output_fields = vars(cls)["said"]  # type: ignore[method-assign]

    def __init__(
        self,
        dim: int,
        *,
        spacing: float | None = None,
        output: str = "displacement",
        **arguments: Any,
    ) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise wrong_value("dim", "2 or 3", dim)
        if spacing is not None:
            check_number("spacing", spacing, above=True)
        check_choice("output", output, ["displacement", "velocity"])
        self.dim = dim
        self.spacing = None if spacing is None else float(spacing)
        self.output = output
        self.arguments: dict[str, Any] = {
            "dim": dim,
            "spacing": self.spacing,
            "output": output,
            **arguments,
        }

    def forward(self, static: torch.Tensor, moving: torch.Tensor) -> Prediction:
        """Predict the field that registers moving to static.

        Parameters
        ----------
        static, moving : Tensor, shape (B, 1, *shape)
            Images on one grid, intensities scaled to about [0, 1].

        Returns
        -------
        prediction : Prediction
            Displacement, velocity if the output is one, and coarser displacements.

        Raises
        ------
        ValueError
            If the images differ in shape, do not have the dimension of the network, or
            have several channels.
        """
        fine, *coarse = self.output_fields(static, moving)
        if self.output == "velocity":
            flow = partial(exp, steps=SQUARINGS)
            return Prediction(flow(fine), fine, tuple(map(flow, coarse)))
        return Prediction(fine, None, tuple(coarse))

    def output_fields(
        self, static: torch.Tensor, moving: torch.Tensor
    ) -> list[torch.Tensor]:
        """Compute the fields of the last layers, without integration of velocities.

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
        same_grid = static.shape == moving.shape and static.shape[1] == 1
        if not same_grid or len(shape) != self.dim:
            raise ValueError(
                f"static and moving must both be (B, 1, *shape) with {self.dim} axes, "
                f"got {tuple(static.shape)} and {tuple(moving.shape)}."
            )
        padded = self._pad(torch.cat([static, moving], 1))
        # Under autocast the output of layers has half precision, which is not
        # sufficient for the integration.
        fields = (u.to(static.dtype) for u in self._fields(padded))
        return [_crop(u, [-(-n // 2**k) for n in shape]) for k, u in enumerate(fields)]

    def said(self, static: torch.Tensor, moving: torch.Tensor) -> list[torch.Tensor]:
        """Former name of `output_fields`.

        Parameters
        ----------
        static, moving : Tensor, shape (B, 1, *shape)
            As in `output_fields`.

        Returns
        -------
        fields : list of Tensor
            As `output_fields` returns them.
        """
        _warn_of_former_name(stacklevel=3)
        return RegistrationNetwork.output_fields(self, static, moving)

    def _fields(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        """Fields of padded images ``(B, 2, *padded)``, the finest first."""
        raise NotImplementedError

    def _pad(self, images: torch.Tensor) -> torch.Tensor:
        """Pad the images at the end of each axis to a size that can be halved."""
        missing = [(self.remainder - n) % self.multiple for n in images.shape[2:]]
        widths = [w for m in reversed(missing) for w in (0, m)]
        return F.pad(images, widths, mode="replicate") if any(missing) else images

    def extra_repr(self) -> str:
        """Arguments, for `repr`.

        Returns
        -------
        text : str
            ``key=value`` of each.
        """
        return ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())


def _warn_of_former_name(stacklevel: int) -> None:
    """Warn that a method is used by its former name."""
    message = "said is deprecated; its name is output_fields."
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def _crop(u: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first voxels along every axis."""
    for axis, size in enumerate(shape, 2):
        u = u.narrow(axis, 0, size)
    return u
