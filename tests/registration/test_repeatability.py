"""The same map from run to run, from process to process, by any number of threads."""

import os
import subprocess
import sys
import threading

from dipy.align.transforms import RigidTransform2D
import numpy as np
from pairs import jacobian
import pytest
from short_runs import SHORT, STAGE, ball, run, same
import torch

from dipy_dl_reg import (
    DeepAffineRegistration,
    DeepRegistration,
    deep_affine_registration,
)
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.affine import steps
from dipy_dl_reg.registration.devices import threads


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC", "MI"])
def test_two_runs_are_identical(solid, metric):
    mask = ball(solid.static, 0.9)
    one, other = (run(solid, metric, static_mask=mask) for _ in range(2))
    assert same(one, other)


def test_another_process_gives_the_same(tmp_path):
    """The result does not depend on the state of this process."""
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
    """A forked process has no OpenMP threads and uses one thread."""
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
    """Up to the map, and up to the overlap that an affine registration has found."""
    seen = {}
    for module, name in ((dipy_adapter, "make_map"), (steps, "measure_overlap")):
        function = getattr(module, name)

        def watched(*args, function=function, **options):
            seen.setdefault(function.__name__, []).append(torch.get_num_threads())
            return function(*args, **options)

        monkeypatch.setattr(module, name, watched)
    count = torch.get_num_threads() + 1
    run(flat, num_threads=count, **SHORT)
    DeepAffineRegistration(level_iters=[2]).optimize(
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
    assert seen == {"make_map": [count], "measure_overlap": [count, count]}


@pytest.mark.parametrize("shape", [(32, 32), (20, 20, 20)])
def test_long_steps_on_noise_come_to_an_end(shape):
    """Without smoothing the field has many folds, which are repaired."""
    rng = np.random.default_rng(3)
    static, moving = rng.random(shape), rng.random(shape)
    registration = DeepRegistration(
        "SSD", model=None, step_length=3, sigma_field=0, level_iters=[50, 50]
    )
    mapping = registration.optimize(static, moving)
    quality = registration.quality
    assert quality.round_trip_mean <= 0.05 and quality.round_trip_max <= 0.5
    assert jacobian(mapping.backward, np.eye(len(shape) + 1)).min() > 0
