r"""Correction of the distortion of echo-planar images.

An inhomogeneity of the magnetic field displaces the signal of an echo-planar image
along its axis of phase encoding, and compresses or stretches it.  With :math:`x` a
point without distortion and :math:`y = x + b(x)` the point where the image :math:`I`
shows it, the intensity without distortion is

.. math:: I(x + b(x)) \, \det(1 + \partial b / \partial x)

`deep_epi_correction` finds :math:`b` from two images of opposite encodings, and
`apply_epi_correction` applies the formula to any image of the same acquisition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.epi_checks import check_signal, log_difference
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.input_image import read_input_image
from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.maps.dipy_map import check_mapping, displacement_to_voxels
from dipy_dl_reg.optimization.epi import Weights, estimate_shift, make_fields
from dipy_dl_reg.optimization.epi_images import make_epi_pair
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.registration.dipy_adapter import make_map
from dipy_dl_reg.validation import (
    check_affine,
    check_number,
    check_phase_encoding,
    check_whole_number,
)

#: Weight of the penalty that prevents folds.
_FOLD_WEIGHT = 0.01
#: The coarsest level has voxels of about this size, mm.
_COARSEST = 8.0
#: Part of the displacements that may lie off one line, by rounding.
_OFF_LINE = 1e-3


class EpiCorrection(NamedTuple):
    """Result of `deep_epi_correction`; all images are on the grid of the first.

    Attributes
    ----------
    corrected : ndarray, shape of the images
        Mean of the two corrected images, the second on the scale of the first.
    first, second : ndarray, shape of the images
        Each image without distortion, with its own intensities; the motion between the
        acquisitions is removed from the second.
    field : ndarray, shape of the images
        Distance, in voxels, by which the first image is displaced in its direction of
        phase encoding: for "j", positive values mean that it shows a point at a higher
        index; for "j-", at a lower index.  The second image is displaced the opposite
        way.  Divided by the total readout time in seconds it is, up to the scanner's
        convention of the sign, the inhomogeneity of the field in Hz.
    field_mm : ndarray, shape of the images
        The same distance in mm.
    first_mapping, second_mapping : DiffeomorphicMap
        Maps from the undistorted grid (static) to the first and to the second image
        (moving); ``second_mapping.prealign_inv`` is the motion.  ``transform`` applies
        them without modulation, `apply_epi_correction` with it.
    motion : ndarray, shape (dim + 1, dim + 1)
        Rigid motion of the head: world of the first image to world of the second.
    gain : float
        Factor from the second image's intensities to those of the first.
    """

    corrected: np.ndarray
    first: np.ndarray
    second: np.ndarray
    field: np.ndarray
    field_mm: np.ndarray
    first_mapping: DiffeomorphicMap
    second_mapping: DiffeomorphicMap
    motion: np.ndarray
    gain: float


class _Grids(NamedTuple):
    """The grids of a map, for `make_map`."""

    static_grid: Grid
    moving_grid: Grid


def deep_epi_correction(
    first: Any,
    second: Any,
    *,
    affine: np.ndarray | None = None,
    phase_encoding: str = "j",
    motion: bool = True,
    smoothness: float = 0.03,
    levels: int | None = None,
    iterations: int = 10,
    device: Any = "auto",
    num_threads: int | None = None,
) -> EpiCorrection:
    r"""Correct two echo-planar images of opposite directions of phase encoding.

    Both images are corrected halfway, by the shift :math:`s` and by its negative, in
    the space without distortion between them
    :footcite:p:`Andersson2003,Ruthotto2012`: the squared difference of

    .. math::

        I_1(x + s e) \, (1 + \partial s) \quad \text{and} \quad
        I_2(R x - s e) \, (1 - \partial s)

    is minimized, with the squared gradient of :math:`s` as a penalty, from coarse to
    fine.  The rigid motion :math:`R` of the head between the acquisitions is estimated
    at the same time.  Neither map folds, so that signal that was compressed into a
    single voxel cannot be restored.

    Parameters
    ----------
    first, second : array, nibabel image, str or Path
        Two images of the same contrast, such as b0 volumes, 3D or 2D, on one grid.
        NaN is taken as no signal.
    affine : array, shape (dim + 1, dim + 1), optional
        Voxels to world, mm, of both images; required for arrays.  By default the affine
        in the file.
    phase_encoding : {"i", "i-", "j", "j-", "k", "k-"}, optional
        Axis and direction of phase encoding of `first`, as in BIDS; that of `second` is
        the opposite.
    motion : bool, optional
        Whether the head may have moved between the two images.  A translation along the
        axis of phase encoding cannot be distinguished from a constant shift: it becomes
        part of the field, and the corrected images are displaced by half of it.
    smoothness : float, optional
        Weight of the squared gradient of the shift, for images whose mean intensity is
        1.
    levels : int, optional
        Number of resolutions; by default the coarsest voxels are of about 8 mm.
    iterations : int, optional
        Maximum number of Gauss-Newton steps at each resolution.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    correction : EpiCorrection
        The corrected images, the field, and two maps.

    Raises
    ------
    ValueError
        If an image or an option cannot be used, or the grids of the images differ.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    apply_epi_correction : corrects the other volumes of the series.
    deep_epi_to_t1 : without a second image, from a T1 image.
    EpiCorrection : what is returned.

    Notes
    -----
    ``correction.second_mapping.prealign_inv`` is the motion of the head; ``prealign``
    of a map is the inverse.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import deep_epi_correction
    >>> i, j = np.mgrid[:24, :32]
    >>> def image(shift):
    ...     return np.exp(-(((i - 12) / 8.0) ** 2) - ((j - 16 - shift) / 8.0) ** 2)
    >>> correction = deep_epi_correction(
    ...     image(1), image(-1), affine=np.eye(3), phase_encoding="j"
    ... )
    >>> float(correction.field[12, 16].round(1))
    1.0
    """
    images, grid = _read_pair(first, second, affine)
    axis, sign = check_phase_encoding(phase_encoding, grid.dim)
    if grid.shape[axis] == 1:
        raise ValueError(
            f"phase_encoding is {phase_encoding!r}, but the images have one voxel "
            f"along this axis: their shape is {grid.shape}."
        )
    weights = Weights(check_number("smoothness", smoothness, above=True), _FOLD_WEIGHT)
    iterations = check_whole_number("iterations", iterations, low=1)
    levels = _count_levels(grid) if levels is None else levels
    levels = check_whole_number("levels", levels, low=1)
    with threads(num_threads):
        pair, gain = make_epi_pair(
            images[0], images[1], grid, axis, device=find_device(device)
        )
        distortion = estimate_shift(
            pair,
            levels=levels,
            iterations=iterations,
            weights=weights,
            estimates_motion=motion,
        )
        distortion, fields, quality = make_fields(pair, distortion)
    shift = distortion.shift[0, 0].cpu().numpy()
    logger.info(
        f"Shift along {phase_encoding!r}: at most {abs(shift).max():.1f} voxels; "
        f"smallest Jacobian determinant {quality.minimum_jacobian:.2f}."
    )
    maps = [
        make_map(
            u,
            v,
            _Grids(grid, grid),
            static_grid2world=grid.affine,
            moving_grid2world=grid.affine,
            prealign=prealign,
        )
        for (u, v), prealign in zip(fields, (None, distortion.motion))
    ]
    corrected = [apply_epi_correction(m, i) for m, i in zip(maps, images)]
    log_difference(images, corrected, gain)
    return EpiCorrection(
        corrected=(corrected[0] + np.float32(gain) * corrected[1]) / 2,
        first=corrected[0],
        second=corrected[1],
        field=sign * shift,
        field_mm=sign * shift * np.float32(grid.spacing[axis]),
        first_mapping=maps[0],
        second_mapping=maps[1],
        motion=distortion.motion,
        gain=gain,
    )


def _read_pair(
    first: Any, second: Any, affine: np.ndarray | None
) -> tuple[list[np.ndarray], Grid]:
    """Read two images on one grid, and check them."""
    images, affines = [], []
    for name, image in (("first", first), ("second", second)):
        read = read_input_image(image, affine, name=name)
        if read.grid2world is None:
            raise ValueError(f"affine is required if {name} is an array.")
        images.append(check_signal(read.values, name))
        affines.append(read.grid2world)
    (one, other), dim = affines, images[0].ndim
    if images[0].shape != images[1].shape or not np.allclose(one, other, atol=1e-3):
        raise ValueError(
            "first and second must be on one grid, got shapes "
            f"{images[0].shape} and {images[1].shape}, and affines {one.tolist()} and "
            f"{other.tolist()}."
        )
    return images, Grid(images[0].shape, check_affine(one, dim, "affine"))


def _count_levels(grid: Grid) -> int:
    """Number of levels whose coarsest voxels are of about 8 mm."""
    finest = min(s for s, n in zip(grid.spacing, grid.shape) if n > 1)
    levels = 1
    while finest * 2**levels <= 1.3 * _COARSEST:
        levels += 1
    return levels


def apply_epi_correction(
    mapping: DiffeomorphicMap,
    image: Any,
    *,
    modulate: bool = True,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "linear",
) -> np.ndarray:
    r"""Apply the map of a distortion to an image, and restore its density of signal.

    .. math::

        corrected(x) = image(P (x + b(x))) \, \det(1 + \partial b / \partial x)

    Parameters
    ----------
    mapping : DiffeomorphicMap
        Map from the undistorted image (static) to the distorted one (moving), of
        `deep_epi_correction`, `deep_epi_to_t1` or
        ``DeepRegistration(phase_encoding=...)``.
    image : array, nibabel image, str or Path
        An image of the distorted acquisition, or a series along the last axis; each
        value is interpolated once.
    modulate : bool, optional
        Whether to multiply by the determinant.  Give False for maps of a quantity, such
        as FA, and for labels.
    image_grid2world, out_shape, out_grid2world, interpolation
        As in `apply_mapping`.

    Returns
    -------
    corrected : ndarray
        On static's grid, or the given one.

    Raises
    ------
    ValueError
        If the image does not fit the map, or, with `modulate`, displacements do not lie
        on one line, or the grid of the result is not that of the map's field.

    See Also
    --------
    deep_epi_correction, deep_epi_to_t1 : find the map.
    apply_mapping : without the determinant.

    Notes
    -----
    :math:`P` is the prealign (``mapping.prealign_inv``), and :math:`b` the displacement
    in mm along the axis of phase encoding.  The determinant restores the signal
    :footcite:p:`Andersson2003`: where the distortion compresses two voxels into one,
    this voxel is too bright by a factor of 2.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import apply_epi_correction, deep_epi_correction
    >>> i, j = np.mgrid[:24, :32]
    >>> def image(shift):
    ...     return np.exp(-(((i - 12) / 8.0) ** 2) - ((j - 16 - shift) / 8.0) ** 2)
    >>> correction = deep_epi_correction(
    ...     image(1), image(-1), affine=np.eye(3), phase_encoding="j", iterations=5
    ... )
    >>> corrected = apply_epi_correction(correction.first_mapping, image(1))
    >>> bool(abs(corrected - image(0)).mean() < 0.2 * abs(image(1) - image(0)).mean())
    True
    """
    if modulate:
        _check_grid_of_field(mapping, out_shape, out_grid2world)
    warped = apply_mapping(
        mapping,
        image,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        interpolation=interpolation,
    )
    if not modulate:
        return warped
    factor = modulation_factor(mapping)
    return warped * (factor if warped.ndim == factor.ndim else factor[..., None])


def _check_grid_of_field(mapping: Any, shape: Any, grid2world: Any) -> None:
    """Check that the result lies on the grid of the field."""
    check_mapping(mapping)
    own = tuple(int(n) for n in mapping.disp_shape)
    other = shape is not None and tuple(shape) != own
    if grid2world is not None and not other:
        other = not np.allclose(grid2world, mapping.disp_grid2world, atol=1e-4)
    if other:
        raise ValueError(
            "modulate=True requires the grid of the map's field: omit out_shape and "
            "out_grid2world, or give modulate=False."
        )


def modulation_factor(mapping: DiffeomorphicMap) -> np.ndarray:
    r"""Compute the factor by which a distortion compresses the signal.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        Map whose displacements lie on one line.

    Returns
    -------
    factor : ndarray of float32, shape of the field's grid
        :math:`\det(1 + \partial b / \partial x) = 1 + \nabla \cdot b`, by central
        differences; the prealign is not included.

    Raises
    ------
    ValueError
        If the displacements do not lie on one line.
    """
    check_mapping(mapping)
    field = displacement_to_voxels(mapping.backward, mapping.disp_grid2world)
    _check_line(field)
    axes = [axis for axis in range(mapping.dim) if field.shape[axis] > 1]
    slopes = (np.gradient(field[..., axis], axis=axis) for axis in axes)
    return (1 + sum(slopes)).astype(np.float32)


def _check_line(field: np.ndarray) -> None:
    """Check that the vectors of a field lie on one line."""
    vectors = field.reshape(-1, field.shape[-1])
    lengths = np.linalg.eigvalsh(vectors.T @ vectors)
    if lengths[-2] > _OFF_LINE**2 * lengths[-1]:
        raise ValueError(
            "mapping must have displacements on one line, as the distortion of an "
            "echo-planar image; use modulate=False or apply_mapping for other maps."
        )
