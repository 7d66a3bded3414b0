"""Streamlines in memory transformed by a map."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.io.stateful_tractogram import Space, StatefulTractogram
from dipy.io.utils import Origin
from nibabel.orientations import aff2axcodes
from nibabel.streamlines import ArraySequence
import numpy as np

from dipy_dl_reg.diffusion.spaces import (
    check_first_points,
    check_grid,
    find_spaces,
)
from dipy_dl_reg.io.tractograms.chunks import header_grid
from dipy_dl_reg.maps.dipy_map import as_mapping

#: Distance, mm, between a point and its image under both directions of a map above
#: which the inverse is corrected, and the largest number of corrections.
_TOLERANCE, _CORRECTIONS = 0.02, 3


def transform_streamlines(
    mapping: DiffeomorphicMap | AffineMap,
    streamlines: StatefulTractogram | ArraySequence | Iterable[np.ndarray],
    *,
    inverse: bool = False,
) -> Any:
    """Transform moving's streamlines to static's space, or static's to moving's.

    By default the streamlines of moving come to lie where ``mapping.transform`` puts
    the image of moving: in static's space.  Points and images are transformed in
    opposite directions.  For each voxel of static, ``mapping.transform`` reads the
    intensity at the corresponding point of moving.  A point of moving is therefore
    transformed by ``mapping.transform_points_inverse``, and the result is corrected so
    that ``mapping.transform_points`` returns the point: the two fields of a map are
    inverses of each other only up to a small error.  The prealign is included.

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The map of a registration of moving to static; an affine one with the grids of
        both.
    streamlines : StatefulTractogram, Streamlines or sequence of ndarray (N, dim)
        World coordinates (mm; "rasmm" in a tractogram), in moving's space; in static's
        with `inverse`. Slices and selections of an
        `~nibabel.streamlines.array_sequence.ArraySequence` are transformed correctly,
        unlike by DIPY's own methods. A
        `~dipy.io.stateful_tractogram.StatefulTractogram` may be in any space and
        origin, such as voxels.
    inverse : bool, optional
        Transform static's streamlines to moving's space.

    Returns
    -------
    transformed : StatefulTractogram, Streamlines or list of ndarray
        New streamlines of the same class, lengths and type (whole numbers become
        float64); the input is not changed. A tractogram describes the grid of static
        (of moving with `inverse`), has the space and origin of the input, and keeps
        all data per point and per streamline.

    Raises
    ------
    ValueError
        If a streamline is not an array of points of the map's dimension, or a
        coordinate is not finite; if a tractogram describes the grid of static instead
        of that of moving (with `inverse`, moving's instead of static's).

    See Also
    --------
    transform_tractogram : for files of any size.
    uncertainty_along_streamlines : the expected error at each point.
    dipy.tracking.streamline.transform_streamlines : by a matrix.

    Notes
    -----
    The displacement field covers static's field of view. Beyond it the displacement is
    0: points there are transformed by the prealign alone.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, transform_streamlines
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> mapping = DeepRegistration("SSD").optimize(static=static, moving=moving)
    >>> streamline = np.array(
    ...     [[15.5, 15.5], [15.5, 18.5]]
    ... )  # in moving, which is narrower
    >>> (moved,) = transform_streamlines(mapping, [streamline])
    >>> bool(moved[1, 1] > 19)
    True
    >>> (back,) = transform_streamlines(mapping, [moved], inverse=True)
    >>> bool(np.allclose(back, streamline, atol=0.01))
    True
    """
    mapping = as_mapping(mapping)
    if isinstance(streamlines, StatefulTractogram):
        return _transform_stateful(mapping, streamlines, inverse)
    if hasattr(streamlines, "streamlines"):
        raise ValueError(
            "streamlines must be a sequence of streamlines in world coordinates, got "
            f"{type(streamlines).__name__}: pass its attribute .streamlines"
        )
    if isinstance(streamlines, ArraySequence):
        return _transform_sequence(mapping, streamlines, inverse)
    lines = [np.asarray(line) for line in streamlines]
    if not lines:
        return []
    for k, line in enumerate(lines):
        _check_points(line, mapping.dim, f"streamlines[{k}]")
    points = transform_points(
        mapping, np.concatenate(lines).astype(np.float64), inverse
    )
    ends = np.cumsum([len(line) for line in lines])[:-1]
    transformed = np.split(points, ends)
    return [
        new.astype(_float_type(old.dtype))
        for new, old in zip(transformed, lines, strict=True)
    ]


def _transform_stateful(
    mapping: DiffeomorphicMap, tractogram: StatefulTractogram, inverse: bool
) -> StatefulTractogram:
    """Transform a copy of a tractogram, which then describes the other image's grid."""
    spaces = find_spaces(mapping, inverse)
    own = header_grid(tractogram.dimensions, tractogram.affine)
    check_grid(own, spaces, "streamlines")
    world = deepcopy(tractogram)
    world.to_rasmm()
    world.to_origin(Origin.NIFTI)
    points = world.streamlines.get_data()
    check_first_points(points, spaces, "streamlines")
    grid = spaces.target
    attributes = (
        grid.affine,
        np.array(grid.shape, dtype=np.int16),
        grid.spacing.astype(np.float32),
        "".join(aff2axcodes(grid.affine)),
    )
    transformed = StatefulTractogram(
        _transform_sequence(mapping, world.streamlines, inverse),
        attributes,
        Space.RASMM,
        origin=Origin.NIFTI,
        data_per_point=world.data_per_point,
        data_per_streamline=world.data_per_streamline,
    )
    transformed.to_space(tractogram.space)
    transformed.to_origin(tractogram.origin)
    return transformed


def _transform_sequence(
    mapping: DiffeomorphicMap, streamlines: ArraySequence, inverse: bool
) -> ArraySequence:
    """Transform a copy, because a slice shares memory with the original sequence."""
    transformed = streamlines.copy()
    if not transformed.total_nb_rows:
        return transformed
    points = transformed.get_data()
    _check_points(points, mapping.dim, "streamlines")
    moved = transform_points(mapping, points.astype(np.float64), inverse)
    transformed._data = moved.astype(_float_type(points.dtype))
    return transformed


def transform_points(
    mapping: DiffeomorphicMap, points: np.ndarray, inverse: bool
) -> np.ndarray:
    """Transform points of moving to static, or of static to moving.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    points : ndarray of float64, shape (N, dim)
        World coordinates, mm.
    inverse : bool
        Transform from static to moving.

    Returns
    -------
    transformed : ndarray of float64, shape (N, dim)
        World coordinates in the other space.
    """
    if not len(points):
        return points
    if inverse:
        return np.asarray(mapping.transform_points(points))
    return _invert_points(mapping, points)


def _invert_points(mapping: DiffeomorphicMap, points: np.ndarray) -> np.ndarray:
    r"""Find the points of static that a map takes to points of moving.

    With :math:`T` the map and :math:`S` its approximate inverse, both stored in the
    map, :math:`x \leftarrow x + S(y) - S(T(x))` from :math:`x = S(y)`.  A point is only
    changed where this brings :math:`T(x)` nearer to :math:`y`.
    """
    first = np.asarray(mapping.transform_points_inverse(points))
    found, reached = first.copy(), np.asarray(mapping.transform_points(first))
    errors = np.linalg.norm(reached - points, axis=1)
    for _ in range(_CORRECTIONS):
        poor = np.flatnonzero(errors > _TOLERANCE)
        if not len(poor):
            break
        back = np.asarray(mapping.transform_points_inverse(reached[poor]))
        better = found[poor] + first[poor] - back
        there = np.asarray(mapping.transform_points(better))
        remaining = np.linalg.norm(there - points[poor], axis=1)
        improves = remaining < errors[poor]
        chosen = poor[improves]
        found[chosen], reached[chosen] = better[improves], there[improves]
        errors[chosen] = remaining[improves]
    return found


def _float_type(dtype: np.dtype) -> np.dtype:
    """Choose the type of the result, which cannot be an integer type."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


def _check_points(points: np.ndarray, dim: int, name: str) -> None:
    """Check that an array holds finite points of a dimension."""
    if points.ndim != 2 or points.shape[1] != dim or points.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} must be an array of points of shape (N, {dim}), got "
            f"{points.dtype} of shape {points.shape}"
        )
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite, but some coordinates are not")
