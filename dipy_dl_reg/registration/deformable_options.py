"""Options of `DeepRegistration`, checked once, and what follows from their defaults.

The help of the commands reads the options' descriptions, so this module is imported
without torch: what needs it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.registry import REGULARIZERS
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.validation import check_number, wrong_value

if TYPE_CHECKING:
    from dipy_dl_reg.networks.base import RegistrationNetwork

#: Most iterations per level, coarsest first, by the number of levels.
LEVEL_ITERS = {1: [100], 2: [100, 100], 3: [100, 100, 60], 4: [100, 100, 60, 40]}
#: Values of SyN's options where they are None.
DEFAULTS = {"step_length": 0.25, "ss_sigma_factor": 0.8, "opt_tol": 0.005}
#: Iterations from a network's start between images of different contrasts, at levels of
#: voxels up to so many mm.
_BRIEF, _COARSEST_BRIEF = 10, 2.6
#: A level is added while the longest axis still has this many voxels on it.
_LEAST_LEVEL_SIZE = 20


@fill_docstring(regularizers=REGULARIZERS)
@dataclass(frozen=True)
class DeformableOptions:
    """Options of a deformable registration, besides its metric.

    Parameters
    ----------
    level_iters : sequence of int, or 0, optional
        Maximum number of iterations at each level of the pyramid; `level_iters[0]` is
        the coarsest.  0 skips a level; the number 0 alone means no refinement.  By
        default there are as many levels as the static image has room for, with up to
        100 iterations each (40 at the finest of four); most levels end earlier, see
        `opt_tol`.  Where refinement starts from a network's field and the images are
        of different contrasts, the default is 10 iterations at the levels of 2 mm and
        finer: more iterations reduce the overlap again.
    step_length : float, optional
        How far an iteration moves each image, in voxels of the level.  SyN moves both
        images towards their middle, so the displacement grows by twice this; it does
        so here, too.  With local correlation, voxels where the images differ most move
        by up to 2.8 times as much, and most voxels by less.  By default 0.25, as in
        SyN.
    ss_sigma_factor : float, optional
        Smoothing of the images for a coarser level: the standard deviation along an
        axis, in voxels of the image, is this times (level's voxel size / image's voxel
        size - 1).  By default 0.8.
    opt_tol : float, optional
        A level ends when the decrease of its energy per iteration, averaged over ten
        iterations, falls below this part of the decrease since its first iteration.
        By default 0.005.
    inv_iter, inv_tol : float, optional
        Options of SyN, accepted without effect: the inverse is always computed until
        its error is below a fixed bound.  A message says so.
    callback : callable, optional
        ``callback(registration, stage)`` is called with DIPY's `RegistrationStages`.
    model : str, Path, RegistrationNetwork or None, optional
        Network whose field refinement starts from: a trained network, the name of one
        that comes with the package (`list_models`), or a file that `save_network`
        wrote.  None uses no network.  ``"auto"``, the default, is the network for
        images of any contrast: ``"pyramid-brain"`` in 3D, ``"pyramid-slices"`` in 2D
        and for volumes of one slice.

        With ``level_iters=0`` the network's field is the result, invertible and
        without folds like any other.  A field with which the images are no more
        similar, by the metric, is not used: a warning is logged, `network_used` is
        False, and with ``level_iters=0`` the map is the affine alone.

        The default network sees nothing outside masks; a network that is named sees
        the whole images.  The default network is not used where there are landmarks
        or ``initialization="discrete"``, nor for images of less than 16 of its voxels
        along an axis.  Its field is also left out where the images are similar without
        it and a coarse refinement from it ends no better.
    initialization : {"discrete", "auto"} or None, optional
        "discrete" first searches for displacements of up to a quarter of the static
        image's longest side, and refinement starts from the field found; the search
        compares images by self-similarity, so contrasts may differ.  "auto" uses that
        field only if a coarse refinement from it lowers the energy by 5 % more than a
        coarse refinement without it.  The search is for images that are far apart: it
        takes seconds in 3D, and can reduce the overlap of images that are close
        already.  It is not done where a network's field is used.  By default None.
    sigma_field : float, optional
        Standard deviation, in voxels of the level, of the Gaussian that smooths the
        whole field after each iteration.  A larger one gives a smoother field and less
        overlap (see the benchmark).  By default 0.8 for local correlation and 0.7 for
        other metrics; where the metric is chosen for the pair, so is this.
    regularizer : str or callable, optional
        Penalty on the displacement, in addition to the smoothing: {regularizers}, or a
        function of a field.  By default none.
    regularizer_weight : float, optional
        Weight of that penalty; required with it.
    landmarks : tuple of array, shape (N, dim), optional
        Points in static's world and the corresponding points in moving's world, mm,
        row by row; at least dim + 1 of them, not on one line or plane.  Refinement
        starts from the thin-plate spline through them.  A warning names landmarks
        that lie outside the images, and those that the map misses.
    landmark_weight : float, optional
        Refinement minimises the dissimilarity plus this times the mean squared
        distance of the landmarks, mm**2.  0 uses landmarks for the start only; the
        default, 1, makes the map meet them.
    device : str or torch.device, optional
        ``"auto"`` is CUDA, else MPS where it works, else the CPU.
    max_memory : float or str, optional
        Memory that refinement may use besides the given images: bytes, or a string
        such as ``"1.5 GB"``; by default what is free on the device.  If that is too
        little, the finest levels, or the search, are left out with a warning; so they
        are if memory runs out during the computation.  The memory of the network, up
        to 2 GB for a head at 1 mm, is not included; ``model=None`` avoids it.
    progress : bool, optional
        Show a progress bar of the iterations; by default only at a terminal.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    level_iters: Sequence[int] | int | None = None
    step_length: float | None = None
    ss_sigma_factor: float | None = None
    opt_tol: float | None = None
    inv_iter: float | None = None
    inv_tol: float | None = None
    callback: Callable[[Any, Any], object] | None = None
    model: str | PathLike | RegistrationNetwork | None = "auto"
    initialization: Literal["discrete", "auto"] | None = None
    sigma_field: float | None = None
    regularizer: str | Callable[[Any], Any] | None = None
    regularizer_weight: float | None = None
    landmarks: tuple[np.ndarray, np.ndarray] | None = None
    landmark_weight: float = 1.0
    device: Any = "auto"
    max_memory: float | str | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {"level_iters": check_iters(self.level_iters)}
        for name, default in DEFAULTS.items():
            value = getattr(self, name)
            value, above = default if value is None else value, name == "step_length"
            checked[name] = check_number(name, value, above=above)
        if self.initialization not in (None, "discrete", "auto"):
            wanted = "'discrete', 'auto' or None"
            raise wrong_value("initialization", wanted, self.initialization)
        if (self.regularizer is None) != (self.regularizer_weight is None):
            raise ValueError("regularizer and regularizer_weight go together.")
        for name in ("landmark_weight", "sigma_field", "regularizer_weight"):
            value = getattr(self, name)
            if value is not None or name == "landmark_weight":
                checked[name] = check_number(name, value)
        if self.max_memory is not None:
            from dipy_dl_reg.optimization.memory import to_bytes

            checked["max_memory"] = to_bytes(self.max_memory)
        checked["landmarks"] = check_landmark_pair(self.landmarks)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def automatic_iters(grid: Grid) -> list[int]:
    """Iterations of each level by default.

    Parameters
    ----------
    grid : Grid
        Of the static image; its longest axis determines the number of levels.

    Returns
    -------
    level_iters : list of int
        Coarsest first.
    """
    levels = 1
    while max(grid.shape) / 2**levels > _LEAST_LEVEL_SIZE and levels < max(LEVEL_ITERS):
        levels += 1
    return list(LEVEL_ITERS[levels])


def brief_iters(level_iters: Sequence[int], grid: Grid) -> list[int]:
    """Iterations from a network's field across contrasts, where many lose overlap.

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
    from dipy_dl_reg.geometry.pyramid import level_spacings

    spacings = level_spacings(grid, len(level_iters))
    brief = [_BRIEF if s <= _COARSEST_BRIEF else 0 for s in spacings]
    return [*brief[:-1], _BRIEF]


def check_iters(level_iters: Sequence[int] | int | None) -> list[int] | None:
    """Check the iterations of each level.

    Parameters
    ----------
    level_iters : sequence of int, 0 or None
        Coarsest first; 0 is no iterations at all.

    Returns
    -------
    level_iters : list of int, or None
        None, the default, is None.

    Raises
    ------
    ValueError
        If it is empty or holds anything but whole numbers from 0.
    """
    if level_iters is None:
        return None
    if np.ndim(level_iters) == 0 and level_iters == 0:
        return [0]
    wrong = wrong_value("level_iters", "a list of whole numbers from 0", level_iters)
    try:
        given = list(level_iters)  # type: ignore[arg-type]
        whole = [int(n) for n in given]
        exact = all(n == m and m >= 0 for n, m in zip(given, whole))
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not whole or not exact:
        raise wrong
    return whole


def check_landmark_pair(
    landmarks: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Check the landmarks of two images.

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
        If they are no pair of arrays, or do not determine an affine.
    """
    if landmarks is None:
        return None
    if not isinstance(landmarks, (tuple, list)) or len(landmarks) != 2:
        raise ValueError(
            "landmarks must be a pair (static_points, moving_points), got "
            f"{type(landmarks).__name__}."
        )
    from dipy_dl_reg.registration.landmark_checks import check_landmarks

    return check_landmarks(*landmarks)
