"""Correction of the distortion of a b0 image with a T1 image of the same head.

The T1 image is aligned rigidly and given the contrast of the b0 image, and the b0 image
is registered to it with displacements along the axis of phase encoding only.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from dipy_dl_reg.diffusion.epi import apply_epi_correction
from dipy_dl_reg.diffusion.epi_checks import check_signal
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.input_image import read_input_image
from dipy_dl_reg.maps.dipy_map import displacement_to_voxels
from dipy_dl_reg.maps.verdict import Verdict
from dipy_dl_reg.registration.affine.call import find_affine
from dipy_dl_reg.registration.deformable import DeepRegistration
from dipy_dl_reg.validation import (
    check_affine,
    check_phase_encoding,
    check_whole_number,
    wrong_value,
)

#: Smoothing of the field, in voxels: the contrast is only approximately that of b0.
_SIGMA_FIELD = 1.2
#: Number of ranges of T1 intensity whose typical b0 intensity is computed.
_BINS = 32
#: A T1 image with more zeros than this fraction is masked by its other voxels.
_MANY_ZEROS = 0.2
#: Smoothing before sampling on larger voxels: standard deviation in voxels, times the
#: ratio of the voxel sizes minus 1.
_SIGMA_FACTOR = 0.5


class _Image(NamedTuple):
    """Values, grid and mask of an image."""

    values: np.ndarray
    grid: Grid
    mask: np.ndarray | None = None


class EpiToT1(NamedTuple):
    """Result of `deep_epi_to_t1`; all images are on the grid of the b0 image.

    Attributes
    ----------
    corrected : ndarray, shape of b0
        The b0 image without distortion, modulated.
    field : ndarray, shape of b0
        Distance, in voxels, by which the b0 image is displaced in its direction of
        phase encoding, as in `EpiCorrection`.
    field_mm : ndarray, shape of b0
        The same distance in mm.
    mapping : DiffeomorphicMap
        Map from the undistorted grid (static) to the b0 image (moving).
    t1_to_b0 : ndarray, shape (dim + 1, dim + 1)
        Rigid: world of the T1 image to the world of the undistorted b0 image.
    t1 : ndarray, shape of b0
        The T1 image on this grid.
    verdict : Verdict
        Verdict on the registration.
    """

    corrected: np.ndarray
    field: np.ndarray
    field_mm: np.ndarray
    mapping: DiffeomorphicMap
    t1_to_b0: np.ndarray
    t1: np.ndarray
    verdict: Verdict


def deep_epi_to_t1(
    b0: Any,
    t1: Any,
    *,
    affine: np.ndarray | None = None,
    t1_affine: np.ndarray | None = None,
    phase_encoding: str = "j",
    prealign: np.ndarray | None = None,
    t1_mask: str | PathLike | Any | None = None,
    iterations: int = 2,
    modulate: bool = True,
    device: Any = "auto",
    num_threads: int | None = None,
) -> EpiToT1:
    """Correct the distortion of a b0 image with a T1 image of the same head.

    In each iteration the T1 image is aligned rigidly to the b0 image, as far as it is
    corrected, and its intensities are replaced by those that the b0 image typically has
    where the T1 image has this intensity.  The b0 image is then registered to this
    image by `DeepRegistration` with `phase_encoding` and `modulate`.

    Two images of opposite encodings determine the field more accurately, see
    `deep_epi_correction`.

    Parameters
    ----------
    b0 : array, nibabel image, str or Path
        The distorted image, 3D.
    t1 : array, nibabel image, str or Path
        A T1 image of the same head, on any grid, preferably without skull.
    affine, t1_affine : array, shape (4, 4), optional
        Voxels to world, mm, of `b0` and `t1`; required for arrays.  By default the
        affines in the files.
    phase_encoding : {"i", "i-", "j", "j-", "k", "k-"}, optional
        Axis and direction of phase encoding of `b0`, as in BIDS.
    prealign : array, shape (4, 4), optional
        T1 world to b0 world; by default it is found by a rigid registration, for which
        the heads must not be turned by more than about 30 degrees to each other.  With
        ``iterations=1`` it is used unchanged.
    t1_mask : array, nibabel image, str or Path, optional
        Brain mask of the T1 image; only its voxels are compared.  By default, the
        voxels that are not 0, if many are 0.
    iterations : int, optional
        Number of times that the rigid alignment and the field are estimated.
    modulate : bool, optional
        Whether the density of the signal is restored before the images are compared; it
        always is in the result.  This makes the field more accurate at 2 to 3 mm, and
        less accurate for images that were interpolated to smaller voxels (see the
        experiment ``tools/experiments/epi.py``).
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    result : EpiToT1
        The corrected image, the field, the map and the rigid alignment.

    Raises
    ------
    ValueError
        If an image or an option cannot be used, `t1` is constant within its mask, or
        does not overlap the signal of `b0`.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    deep_epi_correction : from two images of opposite encodings, more accurate.
    apply_epi_correction : corrects the other volumes of the series.
    EpiToT1 : what is returned.

    Notes
    -----
    An error of the rigid alignment along the axis of phase encoding becomes part of the
    field, because the corrected image is aligned with the T1 image.

    Examples
    --------
    >>> from dipy_dl_reg import deep_epi_to_t1
    >>> result = deep_epi_to_t1("b0.nii.gz", "t1_brain.nii.gz")  # doctest: +SKIP

    A drawn b0 image that is displaced by one voxel along its second axis:

    >>> import numpy as np
    >>> x, y, z = np.mgrid[-1:1:20j, -1:1:20j, -1:1:20j]
    >>> radius = np.sqrt(x**2 + 1.5 * y**2 + 2 * z**2)
    >>> t1 = np.where(radius < 0.8, 2 + np.cos(8 * radius), 0)
    >>> b0 = np.roll(np.where(radius < 0.8, 2 - np.cos(8 * radius), 0), 1, axis=1)
    >>> result = deep_epi_to_t1(
    ...     b0,
    ...     t1,
    ...     affine=np.eye(4),
    ...     t1_affine=np.eye(4),
    ...     prealign=np.eye(4),
    ...     iterations=1,
    ... )
    >>> undistorted = np.roll(b0, -1, axis=1)
    >>> before, after = abs(b0 - undistorted), abs(result.corrected - undistorted)
    >>> bool(after.mean() < 0.7 * before.mean())
    True
    """
    image = _read_volume("b0", b0, "affine", affine)
    image = image._replace(values=check_signal(image.values, "b0"))
    structural = _check_t1(_read_volume("t1", t1, "t1_affine", t1_affine, t1_mask))
    grid = image.grid
    axis, sign = check_phase_encoding(phase_encoding, grid.dim)
    iterations = check_whole_number("iterations", iterations, low=1)
    if prealign is not None:
        prealign = check_affine(prealign, grid.dim, "prealign")
    registration = DeepRegistration(
        "CC",
        phase_encoding=phase_encoding,
        modulate=modulate,
        sigma_field=_SIGMA_FIELD,
        device=device,
    )
    corrected, threads = image.values, {"num_threads": num_threads}
    machine = threads | {"device": device}
    if prealign is None:
        prealign = _align(corrected, image, structural, None, **machine)
    aligned: np.ndarray = prealign
    for iteration in range(iterations):
        if iteration:
            aligned = _align(corrected, image, structural, aligned, **machine)
        seen, mask = _sample_t1(structural, aligned, grid)
        mapping = registration.optimize(
            static=_match_t1(seen, corrected, mask),
            moving=image.values,
            static_grid2world=grid.affine,
            moving_grid2world=grid.affine,
            static_mask=mask,
            **threads,
        )
        corrected = apply_epi_correction(mapping, image.values)
        logger.info(f"Distortion and rigid alignment: iteration {iteration + 1}")
    shift = displacement_to_voxels(mapping.backward, grid.affine)[..., axis]
    field = (sign * shift).astype(np.float32)
    return EpiToT1(
        corrected=corrected,
        field=field,
        field_mm=field * np.float32(grid.spacing[axis]),
        mapping=mapping,
        t1_to_b0=aligned,
        t1=seen,
        verdict=registration.verdict,
    )


def _read_volume(
    name: str, image: Any, affine_name: str, affine: Any, mask: Any = None
) -> _Image:
    """Read a volume, and check its grid."""
    values, matrix, mask = read_input_image(image, affine, mask, name=name)
    if values.ndim != 3:
        raise ValueError(f"{name} must be 3D, got shape {values.shape}.")
    if matrix is None:
        raise ValueError(f"{affine_name} is required if {name} is an array.")
    return _Image(
        values, Grid(values.shape, check_affine(matrix, 3, affine_name)), mask
    )


def _check_t1(structural: _Image) -> _Image:
    """Check that the T1 image has contrast within its mask; make this mask boolean."""
    values, mask = structural.values, structural.mask
    inside = np.isfinite(values)
    if mask is not None:
        if np.shape(mask) != values.shape:
            raise wrong_value(
                "t1_mask", f"of the shape of t1, {values.shape}", np.shape(mask)
            )
        mask = np.nan_to_num(np.ma.filled(mask, 0)) != 0
        inside &= mask
        if not inside.any():
            raise ValueError(
                "t1_mask must have voxels other than 0 where t1 has values, got "
                f"{mask.sum()} voxels other than 0."
            )
    seen = values[inside]
    if not len(seen) or seen.min() == seen.max():
        place = "" if mask is None else " within t1_mask"
        got = f"only {seen[0]:g}" if len(seen) else "only missing values"
        raise ValueError(f"t1 must have different values{place}, got {got}.")
    return structural._replace(mask=mask)


def _align(
    corrected: np.ndarray,
    image: _Image,
    structural: _Image,
    start: np.ndarray | None,
    *,
    device: Any,
    num_threads: int | None,
) -> np.ndarray:
    """Align the T1 image rigidly: T1 world to b0 world.

    Without a start, the scanner's coordinates and the centres of mass are tried.  A
    thin slab may not determine the alignment; then the start is kept.
    """
    tried = [["rigid"]] + ([["center_of_mass", "rigid"]] if start is None else [])
    results = [
        find_affine(
            corrected,
            structural.values,
            moving_affine=image.grid.affine,
            static_affine=structural.grid.affine,
            static_mask=structural.mask,
            pipeline=steps,
            starting_affine=start,
            starts="one",
            device=device,
            num_threads=num_threads,
        )
        for steps in tried
    ]
    best = min(results, key=lambda result: result.value or 0.0)
    if best.verdict is None or best.verdict.grade != "failed":
        return best.matrix
    origin = "the scanner's coordinates" if start is None else "its start"
    logger.warning(
        f"The rigid registration of t1 failed ({best.verdict}): {origin} will be used "
        "instead. If the images are not aligned by it, give a better prealign."
    )
    return np.eye(4) if start is None else start


def _sample_t1(
    structural: _Image, prealign: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray | None]:
    """The T1 image on the b0 image's grid, and the mask of its voxels to compare."""
    values = np.nan_to_num(structural.values.astype(np.float32))
    mask = structural.mask
    if mask is None and np.mean(values == 0) > _MANY_ZEROS:
        mask = values != 0
    if mask is not None:
        values = np.where(mask, values, 0)
    matrix = structural.grid.inverse @ np.linalg.inv(prealign) @ grid.affine
    sizes = np.linalg.norm(matrix[:3, :3], axis=1)  # of b0's voxels, in T1's voxels
    sigmas = _SIGMA_FACTOR * np.maximum(sizes - 1, 0)

    def sample(volume: np.ndarray) -> np.ndarray:
        smoothed = gaussian_filter(volume.astype(np.float32), sigmas)
        return affine_transform(
            smoothed, matrix, output_shape=grid.shape, order=1, mode="constant"
        )

    if mask is None:
        return sample(values), None
    cover = sample(np.asarray(mask) != 0)
    inside = cover > 0.5
    # Without the zeros outside of the mask, which smoothing mixed in.
    return np.where(inside, sample(values) / np.maximum(cover, 0.5), 0), inside


def _match_t1(
    seen: np.ndarray, corrected: np.ndarray, mask: np.ndarray | None
) -> np.ndarray:
    """The sampled T1 image in the contrast of the b0 image; check that they overlap."""
    inside = np.ones(seen.shape, dtype=bool) if mask is None else mask
    if inside.any():
        matched = match_contrast(seen, corrected, inside)
        if matched[inside].min() < matched[inside].max():
            return matched
    raise ValueError(
        "t1 must overlap the signal of b0 after the rigid alignment: check affine, "
        "t1_affine, prealign and t1_mask."
    )


def match_contrast(
    image: np.ndarray, target: np.ndarray, mask: np.ndarray | None
) -> np.ndarray:
    """Replace the intensities of an image by those that another typically has there.

    Parameters
    ----------
    image : ndarray
        Such as a T1 image.
    target : ndarray, same shape
        An image of another contrast that is roughly aligned, such as a b0 image.
    mask : ndarray of bool, or None
        Voxels that are used.

    Returns
    -------
    matched : ndarray of float32
        A piecewise linear function of `image`: the median of `target` in each of 32
        ranges of intensity with equal numbers of voxels; 0 outside of the mask.
    """
    inside = np.ones(image.shape, dtype=bool) if mask is None else mask
    values, wanted = image[inside], target[inside]
    order = np.argsort(values, kind="stable")
    groups = [g for g in np.array_split(order, _BINS) if len(g)]
    places = np.array([np.median(values[g]) for g in groups])
    medians = np.array([np.median(wanted[g]) for g in groups])
    places, first = np.unique(places, return_index=True)
    matched = np.interp(image, places, medians[first])
    return np.where(inside, matched, 0).astype(np.float32)
