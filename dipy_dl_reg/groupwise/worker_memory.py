"""Limits the number of processes of a study by the memory that each needs."""

from __future__ import annotations

from collections.abc import Sequence
import math

from dipy.utils.logging import logger

from dipy_dl_reg.groupwise.cohort_plan import CohortPlan
from dipy_dl_reg.groupwise.subjects import Subject
from dipy_dl_reg.io.images import open_image

#: Bytes of a process besides images: Python, Torch and the network.  A process that
#: registered brains of 2 mm to a template of 3 mm took .66 GB in all.
_PROCESS_BYTES = 9e8
#: Bytes for each voxel of the template and contrast (see `optimization.memory`: 240 of
#: local correlation or 450 of MIND, the most of the metrics that are chosen), and of a
#: subject's image, as float64 with masks and copies.
_STATIC_BYTES, _MOVING_BYTES = 450, 60
#: Bytes for each value of a further file: the input and the result as float32 or
#: float64.
_FILE_BYTES = 16
#: Part of the free memory that processes may use.
_USABLE = 0.9


def estimate_worker_memory(subjects: Sequence[Subject], plan: CohortPlan) -> float:
    """Estimate the memory that one process of a study needs at most.

    Parameters
    ----------
    subjects : sequence of Subject
        The subjects; files that cannot be opened are left out.
    plan : CohortPlan
        What they have in common.

    Returns
    -------
    size : float
        Bytes, from the sizes of the images; approximate.
    """
    fixed = math.prod(open_image(plan.template[0]).shape[:3]) * len(plan.template)
    most = 0.0
    for subject in subjects:
        images = sum(_count_values(file.path) for file in subject.images)
        series = [_count_values(file.path) for file in subject.files]
        most = max(most, _MOVING_BYTES * images + _FILE_BYTES * max(series, default=0))
    return _PROCESS_BYTES + _STATIC_BYTES * fixed + most


def _count_values(path: object) -> int:
    """Number of values of an image; 0 if it cannot be opened, or is no image."""
    try:
        return math.prod(open_image(path).shape)  # type: ignore[arg-type]
    except (OSError, ValueError):
        return 0


def limit_processes(
    count: int, needed: float, *, free: float | None, gpus: int = 0
) -> int:
    """Limit the number of processes by memory and by GPUs, and log the reason.

    Parameters
    ----------
    count : int
        Number of processes that the user requests.
    needed : float
        Bytes that each needs.
    free : float or None
        Free memory in bytes; None if it is unknown.
    gpus : int, optional
        Number of GPUs, if they are used: each is for one process.

    Returns
    -------
    count : int
        At least 1.
    """
    if gpus and count > gpus:
        logger.info(f"{gpus} of {count} processes are used: one for each GPU")
        count = gpus
    if free is None:
        return count
    fits = int(_USABLE * free / needed)
    if fits < 1:
        logger.warning(
            f"A subject may need {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free"
        )
    if count > max(fits, 1):
        logger.warning(
            f"{max(fits, 1)} instead of {count} processes are used: each may need "
            f"{needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. With "
            "memory= (--memory) you can state another value for each process"
        )
    return min(count, max(fits, 1))
