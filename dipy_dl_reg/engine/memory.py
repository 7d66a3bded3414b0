"""How much memory a refinement takes, how much there is, and what to do with less."""

from pathlib import Path

import torch

#: Bytes per voxel of the static grid that every registration takes: both images, the
#: two fields twice, and the checks at the end.  Measured, with some room.
_WHOLE = 150
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def free_memory(device):
    """Memory that is free on a device.

    Parameters
    ----------
    device : torch.device
        Where the work is to be done.

    Returns
    -------
    size : int or None
        Bytes; None where nobody tells (the CPU of other systems than Linux).
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
    return 1024 * int(sizes[0]) if sizes else None


def to_bytes(size):
    """A number of bytes, also from words such as ``"1.5 GB"``.

    Parameters
    ----------
    size : float or str
        Bytes; or a number with one of kB, MB, GB, TB (powers of 1000).

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
            word = size.strip().lower().removesuffix("b").rstrip()
            unit = word[-1:] if word[-1:] in _UNITS else ""
            value = float(word.removesuffix(unit)) * _UNITS[unit]
        else:
            value = float(size)
    except (TypeError, ValueError):
        value = 0.0
    if not value > 0:
        raise ValueError(
            f'max_memory must be a number of bytes or such as "1.5 GB", got {size!r}.'
        )
    return value


def needed(level_iters, voxels, dim, metric):
    """Memory that a refinement takes, beyond what is there before.

    Parameters
    ----------
    level_iters : sequence of int
        Iterations per level, coarsest first.
    voxels : int
        Of the static image.
    dim : {2, 3}
        Each coarser level has ``2**dim`` times fewer.
    metric : dipy_dl_reg.engine.metric.Metric
        What it compares by.

    Returns
    -------
    size : float
        Bytes, about.
    """
    finest = [level for level, count in enumerate(reversed(level_iters)) if count]
    level = metric.bytes_per_voxel / 2 ** (dim * finest[0]) if finest else 0
    return voxels * max(_WHOLE, level)


def within(budget, level_iters, voxels, dim, metric):
    """The iterations that a budget allows: the finest levels may go.

    Parameters
    ----------
    budget : float
        Bytes.
    level_iters : sequence of int
        Wanted iterations per level, coarsest first.
    voxels, dim, metric
        As in `needed`.

    Returns
    -------
    level_iters : list of int
        The same with 0 for levels that are too fine; never 0 for all that were not.
    """
    plan = list(level_iters)
    while needed(plan, voxels, dim, metric) > budget:
        smaller = coarser(plan)
        if smaller is None:
            break
        if needed(smaller, voxels, dim, metric) == needed(plan, voxels, dim, metric):
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
