"""Every metric: a formula written another way, its gradient, its minimum, its mask."""

from fake_mps import FakeMPS
import numpy as np
import pytest
from scipy.interpolate import BSpline
import torch

from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.metrics.correlation_ratio import CRMetric
from dipy_dl_reg.metrics.histogram import sum_by_index
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.metrics.ncc import NCCMetric
from dipy_dl_reg.metrics.objective import Objective, regularizer_gradient
from dipy_dl_reg.metrics.registry import (
    METRICS,
    REGULARIZERS,
    MetricEntry,
    describe_metrics,
    list_metrics,
    metric_by_name,
    metric_class,
    regularizer_by_name,
)
from dipy_dl_reg.metrics.regularizers.bending import bending
from dipy_dl_reg.metrics.regularizers.diffusion import diffusion
from dipy_dl_reg.metrics.regularizers.total_variation import total_variation
from dipy_dl_reg.metrics.ssd import SSDMetric

SHAPES = [(8, 7), (5, 6, 7), (6, 1, 7)]
every_metric = pytest.mark.parametrize("name", sorted(METRICS))
every_shape = pytest.mark.parametrize("shape", SHAPES)


def images(shape, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    static = torch.rand(batch, 1, *shape, **options)
    warped = 0.1 + 0.8 * torch.rand(batch, 1, *shape, **options)
    mask = (torch.rand(batch, 1, *shape, **options) > 0.3).double()
    return static, warped, mask


def local_correlation(static, warped, mask, radius, floor):
    """The definition, one window at a time."""
    s, w, m = (x[0, 0].numpy() for x in (static, warped, mask))
    values = []
    for index in zip(*np.nonzero(m)):
        window = tuple(slice(max(i - radius, 0), i + radius + 1) for i in index)
        inside = m[window] > 0
        a, b = s[window][inside], w[window][inside]
        cross = np.mean(a * b) - a.mean() * b.mean() + floor
        values.append(cross**2 / ((a.var() + floor) * (b.var() + floor)))
    return 1 - np.mean(values)


@every_shape
@pytest.mark.parametrize("radius", [1, 2])
def test_local_correlation_is_its_definition(shape, radius):
    static, warped, mask = images(shape)
    metric = CCMetric(radius=radius)
    for weight in (mask, torch.ones_like(mask)):
        expected = local_correlation(
            static, warped, weight, radius, metric.variance_floor
        )
        value = metric(static, warped, weight).item()
        assert value == pytest.approx(expected, rel=1e-9)


@every_shape
def test_global_metrics_are_their_definitions(shape):
    static, warped, mask = images(shape)
    inside = mask > 0
    s, w = static[inside].numpy(), warped[inside].numpy()
    ssd, ncc = (M()(static, warped, mask).item() for M in (SSDMetric, NCCMetric))
    assert ssd == pytest.approx(np.mean((s - w) ** 2))
    assert ncc == pytest.approx(1 - np.corrcoef(s, w)[0, 1])


@every_shape
def test_the_correlation_ratio_is_its_definition(shape):
    """A linear spline fitted by NumPy; outermost thousandths left out."""
    static, warped, mask = images(shape)
    s, w = (x[mask > 0].numpy() for x in (static, warped))
    low, high = np.quantile(s, [0.001, 0.999])
    kept = (s >= low) & (s <= high)
    s, w = s[kept], w[kept]
    place = (s - low) / (high - low) * 9
    hats = np.maximum(1 - np.abs(place[:, None] - np.arange(10)), 0)
    fitted = hats @ np.linalg.lstsq(hats, w, rcond=None)[0]
    expected = ((w - fitted) ** 2).sum() / ((w - w.mean()) ** 2).sum()
    value = CRMetric(nbins=10)(static, warped, mask).item()
    assert value == pytest.approx(expected)
    assert CRMetric(nbins=10)(static, 3 - 2 * static, mask).item() < 1e-12


def test_mutual_information_of_a_gaussian_pair():
    """For a Gaussian pair of correlation r it is -log(1 - r^2) / 2."""
    rng, metric = np.random.default_rng(0), MIMetric(nbins=64)
    for r in (0.3, 0.9):
        pair = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 200_000).T
        static, warped = torch.from_numpy(pair.reshape(2, 1, 1, 400, 500))
        # I(s, w) / sqrt(I(w, w)) times sqrt(I(w, w))
        value = metric(static, warped).item() * metric(warped, warped).item()
        assert value == pytest.approx(-np.log(1 - r * r) / 2, abs=0.03)


@every_shape
@pytest.mark.parametrize("nbins", [None, 9, 20])
def test_mutual_information_is_its_definition(shape, nbins):
    """Written out with SciPy's B-spline; static's places in sixteenths of a bin."""
    static, warped, mask = images(shape)
    inside = mask > 0
    spline, bins = BSpline.basis_element(np.arange(-2, 3)), nbins or 12

    def spread(image, step=None):
        values = image[inside].numpy()
        whole = image.flatten().numpy() if image is warped else values
        low, high = np.quantile(whole, [0.001, 0.999])
        place = 2 + ((values - low) / (high - low) * (bins - 5)).clip(0, bins - 5)
        away = (place if step is None else np.round(place / step) * step)[:, None]
        away = away - np.arange(bins)
        return np.where(np.abs(away) < 2, spline(away), 0)

    def information(one, other):
        p = one.T @ other / len(one)
        independent = p.sum(1, keepdims=True) * p.sum(0)
        return (p[p > 0] * np.log(p[p > 0] / independent[p > 0])).sum()

    shared = information(spread(static, 1 / 16), spread(warped))
    expected = -shared / np.sqrt(information(spread(warped), spread(warped)))
    metric = MIMetric(nbins=nbins)
    value = metric.bind(static, mask, moving=warped)(warped)[0].item()
    # warped's own histogram is shared between sixteenths
    assert value == pytest.approx(expected, rel=2e-3)


@every_metric
@every_shape
@pytest.mark.parametrize("masked", [False, True])
def test_gradient(name, shape, masked):
    static, warped, mask = images(shape, batch=2)
    bound = metric_by_name(name).bind(
        static, mask if masked else None, moving=torch.tensor([0.0, 1.0]).double()
    )
    value, gradient = bound(warped)
    direction = images(shape, batch=2, seed=1)[0] - 0.5
    step = 1e-6
    ahead, behind = (bound(warped + s * direction)[0] for s in (step, -step))
    slope = ((ahead - behind) / (2 * step)).item()
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-5)
    if masked:
        assert not gradient[mask == 0].any()


@every_metric
def test_autograd_gets_that_gradient(name):
    static, warped, mask = images((6, 7))
    warped.requires_grad_()
    metric = metric_by_name(name)
    (3 * metric(static, warped, mask)).backward()
    _, gradient = metric.bind(static, mask, moving=warped.detach())(warped.detach())
    torch.testing.assert_close(warped.grad, 3 * gradient)


@every_metric
@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_counts_as_the_mean_of_its_entries(name, masked):
    static, warped, mask = images((9, 8), batch=3)
    # Entries of another scale: statistics of the whole batch would be others.
    warped = (warped * torch.tensor([1.0, 3.0, 0.2]).view(3, 1, 1, 1)).requires_grad_()
    metric = metric_by_name(name)
    value = metric(static, warped, mask if masked else None)
    entries = [
        metric(static[i], warped[i], mask[i] if masked else None)
        for i in (slice(k, k + 1) for k in range(3))
    ]
    expected = torch.stack(entries).mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(v, warped)[0] for v in (value, expected))
    )


@every_metric
@every_shape
def test_an_image_is_most_like_itself(name, shape):
    static, warped, mask = images(shape)
    metric = metric_by_name(name)
    for weight in (None, mask):
        assert metric(static, static, weight) < metric(static, warped, weight)


@every_metric
@every_shape
def test_a_shift_in_any_direction_is_worse(name, shape):
    """The identity is the minimum among shifts by one voxel."""
    shape = tuple(n if n == 1 else 2 * n for n in shape)
    smoothed = smooth(images(shape)[0], 1.0)
    metric = metric_by_name(name)
    least = metric(smoothed, smoothed)
    for axis in (a for a, n in enumerate(shape) if n > 1):
        for step in (1, -1):
            assert metric(smoothed, smoothed.roll(step, axis + 2)) > least


@every_metric
def test_outside_the_mask_nothing_counts(name):
    static, warped, mask = images((6, 7, 8))
    bound = metric_by_name(name).bind(static, mask, moving=static)
    spoiled = torch.where(mask > 0, static, torch.full_like(static, 7.0))
    other = metric_by_name(name).bind(spoiled, mask, moving=static)
    for a, b in zip(bound(warped), other(torch.where(mask > 0, warped, -3.0))):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("metric", [MIMetric, CRMetric])
def test_one_hot_voxel_of_static_changes_little(metric):
    static, noise, _ = images((40, 50))
    warped = 1 - static + 0.1 * noise
    value = metric()(static, warped).item()
    static[0, 0, 0, 0] = 50
    assert metric()(static, warped).item() == pytest.approx(value, rel=0.2)


@every_metric
def test_flat_images_give_no_nan(name):
    static, flat = torch.rand(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    for a, b in ((static, flat), (flat, static), (flat, flat)):
        value, gradient = metric_by_name(name).bind(a, moving=b)(b)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


@every_metric
def test_entry_of_the_registry(name):
    metric = metric_class(name)
    assert name == name.upper(), "keys of METRICS are in upper case"
    assert metric.name == name
    assert metric_class(name.lower()) is metric
    assert describe_metrics()[name]


@every_metric
def test_options_are_checked_and_shown(name):
    assert name in metric_class(name).__name__.upper()
    assert "dim=3" in repr(metric_class(name)(3))
    with pytest.raises(ValueError, match="dim"):
        metric_class(name)(4)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: CCMetric(radius=0), "radius"),
        (lambda: CCMetric(radius=1.5), "radius"),
        (lambda: CCMetric(radius=float("inf")), "radius"),
        (lambda: CCMetric(variance_floor=0), "variance_floor"),
        (lambda: CCMetric(variance_floor=float("inf")), "variance_floor"),
        (lambda: CCMetric(sigma_diff=-1), "sigma_diff"),
        (lambda: CCMetric(sigma_diff="1"), "sigma_diff"),
        (lambda: metric_by_name("MI", foo=3), "foo is not an option of metric 'MI'"),
        (lambda: MIMetric(nbins=2), "nbins"),
        (lambda: CRMetric(nbins=2), "nbins"),
        (lambda: Objective(SSDMetric(), weight=-1), "weight"),
    ],
)
def test_bad_options(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_former_names_of_attributes():
    first, second = "its name is max_step_factor", "its name is gradient_floor"
    with (
        pytest.warns(DeprecationWarning, match=first),
        pytest.warns(DeprecationWarning, match=second),
    ):

        class Own(CCMetric):
            stride = 2.0
            weak_gradient = 0.2

    assert (Own.max_step_factor, Own.gradient_floor) == (2.0, 0.2)
    assert CCMetric.max_step_factor == 2.8
    own = Own()
    with pytest.warns(DeprecationWarning, match="its name is gradient_floor"):
        own.weak_gradient = 0.5
        assert own.weak_gradient == own.gradient_floor == 0.5
    with pytest.warns(DeprecationWarning, match="its name is max_step_factor"):
        assert own.stride == Own.stride == 2.0
    assert "weak_gradient" not in repr(own)


def test_a_new_metric_is_listed(monkeypatch):
    entry = MetricEntry("ssd.SSDMetric", "a new measure")
    monkeypatch.setitem(METRICS, "NEW", entry)
    assert list_metrics().endswith('``"NEW"`` (a new measure)')


def test_former_names_in_a_mixin():
    class Mixin:
        stride = 3.0

    with pytest.warns(DeprecationWarning, match="its name is max_step_factor"):

        class Mixed(Mixin, SSDMetric):
            pass

    class Derived(Mixed):
        pass

    class Last(SSDMetric, Mixin):
        pass

    assert Mixed.max_step_factor == Derived.max_step_factor == 3
    assert Last.max_step_factor == SSDMetric.max_step_factor == 1
    with pytest.warns(DeprecationWarning):
        assert Derived().stride == 3


@every_shape
@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_regularizers(name, shape):
    penalty = regularizer_by_name(name)
    assert REGULARIZERS[name].meaning
    u = torch.randn(1, len(shape), *shape, dtype=torch.float64)
    assert penalty(u) > 0 == penalty(torch.zeros_like(u))
    assert penalty(torch.ones_like(u)) == 0
    value, slope = regularizer_gradient(penalty, u)
    direction = torch.randn_like(u)
    ahead, behind = (penalty(u + s * direction).item() for s in (1e-6, -1e-6))
    expected = (slope * direction).sum().item()
    assert (ahead - behind) / 2e-6 == pytest.approx(expected, rel=1e-4)
    assert value == penalty(u)


def test_bending_is_blind_to_affine_maps():
    x, y = torch.meshgrid(*[torch.arange(6.0).double()] * 2, indexing="ij")
    u = torch.stack([0.3 * x - y, 2 * y + x])[None]
    assert bending(u).item() == pytest.approx(0, abs=1e-20)
    assert diffusion(u).item() == pytest.approx(0.09 + 1 + 4 + 1)
    assert total_variation(u).item() == pytest.approx(0.3 + 1 + 2 + 1)


def test_objective_adds_its_terms():
    static, warped, mask = images((6, 7))
    u = torch.randn(1, 2, 6, 7, dtype=torch.float64)
    objective = Objective(SSDMetric(), regularizer=diffusion, weight=0.5)
    terms = objective(static, warped, u, mask)
    assert terms.regularity == 0.5 * diffusion(u)
    assert terms.total == terms.similarity + terms.regularity
    bound, by_image, by_field = objective.bind(static, mask)(warped, u)
    torch.testing.assert_close(tuple(bound), tuple(terms))
    assert by_image.shape == warped.shape and by_field.shape == u.shape
    assert Objective(SSDMetric()).bind(static)(warped, u)[2] is None


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_sums_of_many_keep_their_digits(device):
    """In single precision a sum stops growing at 2**24 times what is added."""
    count, weight = 3 * 2**24 if device == "cpu" else 2**22, 0.37
    with FakeMPS():
        index = torch.zeros(1, dtype=torch.int64, device=device).expand(count)
        weights = torch.full((1,), weight, device=device).expand(count)
        sums = sum_by_index(index, weights, 3).cpu()
    assert sums.tolist() == pytest.approx([weight * count, 0, 0], rel=1e-3)
    if device == "cpu":
        assert sums[0].item() == pytest.approx(np.float32(weight) * float(count))
