"""Regularity of a map: Jacobian determinants, folds and inverse consistency.

The definitions in `RegularityMeasures` are those of the log, of `Quality`, of pictures
and reports, and of the JSON files beside them; all write them by `format_regularity`.
The measures cover the whole grid of the field; the prealign is not included, because it
is affine.  `dipy_dl_reg.maps.verdict` assesses whether a registration is correct.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from dipy.align.imwarp import DiffeomorphicMap
from dipy.core.interpolation import interpolate_vector_2d, interpolate_vector_3d
import numpy as np

from dipy_dl_reg.maps.dipy_map import check_mapping, displacement_to_voxels

#: A point up to this many voxels beyond the border counts as inside, because of
#: rounding in the conversion between mm and voxels.
_BORDER_TOLERANCE = 1e-5


class Regularity(Protocol):
    """The measures that a `RegularityMeasures` and a `Quality` have in common."""

    @property
    def minimum_jacobian(self) -> float:
        """Smallest Jacobian determinant of the forward field."""

    @property
    def minimum_jacobian_inverse(self) -> float:
        """Smallest Jacobian determinant of the inverse field."""

    @property
    def folds_percent(self) -> float:
        """Folded voxels of the forward field, in percent."""

    @property
    def folds_percent_inverse(self) -> float:
        """Folded voxels of the inverse field, in percent."""

    @property
    def round_trip_mean(self) -> float:
        """Mean inverse consistency error, voxels."""

    @property
    def round_trip_max(self) -> float:
        """Largest inverse consistency error, voxels."""


class RegularityMeasures(NamedTuple):
    """Regularity and invertibility of a map, over the whole grid of its field.

    "Forward" is from static to moving, the field that ``mapping.transform`` uses;
    "inverse" is from moving to static. The prealign is left out.

    Attributes
    ----------
    minimum_jacobian : float
        Smallest Jacobian determinant of the forward field.
    minimum_jacobian_inverse : float
        Smallest Jacobian determinant of the inverse field.
    folds_percent : float
        Voxels with a determinant of 0 or less in the forward field, in percent.
    folds_percent_inverse : float
        The same in the inverse field.
    sd_log_jacobian : float
        Standard deviation of the logarithm of the forward determinant; determinants
        below 0.001 are taken as 0.001.
    round_trip_mean : float
        Mean inverse consistency error, in voxels: the distance between a voxel's centre
        and its position after one field and then the other, over voxels that the first
        field does not move out of the grid; the larger value of the two orders (forward
        first, inverse first). A registration logs this value and stores it in its
        `quality`.
    round_trip_max : float
        The largest such distance, in voxels; the larger of the two orders.
    round_trip_mean_mm : float
        The mean in mm.
    round_trip_max_mm : float
        The largest in mm.
    """

    minimum_jacobian: float
    minimum_jacobian_inverse: float
    folds_percent: float
    folds_percent_inverse: float
    sd_log_jacobian: float
    round_trip_mean: float
    round_trip_max: float
    round_trip_mean_mm: float
    round_trip_max_mm: float


def measure_regularity(
    mapping: DiffeomorphicMap, *, forward_jacobian: np.ndarray | None = None
) -> RegularityMeasures:
    """Measure the regularity and the inverse consistency of a map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, 2D or 3D.
    forward_jacobian : ndarray, shape of the field's grid, optional
        `jacobian_determinant` of the forward field, if it is known already.

    Returns
    -------
    measures : RegularityMeasures
        The measures. The inverse consistency errors are NaN if, in both orders, no
        voxel stays on the grid.

    Raises
    ------
    ValueError
        If `mapping` is no map.
    """
    check_mapping(mapping)
    forward = forward_jacobian
    if forward is None:
        field = mapping.get_forward_field()
        forward = jacobian_determinant(field, mapping.disp_grid2world)
    fields = mapping.get_forward_field(), mapping.get_backward_field()
    inverse = jacobian_determinant(fields[1], mapping.disp_grid2world)
    orders = (fields, fields[::-1])
    distances = [
        _round_trip_errors(*order, mapping.disp_grid2world) for order in orders
    ]
    trips = [
        [voxels.mean(), voxels.max(), mm.mean(), mm.max()]
        for voxels, mm in distances
        if mm.size
    ]
    trip = np.max(trips, axis=0) if trips else np.full(4, np.nan)
    mean, maximum, mean_mm, maximum_mm = (float(distance) for distance in trip)
    return RegularityMeasures(
        minimum_jacobian=float(forward.min()),
        minimum_jacobian_inverse=float(inverse.min()),
        folds_percent=float(100 * (forward <= 0).mean()),
        folds_percent_inverse=float(100 * (inverse <= 0).mean()),
        sd_log_jacobian=float(np.log(np.clip(forward, 1e-3, None)).std()),
        round_trip_mean=mean,
        round_trip_max=maximum,
        round_trip_mean_mm=mean_mm,
        round_trip_max_mm=maximum_mm,
    )


def format_regularity(measures: Regularity) -> str:
    """Format Jacobian determinants, folds and inverse consistency error.

    Parameters
    ----------
    measures : RegularityMeasures or Quality
        The measures.

    Returns
    -------
    text : str
        One sentence without a full stop.
    """
    m = measures
    return (
        f"Smallest Jacobian determinant {m.minimum_jacobian:.3f}, of the inverse "
        f"{m.minimum_jacobian_inverse:.3f}; folded voxels {m.folds_percent:.3g} %, of "
        f"the inverse {m.folds_percent_inverse:.3g} %; inverse consistency error: mean "
        f"{m.round_trip_mean:.3f}, maximum {m.round_trip_max:.3f} voxel"
    )


def jacobian_determinant(
    field: np.ndarray, grid2world: np.ndarray | None = None
) -> np.ndarray:
    """Compute the determinant of the Jacobian of ``x + u(x)`` in each voxel.

    It is ``det(A + G) / det(A)`` with ``A`` the voxel-to-world matrix and ``G`` the
    differences of `field` along each grid axis: central differences inside, one-sided
    ones on the border.

    Parameters
    ----------
    field : ndarray, shape (..., dim)
        Displacement `u` in mm, along world axes.
    grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Matrix of the grid; by default the identity.

    Returns
    -------
    determinant : ndarray, shape (...)
        float64; above 1 where the map expands, 0 or less where it folds.
    """
    shape, dim = field.shape[:-1], field.shape[-1]
    matrix = np.eye(dim) if grid2world is None else grid2world[:dim, :dim]
    columns = [[matrix[c, a] for a in range(dim)] for c in range(dim)]
    for c in range(dim):
        component = np.asarray(field[..., c], dtype=np.float64)
        for a in range(dim):
            if shape[a] > 1:  # there are no differences along an axis of one voxel
                columns[c][a] = columns[c][a] + np.gradient(component, axis=a)
    return np.broadcast_to(_determinant(columns) / np.linalg.det(matrix), shape)


def _determinant(m: list[list[Any]]) -> np.ndarray:
    """Determinant of a 2x2 or 3x3 matrix whose entries are arrays."""
    if len(m) == 2:
        return m[0][0] * m[1][1] - m[0][1] * m[1][0]
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )


def _round_trip_errors(
    first: np.ndarray, second: np.ndarray, grid2world: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between each voxel and its position after both fields: voxels, mm.

    The grid is processed in slabs, which is faster and needs less memory.
    """
    shape, dim = first.shape[:-1], first.shape[-1]
    ends = np.array(shape) - 1
    interpolate = interpolate_vector_2d if dim == 2 else interpolate_vector_3d
    second = np.ascontiguousarray(second, dtype=np.float32)
    voxels = np.stack([np.zeros(shape[1:]), *np.indices(shape[1:])], axis=-1)
    voxels = voxels.reshape(-1, dim)
    errors = []
    for voxels[:, 0], slab in enumerate(first):
        away = slab.reshape(-1, dim).astype(np.float64)
        at = voxels + displacement_to_voxels(away, grid2world)
        inside = (at >= -_BORDER_TOLERANCE) & (at <= ends + _BORDER_TOLERANCE)
        inside = inside.all(axis=1)
        returned, _ = interpolate(second, np.clip(at[inside], 0, ends))
        errors.append(away[inside] + returned)
    error = np.concatenate(errors)
    error_voxels = displacement_to_voxels(error, grid2world)
    return np.linalg.norm(error_voxels, axis=-1), np.linalg.norm(error, axis=-1)
