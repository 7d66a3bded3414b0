"""What an axis of phase encoding changes in a registration with `DeepRegistration`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.initialization.starts import Message, Start
from dipy_dl_reg.metrics.mind import MINDMetric
from dipy_dl_reg.optimization.phase_encoding import AxisConstraint, constrain_to_axis

if TYPE_CHECKING:
    import torch


class HasPhaseEncoding(Protocol):
    """An object with these two options of `DeepRegistration`."""

    phase_encoding: str | None
    modulate: bool


def constrain(
    pair: Pair, static: np.ndarray, moving: np.ndarray, options: HasPhaseEncoding
) -> tuple[Pair, AxisConstraint | None]:
    """Make the constraint that the options request, and adapt the pair to it.

    Parameters
    ----------
    pair : Pair
        The images.
    static, moving : ndarray
        The images with their own intensities.
    options : HasPhaseEncoding
        The registration.

    Returns
    -------
    pair : Pair
        The images; with `modulate`, they are 0 where their signal is 0.
    constraint : AxisConstraint or None
        None without an axis of phase encoding.

    Raises
    ------
    ValueError
        If moving cannot be displaced along the axis, or cannot be modulated because it
        has channels.
    """
    constraint = constrain_to_axis(
        pair, options.phase_encoding, modulates=options.modulate
    )
    if options.modulate:
        if pair.moving.shape[1] > 1:
            raise ValueError(
                "modulate=True requires images of one channel, got "
                f"{pair.moving.shape[1]} channels."
            )
        pair = pair._replace(
            static=_restore_zero(pair.static, pair.static_mask, static),
            moving=_restore_zero(pair.moving, pair.moving_mask, moving),
        )
    return pair, constraint


def _restore_zero(
    scaled: torch.Tensor, mask: torch.Tensor | None, image: np.ndarray
) -> torch.Tensor:
    """Shift the scaled intensities of an image so that no signal is 0 again."""
    values = np.ma.getdata(image).astype(np.float64).ravel()
    new = scaled.cpu().numpy().astype(np.float64).ravel()
    counts = np.isfinite(values)
    if mask is not None:
        counts &= mask.cpu().numpy().ravel() > 0
    # Scaling is linear, but for a few extreme values that were clipped.
    low, high = np.quantile(values[counts], [0.05, 0.95])
    inner = counts & (values >= low) & (values <= high)
    counts = inner if high > low else counts
    _, zero = np.polyfit(values[counts], new[counts], 1)
    return scaled - float(zero)


def without_mapping(start: Start) -> Start:
    """Replace a metric that needs an intensity mapping by self-similarity.

    The mapping changes moving before it is warped, so that its intensities are no
    longer proportional to a signal that the Jacobian determinant could restore.

    Parameters
    ----------
    start : Start
        Start of the refinement.

    Returns
    -------
    start : Start
        The same start if its metric needs no mapping.
    """
    comparison = start.comparison
    if comparison.intensity_mapping is None:
        return start
    metric: Any = MINDMetric()
    text = "Metric: MIND, because modulate=True excludes an intensity mapping."
    comparison = comparison._replace(
        metric=metric, sigma_field=metric.sigma_field, intensity_mapping=None
    )
    messages = (*start.messages, Message(text))
    return start._replace(comparison=comparison, messages=messages)
