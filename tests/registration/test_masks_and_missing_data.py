"""Voxels excluded by masks or NaN have no effect on other voxels."""

from dipy.align import metrics as dipy_metrics
import numpy as np
import pytest
from short_runs import FIELDS, SHORT, apart, ball, run, same

from dipy_dl_reg import deep_registration


@pytest.mark.parametrize("metric", ["SSD", "CC", "MI", "NCC"])
def test_static_outside_its_mask_does_not_count(solid, rng, metric):
    mask = ball(solid.static)
    junk = np.where(mask, solid.static, 5 * rng.normal(size=mask.shape))
    clean = run(solid, metric, static_mask=mask)
    dirty = run(solid, metric, static_mask=mask, static=junk)
    inside = np.linalg.norm(clean.backward - dirty.backward, axis=-1)[mask]
    unmasked = run(solid, metric, static=junk)
    worse = np.linalg.norm(clean.backward - unmasked.backward, axis=-1)[mask]
    assert np.linalg.norm(clean.backward, axis=-1)[mask].max() > 1
    assert worse.mean() > 0.5
    assert inside.mean() < 0.05 and inside.max() < 0.3


@pytest.mark.parametrize("metric", ["SSD", "CC", "MI", "NCC"])
def test_moving_outside_its_mask_does_not_count(solid, rng, metric):
    mask = ball(solid.moving, 0.8)
    junk = np.where(mask, solid.moving, 5 * rng.normal(size=mask.shape))
    clean = run(solid, metric, moving_mask=mask)
    dirty = run(solid, metric, moving_mask=mask, moving=junk)
    deep = ball(solid.static, 0.4)
    inside = np.linalg.norm(clean.backward - dirty.backward, axis=-1)[deep]
    unmasked = run(solid, metric, moving=junk)
    worse = np.linalg.norm(clean.backward - unmasked.backward, axis=-1)[deep]
    assert worse.mean() > 0.3
    assert inside.mean() < 0.1 and inside.max() < 0.5


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC"])
@pytest.mark.parametrize("masked", ["static", "moving", "static moving"])
def test_a_mask_does_no_harm(solid, metric, masked):
    """What lies inside is matched, whatever range of intensities that leaves."""
    masks = {"static": ball(solid.static), "moving": ball(solid.moving, 0.8)}
    given = {f"{role}_mask": masks[role] for role in masked.split()}
    mapping = run(solid, metric, level_iters=[15, 15], **given)
    before = (solid.moving - solid.static)[masks["static"]]
    after = (mapping.transform(solid.moving) - solid.static)[masks["static"]]
    assert np.square(after).sum() < 0.25 * np.square(before).sum()


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC", "MI"])
@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_mask_as_thin_as_cortex(solid, metric, role):
    """If no voxel of the mask is left at a coarse level, registration continues."""
    image = getattr(solid, role)
    mask = ball(image, 0.65) & ~ball(image, 0.56)
    mapping = run(solid, metric, level_iters=[3, 3, 3], **{f"{role}_mask": mask})
    assert all(np.isfinite(getattr(mapping, f)).all() for f in FIELDS)
    assert np.abs(mapping.backward).max() > 0.1


def test_a_mask_of_all_is_none(flat):
    full = np.ones(flat.static.shape, dtype=bool), np.ones(flat.moving.shape, np.uint8)
    masked = run(flat, static_mask=full[0], moving_mask=full[1])
    assert apart(masked, run(flat)) < 1e-3


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64, ">i2"])
def test_masks_of_any_type(flat, dtype):
    mask = ball(flat.static)
    wanted = run(flat, static_mask=mask, **SHORT)
    assert same(run(flat, static_mask=(3 * mask).astype(dtype), **SHORT), wanted)


def test_mask0_as_in_dipys_metrics(flat):
    """A DIPY metric that leaves out zeros does so here."""
    metric = dipy_metrics.EMMetric(2)
    metric.mask0 = True
    zeroed = flat._replace(static=np.where(ball(flat.static), flat.static, 0))
    explicit = run(
        zeroed,
        dipy_metrics.EMMetric(2),
        static_mask=zeroed.static != 0,
        moving_mask=zeroed.moving != 0,
    )
    assert same(run(zeroed, metric), explicit)


@pytest.mark.parametrize("role", ["static", "moving"])
@pytest.mark.parametrize("metric", ["SSD", "CC"])
def test_nan_is_what_a_mask_leaves_out(flat, log, role, metric):
    image = getattr(flat, role)
    mask = ball(image, 0.85)
    found = run(flat, metric, **{role: np.where(mask, image, np.nan)})
    said = [m for m in log() if "NaN" in m]
    assert len(said) == 1 and said[0].startswith(role)
    assert f"{100 * (~mask).mean():.1f} %" in said[0]
    masks = {f"{role}_mask": mask}
    wanted = run(flat, metric, **masks, **{role: np.where(mask, image, 0)})
    assert all(np.isfinite(getattr(found, f)).all() for f in FIELDS)
    deep = ball(flat.static, 0.5)
    inside = np.linalg.norm(found.backward - wanted.backward, axis=-1)[deep]
    assert inside.max() < 0.3


def test_nan_does_not_spread_in_what_is_warped(flat):
    """A voxel comes out NaN only where at least half of what it reads is missing."""
    mask = ball(flat.moving, 0.9)
    holed = np.where(mask, flat.moving, np.nan)
    affines = {
        "static_affine": flat.static_grid2world,
        "moving_affine": flat.moving_grid2world,
    }
    options = {"metric": "SSD", "level_iters": [8, 8], "prealign": flat.prealign}
    warped, mapping = deep_registration(holed, flat.static, **affines, **options)
    known = mapping.transform(mask.astype(np.float32))
    outside = 1 - mapping.transform(np.ones(mask.shape, dtype=np.float32))
    finite = np.isfinite(warped)
    assert finite[known + outside > 0.51].all()
    assert ball(flat.static, 0.6)[finite].sum() == ball(flat.static, 0.6).sum()
    whole = known > 1 - 1e-6
    assert whole.sum() > 200
    reference = mapping.transform(np.where(mask, flat.moving, 0))
    assert np.abs(warped - reference)[whole].max() < 1e-5


def test_nan_in_static_leaves_the_warped_image_whole(flat):
    holed = np.where(ball(flat.static, 0.9), flat.static, np.nan)
    warped, _ = deep_registration(flat.moving, holed, metric="SSD", level_iters=[4])
    assert np.isfinite(warped).all()
