"""The option `anatomy` of a deformable registration: anatomy maps of its images.

The maps are predicted at most once for a pair, and only when they are needed.  They
have two uses: they map moving's intensities to static's contrast, and with
``anatomy=True`` they are channels of the objective, besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dipy_dl_reg.anatomy.brain_view import can_show_brain, explain_wrong_size
from dipy_dl_reg.anatomy.overlap import measure_anatomy_overlap
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import rotation_angle
from dipy_dl_reg.initialization.anatomy_maps import (
    CHANNELS,
    PairMaps,
    add_map_channels,
    map_intensities,
    predict_pair_maps,
)
from dipy_dl_reg.initialization.intensity_mapping import IntensityMapping
from dipy_dl_reg.initialization.starts import Message, Start
from dipy_dl_reg.maps.checks import add_anatomy as add_overlap
from dipy_dl_reg.maps.verdict import Verdict
from dipy_dl_reg.metrics.anatomy import AnatomyMetric
from dipy_dl_reg.registration import monitor
from dipy_dl_reg.registration.head_poses import TURNED

if TYPE_CHECKING:
    import torch

    from dipy_dl_reg.registration.deformable import DeepRegistration

#: Weight of the maps' squared difference beside the metric of the images.
_WEIGHT = 1.0
#: Why the maps were used or not.
_NOT_3D = "Anatomy maps are for 3D images."
_TOO_SMALL = "The field of view of an image is too small for a brain."
_NO_BRAIN = "The anatomy maps show no brain in an image."
_NOT_OPPOSITE = (
    "No negative correlation of the images was found: only opposite contrasts, such as "
    "those of b0 and T1, are mapped with the maps."
)
_NOT_REFINED = "There is no refinement."
_MAPPED = "With the maps, moving's intensities were mapped to static's contrast."
_CHANNELS = f"The maps of {len(CHANNELS)} structures are channels of the objective."


class AnatomyUse:
    """The anatomy maps of a pair, and what they are used for.

    Parameters
    ----------
    option : {"auto", True, False}
        The user's option.
    pair : Pair
        The images.
    unavailable : str
        Why the maps cannot be used; empty if they can.

    Attributes
    ----------
    option : {"auto", True, False}
        As given.
    reason : str
        Why the maps are used or not.
    available : bool
        Whether there are maps, as far as is known before they are predicted.
    """

    def __init__(self, option: str | bool, pair: Pair, unavailable: str) -> None:
        self.option, self._pair = option, pair
        self.reason = unavailable or _NOT_OPPOSITE
        self._maps: PairMaps | None = None
        self.available = not unavailable

    @property
    def maps(self) -> PairMaps | None:
        """The maps of both images; None if they are not available."""
        if self.available and self._maps is None:
            self._maps = predict_pair_maps(self._pair)
            self.available = self._maps is not None
            if not self.available:
                self.reason = _NO_BRAIN
        return self._maps

    def map_contrast(self) -> IntensityMapping | None:
        """Estimate the function from moving's to static's intensities.

        Returns
        -------
        mapping : IntensityMapping or None
            None without maps.
        """
        maps = self.maps
        return None if maps is None else map_intensities(self._pair, maps)

    def check(self, verdict: Verdict, u: torch.Tensor) -> Verdict:
        """Add the overlap of the maps to a verdict, if it costs no further prediction.

        Parameters
        ----------
        verdict : Verdict
            The verdict.
        u : Tensor, shape (1, 3, *static_shape)
            The displacement.

        Returns
        -------
        verdict : Verdict
            Unchanged if the maps were not predicted or were channels of the objective,
            or if a head was turned: `check_anatomy` then tests the headers, too.
        """
        prealign = self._pair.prealign
        turned = len(prealign) == 4 and rotation_angle(prealign[:3, :3]) >= TURNED
        if self._maps is None or self.option is True or turned:
            return verdict
        grid = self._pair.static_grid
        given: dict[str, Any] = {"displacement": u, "grid": grid, "prealign": prealign}
        overlap = measure_anatomy_overlap(*self._maps, **given)
        return verdict if overlap is None else add_overlap(verdict, overlap)


def make_anatomy_use(registration: DeepRegistration, pair: Pair) -> AnatomyUse:
    """Decide whether the anatomy maps of a pair can be used.

    Parameters
    ----------
    registration : DeepRegistration
        The registration with its options.
    pair : Pair
        The images.

    Returns
    -------
    use : AnatomyUse
        The maps, which are not predicted yet.

    Raises
    ------
    ValueError
        If ``anatomy=True``, but the images cannot have maps, or nothing is refined.
    """
    option = registration.anatomy
    if option is False:
        return AnatomyUse(option, pair, "Not requested (anatomy=False).")
    reason = _explain_absence(registration, pair)
    if option is True and reason:
        raise ValueError(f"anatomy=True cannot be used: {reason}")
    if option == "auto" and not reason:
        reason = _explain_auto_without_maps(registration, pair)
    return AnatomyUse(option, pair, reason)


def _explain_absence(registration: DeepRegistration, pair: Pair) -> str:
    """Why a pair cannot have maps; empty if it can."""
    if pair.static_grid.dim != 3:
        return _NOT_3D
    if registration.phase_encoding is not None:
        return "Maps of a distorted image are not where its structures are."
    if pair.reorient is not None:
        return "The channels depend on direction, and are no images of a brain."
    if not registration._automatic_iters and not any(registration.level_iters):
        return _NOT_REFINED
    grids = pair.static_grid, pair.moving_grid
    wrong = [text for text in map(explain_wrong_size, grids) if text]
    if wrong:
        return f"An image has not the size of a head: {wrong[0]}."
    return "" if all(can_show_brain(grid) for grid in grids) else _TOO_SMALL


def _explain_auto_without_maps(registration: DeepRegistration, pair: Pair) -> str:
    """Why ``anatomy="auto"`` does without maps that a pair can have."""
    if pair.channels > 1:
        return "The images have several channels."
    if registration._metric is not None:
        return "The metric was given."
    return ""


def add_anatomy(
    registration: DeepRegistration, anatomy: AnatomyUse, start: Start, pair: Pair
) -> Pair:
    """Make the pair that refinement compares, and say whether it depends on the maps.

    Parameters
    ----------
    registration : DeepRegistration
        Its attributes `anatomy_used` and, with ``anatomy=True``, `metric` are set.
    anatomy : AnatomyUse
        The maps.
    start : Start
        The metric of the images.
    pair : Pair
        The images.

    Returns
    -------
    pair : Pair
        With mapped intensities if the metric includes a mapping, and with the maps as
        last channels if ``anatomy=True``.

    Raises
    ------
    ValueError
        If ``anatomy=True``, but an image does not show a brain.
    """
    pair = start.comparison.apply_to(pair)
    reasons = [_MAPPED] if start.comparison.by_anatomy else []
    if anatomy.option is True:
        if anatomy.maps is None:
            raise ValueError(f"anatomy=True cannot be used: {anatomy.reason}")
        pair = add_map_channels(pair, anatomy.maps)
        metric = registration.metric
        registration.metric = AnatomyMetric(metric, len(CHANNELS), weight=_WEIGHT)
        reasons.append(_CHANNELS)
    registration.anatomy_used = bool(reasons)
    if reasons:
        anatomy.reason = " ".join(reasons)
    registration._anatomy_reason = anatomy.reason
    if registration.anatomy is not False:
        text = f"Anatomy maps: {'' if reasons else 'not used. '}{anatomy.reason}"
        monitor.log_messages((Message(text),), registration.verbosity)
    return pair
