"""Options of `DeepRegistration`: their validation and their default values.

The help of the commands is made from the descriptions of these options.  Therefore this
module does not import torch; functions that need torch import it when they are called.
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
from dipy_dl_reg.validation import check_number, check_phase_encoding, wrong_value

if TYPE_CHECKING:
    from dipy_dl_reg.networks.base import RegistrationNetwork

#: Maximum number of iterations at each level, coarsest first, by the number of levels.
LEVEL_ITERS = {1: [100], 2: [100, 100], 3: [100, 100, 60], 4: [100, 100, 60, 10]}
#: Values of SyN's options if they are None.
DEFAULTS = {"step_length": 0.25, "ss_sigma_factor": 0.8, "opt_tol": 0.005}
#: For images of different contrasts, if refinement starts from a network's field:
#: number of iterations, and largest voxel size (mm) of the levels that have them.
_BRIEF, _COARSEST_BRIEF = 10, 2.6
#: A coarser level is added while its longest axis still has this many voxels.
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
        default the number of levels depends on the size of the static image, with up
        to 100 iterations each (10 at the finest of four); most levels end earlier, see
        `opt_tol`.  If refinement starts from a network's field and the images have
        different contrasts, the default is 10 iterations at the levels of 2 mm and
        finer, because more iterations reduce the overlap again.
    step_length : float, optional
        Displacement of each image by an iteration, in voxels of the level.  SyN moves
        both images towards their middle, so the total displacement grows by twice this
        length; the same holds here.  With local correlation, voxels where the images
        differ most move by up to 2.8 times as much, and most voxels by less.  By
        default 0.25, as in SyN.
    ss_sigma_factor : float, optional
        Smoothing of the images for a coarser level: the standard deviation along an
        axis, in voxels of the image, is this times (level's voxel size / image's voxel
        size - 1).  By default 0.8.
    opt_tol : float, optional
        A level ends when the decrease of its energy per iteration, averaged over ten
        iterations, falls below this part of the decrease since its first iteration.
        By default 0.005.
    inv_iter, inv_tol : float, optional
        Options of SyN, accepted without effect and with a message in the log: the
        inverse is always computed until its error is below a fixed bound.
    callback : callable, optional
        ``callback(registration, stage)`` is called with DIPY's ``RegistrationStages``.
    model : str, Path, RegistrationNetwork or None, optional
        Network whose field refinement starts from: a trained network, the name of one
        that comes with the package (`list_models`), or a file that `save_network`
        wrote.  None uses no network.  ``"auto"``, the default, is the network for
        images of any contrast: ``"pyramid-brain"`` in 3D, ``"pyramid-slices"`` in 2D
        and for volumes of one slice.

        With ``level_iters=0`` the network's field is the result; it is made invertible
        and free of folds, like every result.  If the field does not increase the
        similarity of the images, as measured by the metric, it is not used: a warning
        is logged, `network_used` is False, and with ``level_iters=0`` the map contains
        only the affine.

        Masks are applied to the images before the default network sees them; a network
        that the user names sees the whole images.  The default network is not used

        - if landmarks or ``initialization="discrete"`` are given;
        - if an image has less than 16 of the network's voxels along an axis;
        - for volumes of the same contrast that are close to each other (mean local
          correlation of at least .45), if they are refined at several levels by local
          correlation: refinement alone is then as accurate, in half the time;
        - if the intensities are mapped with anatomy maps (see `anatomy`);
        - for other similar images, if a coarse refinement that starts from its field
          does not align them better than one without it.
    initialization : {"discrete", "auto"} or None, optional
        "discrete" first searches for displacements of up to a quarter of the static
        image's longest side, and refinement starts from the field found; the search
        compares images by self-similarity, so contrasts may differ.  "auto" uses that
        field only if a coarse refinement from it lowers the energy by 5 % more than a
        coarse refinement without it.  The search is intended for images with large
        displacements between them: it takes seconds in 3D, and can reduce the overlap
        of images that are already well aligned.  It is not done if a network's field is
        used.  By default None.
    channel_weights : sequence of float, optional
        For images with several channels, such as T1 and FA, on their last axis: the
        weight of each channel, 0 or more; only their ratios matter.  If `metric` is not
        a sequence, it is used for every channel.  By default the weights are estimated
        from the images: a channel in which they are more strongly correlated has a
        larger weight.
    sigma_field : float, optional
        Standard deviation, in voxels of the finest level, of the Gaussian that smooths
        the whole field after each iteration; with local correlation it is 1.4 times as
        large at coarser levels, in their voxels.  A larger one gives a smoother field
        and less overlap (see the benchmark).  By default 0.7.
    regularizer : str or callable, optional
        Penalty on the displacement, in addition to the smoothing: {regularizers}, or a
        function of a field.  By default none.
    regularizer_weight : float, optional
        Weight of the penalty; required if `regularizer` is given.
    landmarks : tuple of array, shape (N, dim), optional
        Points in static's world and the corresponding points in moving's world, mm,
        row by row; at least dim + 1 of them, not on one line or plane.  Refinement
        starts from the thin-plate spline through them.  A warning is logged if
        landmarks lie outside the images, or if the map has a large error at a landmark.
    landmark_weight : float, optional
        Refinement minimizes the dissimilarity plus this weight times the mean squared
        distance of the landmarks, mm**2.  With 0, landmarks are used only for the
        first field; with the default, 1, the map meets the landmarks.
    phase_encoding : {"i", "i-", "j", "j-", "k", "k-"}, optional
        Axis of phase encoding of the moving image, an echo-planar image, as BIDS names
        the axes of its array.  All displacements, and those of the inverse, are then
        parallel to this axis of moving's own grid, also if a prealign rotates the
        images.  The sign makes no difference here.  No network is used; a network,
        search or landmarks that the user requests are an error.
    modulate : bool, optional
        Only with `phase_encoding`: multiply the warped image by the Jacobian
        determinant before it is compared with static, because the distortion
        compresses or stretches the signal.  `apply_epi_correction` applies the map
        and the determinant.  With a metric that is chosen for the pair, images of
        different contrasts are then compared by self-similarity.  This makes the field
        more accurate for images of 2 to 3 mm, and less accurate for images that were
        interpolated to smaller voxels.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    max_memory : float or str, optional
        Memory that refinement may use besides the given images: bytes, or a string
        such as ``"1.5 GB"``; by default the free memory of the device.  If it is not
        enough, or if memory runs out during the computation, the finest levels or the
        search are omitted with a warning.  The memory of the network, up to 2 GB for a
        head at 1 mm, is not included.  To avoid it, give ``model=None``, masks (for
        two whole heads, a network finds them) and ``anatomy=False``.  The channels of
        ``anatomy=True``, ten volumes for each image, are not included either.
    progress : bool, optional
        Show a progress bar of the iterations; by default only at a terminal.
    anatomy : {"auto", True, False}, optional
        Whether maps of anatomical structures are used.  A network predicts them from
        each image, of any contrast (`segment_anatomy`), in one to three seconds of a
        core.  They are for 3D images that show a brain.

        With ``"auto"``, the default, they are used if the images have opposite
        contrasts (a negative mean local correlation), such as T1 and b0 or MD, but not
        T1 and FA.  The intensities of each structure in both images give a function
        from moving's to static's contrast.  The images are then compared like images of
        one contrast, without the default network.  This needs one channel, refinement,
        and no given `metric` or `phase_encoding`.

        With True, the maps of ten structures are also channels of the objective, for
        all contrasts.  It is an error for images that cannot have maps, and without
        refinement.  With False, no maps are used.

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
    channel_weights: Sequence[float] | None = None
    sigma_field: float | None = None
    regularizer: str | Callable[[Any], Any] | None = None
    regularizer_weight: float | None = None
    landmarks: tuple[np.ndarray, np.ndarray] | None = None
    landmark_weight: float = 1.0
    phase_encoding: str | None = None
    modulate: bool = False
    device: Any = "auto"
    max_memory: float | str | None = None
    progress: bool | None = None
    anatomy: Literal["auto"] | bool = "auto"

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {"level_iters": check_iters(self.level_iters)}
        for name, default in DEFAULTS.items():
            value = getattr(self, name)
            value, above = default if value is None else value, name == "step_length"
            checked[name] = check_number(name, value, above=above)
        if self.initialization not in (None, "discrete", "auto"):
            wanted = "'discrete', 'auto' or None"
            raise wrong_value("initialization", wanted, self.initialization)
        if self.anatomy != "auto" and not isinstance(self.anatomy, bool):
            raise wrong_value("anatomy", "'auto', True or False", self.anatomy)
        if (self.regularizer is None) != (self.regularizer_weight is None):
            raise ValueError(
                "regularizer and regularizer_weight must be given together."
            )
        for name in ("landmark_weight", "sigma_field", "regularizer_weight"):
            value = getattr(self, name)
            if value is not None or name == "landmark_weight":
                checked[name] = check_number(name, value)
        if self.max_memory is not None:
            from dipy_dl_reg.optimization.memory import to_bytes

            checked["max_memory"] = to_bytes(self.max_memory)
        if self.channel_weights is not None:
            checked["channel_weights"] = _check_weights(self.channel_weights)
        checked["landmarks"] = check_landmark_pair(self.landmarks)
        self._check_phase_encoding()
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def _check_phase_encoding(self) -> None:
        """Check the axis, and that no option requires displacements off this axis."""
        if self.phase_encoding is None:
            if self.modulate:
                raise ValueError("modulate=True requires phase_encoding.")
            return
        check_phase_encoding(self.phase_encoding)
        is_default = isinstance(self.model, str) and self.model == "auto"
        given = {
            "model": self.model is not None and not is_default,
            "initialization": self.initialization is not None,
            "landmarks": self.landmarks is not None,
        }
        if self.anatomy is True:
            raise ValueError(
                "anatomy=True cannot be used with phase_encoding: the maps of a "
                "distorted image are not where its structures are."
            )
        for name in (name for name, is_given in given.items() if is_given):
            raise ValueError(
                f"{name} cannot be used with phase_encoding: it requires displacements "
                "that are not parallel to one axis."
            )


def automatic_iters(grid: Grid) -> list[int]:
    """Compute the default number of iterations of each level.

    Parameters
    ----------
    grid : Grid
        Grid of the static image; its longest axis determines the number of levels.

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
    """Reduce the iterations for a network's field and images of different contrasts.

    With more iterations the overlap of anatomical structures decreases again.

    Parameters
    ----------
    level_iters : list of int
        The result of `automatic_iters`.
    grid : Grid
        Grid of the static image.

    Returns
    -------
    level_iters : list of int
        10 at the finest level and at other levels of about 2 mm or less, else 0.
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
        Coarsest first; 0 means no refinement.

    Returns
    -------
    level_iters : list of int, or None
        None if `level_iters` is None.

    Raises
    ------
    ValueError
        If it is empty, or an entry is not a whole number of at least 0.
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


def _check_weights(weights: Sequence[float]) -> tuple[float, ...]:
    """Check that the weights of channels are numbers of at least 0, not all 0."""
    if np.ndim(weights) != 1 or len(weights) == 0:
        wanted = "a sequence of numbers, one for each channel"
        raise wrong_value("channel_weights", wanted, weights)
    checked = [check_number(f"channel_weights[{k}]", w) for k, w in enumerate(weights)]
    if not any(checked):
        raise wrong_value("channel_weights", "not 0 for all channels", weights)
    return tuple(checked)


def check_landmark_pair(
    landmarks: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Check the landmarks of two images.

    Parameters
    ----------
    landmarks : tuple of array, or None
        Points in static and in moving.

    Returns
    -------
    landmarks : tuple of ndarray, or None
        As `check_landmarks` returns them.

    Raises
    ------
    ValueError
        If they are not a pair of arrays, or do not determine an affine.
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
