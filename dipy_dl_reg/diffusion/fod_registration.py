"""Registration driven by fibre orientation distributions (FODs).

`register_fods` compares the FODs themselves, and reorients them in every iteration, as
MRtrix3's ``mrregister`` does :footcite:p:`Raffelt2011`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.diffusion.direction_images import (
    DirectionImage,
    affines_of,
    read_direction_images,
    with_channels,
)
from dipy_dl_reg.diffusion.fods import WEIGHTS, transform_fods
from dipy_dl_reg.diffusion.frames import choose_frame
from dipy_dl_reg.diffusion.harmonics import (
    BASES,
    FRAME_OF_BASIS,
    HarmonicBasis,
    harmonic_order,
    make_basis,
)
from dipy_dl_reg.diffusion.orientation_registration import check_options
from dipy_dl_reg.diffusion.reorienting_registration import ReorientingRegistration
from dipy_dl_reg.diffusion.resampling import find_known
from dipy_dl_reg.geometry.reorientation import HarmonicRotation
from dipy_dl_reg.geometry.sphere import spread_directions
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.metrics.orientation import OrientationMetric
from dipy_dl_reg.validation import check_choice, check_number

#: Harmonics of higher order are not compared.
_MAX_ORDER = 4
#: Percentile, over the voxels with an FOD, that is scaled to 1.
_PERCENTILE = 99


@warning_for_keywords()
def register_fods(
    moving: Any,
    static: Any,
    *,
    moving_affine: np.ndarray | None = None,
    static_affine: np.ndarray | None = None,
    prealign: Any = None,
    basis: str | None = "descoteaux07",
    legacy: bool = True,
    frame: str | None = None,
    static_mask: Any = None,
    moving_mask: Any = None,
    pipeline: Sequence[str] | None = None,
    affine_options: dict[str, Any] | None = None,
    density_weight: float = 0.1,
    modulate: bool = False,
    weights: str = "nonnegative",
    num_threads: int | None = None,
    **options: Any,
) -> tuple[np.ndarray, DiffeomorphicMap]:
    r"""Register an image of fibre orientation distributions (FODs) to another one.

    In every iteration, the harmonics of moving up to order 4 are warped, and rotated
    exactly by the local rotation of the whole map (finite strain). What is compared is

    .. math::

        \mathrm{mean} \int_{S^2} (f_s - f_m)^2
        + k\,\big(1 - \mathrm{cc}(c_s, c_m)\big)

    where :math:`f` are the FODs without their mean over the sphere :math:`S^2`, as by
    :footcite:t:`Raffelt2011`, :math:`c` the coefficients of order 0, which show the
    density of fibres, and cc local correlation (`CCMetric`). For the comparison,
    :math:`f` and :math:`c` of both images are divided by their 99th percentiles, so
    that the responses of the two subjects need not be equal.

    Parameters
    ----------
    moving, static : ndarray, nibabel image, str or Path
        Coefficients of spherical harmonics of even degrees on the last axis: 6, 15, 28,
        45 ... of order 2, 4, 6, 8 ...
    moving_affine, static_affine : array, shape (4, 4), optional
        Voxels to world of the images; by default the affines in the files. For arrays,
        give both or neither; without them, both are the identity.
    prealign : array or AffineMap, optional
        Static world to moving world; affine steps of a pipeline start from it.
    basis : {"descoteaux07", "tournier07", "mrtrix"} or None, optional
        The basis of both images; see `transform_fods`.
    legacy : bool, optional
        DIPY's older definition of the basis, which is DIPY's default; without effect on
        "mrtrix".
    frame : {"voxel", "fsl", "world"}, optional
        Axes in which the directions of both images are given; see `transform_fods`. By
        default "world" for "mrtrix", else "voxel" with a warning where "fsl" differs: a
        wrong frame is not detected.
    static_mask, moving_mask : ndarray, nibabel image, str or Path, optional
        Only voxels other than 0 are compared.
    pipeline : sequence of str, optional
        Affine steps, then ``"deform"``; see `deep_registration`. Affine steps register
        the coefficients of order 0. By default ``["deform"]``: the images must already
        be aligned, or `prealign` must align them.
    affine_options : dict, optional
        Passed to `deep_affine_registration`.
    density_weight : float, optional
        Weight :math:`k` of the density of fibres.
    modulate : bool, optional
        Modulation of the result; see `transform_fods`.
    weights : {"nonnegative", "least_squares"}, optional
        Reorientation of the result; see `transform_fods`.
    num_threads : int, optional
        See `DeepRegistration.optimize`.
    **options : dict
        Options of `DeepRegistration`, except `metric`, `model`,
        `channel_weights` and `phase_encoding`.

    Returns
    -------
    warped : ndarray of float32
        The FODs of moving on static's grid, reoriented by apodized delta functions, in
        the basis and the frame of moving.
    mapping : dipy.align.imwarp.DiffeomorphicMap
        The map from static to moving, as of `deep_registration`.

    Raises
    ------
    ValueError
        If an image holds no FODs, an option cannot be used, one image has an affine and
        the other has none, or the images do not overlap.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    transform_fods : applies a map to FODs.
    register_tensors : the same for tensors.
    convert_harmonics : converts between the bases of DIPY and MRtrix3.

    Notes
    -----
    The rotation of finite strain is :math:`R = F (F^\top F)^{-1/2}` with :math:`F =
    J^{-1}`, the inverse of the Jacobian matrix of the map.  The result is reoriented by
    `transform_fods` with all of :math:`F`.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    Two bundles of one direction, of which the second is wider:

    >>> import numpy as np
    >>> from dipy_dl_reg import register_fods
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> lobe = np.array([0.28, 0.0, 0, 0.5, 0, 0])  # order 2, along the third axis
    >>> static, moving = (np.exp(-k * (x**2 + y**2))[..., None] * lobe for k in (6, 3))
    >>> warped, mapping = register_fods(moving, static)
    >>> bool(abs(warped - static).mean() < 0.6 * abs(moving - static).mean())
    True
    """
    default_frame = FRAME_OF_BASIS[check_choice("basis", basis or BASES[0], BASES)]
    check_choice("weights", weights, WEIGHTS)
    weight = check_number("density_weight", density_weight)
    steps = check_options(pipeline, options, affine_options)
    images = read_direction_images(
        (moving, static), (moving_affine, static_affine), (moving_mask, static_mask)
    )
    frame = choose_frame(frame, *affines_of(images), default=default_frame)
    channels = make_fod_images(images, basis, legacy, frame)
    count = channels[0].channels.shape[-1] - 1
    metric = OrientationMetric([1] * count, scalar_weight=weight)
    registration = ReorientingRegistration(_rotation_of_fods(count), metric, **options)
    mapping = registration.register(
        *channels,
        prealign=prealign,
        steps=steps,
        affine_options=affine_options,
        num_threads=num_threads,
    )
    warped = transform_fods(
        mapping,
        images[0].values,
        basis=basis,
        legacy=legacy,
        frame=frame,
        modulate=modulate,
        weights=weights,
        image_grid2world=images[0].grid2world,
    )
    return warped, mapping


def _rotation_of_fods(count: int) -> HarmonicRotation:
    """Rotation of coefficients without that of order 0, which no rotation changes."""
    directions = spread_directions(200)
    basis = _orthonormal_basis(harmonic_order(count + 1))
    return HarmonicRotation(directions, basis.evaluate(directions)[:, 1:])


def make_fod_images(
    images: tuple[InputImage, InputImage], basis: str | None, legacy: bool, frame: str
) -> tuple[DirectionImage, DirectionImage]:
    """Convert FODs to harmonics of order 2 and 4, and their mean over the sphere.

    Parameters
    ----------
    images : tuple of InputImage
        Moving and static, with coefficients on the last axis.
    basis : {"descoteaux07", "tournier07", "mrtrix"} or None
        Their basis.
    legacy : bool
        DIPY's older definition of it.
    frame : {"voxel", "fsl", "world"}
        Axes in which directions are given.

    Returns
    -------
    moving, static : DirectionImage
        As from `fod_channels`, up to the lower of both orders, at most 4.

    Raises
    ------
    ValueError
        If an image holds no coefficients of order 2 or more, or is zero or NaN
        everywhere.
    """
    bases = []
    for image, name in zip(images, ("moving", "static")):
        sh = image.values
        if sh.ndim != 4 or sh.shape[-1] < 6 or sh.dtype.kind not in "iuf":
            raise ValueError(
                f"{name} must hold 6, 15, 28 ... coefficients of spherical harmonics "
                f"on its last axis, got {sh.dtype} of shape {sh.shape}."
            )
        try:
            bases.append(make_basis(basis, sh.shape[-1], legacy=legacy))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        find_known(np.isfinite(sh).all(-1) & (sh != 0).any(-1), None, name)
    order = min(_MAX_ORDER, *(used.order for used in bases))
    moving, static = (
        with_channels(image, fod_channels(image.values, used, order), frame)
        for image, used in zip(images, bases)
    )
    return moving, static


def fod_channels(sh: np.ndarray, basis: HarmonicBasis, order: int) -> np.ndarray:
    """Scale FODs, and convert their harmonics to an orthonormal basis.

    Parameters
    ----------
    sh : ndarray, shape (X, Y, Z, count)
        Coefficients of even degrees.
    basis : HarmonicBasis
        Their basis.
    order : {2, 4}
        Coefficients of higher order are left out.

    Returns
    -------
    channels : ndarray of float32, shape (X, Y, Z, 1 + C)
        The coefficient of order 0, and the 5 of order 2 and 9 of order 4.  The 99th
        percentiles, over the voxels with an FOD, of the coefficient of order 0 and of
        the norm of the others are 1.  0 where a coefficient is not finite.
    """
    directions = spread_directions(200)
    given = replace(basis, order=order).evaluate(directions)
    wanted = _orthonormal_basis(order).evaluate(directions)
    matrix = np.linalg.lstsq(wanted, given, rcond=None)[0]
    values = np.array(sh[..., : given.shape[1]], dtype=np.float64)
    values[~np.isfinite(values).all(-1)] = 0
    channels = values @ matrix.T
    for part in (channels[..., :1], channels[..., 1:]):
        norms = np.linalg.norm(part, axis=-1)
        if norms.any():
            part /= np.percentile(norms[norms > 0], _PERCENTILE)
    return channels.astype(np.float32)


def _orthonormal_basis(order: int) -> HarmonicBasis:
    """Orthonormal basis of even degrees, in which FODs are compared."""
    return HarmonicBasis("descoteaux07", order, legacy=False)
