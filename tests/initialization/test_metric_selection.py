"""Choice of the metric from the images."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
import torch

from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization import metric_selection
from dipy_dl_reg.initialization.metric_selection import (
    mean_local_correlation,
    select_metric,
)

SHAPES = [(70, 64), (40, 44, 38)]
every_shape = pytest.mark.parametrize("shape", SHAPES)
#: Intensities of fluid, grey and white matter, relative to the brightest.
T1, B0 = (0.25, 0.6, 1.0), (1.0, 0.55, 0.35)


def smooth_noise(shape, seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(1, 1, *(n // size + 2 for n in shape), generator=generator)
    mode = {2: "bicubic", 3: "trilinear"}[len(shape)]
    return torch.nn.functional.interpolate(few, size=shape, mode=mode)


def tissue(shape):
    """Three tissues within a ball, as shares (3, *shape)."""
    lines = [torch.linspace(-1, 1, n) for n in shape]
    away = torch.stack(torch.meshgrid(*lines, indexing="ij")).square().sum(0).sqrt()
    height = torch.cat([smooth_noise(shape, k) for k in range(3)], 1)[0]
    return torch.softmax(6 * height, 0) * torch.sigmoid(30 * (0.8 - away))


def head(intensities, shares, noise=0.02, seed=9):
    image = torch.einsum("k,k...->...", torch.tensor(intensities), shares)[None, None]
    generator = torch.Generator().manual_seed(seed)
    image = image + noise * torch.randn(image.shape, generator=generator)
    image = image.clamp_min(0) * (shares.sum(0) > 0.5)
    return image / image.max()


def bent(shares, by=1.5):
    shape = shares.shape[1:]
    u = torch.cat([smooth_noise(shape, 20 + d, 12) for d in range(len(shape))], 1)
    return warp(shares[None], by * u)[0]


def pair_of(static, moving, **masks):
    shape = static.shape[2:]
    grid = Grid(tuple(shape), np.diag([2.0] * len(shape) + [1.0]))
    return Pair(static, moving, grid, grid, np.eye(len(shape) + 1), **masks)


@every_shape
def test_mean_local_correlation(shape):
    """Compared with NumPy, window by window, at voxels of 3 mm."""
    shares = tissue(shape)
    static, moving = head(T1, shares), head(B0, bent(shares))
    grid = Grid(tuple(shape), np.diag([3.0] * len(shape) + [1.0]))
    pair = Pair(static, moving, grid, grid, np.eye(len(shape) + 1))
    s, m = static[0, 0].double().numpy(), moving[0, 0].double().numpy()
    inside = (s > 0.05) & (m > 0.05)
    found = []
    for place in np.argwhere(inside):
        window = tuple(slice(max(0, i - 2), i + 3) for i in place)
        here = inside[window]
        a, b = s[window][here], m[window][here]
        if min(a.var(), b.var()) > 1e-5:
            found.append(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))
    assert mean_local_correlation(pair) == pytest.approx(np.mean(found), abs=1e-3)


@every_shape
def test_one_contrast_is_compared_by_local_correlation(shape):
    shares = tissue(shape)
    images = head(T1, shares), head(T1, bent(shares), seed=5)
    chosen = select_metric(pair_of(*images))
    assert chosen.metric.name == "CC" and chosen.intensity_mapping is None
    assert not chosen.contrasts_differ
    correlation = mean_local_correlation(pair_of(*images))
    assert f"is {correlation:.2f} (range -1 to 1" in chosen.reason


@every_shape
def test_another_contrast_is_mapped_to_that_of_static(shape):
    """The mapped image resembles the T1 image of the moving anatomy."""
    shares = tissue(shape)
    static, moving = head(T1, shares), head(B0, bent(shares, 0.5))
    chosen = select_metric(pair_of(static, moving))
    assert chosen.metric.name == "CC" and chosen.contrasts_differ
    mapped = chosen.apply_to(pair_of(static, moving)).moving
    wanted = head(T1, bent(shares, 0.5), noise=0)
    inside = wanted > 0.15

    def alike(image):
        return np.corrcoef(image[inside].numpy(), wanted[inside].numpy())[0, 1]

    # Not 1: fluid and white matter in one voxel look like grey matter.
    assert alike(moving) < -0.5 and alike(mapped) > 0.75


@every_shape
def test_without_a_mapping_the_metric_is_self_similarity(shape):
    """Static has structure that moving lacks, and inverted intensities."""
    shares = tissue(shape)
    static = head(T1, shares) + 0.5 * smooth_noise(shape, 50, 4) * (shares.sum(0) > 0.5)
    static = (static.clamp_min(0) / static.max()).clamp(0, 1)
    pair = pair_of(static, head(B0, bent(shares)))
    assert mean_local_correlation(pair) < 0
    chosen = select_metric(pair)
    assert chosen.metric.name == "MIND" and chosen.intensity_mapping is None
    assert chosen.contrasts_differ
    assert "variance (30 % needed)" in chosen.reason


def test_correlation_counts_voxels_in_both_masks():
    """Half of moving is inverted; the mask decides which half counts."""
    shares = tissue(SHAPES[0])
    static = head(T1, shares)
    left, right = head(T1, shares, seed=3), head(B0, shares, seed=3)
    half = torch.zeros_like(static)
    half[:, :, :35] = 1
    moving = torch.where(half > 0, left, right)
    assert mean_local_correlation(pair_of(static, moving, static_mask=half)) > 0.4
    assert mean_local_correlation(pair_of(static, moving, moving_mask=1 - half)) < -0.2


@every_shape
def test_masked_voxels_do_not_change_the_mapping(shape):
    """Masked voxels hold the nearest valid value, as in a registration."""
    shares = tissue(shape)
    static, moving = head(T1, shares), head(B0, bent(shares, 0.5))
    inside = (static > 0.05) & (moving > 0.05)
    plain = select_metric(pair_of(static, moving))
    near = distance_transform_edt(
        ~inside[0, 0].numpy(), return_distances=False, return_indices=True
    )
    filled = [image[0, 0][tuple(near)][None, None] for image in (static, moving)]
    mask = inside.float()
    masked = select_metric(pair_of(*filled, static_mask=mask, moving_mask=mask))
    assert plain.intensity_mapping is not None and masked.intensity_mapping is not None
    values = torch.linspace(0.3, 0.9, 20)
    found, wanted = (c.intensity_mapping(values) for c in (masked, plain))
    torch.testing.assert_close(found, wanted, atol=0.1, rtol=0)


@pytest.mark.parametrize("spacing", [0.1, 1.0, 10.0])
def test_units_of_length_do_not_matter(spacing):
    shares = tissue(SHAPES[0])
    pair = pair_of(head(T1, shares), head(B0, bent(shares)))
    grid = Grid(pair.static_grid.shape, np.diag([spacing, spacing, 1.0]))
    assert (
        mean_local_correlation(pair._replace(static_grid=grid, moving_grid=grid)) < -0.1
    )


def test_without_common_structure_the_metric_is_local_correlation():
    static = torch.zeros(1, 1, 30, 30)
    static[..., 10:20, 10:20] = 1
    moving = torch.zeros(1, 1, 30, 30)
    moving[..., 25:, 25:] = 1
    assert mean_local_correlation(pair_of(static, moving)) is None
    chosen = select_metric(pair_of(static, moving))
    assert chosen.metric.name == "CC" and "is unknown" in chosen.reason


@pytest.mark.parametrize(
    "correlation, aligned, smoother",
    [(-0.3, True, True), (-0.6, True, False), (-0.3, False, False)],
)
def test_a_weak_negative_correlation_smooths_the_field_more(
    correlation, aligned, smoother, monkeypatch
):
    """Only after an alignment; before it, the images may just be apart."""
    mapping = metric_selection.IntensityMapping(torch.linspace(1, 0, 8), 1.0)
    findings = {
        "mean_local_correlation": lambda pair: correlation,
        "_sample_on_one_grid": lambda *options: None,
        "_estimate_mapping": lambda images: (mapping, 0.6),
    }
    for name, function in findings.items():
        monkeypatch.setattr(metric_selection, name, function)
    choice = metric_selection.select_metric(None, aligned=aligned)
    assert choice.intensity_mapping is mapping
    assert (choice.sigma_field > 1.2) == smoother
    assert ("agree weakly" in choice.reason) == smoother
