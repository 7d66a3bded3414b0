"""`DeepRegistration()` without options: default network, and choice of the metric."""

import logging
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg import DeepRegistration, load_model
from dipy_dl_reg.networks.pretrained import DEFAULT_MODELS
from dipy_dl_reg.registration.deformable_options import LEVEL_ITERS

#: Fluid, grey and white matter.
T1, B0 = (0.25, 0.6, 1.0), (1.0, 0.55, 0.35)


def brain(shape, displacement=None):
    """Shares of three tissues in a ball of blobs, (3, *shape), seen through a field."""
    rng = np.random.default_rng(0)
    places = np.indices(shape, dtype=float)
    if displacement is not None:
        places = places + displacement
    heights = [gaussian_filter(rng.normal(size=shape), 3) for _ in range(3)]
    heights = [map_coordinates(h / h.std(), places, mode="nearest") for h in heights]
    shares = np.exp(3 * np.array(heights))
    shares /= shares.sum(0)
    middle = (np.array(shape) - 1).reshape(-1, *[1] * len(shape)) / 2
    away = np.sqrt((((places - middle) / middle) ** 2).sum(0))
    return shares / (1 + np.exp(30 * (away - 0.8)))


def look(looks, shares):
    image = np.tensordot(looks, shares, 1) + 0.01 * np.random.default_rng(1).normal(
        size=shares.shape[1:]
    )
    return np.where(shares.sum(0) > 0.5, image, 0).astype(np.float32)


def field(shape, peak):
    rng = np.random.default_rng(2)
    u = np.array([gaussian_filter(rng.normal(size=shape), 9) for _ in shape])
    return u * peak / np.abs(u).max()


def affines(dim, spacing=2.0):
    grid2world = np.diag([spacing] * dim + [1.0])
    return {"static_grid2world": grid2world, "moving_grid2world": grid2world}


def pair(shape, moving_looks=T1, peak=3.0):
    """Static deformed by a known field, voxels, and moving of some contrast."""
    u = field(shape, peak)
    return look(T1, brain(shape, u)), look(moving_looks, brain(shape)), u


def error(mapping, u, static):
    """Root mean square distance to the known field within the brain, voxels."""
    found = np.moveaxis(mapping.backward, -1, 0) / 2.0
    return np.sqrt(((found - u) ** 2).sum(0)[static > 0].mean())


@pytest.mark.parametrize("shape", [(64, 60), (44, 48, 40)])
def test_it_is_the_network_of_that_dimension(shape):
    static, moving, _ = pair(shape)
    registration = DeepRegistration(level_iters=[2], progress=False)
    assert registration.model == "auto"
    registration.optimize(static, moving, **affines(len(shape)))
    named = load_model(DEFAULT_MODELS[len(shape)])
    assert registration.network.arguments == named.arguments


@pytest.mark.parametrize(
    "options",
    [
        {"model": None},
        {"initialization": "discrete"},
        {"landmarks": (np.eye(3) * 30, np.eye(3) * 30 + 1.0)},
    ],
    ids=["None", "discrete", "landmarks"],
)
def test_who_brings_a_start_gets_it(options):
    static, moving, _ = pair((60, 60))
    if "landmarks" in options:
        options = {"landmarks": tuple(x[:, :2] for x in options["landmarks"])}
    registration = DeepRegistration(level_iters=[2], progress=False, **options)
    registration.optimize(static, moving, **affines(2))
    assert registration.network is None and not registration.network_used


def test_small_images_do_without():
    """For each of the two images."""
    small, _, _ = pair((14, 40))
    large, _, _ = pair((40, 40))
    for static, moving in ((small, large), (large, small)):
        registration = DeepRegistration(level_iters=[2], progress=False)
        registration.optimize(static, moving, **affines(2))
        assert registration.network is None


def test_small_images_without_refinement_are_said(caplog):
    """The map contains only the affine, and a warning is logged."""
    small, _, _ = pair((14, 40))
    registration = DeepRegistration(level_iters=0, progress=False)
    mapping = registration.optimize(small, small.copy(), **affines(2))
    assert registration.affine_only and not mapping.backward.any()
    assert "less than 16 of the network's voxels" in caplog.text
    assert "only the affine (prealign)" in caplog.text
    caplog.clear()
    asked = DeepRegistration(level_iters=0, model=None, progress=False)
    asked.optimize(small, small.copy(), **affines(2))
    assert not asked.affine_only and "affine" not in caplog.text


def test_the_log_says_what_decided_for_the_metric(caplog):
    """Metric, reason, value and range."""
    caplog.set_level(logging.INFO, logger="dipy")
    static, moving, _ = pair((96, 90), B0)
    DeepRegistration(level_iters=[1], progress=False).optimize(
        static, moving, **affines(2)
    )
    (said,) = [r.getMessage() for r in caplog.records if "Metric" in r.getMessage()]
    assert re.fullmatch(
        r"Metric: CC \(local correlation of static and intensity-mapped moving\)\. "
        r"Mean local correlation of the images is -0\.\d\d \(range -1 to 1; negative "
        r"for opposite contrasts\)\. An intensity mapping from moving to static "
        r"explains \d\d % of static's variance \(30 % needed\)\.",
        said,
    ), said


def test_the_network_alone():
    static, moving, u = pair((96, 90), peak=6.0)
    registration = DeepRegistration(level_iters=0, progress=False)
    mapping = registration.optimize(static, moving, **affines(2))
    assert registration.network_used
    before = np.sqrt((u**2).sum(0)[static > 0].mean())
    assert error(mapping, u, static) < 0.6 * before
    assert registration.quality.minimum_jacobian > 0


@pytest.mark.parametrize("shape", [(96, 90), (44, 48, 40)])
def test_another_contrast_needs_no_word(shape):
    """T1 and b0: the error decreases clearly, and more than with local correlation."""
    static, moving, u = pair(shape, B0)
    registration = DeepRegistration(progress=False)
    found = registration.optimize(static, moving, **affines(len(shape)))
    correlation = DeepRegistration("CC", progress=False)
    wrong = correlation.optimize(static, moving, **affines(len(shape)))
    before = np.sqrt((u**2).sum(0)[static > 0].mean())
    assert error(found, u, static) < 0.6 * before
    assert error(found, u, static) < error(wrong, u, static)


def test_a_metric_that_is_asked_for_stays():
    static, moving, _ = pair((64, 60), B0)
    for name in ("MI", "CC"):
        registration = DeepRegistration(name, level_iters=[2], progress=False)
        registration.optimize(static, moving, **affines(2))
        assert registration.metric.name == name


def test_the_choice_is_made_anew_for_every_pair():
    """One object, first across contrasts, with few iterations, and then within one."""
    static, moving, _ = pair((96, 90), B0)
    registration = DeepRegistration(progress=False, sigma_field=0.9)
    plans = []
    for image in (moving, pair((96, 90))[1]):
        mapping = registration.optimize(static, image, **affines(2))
        plans.append(list(registration.level_iters))
    assert max(plans[0][:-1]) == 0 and plans[0][-1] == 10
    assert plans[1] == LEVEL_ITERS[len(plans[1])]
    fresh = DeepRegistration(progress=False, sigma_field=0.9)
    wanted = fresh.optimize(static, image, **affines(2))
    np.testing.assert_array_equal(mapping.backward, wanted.backward)
    assert registration.sigma_field == 0.9


@pytest.mark.parametrize("role", ["static", "moving"])
def test_what_is_masked_does_not_count(role):
    """Neither for the network nor for the choice."""
    static, moving, _ = pair((64, 60), B0)
    images = {"static": static, "moving": moving}
    mask = images[role] > 0
    filled = np.random.default_rng(3).random(mask.shape).astype(np.float32)
    maps = []
    for around in (np.zeros_like(filled), filled):
        given = images | {role: np.where(mask, images[role], around)}
        registration = DeepRegistration(level_iters=0, progress=False)
        maps.append(
            registration.optimize(**given, **{f"{role}_mask": mask}, **affines(2))
        )
    np.testing.assert_allclose(maps[0].backward, maps[1].backward, atol=1e-3)
