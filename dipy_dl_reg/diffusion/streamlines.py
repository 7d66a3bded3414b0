"""Streamlines through a map."""

from nibabel.streamlines import ArraySequence
import numpy as np

from dipy_dl_reg.maps.dipy_map import check_mapping


def transform_streamlines(mapping, streamlines, *, inverse=False):
    """Carry moving's streamlines to static's space, or back.

    Points travel the other way from images: where ``mapping.transform`` fetches, for
    each point of static, the intensity at its place in moving, a point of moving
    itself goes through the inverse, ``mapping.transform_points_inverse``. Prealign
    included.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map of a registration of moving to static.
    streamlines : Streamlines or sequence of ndarray, each of shape (N, dim)
        World coordinates (mm; "rasmm" in a tractogram), in moving's space; in
        static's with `inverse`. Slices and selections of an
        :class:`~nibabel.streamlines.ArraySequence` come out right, which DIPY's own
        methods spoil.
    inverse : bool, optional
        Carry static's streamlines to moving's space.

    Returns
    -------
    carried : Streamlines or list of ndarray
        New streamlines of the same kind, lengths and type (whole numbers become
        float64); the input is left as it is.

    Raises
    ------
    ValueError
        If a streamline is not an array of points of the map's dimension, or a
        coordinate is not finite.

    Notes
    -----
    Beyond the displacement field, which covers static's field of view, the
    displacement is 0: such points move by the prealign alone.
    """
    check_mapping(mapping)
    if hasattr(streamlines, "streamlines"):
        raise ValueError(
            "streamlines must be the streamlines themselves, in world coordinates, "
            f"got {type(streamlines).__name__}: pass its .streamlines"
        )
    if isinstance(streamlines, ArraySequence):
        return _carry_sequence(mapping, streamlines, inverse)
    lines = [np.asarray(line) for line in streamlines]
    if not lines:
        return []
    for k, line in enumerate(lines):
        _check_points(line, mapping.dim, f"streamlines[{k}]")
    points = _carry(mapping, np.concatenate(lines).astype(np.float64), inverse)
    ends = np.cumsum([len(line) for line in lines])[:-1]
    carried = np.split(points, ends)
    return [
        new.astype(_floating(old.dtype))
        for new, old in zip(carried, lines, strict=True)
    ]


def _carry_sequence(mapping, streamlines, inverse):
    """An ArraySequence with its own memory; a slice shares, and skips, its parent's."""
    carried = streamlines.copy()
    if not carried.total_nb_rows:
        return carried
    points = carried.get_data()
    _check_points(points, mapping.dim, "streamlines")
    moved = _carry(mapping, points.astype(np.float64), inverse)
    carried._data = moved.astype(_floating(points.dtype))
    return carried


def _carry(mapping, points, inverse):
    """Points of moving at static, or of static at moving."""
    if not len(points):
        return points
    if inverse:
        return np.asarray(mapping.transform_points(points))
    return np.asarray(mapping.transform_points_inverse(points))


def _floating(dtype):
    """The type results are given in: whole numbers cannot hold them."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


def _check_points(points, dim, name):
    """Raise unless `points` are finite points in `dim` dimensions."""
    if points.ndim != 2 or points.shape[1] != dim or points.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} must be an array of points of shape (N, {dim}), got "
            f"{points.dtype} of shape {points.shape}"
        )
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite, and some coordinates are not")
