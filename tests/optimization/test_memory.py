"""Memory: sizes as text, estimates, and plans within a budget."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.regularizers.bending import bending
from dipy_dl_reg.optimization import memory


@pytest.mark.parametrize(
    "text, size",
    [
        (2e9, 2e9),
        ("1.5 GB", 1.5e9),
        ("800MB", 8e8),
        ("64 k", 64e3),
        ("12", 12),
        ("1.5 GiB", 1.5 * 2**30),
        ("512mib", 2**29),
    ],
)
def test_sizes_as_text(text, size):
    assert memory.to_bytes(text) == pytest.approx(size)


@pytest.mark.parametrize(
    "text", ["much", "", 0, -1, "-2 GB", float("nan"), None, [1], True, "1 XB", "inf"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="max_memory"):
        memory.to_bytes(text)


def test_the_finest_levels_are_left_out_first():
    metric, voxels = Objective(CCMetric()), 10**6
    wanted = [4, 3, 2]
    full = memory.estimate_memory(wanted, voxels, 3, metric)
    assert memory.plan_within_budget(full, wanted, voxels, 3, metric) == wanted
    assert memory.plan_within_budget(0.9 * full, wanted, voxels, 3, metric) == [4, 3, 0]
    # Coarser levels save nothing below what every registration needs.
    assert memory.plan_within_budget(1, wanted, voxels, 3, metric) == [4, 3, 0]
    assert memory.plan_within_budget(1, [5], voxels, 3, metric) == [5]
    assert memory.plan_within_budget(1, [0], voxels, 3, metric) == [0]


def test_estimate_counts_penalty_and_voxels_of_the_level():
    voxels = 10**6
    plain, penalty = (
        Objective(CCMetric()),
        Objective(MIMetric(), regularizer=bending, weight=0.1),
    )
    assert memory.estimate_memory([1], voxels, 3, penalty) > memory.estimate_memory(
        [1], voxels, 3, plain
    )
    # A level of half the resolution has an eighth of the voxels.
    half = memory.estimate_memory([1, 0], voxels, 3, penalty)
    assert half < memory.estimate_memory([0, 1], voxels, 3, penalty)


def test_search_memory_depends_on_the_field_of_view():
    def size(shape, spacing):
        return memory.estimate_search_memory(Grid(shape, np.diag([*spacing, 1.0])))

    assert size((100, 80, 60), (1, 1, 1)) == size((50, 40, 30), (2, 2, 2))
    assert size((100, 100, 10), (1, 1, 1)) < 0.2 * size((100, 100, 100), (1, 1, 1))


def test_limit_of_a_container(tmp_path):
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("3000\n")
    used.write_text("1000\n")
    nowhere = (tmp_path / "a", tmp_path / "b")
    assert memory._container_memory([nowhere, (limit, used)]) == [2000]
    limit.write_text("max\n")
    assert (
        memory._container_memory([(limit, used)])
        == memory._container_memory([nowhere])
        == []
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["anon 100", "inactive_file 600", "active_file 50"],  # version 2
        ["inactive_file 7", "cache 800", "total_inactive_file 600"],  # version 1
    ],
)
def test_page_cache_does_not_count_as_used(tmp_path, lines):
    """`memory.current` counts files in the page cache, which the kernel frees."""
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("3000\n")
    used.write_text("1000\n")
    (tmp_path / "memory.stat").write_text("\n".join(lines) + "\n")
    assert memory._container_memory([(limit, used)]) == [2600]
    used.write_text("500\n")  # the two files are not read at the same moment
    assert memory._container_memory([(limit, used)]) == [3000]
    (tmp_path / "memory.stat").write_text("of another form altogether\n")
    assert memory._container_memory([(limit, used)]) == [2500]


def test_drop_finest_level():
    assert memory.drop_finest_level([4, 3, 2]) == [4, 3, 0]
    assert memory.drop_finest_level([4, 3, 0]) == [4, 0, 0]
    assert memory.drop_finest_level([4, 0, 0]) is None


def test_out_of_memory_errors_are_recognised():
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert memory.is_out_of_memory(raised.value)
    assert not memory.is_out_of_memory(RuntimeError("shapes do not match"))


def test_free_memory_is_positive_or_unknown():
    free = memory.free_memory(torch.device("cpu"))
    assert free is None or free > 2**20
