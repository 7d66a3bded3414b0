"""Refinement within the available memory: fewer iterations if memory is too small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.initialization.starts import Fields
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.optimization import memory
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.registration.monitor import Monitor, Recorded


def memory_budget(max_memory: float | None, device: Any) -> float:
    """Determine the number of bytes of memory that a refinement may use.

    Parameters
    ----------
    max_memory : float or None
        The user's limit; None is the free memory of the device.
    device : torch.device
        Device of the refinement.

    Returns
    -------
    budget : float
        Bytes; infinity if the free memory is unknown.
    """
    free = max_memory or memory.free_memory(device)
    return float("inf") if free is None else free


def plan_iterations(
    pair: Pair, objective: Objective, level_iters: Sequence[int], budget: float
) -> list[int]:
    """Reduce the iterations to those for which memory suffices, with a warning.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        The function that refinement minimizes.
    level_iters : sequence of int
        Requested iterations, coarsest level first.
    budget : float
        Bytes of memory that may be used.

    Returns
    -------
    level_iters : list of int
        Iterations of each level; 0 at the finest levels if memory is too small.
    """
    shape = pair.static_grid.shape
    sizes = int(np.prod(shape)), len(shape), objective
    plan = memory.plan_within_budget(budget, level_iters, *sizes)
    needed = memory.estimate_memory(plan, *sizes)
    if plan != level_iters or needed > budget:
        logger.warning(
            f"Refinement with {level_iters} iterations would need "
            f"{memory.estimate_memory(level_iters, *sizes):.2g} bytes of memory, but "
            f"{budget:.2g} may be used: the iterations are reduced to {plan}"
            + (f", which still need {needed:.2g} bytes." if needed > budget else ".")
        )
    return plan


def refine_within_memory(
    pair: Pair,
    objective: Objective,
    *,
    level_iters: Sequence[int],
    budget: float,
    recorded: Recorded,
    **options: Any,
) -> Fields:
    """Refine the field of a pair; omit the finest level if memory runs out.

    Parameters
    ----------
    pair : Pair
        The images, after the intensity mapping if there is one.
    objective : Objective
        The function that refinement minimizes.
    level_iters : sequence of int
        Requested iterations, coarsest level first.
    budget : float
        Bytes of memory that may be used.
    recorded : Recorded
        The registration whose attributes store the records of the optimization.
    **options : dict
        Options of `dipy_dl_reg.optimization.deformable.refine`.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *static_shape)
        Fields in voxels of the static grid.
    """
    plan = plan_iterations(pair, objective, level_iters, budget)
    while True:
        try:
            with Monitor(recorded, sum(plan)) as monitor:
                observer = monitor.observe
                return refine(
                    pair, objective, level_iters=plan, observer=observer, **options
                )
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            smaller = memory.drop_finest_level(plan)
            if smaller is None:
                raise
        # Outside `except`, so that the traceback and the tensors in it are freed.
        logger.warning(
            f"Memory has run out: iterations are reduced from {plan} to {smaller}."
        )
        plan = smaller
