"""Corrects one diffusion series in files for motion, and writes all results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dipy.core.gradients import GradientTable
from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.diffusion.frames import choose_frame
from dipy_dl_reg.diffusion.gradient_tables import check_gradient_table, rotate_gradients
from dipy_dl_reg.diffusion.motion_options import MotionOptions
from dipy_dl_reg.diffusion.motion_plot import plot_motion
from dipy_dl_reg.diffusion.motion_table import (
    Motion,
    measure_motion,
    write_motion_table,
)
from dipy_dl_reg.diffusion.series import deep_motion_correction
from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.io.series_files import open_series


def check_motion_files(
    series: Path, bvals: Path, bvecs: Path, *, b0_threshold: float, atol: float
) -> GradientTable:
    """Check the header of a series, and read its gradient table.

    Parameters
    ----------
    series, bvals, bvecs : Path
        The files.
    b0_threshold, atol : float
        As in `check_gradient_table`.

    Returns
    -------
    gtab : GradientTable
        The table.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the series is not 4D, or the table does not describe it.
    """
    count = open_series(series, name=str(series)).volume_count
    return check_gradient_table(
        (bvals, bvecs), count, name=str(bvecs), b0_threshold=b0_threshold, atol=atol
    )


def correct_files(
    path: Path,
    gtab: GradientTable,
    files: dict[str, Path],
    *,
    options: MotionOptions,
    overwrite: bool,
    **given: Any,
) -> str:
    """Correct a series in a file for motion, and write all results.

    Parameters
    ----------
    path : Path
        The series.
    gtab : GradientTable
        Its gradient table.
    files : dict
        Paths of the outputs, by parameter of the command.
    options : MotionOptions
        The options.
    overwrite : bool
        Replace outputs that exist.
    **given : dict
        Other arguments of `deep_motion_correction`.

    Returns
    -------
    summary : str
        The result in one line.
    """
    logger.info(f"Correcting {path} for motion")
    frame = choose_frame(options.frame, default="fsl")
    options = replace(options, frame=frame)
    with write_all_or_none(list(files.values()), overwrite=overwrite) as temporaries:
        targets = dict(zip(files, temporaries, strict=True))
        corrected, affines = deep_motion_correction(
            path,
            gtab,
            out_file=targets["out_moved"],
            overwrite=True,
            options=options,
            **given,
        )
        motion = _write_results(targets, corrected, affines, gtab, frame)
        if "out_plot" in targets:
            plot_motion(
                targets["out_plot"],
                motion,
                bvals=gtab.bvals,
                title=str(path),
                overwrite=True,
            )
    displacement = np.nanmean(np.append(motion.framewise_displacement, 0)[1:])
    return (
        f"Saved {files['out_moved']}: mean framewise displacement "
        f"{displacement:.2f} mm, at most {motion.rms.max():.2f} mm from the reference"
    )


def _write_results(
    targets: dict[str, Path],
    corrected: nib.Nifti1Image,
    affines: np.ndarray,
    gtab: GradientTable,
    frame: str,
) -> Motion:
    """Write matrices, b-vectors and the table of the motion."""
    grid = corrected.affine
    with open(targets["out_affine"], "w") as file:
        for k in range(affines.shape[2]):
            np.savetxt(file, affines[..., k], fmt="%.8f", header=f"volume {k}")
    rotated = rotate_gradients(gtab, affines, grid2world=grid, frame=frame)
    np.savetxt(targets["out_bvecs"], rotated.bvecs.T, fmt="%.8f")
    np.savetxt(targets["out_bvals"], gtab.bvals[None], fmt="%g")
    motion = measure_motion(affines, corrected.shape, grid)
    write_motion_table(targets["out_motion"], motion, bvals=gtab.bvals, overwrite=True)
    return motion
