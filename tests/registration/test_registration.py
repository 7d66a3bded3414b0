"""How `DeepRegistration` behaves: like SyN, and reproducibly."""

from dipy.align import metrics as dipy_metrics
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
import numpy as np
import pytest
from short_runs import SHORT, STAGE, apart, run, same

import dipy_dl_reg
from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.registration.monitor import VerbosityLevels


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


def test_numbers_of_any_kind_become_numbers_of_python():
    registration = DeepRegistration(
        level_iters=(n for n in (3, 4.0)),
        step_length=np.array(0.5),
        landmark_weight=2,
        sigma_field=np.float32(1),
        max_memory="2 kB",
    )
    assert registration.level_iters == [3, 4] and registration.levels == 2
    for name, value in {"step_length": 0.5, "landmark_weight": 2}.items():
        found = getattr(registration, name)
        assert type(found) is float and found == value
    assert registration.max_memory == 2000


def test_attributes_when_the_first_stage_is_called_back(flat):
    """The metric and its smoothing are set; a model set since has no effect."""
    seen = []

    def callback(registration, stage):
        network = getattr(registration.network, "name", None)
        seen.append((registration.metric.name, registration.sigma_field, network))

    registration = DeepRegistration("SSD", level_iters=[1], callback=callback)
    registration.model = None
    registration.optimize(flat.static, flat.moving, **flat.affines)
    assert seen[0] == ("SSD", 0.7, "pyramid")


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


def test_no_bar_where_there_is_no_terminal(flat, capfd):
    run(flat, **SHORT)
    assert capfd.readouterr().err == ""
    run(flat, progress=True, **SHORT)
    assert "Level 0" in capfd.readouterr().err
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
