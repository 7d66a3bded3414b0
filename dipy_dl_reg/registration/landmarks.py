"""`ThinPlateSplineRegistration`: computes a map from pairs of landmarks.

Landmarks are points in world coordinates (mm), shape (N, 2) or (N, 3): `static_points`
in static's world, `moving_points` the same anatomical points in moving's world.  The
spline itself is in `geometry.thin_plate`; `DeepRegistration(landmarks=...)` starts from
such a spline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry import thin_plate, thin_plate_grid
from dipy_dl_reg.geometry.fold_repair import Quality, make_diffeomorphic
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.regularity import format_regularity
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.registration.landmark_checks import (
    check_landmarks,
    describe_swapped_rows,
    describe_worst_landmark,
    find_landmarks_in_view,
)
from dipy_dl_reg.validation import (
    check_affine,
    check_choice,
    check_number,
    check_points,
    check_shape,
)

if TYPE_CHECKING:
    import torch

#: The affine part is stored as the prealign only if the ratio of its smallest to its
#: largest singular value is at least this, because the prealign must be invertible.
_LEAST_SHRINKAGE = 1e-3


class _Grids(NamedTuple):
    """The grids of the two images, for `dipy_adapter.make_map`."""

    static_grid: Grid
    moving_grid: Grid


class ThinPlateSplineRegistration:
    r"""Registration with landmarks: computes a thin-plate spline and a DIPY map.

    The spline :math:`f` from static world to moving world,

    .. math:: f(x) = A x + b + \sum_i w_i \phi(|x - p_i|),

    maps each static landmark :math:`p_i` to its moving landmark :math:`q_i`, exactly or
    approximately, with minimal bending energy :footcite:p:`Bookstein1989`.  It
    minimizes :math:`\frac{1}{N} \sum_i |f(p_i) - q_i|^2 + \lambda\, w^T K w` with
    :math:`K_{ij} = \phi(|p_i - p_j| / L)` and L the root mean square distance of the
    static landmarks from their mean.

    Parameters
    ----------
    regularization : float, optional
        :math:`\lambda`, without a unit; its effect does not depend on the number of
        landmarks.  With 0, the default, the spline passes through every landmark.  For
        landmarks placed by hand, begin with 0.001 to 0.01.  The corresponding
        ``smoothing`` of `scipy.interpolate.RBFInterpolator` is N :math:`\lambda` L**2
        for the first kernel and N :math:`\lambda` L for ``-r``.
    kernel : {"thin_plate_spline", "biharmonic"}, optional
        The first is ``r**2 log(r)`` in 2D and 3D, as in SciPy.  The second is the same
        in 2D, and ``-r`` in 3D (SciPy's "linear" with ``degree=1``), which minimizes
        the bending energy in 3D; the spline then oscillates less between landmarks with
        errors of some mm.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.

    Attributes
    ----------
    prealign : ndarray, shape (dim + 1, dim + 1)
        After `optimize`: the affine part of the map, static world to moving world: the
        matrix given, or the least-squares affine map of the landmarks.
    distances : ndarray, shape (N,)
        After `optimize`: distance between each mapped static landmark and its moving
        landmark, mm; repeated landmarks count once.
    quality : Quality
        After `optimize`: smallest Jacobian determinants, inverse consistency error and
        number of repairs, see `DeepRegistration`.
    static_to_moving : DiffeomorphicMap
        After `optimize`: the map.

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    DeepRegistration : takes landmarks together with images (`landmarks`).
    read_landmarks : points from a text file.
    scipy.interpolate.RBFInterpolator : the spline without a map.

    Notes
    -----
    N landmarks need memory for N**2 numbers in double precision: 72 MB for 3000
    landmarks, 0.8 GB for 10000.

    The map stores the spline on static's grid and interpolates linearly between voxels.
    `transform_points` and `transform_points_inverse` of this class evaluate the spline
    itself.  On large grids the field is computed as the sum of a smooth part on coarser
    nodes and a local part around each landmark.  The mean error next to landmarks is
    then below 0.03 voxel, unless landmarks that are one or two voxels apart move in
    different directions.

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
        self,
        *,
        regularization: float = 0.0,
        kernel: str = "thin_plate_spline",
        device: str | torch.device = "auto",
    ) -> None:
        self.regularization = check_number("regularization", regularization)
        self.kernel = check_choice("kernel", kernel, thin_plate.KERNELS)
        self.device = find_device(device)

    def optimize(
        self,
        static_points: np.ndarray,
        moving_points: np.ndarray,
        *,
        static_shape: tuple[int, ...],
        moving_shape: tuple[int, ...] | None = None,
        static_grid2world: np.ndarray | None = None,
        moving_grid2world: np.ndarray | None = None,
        prealign: np.ndarray | None = None,
        num_threads: int | None = None,
    ) -> DiffeomorphicMap:
        """Fit the spline and evaluate it on static's grid.

        Parameters
        ----------
        static_points, moving_points : array, shape (N, dim)
            The landmarks in world coordinates (mm): row i of both arrays is the same
            anatomical point.  At least dim + 1 points, not all on one line or plane.
        static_shape : tuple of int
            Shape of the static image; the map is defined on its grid.
        moving_shape : tuple of int, optional
            Shape of the moving image; by default moving has static's grid.
        static_grid2world, moving_grid2world : array, shape (dim+1, dim+1), optional
            Voxels to world (mm) of the two images; by default the identity.
        prealign : array, shape (dim+1, dim+1), optional
            Affine part of the map, static world to moving world; the fields contain
            the rest of the spline.  By default the least-squares affine map of the
            landmarks, so that the fields are small: they are 0 if the landmarks are
            related by an affine map.
        num_threads : int, optional
            Threads on the CPU; None uses Torch's default, -1 all processors.

        Returns
        -------
        mapping : dipy.align.imwarp.DiffeomorphicMap
            As returned by `DeepRegistration`: ``mapping.transform(moving)`` is on the
            static grid, and ``mapping.transform_points(static_points)`` gives the
            `moving_points`.  The map never folds: where the spline folds because
            landmarks cross, the map is smoothed and a warning is logged.

        Raises
        ------
        ValueError
            If landmarks are too few, on one line or plane, or not finite, or if one
            static landmark has two moving ones (without regularization); if a shape
            or matrix cannot be used.

        See Also
        --------
        DeepRegistration : refines the map by images (`landmarks`).
        read_landmarks : points from a text file.

        Notes
        -----
        ``mapping.prealign`` of the returned map is the **inverse** of `prealign`, as in
        DIPY; ``mapping.prealign_inv`` is the matrix from static world to moving world.

        Examples
        --------
        >>> import numpy as np
        >>> from dipy_dl_reg import ThinPlateSplineRegistration
        >>> static_points = np.array([[5, 5], [5, 25], [25, 5], [25, 25]])
        >>> mapping = ThinPlateSplineRegistration().optimize(
        ...     static_points, static_points + [2, 0], static_shape=(32, 32)
        ... )
        >>> float(mapping.prealign_inv[0, 2].round(3))  # displaced by 2 mm
        2.0
        """
        static_points, moving_points = check_landmarks(
            static_points, moving_points, exact=not self.regularization
        )
        dim = static_points.shape[1]
        grids = _make_grids(
            dim, static_shape, moving_shape, static_grid2world, moving_grid2world
        )
        if prealign is not None:
            prealign = getattr(prealign, "affine", prealign)
            prealign = check_affine(prealign, dim, "prealign")
        with threads(num_threads):
            self._spline = self._fit_spline(static_points, moving_points)
            self.prealign = _affine_part(self._spline) if prealign is None else prealign
            field = _residual_field(self._spline, grids.static_grid, self.prealign)
            u, v, self.quality = make_diffeomorphic(field.to(self.device))
        if moving_shape is None and static_grid2world is not None:
            moving_grid2world = grids.moving_grid.affine
        self.static_to_moving = dipy_adapter.make_map(
            u,
            v,
            grids,
            static_grid2world=static_grid2world,
            moving_grid2world=moving_grid2world,
            prealign=self.prealign,
        )
        landed = np.asarray(self.static_to_moving.transform_points(static_points))
        self.distances = np.linalg.norm(landed - moving_points, axis=1)
        inside = find_landmarks_in_view(static_points, grids.static_grid)
        errors = np.where(inside, self.distances, 0)
        _log_quality(self.quality, errors, int(inside.sum()))
        if self.quality.repairs:
            _warn_of_folds(errors, static_points, moving_points)
        return self.static_to_moving

    def get_map(self) -> DiffeomorphicMap:
        """Return the map that the last `optimize` returned.

        Returns
        -------
        mapping : DiffeomorphicMap
            ``mapping.transform(moving)`` is on the static grid.

        Raises
        ------
        ValueError
            Before `optimize`.
        """
        self._check_done()
        return self.static_to_moving

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Map points from static's world to moving's by the spline itself.

        The spline is exact, and is also defined outside static's field of view.  It
        differs from the map where the spline folds and the map was smoothed.

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
            Before `optimize`, or if the points cannot be used.
        """
        tensor = self._make_tensor(points)  # first: it raises before `optimize`
        return thin_plate.evaluate_spline(self._spline, tensor).cpu().numpy()

    def transform_points_inverse(self, points: np.ndarray) -> np.ndarray:
        """Map points from moving's world to static's by inverting the spline itself.

        The initial value of Newton's method is the position that the map gives.

        Parameters
        ----------
        points : array, shape (M, dim)
            World coordinates, mm.

        Returns
        -------
        moved : ndarray, shape (M, dim)
            float64; NaN if the spline maps no point to this position, or if the
            iteration does not converge.

        Raises
        ------
        ValueError
            Before `optimize`, or if the points cannot be used.
        """
        targets = self._make_tensor(points)
        if not len(targets):
            return targets.cpu().numpy()
        near = self.static_to_moving.transform_points_inverse(
            np.asarray(points, dtype=np.float64)
        )
        start = dipy_adapter.exact_tensor(near, self.device)
        found = thin_plate.invert_points(self._spline, targets, start=start)
        return found.cpu().numpy()

    def _check_done(self) -> None:
        if not hasattr(self, "static_to_moving"):
            raise ValueError(
                "There is no map yet: please call "
                "ThinPlateSplineRegistration.optimize() first."
            )

    def _make_tensor(self, points: np.ndarray) -> torch.Tensor:
        """Check points of the landmarks' dimension, and convert them to a tensor."""
        self._check_done()
        points = check_points(points, "points")
        dim = len(self.prealign) - 1
        if points.shape[1] != dim:
            raise ValueError(f"points must have {dim} columns, got {points.shape[1]}.")
        return dipy_adapter.exact_tensor(points, self.device)

    def _fit_spline(
        self, static_points: np.ndarray, moving_points: np.ndarray
    ) -> thin_plate.ThinPlateSpline:
        return thin_plate.fit_spline(
            dipy_adapter.exact_tensor(static_points, self.device),
            dipy_adapter.exact_tensor(moving_points, self.device),
            regularization=self.regularization,
            kernel=self.kernel,
        )


def _affine_part(spline: thin_plate.ThinPlateSpline) -> np.ndarray:
    """Return the least-squares affine map; a translation if that is singular."""
    matrix = spline.nearest_affine.cpu().numpy()
    dim = len(matrix) - 1
    sizes = np.linalg.svd(matrix[:dim, :dim], compute_uv=False)
    if sizes[-1] > _LEAST_SHRINKAGE * sizes[0]:
        if np.linalg.det(matrix) < 0:
            logger.warning(
                "The affine part of the landmarks contains a reflection. Check that "
                "both sets have the same coordinate convention (RAS or LPS)."
            )
        return matrix
    centre = spline.centre.cpu().numpy()
    shift = np.eye(dim + 1)
    shift[:dim, dim] = matrix[:dim] @ np.append(centre, 1) - centre
    return shift


def _residual_field(
    spline: thin_plate.ThinPlateSpline, grid: Grid, prealign: np.ndarray
) -> torch.Tensor:
    """Evaluate the spline without its affine part, as a displacement in voxels."""
    from_world = grid.inverse @ np.linalg.inv(prealign)
    return thin_plate_grid.sample_spline(spline, grid.shape, grid.affine, from_world)


def _log_quality(quality: Quality, distances: np.ndarray, inside: int) -> None:
    """Log Jacobian determinants, inversion error and landmark errors."""
    logger.info(
        f"{format_regularity(quality)}; landmark error: mean "
        f"{distances.sum() / max(1, inside):.3f}, maximum {distances.max():.3f} mm."
    )


def _warn_of_folds(
    distances: np.ndarray, static_points: np.ndarray, moving_points: np.ndarray
) -> None:
    """Log a warning that the map does not meet all landmarks because of folds."""
    landmarks = static_points, moving_points
    logger.warning(
        "The spline through these landmarks folds, or varies too fast for the "
        "resolution of the grid, and was smoothed there: the map does not meet all "
        f"landmarks. {describe_worst_landmark(distances, *landmarks)} Landmarks that "
        "cross may be the cause; a larger regularization may help."
        + describe_swapped_rows(*landmarks)
    )


def _make_grids(
    dim: int,
    static_shape: tuple[int, ...],
    moving_shape: tuple[int, ...] | None,
    static_grid2world: np.ndarray | None,
    moving_grid2world: np.ndarray | None,
) -> _Grids:
    """Check shapes and matrices, and make the grids of both images."""
    if moving_shape is None and moving_grid2world is not None:
        raise ValueError("moving_shape is required if moving_grid2world is given.")
    static_grid = _make_grid(dim, static_shape, static_grid2world, "static")
    if moving_shape is None:
        return _Grids(static_grid, static_grid)
    moving_grid = _make_grid(dim, moving_shape, moving_grid2world, "moving")
    return _Grids(static_grid, moving_grid)


def _make_grid(
    dim: int, shape: tuple[int, ...], grid2world: np.ndarray | None, role: str
) -> Grid:
    """Check one shape and matrix, and make their grid."""
    shape = check_shape(shape, dim, f"{role}_shape")
    if grid2world is None:
        return Grid(shape, np.eye(dim + 1))
    return Grid(shape, check_affine(grid2world, dim, f"{role}_grid2world"))
