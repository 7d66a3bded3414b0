"""Optimizes the parameters of affine transforms, from one or many starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.affine_transforms.base import AffineTransform
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.optimization.affine_objective import AffineObjective
from dipy_dl_reg.optimization.affine_sampling import Level
from dipy_dl_reg.optimization.bfgs import BatchFunction, Minimum, minimize_batch

#: A parameter is fixed if it moves the points by less than this fraction of the motion
#: by other parameters; for example, parameters that move a single slice out of its
#: plane.
_LEAST_MOTION = 1e-8
#: Smallest ratio of the determinant to that of the start, so that no reflection occurs.
_LEAST_VOLUME = 0.05
#: Optimization ends when steps are shorter than this part of a voxel of the level.
_TOLERANCE = 0.01
_EXACT: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


def optimize_parameters(
    objective: AffineObjective,
    transform: AffineTransform,
    start: torch.Tensor,
    theta: torch.Tensor,
    *,
    iterations: int,
    tolerance: float = _TOLERANCE,
) -> Minimum:
    """Optimize the parameters at one resolution, for a batch of starts.

    For transforms with a translation, the matrix is ``T(c) M(theta) T(-c) start``,
    where ``c`` is the centre of the compared points; for others it is ``M(theta)
    start``.  The length of a step is the root mean square distance, in mm, by which it
    moves the points, so that rotations, scales and translations are comparable.

    Parameters
    ----------
    objective : AffineObjective
        The images.
    transform : AffineTransform
        Type of affine transform.
    start : Tensor, shape (B, D + 1, D + 1)
        Matrices from static's world to moving's, float64.
    theta : Tensor, shape (B, P)
        First parameters, about the world's origin.
    iterations : int
        Maximum number of evaluations.
    tolerance : float, optional
        Optimization ends when steps are shorter, in voxels of the level.

    Returns
    -------
    minimum : Minimum
        Its parameters are about the world's origin.
    """
    level = objective.level
    chart = _make_chart(transform, start, theta, level)
    minimum = minimize_batch(
        _make_function(objective, chart),
        torch.zeros_like(theta),
        iterations=iterations,
        first_step=0.5 * level.spacing,
        tolerance=tolerance * level.spacing,
    )
    everything = torch.arange(len(start), device="cpu")
    local = chart.to_parameters(minimum.parameters, everything)
    theta = transform.change_centre(local, -chart.centre)
    return Minimum(theta, minimum.value, minimum.evaluations)


class _Chart(NamedTuple):
    """Coordinates in mm for the parameters of a batch of transforms.

    The parameters are relative to the centre of the compared points; matrices are
    ``to_world M(parameters) from_start``.
    """

    transform: AffineTransform
    centre: torch.Tensor  # (B, D), 0 for transforms without a translation
    to_world: torch.Tensor  # (B, D + 1, D + 1)
    from_start: torch.Tensor  # (B, D + 1, D + 1)
    first: torch.Tensor  # (B, P), the first parameters
    per_mm: torch.Tensor  # (B, P, P), steps of parameters for steps in mm
    volume: torch.Tensor  # (B,), determinants of the starts

    def to_parameters(self, steps: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        """Parameters after steps in mm, for some entries of the batch."""
        change = (self.per_mm[entries] @ steps[:, :, None])[:, :, 0]
        return self.first[entries] + change

    def to_matrices(
        self, parameters: torch.Tensor, entries: torch.Tensor
    ) -> torch.Tensor:
        """Matrices from static's world to moving's, for some entries of the batch."""
        matrix = self.transform.matrix(parameters)
        return self.to_world[entries] @ matrix @ self.from_start[entries]


def _make_chart(
    transform: AffineTransform, start: torch.Tensor, theta: torch.Tensor, level: Level
) -> _Chart:
    """Make the coordinates, relative to the centre of the compared points."""
    dim = transform.dim
    to_world = torch.eye(dim + 1, **_EXACT).repeat(len(start), 1, 1)
    if transform.has_translation:
        middle = start[:, :dim, :dim] @ level.centre + start[:, :dim, dim]
        to_world[:, :dim, dim] = middle
    centre = to_world[:, :dim, dim]
    from_start = torch.linalg.inv(to_world) @ start
    first = transform.change_centre(theta, centre)
    per_mm = _parameters_per_mm(transform, first, from_start, level)
    volume = torch.linalg.det(start[:, :dim, :dim])
    return _Chart(transform, centre, to_world, from_start, first, per_mm, volume)


def _parameters_per_mm(
    transform: AffineTransform,
    theta: torch.Tensor,
    from_start: torch.Tensor,
    level: Level,
) -> torch.Tensor:
    """Matrices (B, P, P) from steps in mm to steps of parameters (whitening)."""
    shift = torch.eye(transform.dim + 1, **_EXACT)
    shift[:-1, -1] = level.centre
    places = from_start @ shift
    second = places @ level.moments @ places.transpose(1, 2)
    jacobian = transform.jacobian(theta)
    gram = torch.einsum("bpde,bef,bqdf->bpq", jacobian, second, jacobian)
    power, axes = torch.linalg.eigh(gram)
    free = power > _LEAST_MOTION * power.amax(1, keepdim=True)
    scale = torch.where(free, power.clamp_min(1e-300).rsqrt(), torch.zeros_like(power))
    return axes * scale[:, None, :]


def _make_function(objective: AffineObjective, chart: _Chart) -> BatchFunction:
    """The objective as a function of steps in mm."""
    dim = chart.transform.dim

    def evaluate(
        steps: torch.Tensor, entries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parameters = chart.to_parameters(steps, entries)
        matrices = chart.to_matrices(parameters, entries)
        value, by_matrix = objective(matrices)
        growth = torch.linalg.det(matrices[:, :dim, :dim]) / chart.volume[entries]
        value[~(growth > _LEAST_VOLUME)] = torch.inf
        left = chart.to_world[entries][:, :dim, :dim].transpose(1, 2)
        inner = left @ by_matrix @ chart.from_start[entries].transpose(1, 2)
        jacobian = chart.transform.jacobian(parameters)
        by_parameters = (jacobian * inner[:, None]).sum((2, 3))
        return value, (by_parameters[:, None] @ chart.per_mm[entries])[:, 0]

    return evaluate


def optimize_levels(
    levels: Sequence[Level],
    transform: AffineTransform,
    start: np.ndarray,
    theta: np.ndarray | None,
    *,
    level_iters: Sequence[int],
    metric: Metric | None = None,
) -> tuple[np.ndarray, float]:
    """Optimize the parameters from coarse to fine, from one start.

    Parameters
    ----------
    levels : list of Level
        Coarsest first.
    transform : AffineTransform
        Type of affine transform.
    start : ndarray, shape (D + 1, D + 1)
        Static's world to moving's, before the transform.
    theta : ndarray, shape (P,) or None
        Initial parameters; None for the identity.
    level_iters : sequence of int
        Maximum number of evaluations at each level.
    metric : Metric, optional
        See `AffineObjective`.

    Returns
    -------
    theta : ndarray, shape (P,)
        Parameters: ``M(theta) start`` is the matrix found.
    value : float
        Value of the metric at the last level.
    """
    matrix = torch.as_tensor(np.array(start), **_EXACT)[None]
    if theta is None:
        parameters = transform.identity()
    else:
        parameters = torch.as_tensor(np.array(theta), **_EXACT)[None]
    value = float("nan")
    for level, iterations in zip(levels, level_iters):
        minimum = optimize_parameters(
            AffineObjective(level, metric),
            transform,
            matrix,
            parameters,
            iterations=max(1, iterations),
        )
        parameters, value = minimum.parameters, float(minimum.value[0])
    return parameters[0].numpy(), value
