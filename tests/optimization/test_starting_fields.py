"""Refinement from given fields: no start makes the result worse than none does."""

import numpy as np
import pytest
from scipy import ndimage
import torch

from dipy_dl_reg.geometry.fields import exp
from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic, measure_quality
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.ssd import SSDMetric
from dipy_dl_reg.optimization.deformable import evaluate_energies, refine

SHAPES = [(64, 56), (22, 20, 18)]
ITERATIONS = [30, 30, 20]


def random_field(shape, seed, sigma, size):
    """Gaussian noise, smoothed; its standard deviation is `size` voxels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, len(shape), *shape, generator=generator)
    noise = smooth(noise, sigma)
    return noise * (size / noise.std())


class Known:
    """Two noisy images related by a known map, and fields to start from."""

    def __init__(self, shape):
        self.shape = shape
        velocity = random_field(shape, 0, 4.0, 1.2)
        truth, inverse = exp(velocity), exp(-velocity)
        rng = np.random.default_rng(1)
        image = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
        image = (image - image.min()) / np.ptp(image)
        at = np.indices(shape) + truth[0].numpy()
        warped = ndimage.map_coordinates(image, at, order=3, mode="nearest")
        noisy = (x + 0.02 * rng.standard_normal(shape) for x in (warped, image))
        static, moving = (torch.from_numpy(x)[None, None].float() for x in noisy)
        grid = Grid(shape, np.eye(len(shape) + 1))
        self.pair = Pair(static, moving, grid, grid, np.eye(len(shape) + 1))
        self.exact = truth, inverse

    def starts(self):
        """Named fields with their inverses, as `choose_start` passes them on."""
        truth, _ = self.exact
        fields = {
            "blurred": smooth(truth, 3.0),
            "noisy": truth + random_field(self.shape, 2, 1.5, 0.8),
            "rough": truth + random_field(self.shape, 3, 0.6, 0.5),
            "unrelated": exp(random_field(self.shape, 4, 4.0, 1.2)),
            "reversed": -truth,
            "folded": truth + random_field(self.shape, 5, 1.0, 2.0),
        }
        made = {name: make_diffeomorphic(u)[:2] for name, u in fields.items()}
        return {"exact": self.exact} | made

    def error(self, u):
        """Root mean square distance from the true field, away from the border."""
        inner = (slice(None), slice(None), *(slice(4, -4),) * len(self.shape))
        return float((u - self.exact[0])[inner].square().mean().sqrt())


@pytest.fixture(scope="module", params=SHAPES, ids=["2D", "3D"])
def known(request):
    return Known(request.param)


@pytest.fixture(scope="module", params=[CCMetric, SSDMetric])
def refined(request, known):
    """The results without a start and from each start, and the objective."""
    objective = Objective(request.param())
    starts = {"none": None} | known.starts()
    found = {
        name: refine(
            known.pair, objective, level_iters=ITERATIONS, start=start, tolerance=0.005
        )
        for name, start in starts.items()
    }
    return objective, found


NAMES = ["exact", "blurred", "noisy", "rough", "unrelated", "reversed", "folded"]


@pytest.mark.parametrize("name", NAMES)
def test_a_start_does_not_make_the_result_worse(known, refined, name):
    objective, found = refined
    none, own = (found[key][0] for key in ("none", name))
    assert known.error(own) < 1.1 * known.error(none) + 0.02
    fields = (torch.zeros_like(none), none, own)
    initial, without, reached = evaluate_energies(known.pair, objective, fields)
    assert initial - reached > 0.98 * (initial - without)


@pytest.mark.parametrize("name", NAMES)
def test_both_directions_are_inverse(refined, name):
    u, v = refined[1][name]
    quality = measure_quality(*make_diffeomorphic(u, v)[:2])
    assert quality.minimum_jacobian > 0 and quality.round_trip_mean < 0.05
    assert measure_quality(u, v).round_trip_mean < 0.1


def test_details_of_the_start_are_kept_by_coarse_levels(known):
    """Without iterations at the finest level, the details come from the start alone."""
    objective, iterations = Objective(CCMetric()), [20, 0]
    u, v = refine(known.pair, objective, level_iters=iterations, start=known.exact)
    none, _ = refine(known.pair, objective, level_iters=iterations)
    assert known.error(u) < 0.95 * known.error(none)
    assert measure_quality(u, v).round_trip_mean < 0.15


def test_a_shift_beyond_reach_is_kept(known):
    """A correct start far away is refined, not left for a local minimum near zero."""
    shape, (u, v) = known.shape, (field.clone() for field in known.exact)
    shift = shape[0] // 3
    u[:, 0] += shift
    v[:, 0] -= shift
    far = known.pair._replace(moving=known.pair.moving.roll(shift, 2))
    found, _ = refine(far, Objective(CCMetric()), level_iters=[20, 10], start=(u, v))
    left = found - u
    inner = (slice(None), slice(None), slice(4, -shift - 6))
    assert float(left[inner].square().mean().sqrt()) < 0.5


def test_energies_are_those_of_the_metric_for_the_voxel_size():
    """At 1 mm, local correlation has windows of radius 3."""
    one = Known(SHAPES[0])
    fields = [torch.zeros_like(one.exact[0]), one.exact[0]]
    made, wanted = (
        evaluate_energies(one.pair, Objective(metric), fields)
        for metric in (CCMetric(), CCMetric(radius=3))
    )
    assert made == wanted
    assert made != evaluate_energies(one.pair, Objective(CCMetric(radius=1)), fields)
