"""Free memory, memory that a registration needs, and reduction of the iterations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import math
from pathlib import Path
import re
from typing import TYPE_CHECKING

import torch

from dipy_dl_reg.validation import wrong_value

if TYPE_CHECKING:
    from dipy_dl_reg.grid import Grid
    from dipy_dl_reg.metrics.objective import Objective

#: Bytes per voxel of the static grid that every registration needs: both images, both
#: fields twice, and the final checks.  Measured, rounded up.
_BASE_BYTES = 150
#: Bytes per voxel of a level with a penalty on the field, which autograd
#: differentiates.
_PENALTY_BYTES = 520
#: Bytes per voxel of the working grid of the displacement search, and the voxels along
#: the longest side of that grid, margins included.
_SEARCH_BYTES, _SEARCH_LONGEST = 2000, 108
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_UNITS |= {f"{unit}i": 1024**n for n, unit in enumerate("kmgt", start=1)}
#: Files with the limit and the usage of a container: control groups, versions 2 and 1.
_CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device: torch.device) -> int | None:
    """Determine the free memory of a device.

    Parameters
    ----------
    device : torch.device
        The device that computes.

    Returns
    -------
    size : int or None
        Bytes, limited by the memory that is left for a container.  None if the system
        does not report it (the CPU of systems other than Linux).
    """
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device)
        unused = reserved - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return min([1024 * int(size) for size in sizes] + _container_memory(), default=None)


def _container_memory(files: Iterable[tuple[str, str]] = _CONTAINER) -> list[int]:
    """Bytes that the container of this process has left; empty if it has no limit."""
    for limit, usage in files:
        try:
            used = int(Path(usage).read_text()) - _reclaimable_memory(
                Path(usage).parent
            )
            return [max(int(Path(limit).read_text()) - max(used, 0), 0)]
        except (OSError, ValueError):  # no such file, or the limit is "max"
            continue
    return []


def _reclaimable_memory(group: Path) -> int:
    """Bytes of a control group in the page cache, which the kernel frees on demand."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
        sizes = dict(line.split() for line in lines)
    except (OSError, ValueError):
        return 0
    # Version 1 has both keys; its usage includes the groups below, as the total does.
    return int(sizes.get("total_inactive_file", sizes.get("inactive_file", 0)))


def to_bytes(size: float | str) -> float:
    """Convert a size such as ``"1.5 GB"`` to bytes.

    Parameters
    ----------
    size : float or str
        Bytes; or a number with one of the units kB, MB, GB, TB (powers of 1000) or
        KiB, MiB, GiB, TiB (powers of 1024).

    Returns
    -------
    size : float
        Bytes.

    Raises
    ------
    ValueError
        If `size` has another form, or is not positive and finite.
    """
    try:
        value = _parse_size(size)
    except (TypeError, ValueError, KeyError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise wrong_value("max_memory", 'a number of bytes or such as "1.5 GB"', size)
    return value


def _parse_size(size: float | str) -> float:
    """Bytes of a number, or of a text with a unit."""
    if not isinstance(size, str):
        return 0.0 if isinstance(size, bool) else float(size)
    match = re.fullmatch(r"\s*([\d.e+-]+)\s*(\w*?)b?\s*", size.lower())
    if match is None:
        raise ValueError(size)
    number, unit = match.groups()
    return float(number) * _UNITS[unit]


def estimate_memory(
    level_iters: Sequence[int], voxels: int, dim: int, objective: Objective
) -> float:
    """Estimate the memory that a refinement needs in addition to its input.

    Parameters
    ----------
    level_iters : sequence of int
        Iterations of each level, coarsest first.
    voxels : int
        Number of voxels of the static image.
    dim : {2, 3}
        Dimension; each coarser level has ``2**dim`` times fewer voxels.
    objective : Objective
        The function to minimize.

    Returns
    -------
    size : float
        Bytes, approximately.
    """
    finest = [level for level, count in enumerate(reversed(level_iters)) if count]
    each = objective.metric.bytes_per_voxel
    if objective.weight:
        each = max(each, _PENALTY_BYTES)
    level = each / 2 ** (dim * finest[0]) if finest else 0
    return voxels * max(_BASE_BYTES, level)


def estimate_search_memory(grid: Grid) -> float:
    """Estimate the memory that the displacement search needs.

    Parameters
    ----------
    grid : Grid
        Grid of the static image.

    Returns
    -------
    size : float
        Bytes, an approximate upper bound.  It depends on the proportions of the field
        of view only, not on the voxel size.
    """
    sides = [n * s for n, s in zip(grid.shape, grid.spacing)]
    part = [side / max(sides) for side in sides]
    return _SEARCH_BYTES * math.prod(_SEARCH_LONGEST * x for x in part)


def plan_within_budget(
    budget: float,
    level_iters: Sequence[int],
    voxels: int,
    dim: int,
    objective: Objective,
) -> list[int]:
    """Omit the finest levels until a refinement fits into a memory budget.

    Parameters
    ----------
    budget : float
        Bytes.
    level_iters : sequence of int
        Requested iterations of each level, coarsest first.
    voxels, dim, objective
        As in `estimate_memory`.

    Returns
    -------
    level_iters : list of int
        The iterations, with 0 for omitted levels.  At least one level with iterations
        is not omitted, even if the budget does not suffice for it.
    """
    plan = list(level_iters)
    size = estimate_memory(plan, voxels, dim, objective)
    while size > budget:
        smaller = drop_finest_level(plan)
        if smaller is None:
            break
        smaller_size = estimate_memory(smaller, voxels, dim, objective)
        if smaller_size == size:
            break
        plan, size = smaller, smaller_size
    return plan


def drop_finest_level(level_iters: Sequence[int]) -> list[int] | None:
    """Set the iterations of the finest level that has any to 0.

    Parameters
    ----------
    level_iters : sequence of int
        Iterations of each level, coarsest first.

    Returns
    -------
    level_iters : list of int or None
        None if no level with iterations would remain.
    """
    used = [index for index, count in enumerate(level_iters) if count]
    if len(used) < 2:
        return None
    return [0 if index == used[-1] else n for index, n in enumerate(level_iters)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error was raised because memory did not suffice.

    Parameters
    ----------
    error : BaseException
        The error as caught.

    Returns
    -------
    out_of_memory : bool
        True for Python's `MemoryError`, for CUDA's error and for the error of
        Torch's allocator on the CPU.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
