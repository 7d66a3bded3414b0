"""What `DeepRegistration` is asked for, checked; and what it does where it is not."""

import numpy as np

from dipy_dl_reg.geometry.pyramid import level_spacings
from dipy_dl_reg.registration.landmark_checks import check_landmarks

#: Most iterations per level, coarsest first, by the number that an image allows.
LEVEL_ITERS = {1: [100], 2: [100, 100], 3: [100, 100, 60], 4: [100, 100, 60, 40]}
#: What options of SyN left at None mean here.
DEFAULTS = {"step_length": 0.25, "ss_sigma_factor": 0.8, "opt_tol": 0.005}
#: Iterations from a network's start between images of different contrasts, at levels of
#: voxels up to so many mm.
_BRIEF, _COARSEST_BRIEF = 10, 2.6
#: A level is added while the longest axis still has this many voxels on it.
_LEAST_LEVEL_SIZE = 20


def automatic_iters(grid):
    """Iterations of each level, where nobody asked for any.

    Parameters
    ----------
    grid : Grid
        The static image's; its longest axis says how many levels there are.

    Returns
    -------
    level_iters : list of int
        Coarsest first.
    """
    levels = 1
    while max(grid.shape) / 2**levels > _LEAST_LEVEL_SIZE and levels < max(LEVEL_ITERS):
        levels += 1
    return list(LEVEL_ITERS[levels])


def brief_iters(level_iters, grid):
    """Iterations where a start is good and what refines it is less sure.

    Parameters
    ----------
    level_iters : list of int
        Of `automatic_iters`.
    grid : Grid
        The static image's.

    Returns
    -------
    level_iters : list of int
        10 at the finest level and at others of about 2 mm and less, else 0.
    """
    spacings = level_spacings(grid, len(level_iters))
    brief = [_BRIEF if s <= _COARSEST_BRIEF else 0 for s in spacings]
    return [*brief[:-1], _BRIEF]


def checked_iters(level_iters):
    """Iterations of each level as asked for.

    Parameters
    ----------
    level_iters : sequence of int, 0 or None
        Coarsest first; 0 is none at all.

    Returns
    -------
    level_iters : list of int, or None
        None where nobody asked.

    Raises
    ------
    ValueError
        If it is empty or holds anything but whole numbers from 0.
    """
    if level_iters is None:
        return None
    if np.ndim(level_iters) == 0 and level_iters == 0:
        return [0]
    message = (
        f"level_iters must be a list of whole numbers from 0, got {level_iters!r}."
    )
    try:
        whole = [int(n) for n in level_iters]
        exact = all(n == m and m >= 0 for n, m in zip(level_iters, whole))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(message) from None
    if not whole or not exact:
        raise ValueError(message)
    return whole


def checked_landmarks(landmarks):
    """Landmarks as asked for.

    Parameters
    ----------
    landmarks : tuple of array, or None
        Points of static and of moving.

    Returns
    -------
    landmarks : tuple of ndarray, or None
        As `check_landmarks` returns them.

    Raises
    ------
    ValueError
        If they are no pair, or unfit.
    """
    if landmarks is None:
        return None
    if not isinstance(landmarks, (tuple, list)) or len(landmarks) != 2:
        raise ValueError(
            "landmarks must be a pair (static_points, moving_points), got "
            f"{type(landmarks).__name__}."
        )
    return check_landmarks(*landmarks)


def not_negative(name, value):
    """A number from 0.

    Parameters
    ----------
    name : str
        Of the option.
    value : float
        As asked for.

    Returns
    -------
    value : float
        The same.

    Raises
    ------
    ValueError
        If it is below 0 or not finite.
    """
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be 0 or more and finite, got {value!r}.")
    return float(value)
