"""Functions of the package that gpu_check.py compares between two devices.

A case is a function of a device that returns a tensor or an array, and a tolerance.
The error is the largest difference over the largest value of the first result. For
iterations, where rounding errors grow, it is the mean difference of the displacements,
in voxels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.derivatives import jacobian, weighted_gradient
from dipy_dl_reg.geometry.fields import compose, exp, frame, resize, warp
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic, repair_folds
from dipy_dl_reg.geometry.inversion import (
    enforce_inverse_consistency,
    invert,
    round_trip,
)
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.geometry.resampling import resample_field
from dipy_dl_reg.geometry.smoothing import box_sum, smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.displacement_search import search_displacements
from dipy_dl_reg.initialization.metric_selection import mean_local_correlation
from dipy_dl_reg.initialization.network import predict_displacement
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.registry import (
    METRICS,
    REGULARIZERS,
    metric_by_name,
    regularizer_by_name,
)
from dipy_dl_reg.metrics.self_similarity import mind_ssc
from dipy_dl_reg.networks.pretrained import WEIGHTS, load_model
from dipy_dl_reg.optimization.adam import Adam
from dipy_dl_reg.optimization.deformable import refine
from tools import gpu_parity_brain as brain

#: Tolerances: of one function, of a sum over an image, and of many iterations (voxels).
FUNCTION, SUM, ITERATIONS = 2e-5, 2e-4, 0.02


class Case(NamedTuple):
    """A function of a device, its tolerance, and whether the error is a mean."""

    function: Callable
    tolerance: float
    mean: bool = False


def smooth_noise(shape, channels, sigma, seed):
    """Make smooth noise between -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn(1, channels, *shape, generator=generator), sigma)
    return image / image.abs().max()


def make_images(shape):
    """Make a smooth object, and the same object displaced by up to three voxels."""
    lines = [torch.linspace(-1, 1, n) for n in shape]
    radius = torch.stack(torch.meshgrid(*lines, indexing="ij")).square().sum(0)
    texture = 0.6 + 0.4 * smooth_noise(shape, 1, 1.5, 0)
    image = texture * torch.sigmoid(25 * (0.7 - radius))
    return image, warp(image, 3 * smooth_noise(shape, len(shape), 6.0, 1))


def make_pair(shape, device):
    """The images as a pair on a device, on grids that differ by an affine."""
    static, moving = (x.to(device) for x in make_images(shape))
    grid = Grid(tuple(shape), np.diag([2.0] * len(shape) + [1]))
    return Pair(static, moving, grid, grid, np.eye(len(shape) + 1))


def field_cases(shape):
    """Functions of fields."""
    dim = len(shape)
    image = make_images(shape)[0]
    u, v = 3 * smooth_noise(shape, dim, 5.0, 2), smooth_noise(shape, dim, 4.0, 3)
    fold = 12 * smooth_noise(shape, dim, 4.0, 4)
    matrix = np.eye(dim + 1)
    matrix[:dim] += 0.05 * np.random.default_rng(0).normal(size=(dim, dim + 1))
    finer = Grid([2 * n - 1 for n in shape], np.diag([1.0] * dim + [1]))
    grid = Grid(tuple(shape), np.diag([2.0] * dim + [1]))

    def near(d):
        return u.to(d), invert(u.to(d)) + 0.1 * v.to(d)

    one = {
        "warp": lambda d: warp(image.to(d), u.to(d)),
        "warp, affine": lambda d: warp(
            image.to(d), u.to(d), frame_=frame(shape, affine=matrix, device=d)
        ),
        "compose": lambda d: compose(u.to(d), v.to(d), scale=-1),
        "exp": lambda d: exp(u.to(d)),
        "resize": lambda d: resize(u.to(d), [n // 2 for n in shape]),
        "resample_field": lambda d: resample_field(u.to(d), grid, finer),
        "jacobian": lambda d: jacobian(u.to(d)),
        "weighted_gradient": lambda d: weighted_gradient(image.to(d), image.to(d)),
        "round_trip": lambda d: round_trip(*near(d))[0],
        "enforce_inverse_consistency": lambda d: torch.cat(
            enforce_inverse_consistency(*near(d))
        ),
        "invert": lambda d: invert(u.to(d)),
        "smooth, sigma 0.8": lambda d: smooth(u.to(d), 0.8),
        "smooth, sigma 3": lambda d: smooth(u.to(d), 3.0),
        "smooth, one sigma an axis": lambda d: smooth(u.to(d), [0.5, 0, 2.0][:dim]),
        "box_sum": lambda d: box_sum(image.to(d), 2),
        "mind_ssc": lambda d: mind_ssc(image.to(d)),
    }
    cases = {name: Case(function, FUNCTION) for name, function in one.items()}
    # Which voxels are repaired may depend on rounding.
    cases["repair_folds"] = Case(
        lambda d: torch.cat(repair_folds(fold.to(d), -fold.to(d))), ITERATIONS, True
    )
    cases["make_diffeomorphic"] = Case(
        lambda d: torch.cat(make_diffeomorphic(fold.to(d))[:2]), ITERATIONS, True
    )
    return cases


def metric_cases(shape):
    """Value and gradient of every metric and penalty, and a step of the optimizer."""
    static, moving = make_images(shape)
    mask = (static > 0.1).float()
    u = 3 * smooth_noise(shape, len(shape), 5.0, 2)

    def gradient(name, d):
        evaluate = metric_by_name(name).bind(
            static.to(d), mask.to(d), moving=moving.to(d)
        )
        return evaluate(moving.to(d))[1]

    def penalty(name, d):
        field = u.to(d, copy=True).requires_grad_()
        with torch.enable_grad():
            regularizer_by_name(name)(field).backward()
        return field.grad

    def adam(d):
        optimizer = Adam(u.to(d), epsilon=0.1)
        for sign in (1, -0.5, 1):
            move = optimizer.direction(sign * u.to(d), 0.5)
        return move

    cases = {
        f"metric {n}": Case(lambda d, n=n: gradient(n, d), SUM) for n in METRICS
    } | {f"penalty {n}": Case(lambda d, n=n: penalty(n, d), SUM) for n in REGULARIZERS}
    return cases | {"Adam": Case(adam, FUNCTION)}


def registration_cases(shape):
    """Parts of a registration, on one device from beginning to end."""

    def refined(name, d):
        pair = make_pair(shape, d)
        objective = Objective(metric_by_name(name))
        return torch.cat(refine(pair, objective, level_iters=[20, 20]))

    def predicted(name, d):
        pair, objective = make_pair(shape, d), Objective(metric_by_name("CC"))
        return predict_displacement(load_model(name), pair, objective)[0]

    dim = len(shape)
    names = [name for name in WEIGHTS if ("slices" in name) == (dim == 2)]
    cases = {
        f"refine, {n}": Case(lambda d, n=n: refined(n, d), ITERATIONS, True)
        for n in METRICS
    } | {
        f"network {n}": Case(lambda d, n=n: predicted(n, d), ITERATIONS, True)
        for n in names
    }
    cases["coarsen"] = Case(
        lambda d: coarsen(make_pair(shape, d), 4.0, sigma_factor=0.8).static, FUNCTION
    )
    cases["mean_local_correlation"] = Case(
        lambda d: torch.tensor(mean_local_correlation(make_pair(shape, d))), SUM
    )
    cases["search_displacements"] = Case(
        lambda d: search_displacements(make_pair(shape, d))[0], ITERATIONS, True
    )
    return cases


def call_cases(shape):
    """Calls of users, from arrays to a map; affine maps are compared at the corners."""
    from dipy_dl_reg import (
        DeepRegistration,
        ThinPlateSplineRegistration,
        deep_affine_registration,
    )

    static, moving = (x[0, 0].numpy() for x in make_images(shape))
    dim = len(shape)
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim] += 0.06 * np.random.default_rng(0).normal(size=(dim, dim))
    grid = np.eye(dim + 1)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(dim, -1)

    def registered(d, **options):
        mapping = DeepRegistration(device=d, progress=False, **options).optimize(
            static, moving
        )
        return np.moveaxis(mapping.backward, -1, 0)

    def affine(d, **options):
        found = deep_affine_registration(
            moving,
            static,
            moving_affine=matrix,
            static_affine=grid,
            device=d,
            **options,
        )[1]
        return found[:dim, :dim] @ corners + found[:dim, dim:]

    def spline(d):
        points = np.random.default_rng(1).uniform(5, min(shape) - 5, (30, dim))
        moved = points + np.random.default_rng(2).normal(size=points.shape)
        found = ThinPlateSplineRegistration(device=d).optimize(
            points, moved, static_shape=shape
        )
        return np.moveaxis(found.backward, -1, 0)

    return {
        "DeepRegistration()": Case(registered, ITERATIONS, True),
        "DeepRegistration(model=None)": Case(
            lambda d: registered(d, model=None), ITERATIONS, True
        ),
        "DeepRegistration(level_iters=0)": Case(
            lambda d: registered(d, level_iters=0), ITERATIONS, True
        ),
        "deep_affine_registration": Case(affine, ITERATIONS, True),
        "deep_affine_registration, MI": Case(
            lambda d: affine(d, metric="MI"), ITERATIONS, True
        ),
        "ThinPlateSplineRegistration": Case(spline, ITERATIONS, True),
    }


def brain_cases(shape):
    """Cases of gpu_parity_brain.py, for 3D images."""
    functions = (
        brain.metric_cases(shape)
        | brain.direction_cases(shape)
        | brain.anatomy_cases(shape, make_pair)
    )
    iterations = brain.refinement_cases(shape, make_pair)
    iterations |= brain.call_cases(shape, make_images)
    return {name: Case(function, SUM) for name, function in functions.items()} | {
        name: Case(function, ITERATIONS, True) for name, function in iterations.items()
    }


def list_cases(shape):
    """All cases for one shape, by name."""
    return (
        field_cases(shape)
        | metric_cases(shape)
        | registration_cases(shape)
        | call_cases(shape)
        | (brain_cases(shape) if len(shape) == 3 else {})
    )


def to_array(result):
    """A result as an array of float64."""
    if isinstance(result, torch.Tensor):
        result = result.detach().cpu().numpy()
    return np.asarray(result, dtype=float)


def compare(case, device):
    """Error of a device against the CPU, and whether a second run has the same bits."""
    with torch.no_grad():
        wanted = to_array(case.function("cpu"))
        found, again = (to_array(case.function(device)) for _ in range(2))
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf"), False
    gap = np.abs(found - wanted)
    error = gap.mean() if case.mean else gap.max() / max(np.abs(wanted).max(), 1e-12)
    return float(error), bool((found == again).all())
