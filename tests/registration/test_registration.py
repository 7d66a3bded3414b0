"""How `DeepRegistration` behaves: as SyN does, and the same from run to run."""

import logging
import os
import re
import subprocess
import sys
import threading

from dipy.align import VerbosityLevels
from dipy.align import metrics as dipy_metrics
from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import RegistrationStages, SymmetricDiffeomorphicRegistration
from dipy.align.transforms import RigidTransform2D
from maps import affine as affine_matrix
import nibabel as nib
import numpy as np
from pairs import jacobian, make_pair
import pytest
import torch

import dipy_dl_reg
from dipy_dl_reg import DeepRegistration, deep_affine_registration, deep_registration
from dipy_dl_reg.initialization.single_slice import flatten_slices
from dipy_dl_reg.metrics.registry import METRICS
from dipy_dl_reg.registration import affine, dipy_adapter
from dipy_dl_reg.registration.devices import threads
from dipy_dl_reg.registration.dipy_adapter import make_pair as make_pair_of_tensors
from dipy_dl_reg.registration.factory import make_metric

FIELDS = ("forward", "backward")
STAGE = RegistrationStages
#: As short as it may be where only what surrounds it is looked at.
SHORT = {"level_iters": [2, 2]}


class OwnMetric(dipy_metrics.SimilarityMetric):
    """A user's own class for SyN, which cannot be translated."""


@pytest.fixture(scope="module")
def flat():
    """A 2D pair with affines and a prealign."""
    turn = np.array([[1.02, 0.1, 4.0], [-0.1, 0.99, -6.0], [0, 0, 1]])
    return make_pair(
        np.diag([-1.5, 1.5]), np.diag([1.4, -1.6]), (34, 30), (31, 36), turn
    )


@pytest.fixture(scope="module")
def solid():
    """A 3D pair on one grid of 2 mm."""
    return make_pair(*[2.0 * np.eye(3)] * 2, (22, 24, 20), (22, 24, 20), None)


def run(pair, metric="SSD", *, level_iters=(12, 12), **changes):
    """A registration of a pair with some of it, or of the options, changed.

    Without a network: what is looked at here is refinement.
    """
    changes = {"model": None} | changes
    given = {"static": pair.static, "moving": pair.moving, **pair.affines}
    masks = ("static_mask", "moving_mask", "num_threads")
    names = (*given, *masks)
    given |= {k: v for k, v in changes.items() if k in names}
    options = {k: v for k, v in changes.items() if k not in names}
    registration = DeepRegistration(metric, level_iters=level_iters, **options)
    return registration.optimize(given.pop("static"), given.pop("moving"), **given)


def same(one, other):
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in FIELDS)


def apart(one, other):
    """Largest distance between the fields of two maps, mm."""
    pairs = [(getattr(one, f), getattr(other, f)) for f in FIELDS]
    return max(np.linalg.norm(a - b, axis=-1).max() for a, b in pairs)


@pytest.fixture
def log(caplog):
    """DIPY's messages, from the most trifling."""
    caplog.set_level(logging.DEBUG, logger="dipy")
    return lambda: [record.getMessage() for record in caplog.records]


# Callbacks, energies, levels


def record(registration_class, metric, pair, level_iters, **options):
    """What a callback sees of a whole run."""
    seen = []

    def callback(registration, stage):
        where = () if stage == STAGE.OPT_START else (registration.current_level,)
        if stage in (STAGE.ITER_START, STAGE.ITER_END):
            where += (registration.niter, len(registration.energy_list))
        seen.append((stage, *where))

    options |= {"level_iters": level_iters, "callback": callback}
    registration = registration_class(metric, **options)
    registration.optimize(pair.static, pair.moving, **pair.affines)
    return registration, seen


def test_callbacks_come_as_syns_do(flat):
    """Stages, levels, iterations and energies, at the same places as in SyN."""
    metric = dipy_metrics.SSDMetric(2)
    args = metric, flat, [3, 0, 2]
    _, wanted = record(SymmetricDiffeomorphicRegistration, *args)
    _, found = record(DeepRegistration, *args)
    assert [s[:2] for s in wanted] == [s[:2] for s in found]
    assert wanted == found


def test_the_first_level_is_the_coarsest(flat):
    registration, seen = record(DeepRegistration, "CC", flat, [4, 3, 2])
    starts = [level for stage, level, *_ in seen[1:] if stage == STAGE.SCALE_START]
    assert starts == [2, 1, 0]
    counted = [level for stage, level, *_ in seen[1:] if stage == STAGE.ITER_END]
    assert counted == [2] * 4 + [1] * 3 + [0] * 2
    assert seen[0] == (STAGE.OPT_START,) and seen[-1][0] == STAGE.OPT_END
    assert registration.levels == 3 and registration.level_iters == [4, 3, 2]


def test_energies_by_level_and_of_all(flat):
    lists = []

    def callback(registration, stage):
        if stage == STAGE.SCALE_START:
            assert registration.energy_list == []
        if stage == STAGE.SCALE_END:
            lists.append(list(registration.energy_list))

    registration = DeepRegistration(
        "SSD", level_iters=[6, 4], callback=callback, opt_tol=0, model=None
    )
    for _ in range(2):  # a second run begins anew
        lists.clear()
        registration.optimize(flat.static, flat.moving, **flat.affines)
        assert [len(energies) for energies in lists] == [6, 4]
        assert registration.full_energy_profile == lists[0] + lists[1]
        assert registration.energy_list == lists[1]
        assert all(energies[-1] < energies[0] for energies in lists)


def test_a_level_ends_when_little_is_gained(flat):
    counts = []
    for opt_tol in (0.0, 0.05):
        registration = DeepRegistration("SSD", level_iters=[60], opt_tol=opt_tol)
        registration.optimize(flat.static, flat.moving, **flat.affines)
        counts.append(len(registration.full_energy_profile))
    assert counts[1] < counts[0] <= 60


def test_levels_by_default_follow_the_size(flat):
    registration = DeepRegistration(step_length=0.1)
    registration.optimize(flat.static[:20, :18], flat.moving[:20, :18])
    few = registration.levels
    large = np.kron(flat.static, np.ones((3, 3)))
    registration.level_iters[:] = [0] * few  # a list of that run's, no option
    registration.optimize(large, np.roll(large, 1, axis=0))
    assert registration.levels > few
    assert len(registration.full_energy_profile) > 0


@pytest.mark.parametrize("level_iters", [(0,), [0, 0], np.array([0, 0, 0])])
def test_no_iterations_no_displacement(flat, level_iters):
    mapping = run(flat, level_iters=level_iters)
    assert not mapping.forward.any() and not mapping.backward.any()


@pytest.mark.parametrize("level_iters", [[], (), [1, -1], [2.5]])
def test_wrong_level_iters(level_iters):
    with pytest.raises(ValueError, match="level_iters"):
        DeepRegistration(level_iters=level_iters)


def test_no_map_before_optimize():
    registration = DeepRegistration()
    for ask in (registration.get_map, registration.get_intermediate_maps):
        with pytest.raises(ValueError, match="optimize"):
            ask()


def test_maps_are_there_when_the_last_callback_comes(flat):
    seen = []

    def callback(registration, stage):
        if stage == STAGE.OPT_END:
            seen.append((registration.get_map(), registration.static_to_moving))

    registration = DeepRegistration("SSD", callback=callback, **SHORT)
    mapping = registration.optimize(flat.static, flat.moving)
    assert seen == [(mapping, mapping)]


# Calls written for SyN


def test_positional_affines_as_in_syn(flat):
    """With DIPY's own warning, and to the same end."""
    registration = DeepRegistration("SSD", level_iters=[8, 8], model=None)
    with pytest.warns(UserWarning, match="static_grid2world.*prealign"):
        found = registration.optimize(flat.static, flat.moving, *flat[2:5])
    assert same(found, run(flat, level_iters=[8, 8]))
    assert np.array_equal(found.codomain_grid2world, flat.static_grid2world)
    assert np.array_equal(found.domain_grid2world, flat.moving_grid2world)


def test_keywords_of_syn_are_taken(flat, log):
    registration = DeepRegistration(
        dipy_metrics.CCMetric(2),
        level_iters=[3, 3],
        step_length=0.3,
        ss_sigma_factor=0.2,
        opt_tol=1e-6,
        inv_iter=20,
        inv_tol=1e-3,
        callback=None,
    )
    about = [m for m in log() if "inv_" in m]
    assert len(about) == 2 and all("no effect" in m for m in about)
    assert {m.split()[0] for m in about} == {"inv_iter", "inv_tol"}
    registration.optimize(flat.static, flat.moving)
    assert len([m for m in log() if "inv_" in m]) == 2


def test_nothing_is_said_of_options_not_given(log):
    DeepRegistration("CC", step_length=0.25)
    assert log() == []


@pytest.mark.parametrize(
    "option", [{"step_length": 0.05}, {"ss_sigma_factor": 2.0}, {"sigma_field": 2.0}]
)
def test_options_act(flat, option):
    assert apart(run(flat), run(flat, **option)) > 0.05


def test_a_penalty_smooths(flat):
    def roughness(mapping):
        return sum(np.square(np.diff(mapping.backward, axis=a)).sum() for a in (0, 1))

    free = roughness(run(flat))
    for name in ("diffusion", "bending", "tv"):
        bound = run(flat, regularizer=name, regularizer_weight=1.0)
        assert roughness(bound) < 0.9 * free


@pytest.mark.parametrize(
    "option",
    [
        {"step_length": 0},
        {"step_length": -0.1},
        {"step_length": float("nan")},
        {"ss_sigma_factor": -1},
        {"opt_tol": -1},
        {"sigma_field": -1},
        {"regularizer_weight": -1},
        {"regularizer": "elastic"},
        {"device": "abacus"},
        {"model": "voxelmorph"},
        {"model": True},
        {"metric": "CCC"},
        {"metric": 3},
        {"metric": dipy_dl_reg.CCMetric},
    ],
    ids=str,
)
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        DeepRegistration(**option)


# Metrics


def gain(pair, metric):
    """Squared error after a registration, as a part of that before."""
    registered = run(pair, metric, level_iters=[20, 20]).transform(pair.moving)
    still = run(pair, metric, level_iters=[0]).transform(pair.moving)
    return np.square(registered - pair.static).sum() / (
        np.square(still - pair.static).sum()
    )


@pytest.mark.parametrize("name", ["SSD", "CC", "NCC", "MI"])
def test_metrics_by_name(flat, name):
    mapping = run(flat, name, level_iters=[5, 5])
    assert same(mapping, run(flat, name.lower(), level_iters=[5, 5]))
    own = getattr(dipy_dl_reg, f"{name}Metric")
    assert same(mapping, run(flat, own(), level_iters=[5, 5]))
    assert same(mapping, run(flat, own(2), level_iters=[5, 5]))
    assert gain(flat, name) < 0.6


def test_local_correlation_by_default(flat):
    for asked in (None, "auto"):
        assert same(run(flat, asked, **SHORT), run(flat, "CC", **SHORT))


@pytest.mark.parametrize("kind", ["CCMetric", "SSDMetric", "EMMetric"])
@pytest.mark.parametrize("dim", [2, 3])
def test_metrics_of_dipy(flat, solid, kind, dim):
    pair = flat if dim == 2 else solid
    assert gain(pair, getattr(dipy_metrics, kind)(dim)) < 0.6


def test_dipys_options_are_carried_over(flat):
    """A larger window, more smoothing: another result."""
    narrow, wide = (dipy_metrics.CCMetric(2, radius=r) for r in (2, 6))
    assert apart(run(flat, narrow), run(flat, wide)) > 0.05
    sharp, smooth = (dipy_metrics.CCMetric(2, sigma_diff=s) for s in (1.0, 6.0))
    assert apart(run(flat, sharp), run(flat, smooth)) > 0.05


@pytest.mark.parametrize("given, wanted", [(0, 0), (2 / 3, 2 / 3), (1.5, 1), (4, 2)])
def test_smoothing_of_dipys_metrics(given, wanted):
    """Half of it, for steps are of equal length; but no rougher than a voxel."""
    for metric in (
        dipy_metrics.CCMetric(3, sigma_diff=given),
        dipy_metrics.SSDMetric(3, smooth=given),
    ):
        assert make_metric(metric).sigma_diff == pytest.approx(wanted)


def test_what_stands_for_em_is_said(flat, log):
    run(flat, dipy_metrics.EMMetric(2), **SHORT)
    (message,) = [m for m in log() if "EMMetric" in m]
    assert "correlation ratio" in message


def test_other_contrast(flat):
    """Moving upside down: information and correlation ratio see the same anatomy."""
    inverted = flat._replace(moving=flat.moving.max() - flat.moving)
    for metric in ("MI", dipy_metrics.EMMetric(2)):
        mapping = run(inverted, metric, level_iters=[20, 20])
        before = run(flat, level_iters=[0]).transform(flat.moving) - flat.static
        after = mapping.transform(flat.moving) - flat.static
        assert np.square(after).sum() < 0.6 * np.square(before).sum()


@pytest.mark.parametrize("metric", ["best", 3, OwnMetric(2)])
def test_error_for_an_unknown_metric_names_all_choices(metric):
    with pytest.raises(ValueError, match="^metric must be") as error:
        DeepRegistration(metric)
    assert {"auto", *METRICS} <= set(re.findall(r"\w+", str(error.value)))


def test_metric_of_another_dimension(flat, solid):
    for metric in (dipy_dl_reg.CCMetric(3), dipy_metrics.SSDMetric(3)):
        with pytest.raises(ValueError, match="metric.*3D.*2D"):
            run(flat, metric)
    with pytest.raises(ValueError, match="metric.*2D.*3D"):
        run(solid, dipy_dl_reg.MIMetric(2))


def test_one_object_for_many_pairs(flat, solid):
    """Dimension, levels and records are each pair's own."""
    registration = DeepRegistration("SSD", level_iters=[5, 5], model=None)
    for pair in (flat, solid, flat):
        mapping = registration.optimize(*pair[:2], **pair.affines)
        assert registration.dim == mapping.dim == pair.static.ndim
        assert same(mapping, run(pair, level_iters=[5, 5]))


# Masks and missing data


def ball(image, radius=0.6):
    """A disc or ball in the middle of an image, as a mask."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    return sum(a**2 for a in axes) < radius**2


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
    """What is left of it at a coarse level may be nothing: no reason to fail."""
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


# The same from run to run


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC", "MI"])
def test_two_runs_are_identical(solid, metric):
    mask = ball(solid.static, 0.9)
    one, other = (run(solid, metric, static_mask=mask) for _ in range(2))
    assert same(one, other)


def test_another_process_gives_the_same(tmp_path):
    """Nothing hangs on the state of this one."""
    script = (
        "import sys, numpy as np; from dipy_dl_reg import DeepRegistration;"
        "x = np.indices((16, 18, 17)) / 8.0 - 1;"
        "s, m = (np.exp(-(k * x[0]**2 + x[1]**2 + x[2]**2)) for k in (2, 4));"
        "r = DeepRegistration('CC', level_iters=[6, 6]).optimize(s, m, num_threads=2);"
        "np.save(sys.argv[1], [r.forward, r.backward])"
    )
    found = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.npy"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(path)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        found.append(np.load(path))
    assert np.abs(found[0]).max() > 0.5
    assert np.array_equal(*found)


@pytest.mark.parametrize("count", [1, 2, -1, np.int64(1)])
def test_threads_are_as_told_and_put_back(flat, count):
    before, during = torch.get_num_threads(), set()

    def callback(registration, stage):
        if stage == STAGE.ITER_END:
            during.add(torch.get_num_threads())

    run(flat, num_threads=count, callback=callback, **SHORT)
    wanted = len(os.sched_getaffinity(0)) if count == -1 else count
    assert during == {wanted} or (count == -1 and during == {os.cpu_count()})
    assert torch.get_num_threads() == before


def test_threads_are_put_back_after_an_error(flat):
    before = torch.get_num_threads()

    def callback(registration, stage):
        if stage == STAGE.ITER_END:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(flat, num_threads=before + 1, callback=callback)
    assert torch.get_num_threads() == before


# What is shown


def test_no_bar_where_there_is_no_terminal(flat, capfd):
    run(flat, **SHORT)
    assert capfd.readouterr().err == ""
    run(flat, progress=True, **SHORT)
    assert "level 0" in capfd.readouterr().err
    run(flat, progress=False, **SHORT)
    assert capfd.readouterr().err == ""


def test_verbosity(flat, log, caplog):
    said = {}
    for level in ("NONE", "STATUS", "DIAGNOSE"):
        caplog.clear()
        registration = DeepRegistration("SSD", **SHORT)
        registration.verbosity = getattr(VerbosityLevels, level)
        registration.optimize(flat.static, flat.moving)
        said[level] = len(log())
    assert said["NONE"] == 0 < said["STATUS"] < said["DIAGNOSE"]


# What is taken


def test_inputs_are_left_alone(flat):
    """Nothing is written into what was given, nor kept of it."""
    mask = ball(flat.static).astype(np.uint8)
    given = {
        "static": np.where(ball(flat.static, 0.9), flat.static, np.nan),
        "moving": flat.moving.astype(np.float32),
        "static_mask": mask,
        "static_grid2world": flat.static_grid2world,
        "moving_grid2world": flat.moving_grid2world,
        "prealign": flat.prealign,
    }
    before = {name: value.copy() for name, value in given.items()}
    mapping = run(flat, **given)
    for name, value in given.items():
        assert np.array_equal(value, before[name], equal_nan=value.dtype.kind == "f")
    held = [v for v in vars(mapping).values() if isinstance(v, np.ndarray)]
    assert not any(np.shares_memory(h, g) for h in held for g in given.values())


def variants():
    def read_only(x):
        x = x.copy()
        x.flags.writeable = False
        return x

    return {
        "uint8": lambda x: x.astype(np.uint8),
        "int64": lambda x: x.astype(np.int64),
        "big-endian int16": lambda x: x.astype(">i2"),
        "big-endian float32": lambda x: x.astype(">f4"),
        "big-endian float64": lambda x: x.astype(">f8"),
        "float16": lambda x: x.astype(np.float16),
        "Fortran": np.asfortranarray,
        "read-only": read_only,
        "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
        "nested list": lambda x: x.tolist(),
    }


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("dim", [2, 3])
def test_arrays_of_any_make(flat, solid, variant, dim):
    """The same whole numbers, however they are stored, give the same map."""
    pair = flat if dim == 2 else solid
    images = [
        np.rint(200 * (i - i.min()) / np.ptp(i)) for i in (pair.static, pair.moving)
    ]
    wanted = run(pair, static=images[0], moving=images[1], **SHORT)
    stored = [variants()[variant](i) for i in images]
    assert same(run(pair, static=stored[0], moving=stored[1], **SHORT), wanted)


def test_images_of_bool(flat):
    images = {"static": flat.static > 0.3, "moving": flat.moving > 0.3}
    wanted = {name: image.astype(float) for name, image in images.items()}
    assert same(run(flat, **images), run(flat, **wanted))


@pytest.mark.parametrize("variant", ["read-only", "Fortran", "nested list"])
def test_affines_of_any_make(flat, variant):
    affines = {n: variants()[variant](a) for n, a in flat.affines.items()}
    mapping = run(flat, **affines, **SHORT)
    assert same(mapping, run(flat, **SHORT))
    assert all(
        type(getattr(mapping, name)) is np.ndarray
        for name in ("prealign", "domain_grid2world", "codomain_grid2world")
    )


@pytest.mark.parametrize("metric", ["SSD", "CC", "MI"])
@pytest.mark.parametrize("change", ["offset", "scale", "both"])
def test_units_of_intensity_do_not_matter(flat, metric, change):
    """An offset of 10 000 times the contrast, or tiny numbers: much the same map."""
    offset = 0.0 if change == "scale" else 1e4
    scale = 1.0 if change == "offset" else 1e-4 if change == "scale" else 30.0
    images = {
        name: getattr(flat, name).astype(np.float64) * scale + offset
        for name in ("static", "moving")
    }
    assert apart(run(flat, metric, **images), run(flat, metric)) < 0.1


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC", "MI"])
@pytest.mark.parametrize("role", ["static", "moving", "static moving"])
def test_one_extreme_voxel(flat, metric, role, log):
    """It is clipped, and that is said; the rest is registered as if it were not there.

    These images are so small that quantiles of a thousandth lie between two voxels.
    """
    spoilt = {r: getattr(flat, r).astype(np.float64) for r in role.split()}
    for image in spoilt.values():
        image[9, 11] = 1e10
    mapping = run(flat, metric, level_iters=[20, 20], **spoilt)
    said = [m for m in log() if "extreme" in m]
    assert [m.split(":")[0] for m in said] == role.split()
    assert all("1 voxels" in m and "1e+10" in m for m in said)
    still = run(flat, level_iters=[0]).transform(flat.moving) - flat.static
    found = mapping.transform(flat.moving) - flat.static
    assert np.square(found).sum() < 0.6 * np.square(still).sum()


# deep_registration


@pytest.fixture(scope="module")
def files(solid, tmp_path_factory):
    """The 3D pair as files, as images and as arrays, all float32."""
    folder = tmp_path_factory.mktemp("images")
    arrays = {k: getattr(solid, k).astype(np.float32) for k in ("static", "moving")}
    affine = {k: getattr(solid, f"{k}_grid2world") for k in arrays}
    images = {k: nib.Nifti1Image(arrays[k], affine[k]) for k in arrays}
    paths = {k: folder / f"{k}.nii.gz" for k in arrays}
    for k in arrays:
        nib.save(images[k], paths[k])
    return {
        "paths": paths,
        "strings": {k: str(p) for k, p in paths.items()},
        "images": images,
        "arrays": {
            **arrays,
            "static_affine": affine["static"],
            "moving_affine": affine["moving"],
        },
    }


@pytest.mark.parametrize("kind", ["paths", "strings", "images", "arrays"])
def test_deep_registration_takes_all_that_holds_an_image(solid, files, kind):
    given = dict(files[kind])
    moving, static = given.pop("moving"), given.pop("static")
    options = {"metric": "SSD", "level_iters": [8, 8], "model": None, **given}
    warped, mapping = deep_registration(moving, static, **options)
    arrays = files["arrays"]
    wanted = run(
        solid, level_iters=[8, 8], static=arrays["static"], moving=arrays["moving"]
    )
    assert same(mapping, wanted)
    assert warped.shape == solid.static.shape
    assert np.allclose(warped, wanted.transform(arrays["moving"]), atol=1e-6)
    assert np.allclose(mapping.codomain_grid2world, solid.static_grid2world)


def test_affine_of_a_file_can_be_overruled(files, solid):
    other = np.diag([2.0, 2, 2, 1]) @ solid.static_grid2world
    affines = {"static_affine": other, "moving_affine": other}
    _, mapping = deep_registration(
        files["images"]["moving"], files["paths"]["static"], **affines, **SHORT
    )
    assert np.array_equal(mapping.codomain_grid2world, other)
    assert np.array_equal(mapping.domain_grid2world, other)


def test_prealign_may_be_dipys_affine_map(flat):
    options = {
        "static_affine": flat.static_grid2world,
        "moving_affine": flat.moving_grid2world,
        **SHORT,
    }
    _, wanted = deep_registration(*flat[1::-1], prealign=flat.prealign, **options)
    by_map = AffineMap(flat.prealign)
    _, found = deep_registration(*flat[1::-1], prealign=by_map, **options)
    assert same(found, wanted)
    assert np.array_equal(found.prealign, wanted.prealign)
    assert np.allclose(found.prealign_inv, flat.prealign)


def test_a_slice_in_a_file_has_its_plane(flat, tmp_path):
    """A 2D NIfTI has a 3D affine: that of its two axes counts."""
    affine = np.diag([1.5, 2.5, 4.0, 1.0])
    affine[:3, 3] = 7, -3, 50
    image = nib.Nifti1Image(flat.static.astype(np.float32), affine)
    _, mapping = deep_registration(image, image, **SHORT)
    assert mapping.dim == 2
    wanted = [[1.5, 0, 7], [0, 2.5, -3], [0, 0, 1]]
    assert np.allclose(mapping.codomain_grid2world, wanted)


def test_masks_and_options_reach_the_registration(flat, solid, files, tmp_path):
    mask = ball(solid.static)
    path = tmp_path / "mask.nii"
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), solid.static_grid2world), path)
    images = files["images"]
    options = {"metric": "SSD", "level_iters": [6, 6], "step_length": 0.2}
    found = [
        deep_registration(
            images["moving"], images["static"], static_mask=m, num_threads=1, **options
        )[1]
        for m in (mask, path)
    ]
    assert same(*found)
    arrays = {k: files["arrays"][k] for k in ("static", "moving")}
    options |= {"num_threads": 1, **arrays}
    assert same(found[0], run(solid, static_mask=mask, **options))
    assert not same(found[0], run(solid, **options))
    options["moving_mask"] = ball(solid.moving, 0.5)
    assert not same(found[0], run(solid, static_mask=mask, **options))


@pytest.mark.parametrize("metric", ["SSD", "NCC"])
@pytest.mark.parametrize("dim", [2, 3])
def test_an_image_and_itself(flat, solid, metric, dim):
    """Nothing is to be gained: the map stays all but the identity."""
    image = (flat if dim == 2 else solid).static
    registration = DeepRegistration(metric, level_iters=[10, 10])
    mapping = registration.optimize(image, image)
    assert np.linalg.norm(mapping.backward, axis=-1).max() < 0.25


# Volumes of one slice


def as_volume(pair, axis):
    """A 2D pair as volumes of one slice, which lies in a plane of the world."""
    own = [k for k in range(3) if k != axis]

    def matrix(flat, thickness):
        whole = np.eye(4)
        whole[np.ix_([*own, 3], [*own, 3])] = flat
        whole[axis, axis], whole[axis, 3] = thickness, 30.0 if thickness > 1 else 0.0
        return whole

    return type(pair)(
        np.expand_dims(pair.static, axis),
        np.expand_dims(pair.moving, axis),
        matrix(pair.static_grid2world, 3.0),
        matrix(pair.moving_grid2world, 4.0),
        matrix(pair.prealign, 1.0),
    )


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_registered_as_the_slice(flat, axis, oblique):
    """The network of 2D images included, which is what finds large displacements."""
    options = {"level_iters": [6]}
    wanted = DeepRegistration(**options)
    rigid = np.array([[0.995, 0.0998, 4.0], [-0.0998, 0.995, -6.0], [0, 0, 1]])
    flat = flat._replace(prealign=rigid)  # without scale, which levels go by
    by_slice = wanted.optimize(flat.static, flat.moving, **flat.affines)
    volume, turn = as_volume(flat, axis), np.eye(4)
    if oblique:
        turn[:3, :3] = affine_matrix([1, 1, 1], (0.2, 0.1, -0.15))[:3, :3]
        volume = volume._replace(
            static_grid2world=turn @ volume.static_grid2world,
            prealign=volume.prealign @ np.linalg.inv(turn),
        )
    found = DeepRegistration(**options)
    mapping = found.optimize(volume.static, volume.moving, **volume.affines)
    assert wanted.network_used and found.network_used
    assert found.network is not None and found.network.dim == 2
    field = mapping.backward @ turn[:3, :3]  # back into the plane
    field = np.delete(field.squeeze(axis), axis, axis=-1)
    assert np.abs(mapping.backward).max() > 1
    assert np.abs(field - by_slice.backward).max() < (0.2 if oblique else 1e-3)


def test_slices_that_lie_apart_have_no_network(flat):
    """Nor a slice and a slab: what is there is compared, as before."""
    volume = as_volume(flat, 2)
    pair = make_pair_of_tensors(volume.static, volume.moving, **volume.affines)
    assert flatten_slices(pair) is not None
    tilt = volume.prealign @ affine_matrix([1, 1, 1], (0, 0.5, 0))
    tilted = volume.affines | {"prealign": tilt}
    pair = make_pair_of_tensors(volume.static, volume.moving, **tilted, apart=True)
    assert flatten_slices(pair) is None
    slab = np.repeat(volume.moving, 3, axis=2)
    assert (
        flatten_slices(make_pair_of_tensors(volume.static, slab, **volume.affines))
        is None
    )


# Threads and processes

FORKED = """
import multiprocessing, sys
import numpy as np
import torch
from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.registration.devices import threads

def register(count):
    x = np.mgrid[-1:1:64j, -1:1:64j, -1:1:48j]
    images = (np.exp(-8 * ((x - s) ** 2).sum(0)) for s in (0, 0.1))
    registration = DeepRegistration("NCC", level_iters=[3], model=None)
    mapping = registration.optimize(*images, num_threads=count)
    torch.nn.functional.conv3d(torch.rand(1, 4, 40, 40, 40), torch.rand(4, 4, 3, 3, 3))
    with threads(count):
        return mapping.forward.sum(), torch.get_num_threads()

if __name__ == "__main__":
    torch.set_num_threads(2)
    own, count = register(2)
    assert count == 2
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(register, [2, 1, None]).get(timeout=60)
    assert [n for _, n in found] == [1, 1, 1], found
    assert np.allclose([s for s, _ in found], own)
    assert register(2) == (own, 2)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_registers_after_its_parent_has():
    """OpenMP's threads are not there in a child: it does with one of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        env=environment | {"OMP_THREAD_LIMIT": "4"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_thread_counts_come_back():
    """Nested blocks, and blocks of several Python threads at once."""
    before = torch.get_num_threads()
    with threads(3):
        assert torch.get_num_threads() == 3
        with threads(1):
            assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError), threads(2):
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_thread_counts_come_back_after_blocks_that_cross():
    """One begins while another is open, and ends after it."""
    before, counts = torch.get_num_threads(), {}
    entered, left, read = (threading.Event() for _ in range(3))

    def other():
        with threads(before + 2):
            counts["inside"] = torch.get_num_threads()
            entered.set()
            left.wait(60)
            counts["still inside"] = torch.get_num_threads()
        counts["after"] = torch.get_num_threads()
        read.set()

    thread = threading.Thread(target=other)
    with threads(before + 1):
        thread.start()
        assert entered.wait(60)
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    left.set()
    thread.join(60)
    assert counts == {
        "inside": before + 2,
        "still inside": before + 2,
        "after": before,
    }
    new = threading.Thread(target=lambda: counts.update(new=torch.get_num_threads()))
    new.start()
    new.join(60)
    assert torch.get_num_threads() == counts["new"] == before


def test_all_of_a_registration_has_the_threads_asked_for(flat, monkeypatch):
    """Up to the map, and to the look at whether affine registration has failed."""
    seen = {}
    for module, name in ((dipy_adapter, "make_map"), (affine, "warn_if_apart")):
        function = getattr(module, name)

        def watched(*args, function=function, **options):
            seen.setdefault(function.__name__, []).append(torch.get_num_threads())
            return function(*args, **options)

        monkeypatch.setattr(module, name, watched)
    count = torch.get_num_threads() + 1
    run(flat, num_threads=count, **SHORT)
    affine.DeepAffineRegistration(level_iters=[2]).optimize(
        flat.static, flat.moving, RigidTransform2D(), None, num_threads=count
    )
    deep_affine_registration(
        moving=flat.moving,
        static=flat.static,
        moving_affine=flat.moving_grid2world,
        static_affine=flat.static_grid2world,
        pipeline=["translation"],
        num_threads=count,
    )
    assert seen == {"make_map": [count], "warn_if_apart": [count, count]}


@pytest.mark.parametrize("shape", [(32, 32), (20, 20, 20)])
def test_long_steps_on_noise_come_to_an_end(shape):
    """Without smoothing there is nothing but folds to be mended."""
    rng = np.random.default_rng(3)
    static, moving = rng.random(shape), rng.random(shape)
    registration = DeepRegistration(
        "SSD", model=None, step_length=3, sigma_field=0, level_iters=[50, 50]
    )
    mapping = registration.optimize(static, moving)
    quality = registration.quality
    assert quality.round_trip_mean <= 0.05 and quality.round_trip_max <= 0.5
    assert jacobian(mapping.backward, np.eye(len(shape) + 1)).min() > 0
