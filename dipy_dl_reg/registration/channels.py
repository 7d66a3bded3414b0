"""Images with several channels on the last axis: their metrics, and their tensors.

Each channel is checked, scaled and masked by itself, as an image of one channel is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dipy_dl_reg.geometry.pair import Pair, merge_channels
from dipy_dl_reg.initialization.channel_metrics import ChannelMetrics
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.metrics.channels import normalise_weights
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.factory import make_metric
from dipy_dl_reg.registration.head_masks import find_brain_masks
from dipy_dl_reg.registration.image_checks import check_image

if TYPE_CHECKING:
    import torch


def make_metrics(
    metric: Any, weights: Sequence[float] | None = None, *, modulate: bool = False
) -> Metric | ChannelMetrics | None:
    """Make the metric of images, or the metrics of their channels.

    Parameters
    ----------
    metric : None, str, metric, or sequence of these
        See `make_metric`.  A sequence holds one metric for each channel.
    weights : sequence of float or None
        Weights of the channels.  If they are given with a single metric, each channel
        is compared by this metric.
    modulate : bool, optional
        Whether the Jacobian determinant is to modulate the intensities, which is
        possible with one channel only.

    Returns
    -------
    metric : Metric, ChannelMetrics or None
        `ChannelMetrics` if the images have channels; else as `make_metric` returns it.

    Raises
    ------
    ValueError
        If a metric is not known, if there is none, if the number of weights differs
        from the number of metrics, or if several channels are to be modulated.
    """
    several = isinstance(metric, (list, tuple))
    if not several and weights is None:
        return make_metric(metric)
    given = list(metric) if several else [metric] * len(weights or ())
    if not given:
        raise ValueError("metric must have one entry for each channel, got none.")
    if weights is not None and len(weights) != len(given):
        raise ValueError(
            "channel_weights must have as many entries as metric, got "
            f"{len(weights)} weights and {len(given)} metrics."
        )
    if modulate and len(given) > 1:
        raise ValueError(
            "modulate=True is for one channel: a signal changes with the Jacobian "
            "determinant, but other channels, such as FA, do not."
        )
    metrics = tuple(make_metric(each) for each in given)
    if weights is not None:
        weights = normalise_weights(weights, len(given))
    made = ChannelMetrics(metrics, weights)
    made.combine()  # checks that the metrics can be combined
    return made


def provisional_metric(metric: Metric | ChannelMetrics | None) -> Metric:
    """Return the metric, with local correlation where it is still to be chosen.

    Parameters
    ----------
    metric : Metric, ChannelMetrics or None
        As `make_metrics` returns it.

    Returns
    -------
    metric : Metric
        The user's metric, or local correlation.
    """
    if isinstance(metric, ChannelMetrics):
        return metric.combine()
    return metric or CCMetric()


def name_channels(
    metric: Metric | ChannelMetrics | None, names: Sequence[str] | None
) -> Metric | ChannelMetrics | None:
    """Name the channels in messages.

    Parameters
    ----------
    metric : Metric, ChannelMetrics or None
        From `make_metrics`.
    names : sequence of str or None
        One for each channel; by default they are numbered.

    Returns
    -------
    metric : Metric, ChannelMetrics or None
        With the names, if there are channels.
    """
    if names is None or not isinstance(metric, ChannelMetrics):
        return metric
    return metric._replace(names=tuple(names))


def count_channels(metric: Metric | ChannelMetrics | None) -> int | None:
    """Return the number of channels that the images must have.

    Parameters
    ----------
    metric : Metric, ChannelMetrics or None
        As `make_metrics` returns it.

    Returns
    -------
    count : int or None
        None for images without an axis of channels.
    """
    return len(metric.metrics) if isinstance(metric, ChannelMetrics) else None


def masks_zeros(metric: Any) -> bool:
    """Whether voxels of value 0 are to be masked, as DIPY's metrics may require.

    Parameters
    ----------
    metric : None, str, metric, or sequence of these
        The user's value.

    Returns
    -------
    mask0 : bool
        Whether a metric has the attribute `mask0`, and it is true.
    """
    given = metric if isinstance(metric, (list, tuple)) else [metric]
    return any(bool(getattr(each, "mask0", False)) for each in given)


def make_pair(
    count: int | None,
    *,
    static: np.ndarray,
    moving: np.ndarray,
    static_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    **options: Any,
) -> Pair:
    """Check two images of one or several channels, and convert them to tensors.

    Parameters
    ----------
    count : int or None
        Number of channels on the last axis of both images; None for images without an
        axis of channels.
    static, moving : array, shape (*shape, count)
        The images.
    static_mask, moving_mask : array, shape (*shape,) or (*shape, count), optional
        One mask for all channels, or one for each.
    **options : dict
        Other arguments of `dipy_adapter.make_pair`.

    Returns
    -------
    pair : Pair
        The images; each channel is scaled to about [0, 1] and masked by itself.  Masks
        of brains (`find_masks`) are found in the first channel, for all.

    Raises
    ------
    ValueError
        If an image does not have `count` channels, or a mask has another shape; else as
        from `dipy_adapter.make_pair`, with the number of the channel.
    """
    masks: dict[str, Any] = {"static_mask": static_mask, "moving_mask": moving_mask}
    if count is None:
        return dipy_adapter.make_pair(static, moving, **masks, **options)
    images = {"static": static, "moving": moving}
    images = {role: _as_array(image) for role, image in images.items()}
    _check_counts(images, count)
    for (role, image), (name, mask) in zip(images.items(), masks.items()):
        masks[name] = _check_mask(mask, image.shape, role)
    if options.pop("find_masks", False) and not any(
        m is not None for m in masks.values()
    ):
        masks = _find_masks(images, options)
    return merge_channels(
        [_make_channel(k, images, masks, options) for k in range(count)]
    )


def remove_masks(
    pair: Pair, metric: Any, images: dict[str, Any], device: torch.device
) -> Pair:
    """Make the pair without masks for a user's network, which was trained so.

    Parameters
    ----------
    pair : Pair
        The images with their masks.
    metric : Metric, ChannelMetrics or None
        As `make_metrics` returns it.
    images : dict
        The images, their affines and the prealign: arguments of `make_pair`.
    device : torch.device
        Device of the tensors.

    Returns
    -------
    pair : Pair
        The images without masks, with the landmarks; the same pair if it has no mask.
    """
    if pair.static_mask is None and pair.moving_mask is None:
        return pair
    whole = make_pair(count_channels(metric), **images, device=device)
    return whole._replace(landmarks=pair.landmarks)


def _as_array(image: Any) -> np.ndarray:
    """An array, with its mask if it is a masked array."""
    return image if np.ma.isMaskedArray(image) else np.asarray(image)


def _check_counts(images: dict[str, np.ndarray], count: int) -> None:
    """Check that both images have a number of channels on their last axis."""
    for role, image in images.items():
        if image.ndim not in (3, 4):
            raise ValueError(
                f"{role} must have its {count} channels on the last axis, after 2 or 3 "
                f"axes of space, got shape {image.shape}."
            )
    static, moving = images.values()
    if static.ndim != moving.ndim:
        raise ValueError(
            f"static and moving must both have their {count} channels on the last "
            f"axis, got shapes {static.shape} and {moving.shape}."
        )
    numbers = [static.shape[-1], moving.shape[-1]]
    if numbers[0] != numbers[1]:
        raise ValueError(
            "static and moving must have the same number of channels on their last "
            f"axis, got {numbers[0]} and {numbers[1]}."
        )
    if numbers[0] != count:
        raise ValueError(
            f"static and moving must have {count} channels on their last axis, one for "
            f"each entry of metric or channel_weights, got {numbers[0]}."
        )


def _check_mask(
    mask: np.ndarray | None, shape: tuple[int, ...], role: str
) -> np.ndarray | None:
    """A mask with an axis of channels, from one mask for all or one for each."""
    if mask is None:
        return None
    mask = _as_array(mask)
    if mask.shape == shape:
        return mask
    if mask.shape == shape[:-1]:
        return np.broadcast_to(np.ma.filled(mask, 0)[..., None], shape)
    raise ValueError(
        f"{role}_mask must have the shape of {role} without channels, {shape[:-1]}, or "
        f"with them, {shape}, got {mask.shape}."
    )


def _make_channel(
    index: int,
    images: dict[str, np.ndarray],
    masks: dict[str, np.ndarray | None],
    options: dict[str, Any],
) -> Pair:
    """The pair of one channel; errors name the channel."""
    given: dict[str, Any] = {
        name: None if array is None else array[..., index]
        for name, array in (images | masks).items()
    }
    with _name_channel(index, images["static"].shape[-1]):
        return dipy_adapter.make_pair(**given, **options)


def _find_masks(
    images: dict[str, np.ndarray], options: dict[str, Any]
) -> dict[str, np.ndarray | None]:
    """Masks for all channels, found in the first one, with an axis of channels."""
    affines = {role: options.get(f"{role}_grid2world") for role in images}
    with _name_channel(0, images["static"].shape[-1]):
        first = {
            role: check_image(image[..., 0], role) for role, image in images.items()
        }
        found = find_brain_masks(first, dipy_adapter.make_grids(first, affines))
    return {
        f"{role}_mask": _check_mask(found[role], image.shape, role)
        for role, image in images.items()
    }


@contextmanager
def _name_channel(index: int, count: int) -> Iterator[None]:
    """Errors name the channel, if there are several."""
    try:
        yield
    except ValueError as error:
        if count == 1:
            raise
        raise ValueError(f"channel {index + 1} of {count}: {error}") from error
