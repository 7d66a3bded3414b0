"""How much memory a refinement takes, how much there is, and what to do with less."""

import math
from pathlib import Path
import re

import torch

#: Bytes per voxel of the static grid that every registration takes: both images, the
#: two fields twice, and the checks at the end.  Measured, with some room.
_WHOLE = 150
#: What a level takes with a penalty on the field, which autograd differentiates.
_WITH_PENALTY = 520
#: Bytes per voxel of its working grid that the discrete search takes, and that grid's
#: voxels on the longest side, margins included.
_SEARCH, _SEARCH_LONGEST = 2000, 108
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_UNITS |= {f"{unit}i": 1024**n for n, unit in enumerate("kmgt", start=1)}
#: What a container may use, and uses: control groups of version 2 and of version 1.
_CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device):
    """Memory that is free on a device.

    Parameters
    ----------
    device : torch.device
        Where the work is to be done.

    Returns
    -------
    size : int or None
        Bytes, no more than a container's limit leaves; None where nobody tells (the
        CPU of other systems than Linux).
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return min([1024 * int(size) for size in sizes] + _left(), default=None)


def _left(files=_CONTAINER):
    """What the container that this runs in has left, if it has a limit."""
    for limit, used in files:
        try:
            taken = int(Path(used).read_text()) - _reclaimable(Path(used).parent)
            return [max(int(Path(limit).read_text()) - max(taken, 0), 0)]
        except (OSError, ValueError):  # none, or "max"
            continue
    return []


def _reclaimable(group):
    """Bytes of a control group that hold files read before, and are free on demand."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
        sizes = dict(line.split() for line in lines)
    except (OSError, ValueError):
        return 0
    # Version 1 has both, and the usage counts the groups below, as the total does.
    return int(sizes.get("total_inactive_file", sizes.get("inactive_file", 0)))


def to_bytes(size):
    """A number of bytes, also from words such as ``"1.5 GB"``.

    Parameters
    ----------
    size : float or str
        Bytes; or a number with one of kB, MB, GB, TB (powers of 1000) or of KiB, MiB,
        GiB, TiB (of 1024).

    Returns
    -------
    size : float
        Bytes.

    Raises
    ------
    ValueError
        If it is neither, or not above 0.
    """
    try:
        if isinstance(size, str):
            number, unit = re.fullmatch(
                r"\s*([\d.e+-]+)\s*(\w*?)b?\s*", size.lower()
            ).groups()
            value = float(number) * _UNITS[unit]
        else:
            value = 0.0 if isinstance(size, bool) else float(size)
    except (TypeError, ValueError, AttributeError, KeyError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(
            f'max_memory must be a number of bytes or such as "1.5 GB", got {size!r}.'
        )
    return value


def needed(level_iters, voxels, dim, objective):
    """Memory that a refinement takes, beyond what is there before.

    Parameters
    ----------
    level_iters : sequence of int
        Iterations per level, coarsest first.
    voxels : int
        Of the static image.
    dim : {2, 3}
        Each coarser level has ``2**dim`` times fewer.
    objective : dipy_dl_reg.metrics.objective.Objective
        What it minimises.

    Returns
    -------
    size : float
        Bytes, about.
    """
    finest = [level for level, count in enumerate(reversed(level_iters)) if count]
    each = objective.metric.bytes_per_voxel
    if objective.weight:
        each = max(each, _WITH_PENALTY)
    level = each / 2 ** (dim * finest[0]) if finest else 0
    return voxels * max(_WHOLE, level)


def needed_by_search(grid):
    """Memory that the discrete search takes.

    Parameters
    ----------
    grid : Grid
        The static image's.

    Returns
    -------
    size : float
        Bytes, at most about; by the shape of the field of view alone.
    """
    sides = [n * s for n, s in zip(grid.shape, grid.spacing)]
    part = [side / max(sides) for side in sides]
    return _SEARCH * math.prod(_SEARCH_LONGEST * x for x in part)


def within(budget, level_iters, voxels, dim, objective):
    """The iterations that a budget allows: the finest levels may go.

    Parameters
    ----------
    budget : float
        Bytes.
    level_iters : sequence of int
        Wanted iterations per level, coarsest first.
    voxels, dim, objective
        As in `needed`.

    Returns
    -------
    level_iters : list of int
        The same with 0 for levels that are too fine; never 0 for all that were not.
    """
    plan = list(level_iters)
    while needed(plan, voxels, dim, objective) > budget:
        smaller = coarser(plan)
        if smaller is None:
            break
        if needed(smaller, voxels, dim, objective) == needed(
            plan, voxels, dim, objective
        ):
            break
        plan = smaller
    return plan


def coarser(level_iters):
    """The same without the finest level that has iterations.

    Parameters
    ----------
    level_iters : sequence of int
        Iterations per level, coarsest first.

    Returns
    -------
    level_iters : list of int or None
        None if no level would be left.
    """
    used = [index for index, count in enumerate(level_iters) if count]
    if len(used) < 2:
        return None
    return [0 if index == used[-1] else n for index, n in enumerate(level_iters)]


def ran_out(error):
    """Whether an error says that memory has run out.

    Parameters
    ----------
    error : Exception
        As it was caught.

    Returns
    -------
    ran_out : bool
        Python's, CUDA's and the CPU's own ways to say it.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
