"""The expected error of a map along streamlines."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from dipy.io.stateful_tractogram import StatefulTractogram
from dipy.io.utils import Origin
from nibabel.streamlines import ArraySequence
import numpy as np

from dipy_dl_reg.registration.uncertainty import MappingUncertainty


def uncertainty_along_streamlines(
    uncertainty: MappingUncertainty,
    streamlines: StatefulTractogram | ArraySequence | Iterable[np.ndarray],
    *,
    level: float | None = None,
    space: str = "static",
) -> ArraySequence:
    """Expected error of a map at each point of streamlines, in mm.

    Parameters
    ----------
    uncertainty : MappingUncertainty
        Result of `mapping_uncertainty`.
    streamlines : StatefulTractogram, Streamlines or sequence of ndarray (N, dim)
        World coordinates (mm; "rasmm" in a tractogram).  A
        :class:`~dipy.io.stateful_tractogram.StatefulTractogram` may be in any space and
        origin.  They are not changed.
    level : float, optional
        Probability: the radius within which the true point lies is returned.  By
        default, the expected error.
    space : {"static", "moving"}, optional
        Image in whose world the streamlines lie: "static" if they were transformed by
        the map (`transform_streamlines`), "moving" if they were not yet.

    Returns
    -------
    values : ArraySequence
        For each streamline an array of shape (N, 1), in the order of its points, as
        ``data_per_point`` of a tractogram wants them.  NaN outside of static's field of
        view.

    Raises
    ------
    ValueError
        If a streamline is not an array of points, or an option is not valid.

    See Also
    --------
    mapping_uncertainty : computes the expected error.
    transform_streamlines : transforms the streamlines.

    Notes
    -----
    The values are those of `MappingUncertainty` at the points, interpolated linearly.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import (
    ...     DeepRegistration,
    ...     mapping_uncertainty,
    ...     transform_streamlines,
    ...     uncertainty_along_streamlines,
    ... )
    >>> x, y = np.mgrid[-1:1:24j, -1:1:24j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> options = {"metric": "SSD", "level_iters": [5]}
    >>> mapping = DeepRegistration(**options).optimize(static=static, moving=moving)
    >>> uncertainty = mapping_uncertainty(mapping, static, moving, **options)
    >>> moved = transform_streamlines(
    ...     mapping, [np.array([[11.0, 11], [11, 14], [11, 17]])]
    ... )
    >>> values = uncertainty_along_streamlines(uncertainty, moved)
    >>> values[0].shape, bool((values[0] > 0).all())
    ((3, 1), True)
    """
    sequence = _world_streamlines(streamlines)
    if not sequence.total_nb_rows:
        return ArraySequence(np.empty((len(line), 1)) for line in sequence)
    points = sequence.get_data().astype(np.float64)
    values = uncertainty.at_points(points, level=level, space=space)
    ends = np.cumsum([len(line) for line in sequence])[:-1]
    return ArraySequence(np.split(values.astype(np.float32)[:, None], ends))


def _world_streamlines(streamlines: Any) -> ArraySequence:
    """A copy of streamlines, in world coordinates."""
    if isinstance(streamlines, StatefulTractogram):
        world = deepcopy(streamlines)
        world.to_rasmm()
        world.to_origin(Origin.NIFTI)
        return world.streamlines.copy()
    if hasattr(streamlines, "streamlines"):
        raise ValueError(
            "streamlines must be a sequence of streamlines in world coordinates, got "
            f"{type(streamlines).__name__}: pass its attribute .streamlines"
        )
    if isinstance(streamlines, ArraySequence):
        return streamlines.copy()
    return ArraySequence([np.asarray(line) for line in streamlines])
