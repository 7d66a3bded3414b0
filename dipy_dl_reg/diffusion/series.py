"""Correction of series of volumes for motion: DIPY's calls, with this package's affine.

Start reading at `deep_register_dwi_series`: the motion is estimated
(`motion_estimation.estimate_motion`), and each volume, as it was measured, is
interpolated once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
import numbers
import os
from typing import Any

from dipy.testing.decorators import warning_for_keywords
from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.diffusion.frames import choose_frame
from dipy_dl_reg.diffusion.gradient_tables import (
    GradientTableLike,
    check_gradient_table,
    frame_of_table,
)
from dipy_dl_reg.diffusion.motion_estimation import estimate_motion
from dipy_dl_reg.diffusion.motion_log import log_gradient_table
from dipy_dl_reg.diffusion.motion_options import MotionOptions
from dipy_dl_reg.diffusion.motion_registration import (
    map_in_order,
    open_workers,
    resample_volume,
)
from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.io.images import ImageLike
from dipy_dl_reg.io.input_image import InputImage, read_input_image
from dipy_dl_reg.io.masks import read_mask
from dipy_dl_reg.io.series_files import (
    VolumeSeries,
    open_series,
    series_header,
    unpack_series,
    write_series,
)
from dipy_dl_reg.maps.interpolation import interpolate_linearly
from dipy_dl_reg.options import takes_options
from dipy_dl_reg.progress import track
from dipy_dl_reg.registration.affine.call import find_affine
from dipy_dl_reg.validation import check_affine, check_whole_number, wrong_value


@warning_for_keywords()
@takes_options(MotionOptions)
def deep_motion_correction(
    data: ImageLike,
    gtab: GradientTableLike,
    affine: np.ndarray | None = None,
    *,
    b0_ref: int = 0,
    static_mask: ImageLike | None = None,
    out_file: str | os.PathLike | None = None,
    overwrite: bool = False,
    options: MotionOptions,
) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Correct a diffusion series for motion between its volumes.

    The call and what it returns are those of `dipy.align.motion_correction`.  The
    b-vectors must be rotated too: `rotate_gradients` takes the affines.

    Parameters
    ----------
    data : array, nibabel image, str or Path
        The series, of shape (X, Y, Z, N).  Files are read volume by volume.
    gtab : GradientTable or pair (bvals, bvecs)
        Its gradient table, with at least one b0 volume; b-values and b-vectors may be
        files.
    affine : ndarray, shape (4, 4), optional
        Voxels to world.  Required for an array; by default the affine in the file.
    b0_ref : int, optional
        Which of the b0 volumes, from 0, does not move: its space is that of the result.
    static_mask : array, nibabel image, str or Path, optional
        Voxels of that volume that are compared.
    out_file : str or Path, optional
        File (``.nii`` or ``.nii.gz``) to which the corrected series is written volume
        by volume; the image returned then reads from it.  By default the series is
        kept in memory.
    overwrite : bool, optional
        Replace `out_file` if it exists.
    options : MotionOptions
        The options.

    Returns
    -------
    corrected : nibabel.Nifti1Image
        The corrected series on the grid of `data`, float32; 0 where a volume was not
        measured.
    affines : ndarray, shape (4, 4, N)
        Matrix of each volume, from the world of the corrected series to that of the
        volume as it was measured, mm.  The identity for the reference volume.

    Raises
    ------
    ValueError
        If the series, the table, the mask or an option cannot be used.
    OSError
        If a file is missing, or `out_file` exists or cannot be written.

    See Also
    --------
    rotate_gradients : the gradient table of the corrected series
    measure_motion : translations, rotations and framewise displacement
    plot_motion : a figure of the motion

    Notes
    -----
    A volume is registered to an image of its own contrast: its signal as the other
    volumes of its shell predict it, with the b-vectors rotated.
    After a first alignment of all volumes to b0, this is done `iterations` times; the
    mean of each shell is registered to the mean b0.  A shell of one volume has no
    others: it is registered to the mean of the shell with the nearest b-value.  All
    matrices are combined, and each volume is interpolated once
    :footcite:p:`Andersson2016`.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import deep_motion_correction, measure_motion, rotate_gradients
    >>> x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:24j]
    >>> ball = np.exp(-4 * (x**2 + 2 * y**2 + 3 * z**2))
    >>> data = np.stack([ball, np.roll(ball, 2, axis=0)], axis=-1)
    >>> table = np.array([0, 1000]), np.array([[0, 0, 0], [0, 0, 1]])
    >>> corrected, affines = deep_motion_correction(data, table, np.eye(4))
    >>> motion = measure_motion(affines, data.shape, np.eye(4))
    >>> bool(np.allclose(motion.translations[1], [2, 0, 0], atol=0.1))
    True
    >>> gtab = rotate_gradients(table, affines, grid2world=corrected.affine)
    """
    return deep_register_dwi_series(
        data,
        gtab,
        affine=affine,
        b0_ref=b0_ref,
        static_mask=static_mask,
        out_file=out_file,
        overwrite=overwrite,
        options=options,
    )


@warning_for_keywords()
@takes_options(MotionOptions)
def deep_register_dwi_series(
    data: ImageLike,
    gtab: GradientTableLike,
    *,
    affine: np.ndarray | None = None,
    b0_ref: int = 0,
    static_mask: ImageLike | None = None,
    out_file: str | os.PathLike | None = None,
    overwrite: bool = False,
    options: MotionOptions,
) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Register the volumes of a diffusion series to one of its b0 volumes.

    The call and what it returns are those of `dipy.align.register_dwi_series`;
    `deep_motion_correction` is the same under another name.

    Parameters
    ----------
    data, gtab, affine, b0_ref, static_mask
        As in `deep_motion_correction`.
    out_file, overwrite
        As in `deep_motion_correction`.
    options : MotionOptions
        The options.

    Returns
    -------
    corrected : nibabel.Nifti1Image
        The corrected series on the grid of `data`, float32.
    affines : ndarray, shape (4, 4, N)
        Matrix of each volume, from the world of the corrected series to that of the
        volume as it was measured, mm.

    Raises
    ------
    ValueError
        If the series, the table, the mask or an option cannot be used.
    OSError
        If a file is missing, or `out_file` exists or cannot be written.

    See Also
    --------
    deep_motion_correction : the same under another name; describes the method.
    rotate_gradients : the gradient table of the corrected series.
    deep_register_series : for a series without a gradient table.
    dipy.align.register_dwi_series : the function that this one replaces.

    Examples
    --------
    >>> from dipy_dl_reg import deep_register_dwi_series
    >>> corrected, affines = deep_register_dwi_series(
    ...     "dwi.nii.gz", ("dwi.bval", "dwi.bvec")
    ... )  # doctest: +SKIP

    A series of a b0 volume alone, which does not move:

    >>> import numpy as np
    >>> x, y, z = np.mgrid[-1:1:16j, -1:1:16j, -1:1:16j]
    >>> data = np.exp(-4 * (x**2 + 2 * y**2 + 3 * z**2))[..., None]
    >>> table = np.array([0]), np.array([[0, 0, 0]])
    >>> corrected, affines = deep_register_dwi_series(data, table, affine=np.eye(4))
    >>> affines.shape, bool((affines[..., 0] == np.eye(4)).all())
    ((4, 4, 1), True)
    """
    series = open_series(data, affine)
    table = check_gradient_table(gtab, series.volume_count)
    b0_ref = _check_b0_ref(b0_ref, int(table.b0s_mask.sum()))
    mask = _read_static_mask(static_mask, series)
    default = frame_of_table(gtab)
    frame = choose_frame(options.frame, series.grid2world, default=default)
    options = replace(options, frame=frame)
    log_gradient_table(series, table, b0_ref, frame)
    folder = None if out_file is None else _check_out_file(out_file, overwrite)
    with (
        unpack_series(series, folder) as series,
        open_workers(options.num_threads) as workers,
    ):
        affines = estimate_motion(series, table, b0_ref, mask, options, workers)
        logger.info("Motion correction: interpolation of all volumes")
        resample = partial(_resample, series, affines, options.interpolation)
        count = series.volume_count
        volumes = track(
            map_in_order(workers, resample, range(count)),
            "Interpolation",
            count,
            unit="volume",
        )
        if out_file is None:
            return _collect(volumes, series), affines
        with write_atomically(out_file, overwrite=overwrite) as path:
            write_series(path, volumes, series)
    return nib.load(out_file), affines


def _check_out_file(path: str | os.PathLike, overwrite: bool) -> str:
    """Check the name of the output file, and that it can be written; its folder."""
    if not str(path).lower().endswith((".nii", ".nii.gz")):
        raise wrong_value("out_file", "a name ending in .nii or .nii.gz", str(path))
    check_writable(path, overwrite=overwrite)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"the folder of {path} does not exist")
    return folder


def _check_b0_ref(b0_ref: int, count: int) -> int:
    """Check the number of the reference volume among the b0 volumes."""
    checked = check_whole_number("b0_ref", b0_ref)
    if checked >= count:
        raise wrong_value("b0_ref", f"below the number of b0 volumes, {count}", b0_ref)
    return checked


def _read_static_mask(
    static_mask: ImageLike | None, series: VolumeSeries
) -> np.ndarray | None:
    """Read the mask of the reference volume."""
    if static_mask is None:
        return None
    grid = np.broadcast_to(np.float32(0), series.shape)
    mask = read_mask(
        static_mask, grid, series.shape, series.grid2world, name="static_mask"
    )
    if mask is None or mask.shape != series.shape:
        got = None if mask is None else mask.shape
        raise wrong_value("static_mask", f"of shape {series.shape}", got)
    mask = np.nan_to_num(np.ma.filled(mask, 0)) != 0
    if not mask.any():
        raise ValueError("static_mask must have voxels other than 0")
    return mask


def _resample(
    series: VolumeSeries, affines: np.ndarray, interpolation: str, k: int
) -> np.ndarray:
    """Read a volume and interpolate it on the grid of the corrected series."""
    return resample_volume(
        series.read(k), affines[..., k], series.grid2world, interpolation
    )


def _collect(volumes: Any, series: VolumeSeries) -> nib.Nifti1Image:
    """Make an image in memory of the volumes."""
    corrected = np.empty((*series.shape, series.volume_count), dtype=np.float32)
    for k, volume in enumerate(volumes):
        corrected[..., k] = volume
    header = series_header(series)
    return nib.Nifti1Image(corrected, series.grid2world, header)


@warning_for_keywords()
def deep_register_series(
    series: ImageLike,
    ref: int | ImageLike,
    *,
    pipeline: Sequence[str | Callable] | None = None,
    series_affine: np.ndarray | None = None,
    ref_affine: np.ndarray | None = None,
    static_mask: ImageLike | None = None,
    level_iters: Sequence[int] | None = None,
    optimizer_options: dict[str, Any] | None = None,
    num_threads: int | None = None,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Register each volume of a series to one image.

    The call and what it returns are those of `dipy.align.register_series`.

    Parameters
    ----------
    series : array, nibabel image, str or Path
        The series, of shape (X, Y, Z, N).
    ref : int, array, nibabel image, str or Path
        The number of a volume of the series, or an image.
    pipeline : sequence of str or callable, optional
        Steps, as in `deep_affine_registration`; by default centre of mass,
        translation, rigid, affine.
    series_affine, ref_affine : ndarray, shape (4, 4), optional
        Voxels to world.  Required for arrays; by default the affines in the files.
        `ref_affine` is only for an image, not for the number of a volume.
    static_mask : array, nibabel image, str or Path, optional
        Voxels of the reference that are compared.
    level_iters : sequence of int, optional
        As in `deep_affine_registration`.
    optimizer_options : dict, optional
        Accepted without effect.
    num_threads : int, optional
        Number of volumes that are registered at the same time; None and -1 take all
        processors.
    **options : dict
        Other options of `deep_affine_registration`.  ``starts`` is "one" here: volumes
        of a series do not differ by large rotations.

    Returns
    -------
    xformed : ndarray of float32, shape (X, Y, Z, N)
        The volumes on the grid of the reference; 0 where a volume was not measured.
        The reference volume is unchanged.
    affines : ndarray, shape (4, 4, N)
        Matrix of each volume, from the world of the reference to that of the volume.

    Raises
    ------
    ValueError
        If the series, the reference or an option cannot be used.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    deep_motion_correction : for a diffusion series, whose volumes differ in contrast.
    deep_affine_registration : registers one volume.
    dipy.align.register_series : the function that this one replaces.

    Notes
    -----
    All volumes are compared with the same image.  In a diffusion series, whose volumes
    show different contrasts, `deep_motion_correction` is more accurate.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import deep_register_series
    >>> x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:24j]
    >>> ball = np.exp(-4 * (x**2 + 2 * y**2 + 3 * z**2))
    >>> series = np.stack([ball, np.roll(ball, 2, axis=0)], axis=-1)
    >>> xformed, affines = deep_register_series(
    ...     series, 0, pipeline=["rigid"], series_affine=np.eye(4)
    ... )
    >>> bool(abs(affines[0, 3, 1] - 2) < 0.1)
    True
    """
    call = {"pipeline": pipeline, "level_iters": level_iters, "starts": "one"}
    call |= {"optimizer_options": optimizer_options} | options
    opened = open_series(
        series, series_affine, name="series", affine_name="series_affine"
    )
    fixed = None
    if isinstance(ref, numbers.Integral):
        if ref_affine is not None:
            raise ValueError("ref_affine must be None if ref is a volume's number")
        fixed = _check_reference(int(ref), opened.volume_count)
        ref, ref_affine = opened.read(fixed), opened.grid2world
    image = read_input_image(ref, ref_affine, static_mask, name="ref")
    if image.values.ndim != 3:
        raise wrong_value("ref", "one volume, or its number", image.values.shape)
    if image.grid2world is None:
        raise ValueError("ref_affine is required if ref is an array.")
    check_affine(image.grid2world, 3, "ref_affine")
    with unpack_series(opened) as opened, open_workers(num_threads) as workers:
        register = partial(_register_one, opened, image, fixed, call)
        results = list(map_in_order(workers, register, range(opened.volume_count)))
    volumes, matrices = zip(*results)
    xformed = np.stack(volumes, axis=-1).astype(np.float32, copy=False)
    return xformed, np.stack(matrices, axis=-1)


def _register_one(
    series: VolumeSeries,
    image: InputImage,
    fixed: int | None,
    call: dict[str, Any],
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Register one volume of a series to an image; the reference stays as it is."""
    volume = series.read(k)
    if k == fixed:
        return volume, np.eye(4)
    found = find_affine(
        volume,
        image.values,
        moving_affine=series.grid2world,
        static_affine=image.grid2world,
        static_mask=image.mask,
        **call,
    )
    resampled = interpolate_linearly(found.affine_map.transform, volume)
    return np.nan_to_num(resampled, copy=False), found.matrix


def _check_reference(ref: int, count: int) -> int:
    """Check the number of a reference volume; negative ones count from the end."""
    if not -count <= ref < count:
        raise wrong_value("ref", f"a volume from 0 to {count - 1}", ref)
    return ref % count
