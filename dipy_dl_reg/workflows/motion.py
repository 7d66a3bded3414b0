"""The command `dipy_motion_deep`: corrects diffusion series for motion.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipy_dl_reg.workflows.base import (
    NIFTI,
    PathLike,
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.exit_codes import usage_errors

#: Suffixes of the outputs that are no images.
_SUFFIXES = {
    "out_affine": (".txt",),
    "out_bvecs": (".bvec", ".bvecs", ".txt"),
    "out_bvals": (".bval", ".bvals", ".txt"),
    "out_motion": (".tsv",),
    "out_plot": (".png", ".pdf", ".svg"),
}


class MotionDeepFlow(StrictWorkflow):
    """`dipy_motion_deep`: correct diffusion series for motion between volumes."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "motion_deep".
        """
        return "motion_deep"

    def run(
        self,
        input_files: PathLike,
        bvalues_files: PathLike,
        bvectors_files: PathLike,
        b0_threshold: float = 50.0,
        bvecs_tol: float = 0.01,
        frame: str | None = None,
        b0_ref: int = 0,
        static_mask: PathLike | None = None,
        pipeline: Sequence[str] | None = None,
        level_iters: Sequence[int] | int | None = None,
        iterations: int = 2,
        interpolation: str = "linear",
        device: str = "auto",
        num_threads: int | None = None,
        report: bool = False,
        plot: bool = False,
        skip_existing: bool = False,
        out_dir: PathLike = "",
        out_moved: str = "moved.nii.gz",
        out_affine: str = "affine.txt",
        out_bvecs: str = "moved.bvec",
        out_bvals: str = "moved.bval",
        out_motion: str = "motion.tsv",
        out_plot: str = "motion.png",
    ) -> None:
        r"""Correct diffusion series for motion between their volumes.

        Each volume is registered to the signal that the other volumes of its shell
        predict for it, and interpolated once. The b-vectors are rotated with the
        volumes: use the new file with the corrected series; the b-values stay as they
        are.

        Parameters
        ----------
        input_files : string or Path
            The series, a 4D image, or a pattern in quotes for several: add --mix_names
            then.
        bvalues_files : string or Path
            The b-values of each series, or of all.
        bvectors_files : string or Path
            The b-vectors of each series, or of all.
        b0_threshold : float, optional
            b-value up to which a volume is a b0 volume.
        bvecs_tol : float, optional
            Largest difference between the length of a b-vector and 1.
        frame : string, optional
            The axes of the b-vectors: fsl (those of the voxel array, with the first
            reversed if the affine has a positive determinant; FSL's files, the
            default), voxel (not reversed) or world (MRtrix3).
        b0_ref : int, optional
            Which of the b0 volumes, from 0, does not move.
        static_mask : string or Path, optional
            Mask of that volume: only its voxels are compared.
        pipeline : variable string, optional
            Steps of the registration of each volume; by default rigid, as a head moves.
            rigid affine also follows the linear part of eddy-current distortions, but
            may rescale all volumes of a b-value by 1 to 2 %.
        level_iters : variable int, optional
            Largest number of evaluations of the metric at each level, coarsest first.
        iterations : int, optional
            How often all volumes are predicted from each other, and registered to their
            predictions.
        interpolation : string, optional
            linear, or cubic (splines), which blurs less.
        device : string, optional
            cpu, cuda or mps; auto is the fastest that is available.
        num_threads : int, optional
            Number of volumes that are worked on at the same time; by default all
            processors.
        report : boolean, optional
            Draw the motion.
        plot : boolean, optional
            The former name of report, which still works.
        skip_existing : boolean, optional
            Skip series whose outputs all exist.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_moved : string, optional
            The corrected series.
        out_affine : string, optional
            Text file with the matrix of each volume, four lines each, from the world of
            the corrected series to that of the volume, mm.
        out_bvecs : string, optional
            The rotated b-vectors, in FSL's layout of three rows.
        out_bvals : string, optional
            The b-values, unchanged, beside the series for other commands.
        out_motion : string, optional
            Table of translations, rotations and displacements.
        out_plot : string, optional
            The picture, if --report is given.

        Examples
        --------
        One series, with a picture of the motion::

            dipy_motion_deep dwi.nii.gz dwi.bval dwi.bvec --report --out_dir out

        Sharper, with a brain mask, and the linear part of eddy currents, too::

            dipy_motion_deep dwi.nii.gz dwi.bval dwi.bvec --static_mask mask.nii.gz \
                --pipeline rigid affine --interpolation cubic --out_dir out

        Several series with one gradient table, each under its own name::

            dipy_motion_deep "runs/*.nii.gz" dwi.bval dwi.bvec --mix_names \
                --out_dir out
        """
        from dipy_dl_reg.diffusion.motion_options import MotionOptions
        from dipy_dl_reg.workflows.motion_files import check_motion_files, correct_files

        levels = [level_iters] if isinstance(level_iters, int) else level_iters
        with usage_errors():
            options = MotionOptions(
                pipeline=pipeline,
                level_iters=levels,
                iterations=iterations,
                frame=frame,
                interpolation=interpolation,
                device=device,
                num_threads=num_threads,
            )
        outputs = _name_outputs(
            out_moved=out_moved,
            out_affine=out_affine,
            out_bvecs=out_bvecs,
            out_bvals=out_bvals,
            out_motion=out_motion,
            out_plot=out_plot if report or plot else None,
        )
        rows = self.plan(
            [input_files, bvalues_files, bvectors_files],
            out_dir,
            outputs,
            others=[static_mask],
            skip_existing=skip_existing,
        )
        tables = [
            check_motion_files(*inputs, b0_threshold=b0_threshold, atol=bvecs_tol)
            for inputs, _ in rows
        ]
        for (inputs, files), table in zip(rows, tables, strict=True):
            summary = correct_files(
                inputs[0],
                table,
                files,
                options=options,
                overwrite=self._force_overwrite,
                b0_ref=b0_ref,
                static_mask=static_mask,
            )
            log_result(summary)


@usage_errors()
def _name_outputs(**names: str | None) -> dict[str, str]:
    """Check the suffixes of the requested outputs; return their names by parameter."""
    if names["out_plot"] is not None:
        from dipy_dl_reg.maps.figure import load_matplotlib

        load_matplotlib()
    suffixes: dict[str, Any] = {"out_moved": NIFTI} | _SUFFIXES
    return {
        parameter: check_suffix(name, suffixes[parameter], parameter)
        for parameter, name in names.items()
        if name is not None
    }


def motion_deep() -> None:
    """Run the command `dipy_motion_deep`."""
    run_command(MotionDeepFlow())


if __name__ == "__main__":
    motion_deep()
