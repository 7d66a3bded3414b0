"""The option `anatomy` of `DeepRegistration`; drawn maps replace the network's."""

import numpy as np
import pytest
import torch

from dipy_dl_reg import DeepRegistration, deep_registration
from dipy_dl_reg.anatomy.classes import CLASSES
from dipy_dl_reg.anatomy.overlap import AnatomyOverlap
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.anatomy_maps import PairMaps
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.registration import anatomy_use

SHAPE = (24, 24, 22)
AFFINE = np.diag([5.0, 5, 5, 1])
AFFINES = {"static_grid2world": AFFINE, "moving_grid2world": AFFINE}
SHORT = {"level_iters": [20, 15], "model": None, "progress": False}


def draw_brain(shift):
    """Intensities of T1 and b0, and the maps, of nested balls moved by some voxels."""
    axes = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    middle = (np.array(SHAPE) - 1) / 2 + [shift, -shift, 0]
    away = np.sqrt(sum((x - c) ** 2 for x, c in zip(axes, middle)))
    edges = [np.clip(r - away + 0.5, 0, 1) for r in (9, 7, 3)]
    shares = [edges[0] - edges[1], edges[1] - edges[2], edges[2]]
    names = [of.name for of in CLASSES]
    maps = np.zeros((len(CLASSES), *SHAPE), np.float32)
    tissues = "left cerebral cortex", "left cerebral white matter", "brain stem"
    for name, share in zip(tissues, shares):
        maps[names.index(name)] = share
    maps[0] = 1 - edges[0]
    looks = {"T1": (0.5, 0.9, 0.2), "b0": (0.5, 0.3, 1.0)}
    images = {
        k: np.tensordot(v, shares, 1).astype(np.float32) for k, v in looks.items()
    }
    return images, AnatomyMaps(torch.from_numpy(maps), Grid(SHAPE, AFFINE))


STATIC, STATIC_MAPS = draw_brain(0)
MOVING, MOVING_MAPS = draw_brain(1.5)


@pytest.fixture
def predicted(monkeypatch):
    """Replaces the network; the list has an entry for each prediction."""
    calls = []

    def predict(pair):
        calls.append(pair)
        return PairMaps(STATIC_MAPS, MOVING_MAPS)

    monkeypatch.setattr(anatomy_use, "predict_pair_maps", predict)
    return calls


def register(static, moving, metric=None, **options):
    registration = DeepRegistration(metric, **{**SHORT, **options})
    return registration, registration.optimize(static, moving, **AFFINES)


def distance_from_truth(mapping):
    """Mean distance from the true shift in the brain, in voxels."""
    u = mapping.backward[STATIC["T1"] > 0.1] / 5
    return np.linalg.norm(u - [1.5, -1.5, 0], axis=1).mean()


@pytest.mark.parametrize(
    "after, anatomy, reason",
    [
        (0.9, "auto", ""),
        (0.82, "auto", "falls from 0.84 to 0.82"),
        (0.82, True, ""),
        (0.82, False, ""),
    ],
)
def test_overlap_of_maps_that_were_predicted(
    predicted, monkeypatch, after, anatomy, reason
):
    """It is in the verdict, unless the maps were channels or not predicted."""
    given = []

    def measure(static, moving, *, displacement, grid, prealign):
        given.append((static, moving, grid.shape, tuple(displacement.shape[2:])))
        return AnatomyOverlap(0.5, 0.84, after)

    monkeypatch.setattr(anatomy_use, "measure_anatomy_overlap", measure)
    registration, _ = register(STATIC["T1"], MOVING["b0"], anatomy=anatomy)
    measured = [(STATIC_MAPS, MOVING_MAPS, SHAPE, SHAPE)] if anatomy == "auto" else []
    assert given == measured
    verdict = registration.verdict
    assert verdict.measures.anatomy == (after if measured else None)
    assert any(reason in each for each in verdict.reasons) or not reason


def test_maps_align_images_without_a_common_contrast(predicted):
    """Images of noise: only the maps show where the brain is.

    The mean of two drawings, because the noise itself moves the field.
    """
    distances = []
    for seed in (0, 1):
        noise = np.random.default_rng(seed)
        images = noise.random((2, *SHAPE), dtype=np.float32)
        found = []
        for anatomy in (False, True):
            registration, mapping = register(
                *images, "CC", anatomy=anatomy, level_iters=[50, 15]
            )
            assert len(predicted) == seed + anatomy
            found.append(distance_from_truth(mapping))
        distances.append(found)
    alone, helped = np.mean(distances, axis=0)
    assert helped < 0.5 * alone
    assert registration.anatomy_used
    assert "channels of the objective" in registration.record.anatomy_reason
    assert "anatomy maps" in registration.metric.name


def test_auto_maps_the_contrast(predicted):
    registration, mapping = register(STATIC["T1"], MOVING["b0"])
    assert registration.anatomy_used and len(predicted) == 1
    assert registration.metric.name == "CC"
    assert distance_from_truth(mapping) < 0.5
    record = registration.record
    assert record.anatomy_used and "static's contrast" in record.anatomy_reason
    assert "anatomy maps" in record.metrics[0].reason
    assert RegistrationRecord.from_dict(record.as_dict()) == record


def test_auto_leaves_one_contrast_alone(predicted):
    """No prediction, and the same bits as without the option."""
    registration, found = register(STATIC["T1"], MOVING["T1"])
    _, wanted = register(STATIC["T1"], MOVING["T1"], anatomy=False)
    assert not predicted and not registration.anatomy_used
    assert "No negative correlation" in registration.record.anatomy_reason
    np.testing.assert_array_equal(found.backward, wanted.backward)


def test_reason_claims_no_contrast_that_was_not_found(predicted):
    """Images of noise are uncorrelated: they have no common contrast."""
    static, moving = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    registration, _ = register(static, moving, level_iters=[1])
    reason = registration.record.anatomy_reason
    assert predicted or "No negative correlation" in reason
    assert "one contrast" not in reason


def test_auto_respects_a_given_metric(predicted):
    registration, _ = register(STATIC["T1"], MOVING["b0"], "MI")
    assert not predicted and not registration.anatomy_used
    assert registration.record.anatomy_reason == "The metric was given."


def test_result_is_repeatable(predicted):
    first, second = (
        register(STATIC["T1"], MOVING["b0"], anatomy=True)[1] for _ in range(2)
    )
    np.testing.assert_array_equal(first.backward, second.backward)


def test_with_masks_missing_data_and_channels(predicted):
    static = np.stack([STATIC["T1"], STATIC["b0"]], -1)
    moving = np.stack([MOVING["T1"], MOVING["b0"]], -1)
    static[:4] = np.nan
    mask = np.ones(SHAPE)
    mask[10:12, 10:12] = 0
    registration = DeepRegistration(["CC", "CC"], anatomy=True, **SHORT)
    mapping = registration.optimize(static, moving, moving_mask=mask, **AFFINES)
    assert registration.anatomy_used and np.isfinite(mapping.backward).all()
    assert distance_from_truth(mapping) < 0.5


def test_true_is_refused_where_there_are_no_maps(predicted, monkeypatch):
    flat = STATIC["T1"][:, :, 10]
    with pytest.raises(ValueError, match="3D images"):
        DeepRegistration(anatomy=True, **SHORT).optimize(flat, flat)
    with pytest.raises(ValueError, match="too small"):
        DeepRegistration(anatomy=True, **SHORT).optimize(STATIC["T1"], MOVING["T1"])
    large = {
        f"{role}_grid2world": np.diag([900.0, 900, 900, 1])
        for role in ("static", "moving")
    }
    with pytest.raises(ValueError, match="too large: check the unit"):
        DeepRegistration(anatomy=True, **SHORT).optimize(
            STATIC["T1"], MOVING["T1"], **large
        )
    with pytest.raises(ValueError, match="There is no refinement"):
        register(STATIC["T1"], MOVING["b0"], anatomy=True, level_iters=0)
    with pytest.raises(ValueError, match="anatomy=True cannot be used with phase"):
        DeepRegistration(anatomy=True, phase_encoding="j")
    with pytest.raises(ValueError, match="anatomy must be 'auto', True or False"):
        DeepRegistration(anatomy="yes")
    assert not predicted
    monkeypatch.setattr(anatomy_use, "predict_pair_maps", lambda pair: None)
    with pytest.raises(ValueError, match="no brain"):
        register(STATIC["T1"], MOVING["T1"], anatomy=True)


def test_auto_does_without_maps_where_there_are_none(predicted, monkeypatch):
    registration = DeepRegistration(**{**SHORT, "level_iters": [2]})
    flat = STATIC["T1"][:, :, 10], MOVING["b0"][:, :, 10]
    registration.optimize(*flat)
    assert not registration.anatomy_used
    assert registration.record.anatomy_reason == "Anatomy maps are for 3D images."
    registration, _ = register(STATIC["T1"], MOVING["b0"], level_iters=0)
    assert registration.record.anatomy_reason == "There is no refinement."
    assert not predicted
    monkeypatch.setattr(anatomy_use, "predict_pair_maps", lambda pair: None)
    registration, _ = register(STATIC["T1"], MOVING["b0"], level_iters=[2])
    assert not registration.anatomy_used
    assert "no brain" in registration.record.anatomy_reason


def test_function_takes_the_option(predicted):
    _, mapping = deep_registration(
        MOVING["b0"],
        STATIC["T1"],
        static_affine=AFFINE,
        moving_affine=AFFINE,
        anatomy=True,
        **SHORT,
    )
    assert len(predicted) == 1 and distance_from_truth(mapping) < 0.5
