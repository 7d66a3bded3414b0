"""The check on a GPU, rehearsed on the CPU with small images."""

import numpy as np
import pytest

from tools import gpu_check, gpu_parity, gpu_parity_brain

SHAPE = (16, 18, 14)


def test_names_of_cases_are_unique():
    functions = (
        gpu_parity.field_cases, gpu_parity.metric_cases, gpu_parity.registration_cases,
        gpu_parity.call_cases, gpu_parity.brain_cases,
    )  # fmt: skip
    names = [name for function in functions for name in function(SHAPE)]
    assert len(names) == len(set(names)) == len(gpu_parity.list_cases(SHAPE))
    assert not set(gpu_parity.brain_cases(SHAPE)) & set(gpu_parity.list_cases((16, 18)))


@pytest.mark.parametrize(
    "name",
    [
        "metric channels", "metric CC + anatomy maps", "metric orientation",
        "polar_rotation", "reorientation of tensors", "remove_mean_map",
        "refine, from a start", "refine, along an axis",
    ],
)  # fmt: skip
def test_a_device_agrees_with_itself(name):
    case = gpu_parity.brain_cases(SHAPE)[name]
    assert gpu_parity.compare(case, "cpu") == (0.0, True)
    assert np.abs(gpu_parity.to_array(case.function("cpu"))).max() > 0


def test_drawn_tensors_are_positive_definite():
    tensors = gpu_parity_brain.make_tensors(SHAPE, 0)
    full = tensors[..., [0, 1, 3, 1, 2, 4, 3, 4, 5]].reshape(*SHAPE, 3, 3)
    inside = tensors.any(-1)
    assert 0 < inside.mean() < 1
    assert np.linalg.eigvalsh(full[inside]).min() > 0


def test_nothing_begins_when_the_time_is_over(capsys):
    report = gpu_check.Report(minutes=-1)
    assert gpu_check.check_parity(report, "cpu", [SHAPE]) == []
    assert "Left out, the time is over: warp" in capsys.readouterr().out
    assert not gpu_check.Report().is_late("warp")
