"""A registration with too little memory succeeds, with a warning."""

import logging

import numpy as np
import pytest
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.optimization.deformable import refine


@pytest.fixture
def pair():
    x, y = np.mgrid[-1:1:40j, -1:1:40j]
    return np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))


@pytest.fixture
def log(caplog):
    """What DIPY's logger says."""
    logger = logging.getLogger("dipy")
    before, logger.propagate = logger.propagate, True
    caplog.set_level(logging.WARNING, logger="dipy")
    yield caplog
    logger.propagate = before


def test_little_memory_leaves_the_finest_level_out(pair, log):
    static, moving = pair
    registration = DeepRegistration(level_iters=[3, 2], max_memory="1 kB")
    mapping = registration.optimize(static, moving)
    assert "with [3, 2] iterations" in log.text and "reduced to [3, 0]" in log.text
    assert "which still need" in log.text  # no plan is as small as that
    assert len(registration.full_energy_profile) == 3
    assert registration.level_iters == [3, 2]  # for the next pair
    better = np.square(static - mapping.transform(moving)).sum()
    assert better < np.square(static - moving).sum()


def test_enough_memory_changes_nothing(pair, log):
    registration = DeepRegistration(level_iters=[3, 2], max_memory="2 GB")
    one = registration.optimize(*pair)
    other = DeepRegistration(level_iters=[3, 2]).optimize(*pair)
    assert np.array_equal(one.forward, other.forward)
    assert "memory" not in log.text.lower()


def test_memory_that_runs_out_is_no_end(pair, log, monkeypatch):
    def scarce(*args, level_iters, **options):
        if level_iters[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return refine(*args, level_iters=level_iters, **options)

    monkeypatch.setattr("dipy_dl_reg.registration.refinement.refine", scarce)
    registration = DeepRegistration(level_iters=[3, 2])
    registration.optimize(*pair)
    assert "iterations are reduced from [3, 2] to [3, 0]" in log.text
    assert len(registration.full_energy_profile) == 3
    with pytest.raises(torch.OutOfMemoryError):
        DeepRegistration(level_iters=[0, 2]).optimize(*pair)


def test_a_search_that_is_too_large_is_left_out(pair, log):
    registration = DeepRegistration(
        level_iters=[3, 2], initialization="discrete", max_memory="10 MB"
    )
    registration.optimize(*pair)
    assert "search is omitted" in log.text and not registration.initialization_used
    assert "cut down" not in log.text


def test_a_search_that_runs_out_is_no_end(pair, log, monkeypatch):
    def scarce(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(
        "dipy_dl_reg.initialization.starts.search_displacements", scarce
    )
    registration = DeepRegistration(level_iters=[3, 2], initialization="discrete")
    registration.optimize(*pair)
    assert "without an initial field" in log.text
    assert not registration.initialization_used


def test_other_errors_are_not_taken_for_it(pair, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("dipy_dl_reg.registration.refinement.refine", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        DeepRegistration(level_iters=[3, 2]).optimize(*pair)


@pytest.mark.parametrize("size", ["lots", 0, -5])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="max_memory"):
        DeepRegistration(max_memory=size)
