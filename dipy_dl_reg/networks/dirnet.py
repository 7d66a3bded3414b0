"""DIRNet: a network that displaces the control points of a B-spline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.layers import AVERAGE_POOL, BatchNorm, conv
from dipy_dl_reg.validation import check_whole_number

#: Largest displacement of control points, as a fraction of their distance, with which
#: the spline cannot fold.
BOUND = 0.4


class DIRNet(RegistrationNetwork):
    """Regressor of B-spline control points, as in DIRNet :footcite:p:`deVos2017`.

    Each halving of the resolution, down to that of the control points, is a convolution
    3 voxels wide, an ELU, batch normalization and average pooling 2 voxels wide.  Two
    convolutions 1 voxel wide with ELU follow, and a linear convolution with initial
    weights of zero, whose outputs are the displacements of the control points.  The
    control points are at the centres of the pooled blocks.  The field is a cubic
    B-spline of these displacements, see `bspline_field`.

    Parameters
    ----------
    dim : {2, 3}
        Dimension of the images.
    grid_spacing : int, optional
        Distance of the control points in voxels, a power of 2.
    features : int, optional
        Channels of each convolution.
    bounded : bool, optional
        Keep each component of the control points' displacements below 0.4 of their
        distance, by ``0.4 grid_spacing tanh(x)``, so that the spline cannot fold
        :footcite:p:`Choi2000`.
    output : {"displacement", "velocity"}, optional
        See `RegistrationNetwork`.
    spacing : float, optional
        See `RegistrationNetwork`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Parameters: 2D 7970, 3D 22387 (at a grid spacing of 16).

    References
    ----------
    .. footbibliography::
    """

    name = "dirnet"

    def __init__(
        self,
        dim: int,
        *,
        grid_spacing: int = 16,
        features: int = 16,
        bounded: bool = False,
        output: str = "displacement",
        spacing: float | None = None,
    ) -> None:
        super().__init__(
            dim,
            spacing=spacing,
            output=output,
            grid_spacing=check_whole_number("grid_spacing", grid_spacing, low=2),
            features=check_whole_number("features", features, low=1),
            bounded=bool(bounded),
        )
        poolings = int(grid_spacing).bit_length() - 1
        if 2**poolings != grid_spacing:
            raise ValueError(f"grid_spacing must be a power of 2, got {grid_spacing}.")
        self.multiple = self.grid_spacing = int(grid_spacing)
        self.bounded = bool(bounded)
        widths = [2, *[features] * poolings]
        blocks = (_block(dim, a, b) for a, b in zip(widths, widths[1:]))
        last = conv(dim, features, dim, width=1)
        nn.init.zeros_(last.weight)  # the bias is 0 already
        self.regressor = nn.Sequential(
            *blocks,
            *(conv(dim, features, features, width=1), nn.ELU()),
            *(conv(dim, features, features, width=1), nn.ELU()),
            last,
        )

    def _fields(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        points = self.regressor(images)
        if self.bounded:
            points = BOUND * self.grid_spacing * torch.tanh(points)
        return (bspline_field(points, self.grid_spacing),)


def _block(dim: int, inputs: int, outputs: int) -> nn.Sequential:
    """Layers that halve the resolution once."""
    return nn.Sequential(
        conv(dim, inputs, outputs), nn.ELU(), BatchNorm(outputs), AVERAGE_POOL[dim](2)
    )


def bspline(distance: torch.Tensor) -> torch.Tensor:
    """Evaluate the cubic B-spline.

    Parameters
    ----------
    distance : Tensor
        Distance from the control point, in distances of control points.

    Returns
    -------
    weight : Tensor, same shape
        ``2/3 - d**2 + d**3 / 2`` up to 1, ``(2 - d)**3 / 6`` up to 2, 0 beyond.
    """
    d = distance.abs()
    near = 2 / 3 - d**2 + d**3 / 2
    far = (2 - d).clamp_min(0) ** 3 / 6
    return torch.where(d < 1, near, far)


def bspline_matrix(count: int, grid_spacing: int) -> torch.Tensor:
    """Compute the weights of the control points of one axis at its voxels.

    Parameters
    ----------
    count : int
        Number of control points; they are in the middle of blocks of voxels.
    grid_spacing : int
        Their distance in voxels.

    Returns
    -------
    weights : Tensor, shape (grid_spacing * count, count)
        In float64.  The sum of each row is 1: control points outside the grid have the
        value of the last control point.
    """
    exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    voxels = torch.arange(grid_spacing * count, **exact)
    points = torch.arange(-2, count + 2, device="cpu")
    centres = points * grid_spacing + (grid_spacing - 1) / 2
    weights = bspline((voxels[:, None] - centres) / grid_spacing)
    nearest = points.clamp(0, count - 1)
    return weights.new_zeros(len(voxels), count).index_add_(1, nearest, weights)


def bspline_field(points: torch.Tensor, grid_spacing: int) -> torch.Tensor:
    """Evaluate the spline whose control points are at the centres of voxel blocks.

    ``u(x) = sum_i c_i prod_d B((x_d - i_d s - (s - 1) / 2) / s)`` with `s` the grid
    spacing and `B` the cubic B-spline: a transposed convolution of stride `s` by a
    fixed kernel ``4 s`` wide, computed as one matrix product per axis, which is faster.

    Parameters
    ----------
    points : Tensor, shape (B, C, *shape)
        Values of the control points.
    grid_spacing : int
        Their distance in voxels.

    Returns
    -------
    u : Tensor, shape (B, C, *(grid_spacing * shape))
        Field with the same unit; at least in float32, also with mixed precision.
    """
    u = points.to(torch.promote_types(points.dtype, torch.float32))
    with torch.autocast(u.device.type, enabled=False):
        for axis, count in enumerate(points.shape[2:], 2):
            weights = bspline_matrix(count, grid_spacing).to(u)
            u = torch.tensordot(u, weights, ([axis], [1])).movedim(-1, axis)
    return u
