"""Refinement within the memory there is: planned before, cut down if it runs out."""

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
    """Bytes of memory that a refinement may use.

    Parameters
    ----------
    max_memory : float or None
        The user's limit; by default what is free on the device.
    device : torch.device
        Where the refinement runs.

    Returns
    -------
    budget : float
        Infinity where it is not known.
    """
    free = max_memory or memory.free_memory(device)
    return float("inf") if free is None else free


def plan_iterations(
    pair: Pair, objective: Objective, level_iters: Sequence[int], budget: float
) -> list[int]:
    """Iterations per level that memory suffices for; a warning if they are fewer.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        What is minimised.
    level_iters : sequence of int
        As asked for, coarsest first.
    budget : float
        Bytes.

    Returns
    -------
    level_iters : list of int
        The finest levels may be 0.
    """
    shape = pair.static_grid.shape
    sizes = int(np.prod(shape)), len(shape), objective
    plan = memory.plan_within_budget(budget, level_iters, *sizes)
    needed = memory.estimate_memory(plan, *sizes)
    if plan != level_iters or needed > budget:
        logger.warning(
            f"Refinement with {level_iters} iterations would take "
            f"{memory.estimate_memory(level_iters, *sizes):.2g} bytes of memory where "
            f"{budget:.2g} may be used: it is cut down to {plan}"
            + (f", which takes {needed:.2g} still." if needed > budget else ".")
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
    """Refine a pair; leave the finest level out whenever memory runs out.

    Parameters
    ----------
    pair : Pair
        The images as they are compared.
    objective : Objective
        What is minimised.
    level_iters : sequence of int
        As asked for, coarsest first.
    budget : float
        Bytes that may be used.
    recorded : Recorded
        Where the records of the optimisation are kept.
    **options : dict
        Of `dipy_dl_reg.optimization.deformable.refine`.

    Returns
    -------
    displacement, inverse : Tensor, shape (1, D, *static_shape)
        In voxels of the static grid.
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
        # Here the exception, and the tensors that its traceback holds, are gone.
        logger.warning(f"Memory has run out: from {plan} iterations to {smaller}.")
        plan = smaller
