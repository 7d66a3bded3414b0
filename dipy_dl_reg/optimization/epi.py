r"""Estimation of the distortion from two echo-planar images of opposite encodings.

With opposite directions of phase encoding, the same inhomogeneity of the magnetic field
displaces the signal by the same distance in opposite directions along one axis
:footcite:p:`Andersson2003`.  On the undistorted grid, with the shift :math:`s` in
voxels along the axis :math:`e` and the rigid motion :math:`R` of the head between the
two acquisitions, the images without distortion are

.. math::

    c_1(x) = I_1(x + s(x)\, e)\, (1 + \partial_e s(x)), \qquad
    c_2(x) = I_2(R x - s(x)\, e)\, (1 - \partial_{R^{-1} e} s(x))

The factors restore the density of a signal that was compressed or stretched.
`estimate_shift` minimizes

.. math::

    \frac{1}{2} \sum_x (c_1 - c_2)^2
    + \frac{\alpha}{2} \sum_x |\nabla s|^2
    + \beta \sum_x \varphi(\Delta_e s), \qquad
    \varphi(z) = \frac{z^4}{1 - z^2}

from the coarsest level to the finest, as in :footcite:t:`Ruthotto2012`: Gauss-Newton
steps for the shift, by conjugate gradients, alternate with such steps for the motion.
The last term is infinite where the difference of neighbours, :math:`\Delta_e s`,
reaches 1 or -1, so that neither of the two maps folds.

A translation along the encoded axis between the acquisitions cannot be distinguished
from a constant shift; it is therefore part of the shift.

Tensors are ``(1, 1, *shape)``; the shift is in voxels of its own grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fold_repair import (
    LEAST_JACOBIAN,
    ROUND_TRIP_MAX,
    ROUND_TRIP_MEAN,
    Quality,
    measure_quality,
)
from dipy_dl_reg.geometry.inversion import invert
from dipy_dl_reg.geometry.pyramid import level_spacings
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.geometry.transposed import forward_difference, forward_transposed
from dipy_dl_reg.optimization.epi_images import (
    EpiPair,
    coarsen_epi_pair,
    linearise,
    make_views,
    remove_distortion,
    resize_shift,
)
from dipy_dl_reg.optimization.epi_motion import apply_step, motion_step

#: Largest difference of the shift between neighbours along the axis, in voxels.
_STEEPEST = 0.9
#: Relative decrease of the energy below which a level ends.
_TOLERANCE = 1e-3
#: Conjugate gradients end after this number of steps or at this relative residual.
_CG_STEPS, _CG_TOLERANCE = 30, 0.03
#: Smoothing of the images at full resolution, in voxels: it reduces noise, and the
#: difference in sharpness between images that were interpolated at different points.
_SIGMA_IMAGES = 0.6
#: Number of times that a step is halved until the energy decreases.
_HALVINGS = 6
#: Maximum number of times that a shift is smoothed to make its maps invertible.
_SMOOTHINGS = 30

#: A displacement and its inverse, each of shape (1, D, *shape), in voxels.
Fields = tuple[torch.Tensor, torch.Tensor]


class Weights(NamedTuple):
    """Weights of the penalties, see the docstring of this module.

    Attributes
    ----------
    smoothness : float
        Of the squared gradient of the shift.
    fold : float
        Of the penalty that prevents folds.
    """

    smoothness: float
    fold: float


class Distortion(NamedTuple):
    """The shift between the undistorted grid and the images, and the motion.

    Attributes
    ----------
    shift : Tensor, shape (1, 1, *shape)
        In voxels along the axis: positive where the first image shows a point at a
        higher index.
    motion : ndarray, shape (D + 1, D + 1)
        Rigid, world of the first image to world of the second.
    """

    shift: torch.Tensor
    motion: np.ndarray


def estimate_shift(
    pair: EpiPair,
    *,
    levels: int,
    iterations: int,
    weights: Weights,
    estimates_motion: bool = True,
    observer: Callable[[int, float], None] | None = None,
) -> Distortion:
    """Estimate the distortion of two images of opposite encodings.

    Parameters
    ----------
    pair : EpiPair
        The images.
    levels : int
        Number of resolutions; the voxel size doubles with each.
    iterations : int
        Maximum number of Gauss-Newton steps at each level.
    weights : Weights
        Of the penalties, for intensities whose mean is about 1.
    estimates_motion : bool, optional
        Whether the head may have moved between the images.
    observer : callable, optional
        ``observer(level, energy)`` is called after each step; level 0 is the finest.

    Returns
    -------
    distortion : Distortion
        On the grid of the images.
    """
    first, second = (
        smooth(image, _SIGMA_IMAGES) for image in (pair.first, pair.second)
    )
    pair = pair._replace(first=first, second=second)
    shift = pair.first.new_zeros(1, 1, *[1] * pair.grid.dim)
    motion = np.eye(pair.grid.dim + 1)
    for index, spacing in enumerate(level_spacings(pair.grid, levels)):
        current = coarsen_epi_pair(pair, spacing)
        shift = resize_shift(shift, current)
        energy = float("inf")
        for _ in range(iterations):
            problem = _Problem(current, motion, weights)
            shift, new = problem.improve_shift(shift)
            if estimates_motion:
                motion, new = problem.improve_motion(shift)
            if observer is not None:
                observer(levels - 1 - index, new)
            if energy - new <= _TOLERANCE * new:
                break
            energy = new
    return Distortion(shift, motion)


class _Problem:
    """The energy of a shift at one resolution, for a given motion."""

    def __init__(self, pair: EpiPair, motion: np.ndarray, weights: Weights) -> None:
        self.pair, self.motion, self.views = pair, motion, make_views(pair, motion)
        self.axis, self.weights = pair.axis, weights
        # The shift in mm, differentiated by mm along each axis.
        spacing = pair.grid.spacing
        self.factors = [float((spacing[pair.axis] / s) ** 2) for s in spacing]

    def energy(self, shift: torch.Tensor) -> float:
        """The objective; infinite where a map folds."""
        slope = forward_difference(shift, self.axis)
        if float(slope.abs().max()) >= _STEEPEST:
            return float("inf")
        first, second = (remove_distortion(view, shift) for view in self.views)
        misfit = 0.5 * float((first - second).square().sum())
        rough = 0.5 * float((shift * self._roughness(shift)).sum())
        fold = float((slope**4 / (1 - slope**2)).sum())
        return misfit + self.weights.smoothness * rough + self.weights.fold * fold

    def _roughness(self, shift: torch.Tensor) -> torch.Tensor:
        """Derivative of half the squared gradient: the negative Laplacian."""
        total = torch.zeros_like(shift)
        for axis, factor in enumerate(self.factors):
            slope = forward_difference(shift, axis)
            total.add_(forward_transposed(slope, axis), alpha=factor)
        return total

    def improve_shift(self, shift: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Do a Gauss-Newton step, shortened until the energy decreases."""
        first, second = (linearise(view, shift) for view in self.views)
        slope = forward_difference(shift, self.axis)
        weights, square = self.weights, slope.square()
        by_slope = slope * square * (4 - 2 * square) / (1 - square) ** 2
        curvature = (12 * square - 6 * square**2 + 2 * square**3) / (1 - square) ** 3
        residual = first.value - second.value
        gradient = first.change_transposed(residual)
        gradient -= second.change_transposed(residual)
        gradient += weights.smoothness * self._roughness(shift)
        gradient += weights.fold * forward_transposed(by_slope, self.axis)

        def hessian(x: torch.Tensor) -> torch.Tensor:
            change = first.change(x) - second.change(x)
            total = first.change_transposed(change) - second.change_transposed(change)
            total += weights.smoothness * self._roughness(x)
            steep = curvature * forward_difference(x, self.axis)
            return total.add_(forward_transposed(steep, self.axis), alpha=weights.fold)

        diagonal = first.squares() + second.squares()
        diagonal += weights.smoothness * 2 * sum(self.factors)
        step = _conjugate_gradients(hessian, gradient, diagonal)
        return self._search_line(shift, step)

    def improve_motion(self, shift: torch.Tensor) -> tuple[np.ndarray, float]:
        """Do a Gauss-Newton step of the motion, shortened like that of the shift."""
        before, part = self.energy(shift), 1.0
        step = motion_step(self.pair, self.views, shift, self.motion)
        for _ in range(_HALVINGS):
            trial = apply_step(self.pair.grid, self.motion, part * step)
            energy = _Problem(self.pair, trial, self.weights).energy(shift)
            if energy < before:
                return trial, energy
            part /= 2
        return self.motion, before

    def _search_line(
        self, shift: torch.Tensor, step: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Subtract the step, or a part of it that decreases the energy."""
        before, part = self.energy(shift), 1.0
        for _ in range(_HALVINGS):
            trial = shift - part * step
            energy = self.energy(trial)
            if energy < before:
                return trial, energy
            part /= 2
        return shift, before


def _conjugate_gradients(
    hessian: Callable[[torch.Tensor], torch.Tensor],
    gradient: torch.Tensor,
    diagonal: torch.Tensor,
) -> torch.Tensor:
    """Solve ``hessian(step) = gradient`` approximately."""
    step, residual = torch.zeros_like(gradient), gradient.clone()
    scaled = residual / diagonal
    direction, product = scaled.clone(), float((residual * scaled).sum())
    enough = _CG_TOLERANCE**2 * product
    for _ in range(_CG_STEPS):
        if product <= enough or product == 0:
            break
        image = hessian(direction)
        length = product / float((direction * image).sum())
        step.add_(direction, alpha=length)
        residual.sub_(image, alpha=length)
        scaled = residual / diagonal
        new = float((residual * scaled).sum())
        direction = scaled.add_(direction, alpha=new / product)
        product = new
    return step


def make_fields(
    pair: EpiPair, distortion: Distortion
) -> tuple[Distortion, list[Fields], Quality]:
    """Make the displacement fields of both images, and their inverses.

    Parameters
    ----------
    pair : EpiPair
        The images.
    distortion : Distortion
        As `estimate_shift` returns it.

    Returns
    -------
    distortion : Distortion
        Its shift was smoothed if a field violated one of the limits.
    fields : list of tuple of Tensor, shape (1, D, *shape)
        For each image, the field from the undistorted grid and its inverse, in voxels.
    quality : Quality
        The worse values of the two.  All limits of `make_diffeomorphic` are met.
    """
    for repairs in range(_SMOOTHINGS + 1):
        views = make_views(pair, distortion.motion)
        displacements = [view.displacement(distortion.shift) for view in views]
        fields = [(u, invert(u)) for u in displacements]
        qualities = [measure_quality(u, v, repairs=repairs) for u, v in fields]
        if all(map(_is_valid, qualities)):
            break
        distortion = distortion._replace(shift=smooth(distortion.shift, 1.0))
    quality = Quality(
        min(q.minimum_jacobian for q in qualities),
        min(q.minimum_jacobian_inverse for q in qualities),
        max(q.round_trip_mean for q in qualities),
        max(q.round_trip_max for q in qualities),
        repairs,
        max(q.folds_percent for q in qualities),
        max(q.folds_percent_inverse for q in qualities),
    )
    return distortion, fields, quality


def _is_valid(quality: Quality) -> bool:
    """Whether a field and its inverse meet the limits of every result."""
    least = min(quality.minimum_jacobian, quality.minimum_jacobian_inverse)
    return (
        least >= LEAST_JACOBIAN
        and quality.round_trip_mean <= ROUND_TRIP_MEAN
        and quality.round_trip_max <= ROUND_TRIP_MAX
    )
