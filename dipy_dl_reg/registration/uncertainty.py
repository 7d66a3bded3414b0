"""Expected error of a map, in mm, at each voxel of static."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.resampling import resample_array
from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.maps.formats.dense_field import grid_points, user_prealign
from dipy_dl_reg.registration.devices import threads
from dipy_dl_reg.registration.head_masks import find_brain_masks
from dipy_dl_reg.registration.mapped_images import MappedImages, read_mapped_images
from dipy_dl_reg.registration.repeated_registration import (
    PairOfImages,
    Repetition,
    repeat_registration,
)
from dipy_dl_reg.registration.uncertainty_calibration import (
    Calibration,
    Factors,
    find_calibration,
)
from dipy_dl_reg.registration.uncertainty_measures import (
    Window,
    measure_disagreement,
    measure_precision,
)
from dipy_dl_reg.validation import check_choice

#: How the registration is repeated.  One repetition is enough: those with other seeds,
#: or with the images exchanged, predict errors as well (doc/uncertainty.rst).
REPETITIONS = (Repetition(swaps=False, resamples=True, noise=True, moves=True, seed=1),)
#: Part of the range of intensities above which a voxel belongs to the object.
_OBJECT = 0.05
#: Voxel size, mm, at which finer images are measured: that of the calibration.
_SPACING = 2.0
#: Options of `DeepRegistration` that refer to one of the images.
_OF_ONE_IMAGE = ("landmarks", "phase_encoding")


@dataclass(frozen=True)
class MappingUncertainty:
    r"""Expected error of a map.

    The error at a point of static is the vector from the point of moving that truly
    corresponds to it to the point that the map gives, brought to static's world by the
    inverse of the prealign, mm.

    Attributes
    ----------
    disagreement : ndarray of float32, shape of static
        Root mean square difference of repeated maps from the map, along one axis, mm.
    precision : ndarray of float32, shape of static
        Standard error of the displacement that follows from the images, mm, up to a
        factor.
    inside : ndarray of bool, shape of static
        Voxels of static's object, within the masks, given or found, of both images.
        Elsewhere nothing in the images determines the map, and the values are
        extrapolated.
    grid : Grid
        Static's grid.
    mapping : DiffeomorphicMap
        The map.
    calibration : Calibration
        Factors from the two measures to the error.

    See Also
    --------
    mapping_uncertainty : computes it.
    uncertainty_along_streamlines : the expected error along streamlines.

    Notes
    -----
    With :math:`d` the `disagreement` and :math:`p` the `precision`, all values are
    :math:`\sqrt{(a\,d)^2 + (b\,p)^2}`; the factors :math:`a` and :math:`b` of
    `calibration` depend on what is asked for: the expected error, or a level of an
    interval or a radius.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, mapping_uncertainty
    >>> x, y = np.mgrid[-1:1:24j, -1:1:24j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> options = {"metric": "SSD", "level_iters": [5]}
    >>> mapping = DeepRegistration(**options).optimize(static=static, moving=moving)
    >>> found = mapping_uncertainty(mapping, static, moving, subjects="same", **options)
    >>> points = np.array([[12.0, 12.0], [12.0, 99.0]])  # the second is outside
    >>> np.isfinite(found.at_points(points, level=0.9))
    array([ True, False])
    """

    disagreement: np.ndarray
    precision: np.ndarray
    inside: np.ndarray
    grid: Grid
    mapping: DiffeomorphicMap
    calibration: Calibration

    @property
    def expected_error(self) -> np.ndarray:
        """Mean length of the error at each voxel of static, mm, float32."""
        return self._apply(self.calibration.mean)

    def interval(self, level: float) -> np.ndarray:
        """Half-width of the interval that holds one component of the error.

        Parameters
        ----------
        level : float
            Probability, from .05 to .95.

        Returns
        -------
        half_width : ndarray of float32, shape of static
            In mm: with this probability, the error along a given direction (an axis of
            the world, or the normal of a boundary) is not larger.

        Raises
        ------
        ValueError
            If the level lies outside of the calibrated range.
        """
        return self._apply(self.calibration.component.at(level))

    def radius(self, level: float) -> np.ndarray:
        """Radius of the ball that holds the error.

        Parameters
        ----------
        level : float
            Probability, from .05 to .95.

        Returns
        -------
        radius : ndarray of float32, shape of static
            In mm: with this probability, the true point is not farther away.

        Raises
        ------
        ValueError
            If the level lies outside of the calibrated range.
        """
        return self._apply(self.calibration.length.at(level))

    def _apply(self, factors: Factors) -> np.ndarray:
        """Multiply the measures by factors."""
        return factors.apply(self.disagreement, self.precision).astype(np.float32)

    def at_points(
        self, points: np.ndarray, *, level: float | None = None, space: str = "static"
    ) -> np.ndarray:
        """Expected error at points, or the radius that holds it.

        Parameters
        ----------
        points : ndarray, shape (N, dim)
            World coordinates, mm.
        level : float, optional
            Probability of the radius; by default the expected error is returned.
        space : {"static", "moving"}, optional
            Image in whose world the points lie.  Points of moving are first mapped to
            static.

        Returns
        -------
        values : ndarray of float64, shape (N,)
            In mm of static's world, interpolated linearly; NaN outside of static's
            field of view.

        Raises
        ------
        ValueError
            If the points are not an array of the map's dimension, or an option is not
            valid.
        """
        dim = self.grid.dim
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != dim:
            raise ValueError(
                f"points must have shape (N, {dim}), got {np.shape(points)}."
            )
        if check_choice("space", space, ("static", "moving")) == "moving":
            points = np.asarray(self.mapping.transform_points_inverse(points))
        values = self.expected_error if level is None else self.radius(level)
        inverse = self.grid.inverse
        voxels = points @ inverse[:dim, :dim].T + inverse[:dim, dim]
        found = map_coordinates(
            values.astype(np.float64), voxels.T, order=1, mode="nearest"
        )
        return np.where(self.grid.contains(points, margin=0.5), found, np.nan)


def mapping_uncertainty(
    mapping: DiffeomorphicMap | AffineMap,
    static: Any,
    moving: Any,
    *,
    static_mask: Any = None,
    moving_mask: Any = None,
    subjects: str = "different",
    num_threads: int | None = None,
    **options: Any,
) -> MappingUncertainty:
    r"""Estimate the error of a map at each voxel of static, in mm.

    The two images are registered once more, with another grid, noise and a slightly
    different affine.  Half-widths of intervals are

    .. math:: h = \sqrt{(a\,d)^2 + (b\,p)^2}

    where :math:`d` is the root mean square difference, along one axis, of this map
    from the given one :footcite:p:`Kybic2010`; :math:`p` is the standard error that
    follows from the gradient of static and from what the warped image does not explain
    of it; and means are taken over Gaussian windows (standard
    deviation 4 mm).  The factors :math:`a` and :math:`b` of each level were found on
    known errors.  :doc:`/uncertainty` has the coverage on other pairs, and says what
    the estimate cannot see.

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The map of a registration of this package or of another program
        (`read_mapping`).  Its grids and its prealign are those of the images.
    static, moving : array, nibabel image, str or Path
        The registered images, 2D or 3D, on their own grids.  NaN is missing data.
    static_mask, moving_mask : array, nibabel image, str or Path, optional
        Only voxels other than 0 are compared, and belong to the object.  Without masks,
        whole heads are masked as in the registration by `brain_mask`.
    subjects : {"different", "same"}, optional
        Whether the images show different people (or a person and a template) or the
        same person.  Some structures of two people have no counterpart that an image
        shows, such as a second sulcus: their errors are larger, and differently
        distributed.
    num_threads : int, optional
        Threads on the CPU, as in `DeepRegistration.optimize`.
    **options : dict
        Options of `DeepRegistration` for the repetitions; the factors are for the
        defaults.

    Returns
    -------
    uncertainty : MappingUncertainty
        The expected error, and half-widths of intervals.

    Raises
    ------
    ValueError
        If the images do not fit the map, or an option is not valid; landmarks and the
        direction of phase encoding cannot be given, because the images change.

    See Also
    --------
    assess_mapping : whether the registration is good, doubtful or failed.
    MappingUncertainty : what is returned.
    uncertainty_along_streamlines : the expected error along streamlines.

    Notes
    -----
    An error that both registrations make, such as a wrong gyrus, is not seen.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, mapping_uncertainty
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> mapping = DeepRegistration("SSD").optimize(static=static, moving=moving)
    >>> found = mapping_uncertainty(mapping, static, moving, subjects="same")
    >>> found.expected_error.shape
    (32, 32)
    >>> bool((found.interval(0.95) > found.interval(0.5)).all())
    True
    """
    mapping = as_mapping(mapping)
    calibration = find_calibration(subjects, mapping.dim)
    _check_options(options)
    images = read_mapped_images(mapping, static, moving, static_mask, moving_mask)
    with threads(num_threads):
        pair = _add_brain_masks(_make_pair(mapping, images))
    logger.info(
        "Uncertainty: the registration is repeated with another grid, noise and affine."
    )
    grid = pair.static_grid.coarsen(_SPACING)
    differences = _find_differences(mapping, pair, grid, num_threads, options)
    window = Window(grid.spacing)
    static_values, warped, inside = _compare(mapping, pair)
    within = _resample(inside.astype(np.float32), pair.static_grid, grid) > 0.5
    disagreement = measure_disagreement(differences, within, window)
    first, second = (
        _resample(image, pair.static_grid, grid) for image in (static_values, warped)
    )
    precision = measure_precision(first, second, within, window)
    disagreement, precision = (
        _resample(x, grid, pair.static_grid) for x in (disagreement, precision)
    )
    return MappingUncertainty(
        disagreement,
        precision,
        inside,
        pair.static_grid,
        mapping,
        calibration,
    )


def _check_options(options: dict[str, Any]) -> None:
    """Check that no option refers to one image alone."""
    for name in _OF_ONE_IMAGE:
        if options.get(name) is not None:
            raise ValueError(
                f"{name} cannot be given: the registration that is repeated has other "
                "images and grids."
            )


def _make_pair(mapping: DiffeomorphicMap, images: MappedImages) -> PairOfImages:
    """The images with their grids and the map's prealign."""
    affines = (
        np.eye(mapping.dim + 1) if matrix is None else np.asarray(matrix, dtype=float)
        for matrix in (images.static_grid2world, images.moving_grid2world)
    )
    shapes = (images.static.shape, images.moving.shape)
    grids = [Grid(shape, affine) for shape, affine in zip(shapes, affines)]
    return PairOfImages(
        *(images.static, images.moving, grids[0], grids[1], user_prealign(mapping)),
        *(images.static_mask, images.moving_mask),
    )


def _add_brain_masks(pair: PairOfImages) -> PairOfImages:
    """Masks like those of the registration, found once, if none was given."""
    if pair.static_mask is not None or pair.moving_mask is not None:
        return pair
    masks = find_brain_masks(
        {"static": np.asarray(pair.static), "moving": np.asarray(pair.moving)},
        {"static": pair.static_grid, "moving": pair.moving_grid},
    )
    return pair._replace(static_mask=masks["static"], moving_mask=masks["moving"])


def _find_differences(
    mapping: DiffeomorphicMap,
    pair: PairOfImages,
    grid: Grid,
    num_threads: int | None,
    options: dict[str, Any],
) -> list[np.ndarray]:
    """Repeated maps less the given one on a grid, in mm of static's world."""
    dim = mapping.dim
    points = grid_points(grid).reshape(-1, dim)
    mapped = np.asarray(mapping.transform_points(points))
    back = np.linalg.inv(pair.prealign[:dim, :dim]).T
    differences = []
    for repetition in REPETITIONS:
        other = repeat_registration(
            pair, repetition, points, num_threads=num_threads, **options
        )
        differences.append(((other - mapped) @ back).reshape(*grid.shape, dim))
    return differences


def _compare(
    mapping: DiffeomorphicMap, pair: PairOfImages
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Static, moving on its grid, and static's object; missing values are 0."""
    static = np.asarray(pair.static, dtype=np.float32)
    warped = transform_array(mapping, pair.moving)
    known = np.isfinite(static)
    low, high = np.quantile(static[known], (0.01, 0.99))
    inside = known & (np.nan_to_num(static) > low + _OBJECT * (high - low))
    if pair.static_mask is not None:
        inside = known & np.not_equal(pair.static_mask, 0)
    if pair.moving_mask is not None:
        compared = np.not_equal(pair.moving_mask, 0).astype(np.float32)
        inside &= np.asarray(transform_array(mapping, compared)) > 0.5
    return np.nan_to_num(static), np.nan_to_num(warped), inside


def _resample(image: np.ndarray, grid: Grid, other: Grid) -> np.ndarray:
    """An image on another grid of the same field of view, smoothed if it is coarser."""
    if grid.shape == other.shape:
        return image
    factor = other.spacing / grid.spacing
    if (factor > 1).any():
        image = gaussian_filter(image, np.where(factor > 1, 0.4 * factor, 0))
    return resample_array(image, other.to(grid), other.shape)
