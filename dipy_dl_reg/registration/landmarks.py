"""`ThinPlateSplineRegistration`: pairs of landmarks to DIPY's map.

Landmarks are points in world coordinates (mm), shape (N, 2) or (N, 3): `static_points`
in static's world, `moving_points` the same places in moving's.  The spline itself is in
`engine.thin_plate`; `DeepRegistration(landmarks=...)` starts from one.
"""

from typing import NamedTuple

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry import thin_plate, thin_plate_grid
from dipy_dl_reg.geometry.inversion import make_diffeomorphic
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.registration.landmark_points import (
    check_landmarks,
    check_points,
    describe_swapped_rows,
    tell_outside,
    worst_missed,
)
from dipy_dl_reg.validation import check_affine

#: An affine part that shrinks one direction to this part of another is not split off.
_SQUASHED = 1e-3


class _Grids(NamedTuple):
    """The two images' grids: what `dipy_adapter.make_map` wants to know of a pair."""

    static_grid: Grid
    moving_grid: Grid


class ThinPlateSplineRegistration:
    r"""Registration by landmarks: a thin-plate spline as DIPY's map.

    The spline :math:`f` from static world to moving world,

    .. math:: f(x) = A x + b + \sum_i w_i \phi(|x - p_i|),

    takes each static landmark :math:`p_i` to its moving one :math:`q_i`, or near it,
    and bends as little as that allows :footcite:p:`Bookstein1989`.  It minimises
    :math:`\frac{1}{N} \sum_i |f(p_i) - q_i|^2 + \lambda\, w^T K w` with
    :math:`K_{ij} = \phi(|p_i - p_j| / L)` and L the root mean square distance of the
    static landmarks from their mean.

    Parameters
    ----------
    regularization : float, optional
        :math:`\lambda`, without a unit and the same for few landmarks as for many; 0,
        the default, meets every landmark.  For landmarks placed by hand 0.001 to 0.01
        is a good beginning.  The `smoothing` of SciPy's `RBFInterpolator` is N
        :math:`\lambda` L**2 for the first kernel, N :math:`\lambda` L for ``-r``.
    kernel : {"thin_plate_spline", "biharmonic"}, optional
        The first is ``r**2 log(r)`` in 2D and 3D: what SciPy calls by this name.  The
        second is the same in 2D, and ``-r`` in 3D (SciPy's "linear" with
        ``degree=1``), which is the one of least bending energy there; it swings less
        between landmarks that are off by some mm.
    device : str or torch.device, optional
        ``"auto"`` is CUDA, else MPS where it works, else the CPU.

    Attributes
    ----------
    prealign : ndarray, shape (dim + 1, dim + 1)
        After `optimize`: the affine part of the map, static world to moving world; the
        one given, or the one nearest to the landmarks.
    distances : ndarray, shape (N,)
        After `optimize`: mm from where the map takes each static landmark to its
        moving one; of landmarks that were merged, once.
    quality : Quality
        After `optimize`: least Jacobian determinants, round trip and repairs, see
        `DeepRegistration`.
    static_to_moving : DiffeomorphicMap
        After `optimize`: the map.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    N landmarks take N**2 numbers in double precision: 72 MB for 3000, 0.8 GB for 10000.

    The map holds the spline on static's grid and interpolates linearly between voxels;
    `transform_points` and `transform_points_inverse` here evaluate the spline itself.
    On large grids the field is a sum of a part on coarser nodes and one around each
    landmark, next to which the mean error is below 0.03 voxel unless landmarks a voxel
    or two apart go different ways.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import ThinPlateSplineRegistration
    >>> static_points = np.array([[5, 5], [5, 25], [25, 5], [25, 25], [15, 15]])
    >>> moving_points = static_points + [[0, 0], [0, 0], [0, 0], [0, 0], [3, 0]]
    >>> registration = ThinPlateSplineRegistration()
    >>> mapping = registration.optimize(
    ...     static_points, moving_points, static_shape=(32, 32)
    ... )
    >>> bool(
    ...     np.allclose(
    ...         mapping.transform_points(static_points), moving_points, atol=0.1
    ...     )
    ... )
    True
    """

    def __init__(
        self, *, regularization=0.0, kernel="thin_plate_spline", device="auto"
    ):
        if not 0 <= regularization < np.inf:
            raise ValueError(
                f"regularization must be a number from 0, got {regularization!r}."
            )
        if kernel not in thin_plate.KERNELS:
            raise ValueError(
                f"kernel must be {' or '.join(map(repr, thin_plate.KERNELS))}, got "
                f"{kernel!r}."
            )
        self.regularization, self.kernel = float(regularization), kernel
        self.device = find_device(device)

    def optimize(
        self,
        static_points,
        moving_points,
        *,
        static_shape,
        moving_shape=None,
        static_grid2world=None,
        moving_grid2world=None,
        prealign=None,
        num_threads=None,
    ):
        """Fit the spline, and make it a map on static's grid.

        Parameters
        ----------
        static_points, moving_points : array, shape (N, dim)
            The landmarks, world coordinates (mm), row i of one where row i of the
            other is; at least dim + 1, not all on one line or plane.
        static_shape : tuple of int
            Shape of the static image: where the map is defined.
        moving_shape : tuple of int, optional
            Shape of the moving image; by default it is on static's grid.
        static_grid2world, moving_grid2world : array, shape (dim+1, dim+1), optional
            Voxels to world (mm) of the two images; by default the identity.
        prealign : array, shape (dim+1, dim+1), optional
            Affine part of the map, static world to moving world; the fields hold the
            rest of the spline.  By default the affine map nearest to the landmarks, so
            that landmarks that move affinely give an affine map without fields, and
            fields are small.
        num_threads : int, optional
            Threads on the CPU; None is Torch's own choice, -1 all processors.

        Returns
        -------
        mapping : dipy.align.imwarp.DiffeomorphicMap
            As `DeepRegistration` gives it: ``mapping.transform(moving)`` lies on the
            static grid, ``mapping.transform_points(static_points)`` at
            `moving_points`.  It never folds: where the spline does, for landmarks that
            cross, the map is smoothed, which a warning says.

        Raises
        ------
        ValueError
            If landmarks are too few, on one line or plane, not finite, or one static
            landmark has two moving ones (unless regularised); if shapes or matrices
            are unfit.
        """
        static_points, moving_points = check_landmarks(
            static_points, moving_points, exact=not self.regularization
        )
        dim = static_points.shape[1]
        grids = _grids(
            dim, static_shape, moving_shape, static_grid2world, moving_grid2world
        )
        if prealign is not None:
            prealign = getattr(prealign, "affine", prealign)
            prealign = check_affine(prealign, dim, "prealign")
        with threads(num_threads):
            self._fit(static_points, moving_points)
            self.prealign = self._affine_part() if prealign is None else prealign
            u, v, self.quality = make_diffeomorphic(self._field(grids.static_grid))
        affines = {
            "static_grid2world": static_grid2world,
            "moving_grid2world": grids.moving_grid.affine
            if moving_shape is None and static_grid2world is not None
            else moving_grid2world,
            "prealign": self.prealign,
        }
        self.static_to_moving = dipy_adapter.make_map(u, v, grids, **affines)
        landed = np.asarray(self.static_to_moving.transform_points(static_points))
        self.distances = np.linalg.norm(landed - moving_points, axis=1)
        inside = tell_outside(static_points, grids.static_grid)
        self._report(inside, static_points, moving_points)
        return self.static_to_moving

    def get_map(self):
        """The map that the last `optimize` returned.

        Returns
        -------
        mapping : DiffeomorphicMap
            ``mapping.transform(moving)`` lies on the static grid.

        Raises
        ------
        ValueError
            Before `optimize`.
        """
        self._check_done()
        return self.static_to_moving

    def transform_points(self, points):
        """Points of static's world in moving's, by the spline itself.

        Without the map's grid between: exact, and beyond static's field of view too;
        but where the spline folds and the map was mended, other than the map.

        Parameters
        ----------
        points : array, shape (M, dim)
            World coordinates, mm.

        Returns
        -------
        moved : ndarray, shape (M, dim)
            float64.

        Raises
        ------
        ValueError
            Before `optimize`, or if the points are unfit.
        """
        points = self._tensor(points)
        return thin_plate.evaluate(self._spline, points).cpu().numpy()

    def transform_points_inverse(self, points):
        """Points of moving's world in static's, by inverting the spline itself.

        By Newton steps, from where the map takes the points.

        Parameters
        ----------
        points : array, shape (M, dim)
            World coordinates, mm.

        Returns
        -------
        moved : ndarray, shape (M, dim)
            float64; NaN where the spline takes no point there, or none was found.

        Raises
        ------
        ValueError
            Before `optimize`, or if the points are unfit.
        """
        targets = self._tensor(points)
        if not len(targets):
            return targets.cpu().numpy()
        start = self.static_to_moving.transform_points_inverse(
            np.asarray(points, dtype=np.float64)
        )
        start = dipy_adapter.exact_tensor(start, self.device)
        return (
            thin_plate.invert_points(self._spline, targets, start=start).cpu().numpy()
        )

    def _check_done(self):
        if not hasattr(self, "static_to_moving"):
            raise ValueError(
                "There is no map yet: please call "
                "ThinPlateSplineRegistration.optimize() first."
            )

    def _tensor(self, points):
        """Points as a tensor, of the dimension of the landmarks."""
        self._check_done()
        points = check_points(points, "points")
        dim = len(self.prealign) - 1
        if points.shape[1] != dim:
            raise ValueError(f"points must have {dim} columns, got {points.shape[1]}.")
        return dipy_adapter.exact_tensor(points, self.device)

    def _fit(self, static_points, moving_points):
        points = (
            dipy_adapter.exact_tensor(p, self.device)
            for p in (static_points, moving_points)
        )
        self._spline = thin_plate.fit_spline(
            *points, regularization=self.regularization, kernel=self.kernel
        )

    def _affine_part(self):
        """The affine map nearest to the landmarks, if it can be inverted."""
        matrix = self._spline.nearest_affine.cpu().numpy()
        dim = len(matrix) - 1
        sizes = np.linalg.svd(matrix[:dim, :dim], compute_uv=False)
        if sizes[-1] > _SQUASHED * sizes[0]:
            if np.linalg.det(matrix) < 0:
                logger.warning(
                    "The landmarks are mirrored: their affine part turns left into "
                    "right. Are both sets in one convention (RAS or LPS)?"
                )
            return matrix
        centre = self._spline.centre.cpu().numpy()
        shift = np.eye(dim + 1)
        shift[:dim, dim] = matrix[:dim] @ np.append(centre, 1) - centre
        return shift

    def _field(self, grid):
        """The rest of the spline, in voxels of a grid."""
        back = grid.inverse @ np.linalg.inv(self.prealign)
        u = thin_plate_grid.sample_spline(self._spline, grid.shape, grid.affine, back)
        return u.to(self.device)

    def _report(self, inside, *landmarks):
        """Say how good the map is, and loudly where it misses landmarks in view."""
        q, missed = self.quality, np.where(inside, self.distances, 0)
        logger.info(
            f"Least Jacobian determinant {q.minimum_jacobian:.3f}, of the inverse "
            f"{q.minimum_jacobian_inverse:.3f}; round trip {q.round_trip_mean:.3f} "
            f"voxel on average, {q.round_trip_max:.3f} at most; landmarks missed by "
            f"{missed.sum() / max(1, inside.sum()):.3f} mm on average, "
            f"{missed.max():.3f} at most."
        )
        if q.repairs:
            logger.warning(
                "The spline through these landmarks folds, or bends more sharply than "
                "the grid can hold, and was smoothed there: the map does not meet all "
                f"of them. {worst_missed(missed, *landmarks)} Landmarks that cross may "
                "be the cause, and a larger regularization the cure."
                + describe_swapped_rows(*landmarks)
            )


def _grids(dim, static_shape, moving_shape, static_grid2world, moving_grid2world):
    """The grids of both images, or one clear error."""
    if moving_shape is None and moving_grid2world is not None:
        raise ValueError("moving_grid2world needs the moving_shape that it goes with.")
    shape = _checked_shape(static_shape, dim, "static_shape")
    static_grid = Grid(shape, _matrix(static_grid2world, dim, "static_grid2world"))
    if moving_shape is None:
        return _Grids(static_grid, static_grid)
    shape = _checked_shape(moving_shape, dim, "moving_shape")
    affine = _matrix(moving_grid2world, dim, "moving_grid2world")
    return _Grids(static_grid, Grid(shape, affine))


def _matrix(matrix, dim, name):
    return np.eye(dim + 1) if matrix is None else check_affine(matrix, dim, name)


def _checked_shape(shape, dim, name):
    """`shape` as `dim` positive ints."""
    numbers = np.asarray(shape)
    if (
        numbers.shape != (dim,)
        or numbers.dtype.kind not in "iu"
        or numbers.min(initial=1) < 1
    ):
        raise ValueError(
            f"{name} must be {dim} positive whole numbers, as the landmarks are "
            f"{dim}D, got {shape!r}."
        )
    return tuple(int(n) for n in numbers)
