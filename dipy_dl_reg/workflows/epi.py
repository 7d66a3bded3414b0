"""The command `dipy_epi_deep`: corrects the distortion of echo-planar images.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`).
"""

from __future__ import annotations

from dipy_dl_reg.maps.formats.table import whole_map_suffixes
from dipy_dl_reg.workflows.base import (
    NIFTI,
    PathLike,
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.exit_codes import usage_errors

#: Suffixes of the outputs, by parameter.
SUFFIXES = {
    "out_corrected": NIFTI,
    "out_dwi": NIFTI,
    "out_field": NIFTI,
    "out_mapping": whole_map_suffixes(),
    "out_rigid": (".txt",),
    "out_report": (".html",),
}


class EpiDeepFlow(StrictWorkflow):
    """`dipy_epi_deep`: correct the distortion of echo-planar images."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "epi_deep".
        """
        return "epi_deep"

    def run(
        self,
        b0_files: PathLike,
        opposite: PathLike | None = None,
        t1: PathLike | None = None,
        phase_encoding: str = "j",
        dwi: PathLike | None = None,
        t1_mask: PathLike | None = None,
        prealign: PathLike | None = None,
        iterations: int | None = None,
        still: bool = False,
        device: str = "auto",
        num_threads: int | None = None,
        report: bool = False,
        out_dir: PathLike = "",
        out_corrected: str = "corrected.nii.gz",
        out_dwi: str = "dwi_corrected.nii.gz",
        out_field: str = "field.nii.gz",
        out_mapping: str = "mapping.npz",
        out_rigid: str = "rigid.txt",
        out_report: str = "report.html",
    ) -> None:
        r"""Correct the distortion of echo-planar images along the phase encoding.

        Give either --opposite, a b0 image with the opposite direction of phase
        encoding, or --t1, a T1 image of the same head. The outputs are the corrected b0
        image, the field, the map and, with --dwi, the whole series: each volume is
        interpolated once, and its intensity is multiplied by the Jacobian determinant.
        Either all files are written, or none.

        Parameters
        ----------
        b0_files : string or Path
            The distorted image: one b0 volume.
        opposite : string or Path, optional
            A b0 volume of the opposite direction of phase encoding, on the same grid.
        t1 : string or Path, optional
            A T1 image of the same head, on any grid, preferably without skull.
        phase_encoding : string, optional
            Axis and direction of phase encoding of the first image, as in BIDS: i, j or
            k for the first, second or third axis of its array, with - behind it for the
            reverse. In the shell, give -- before an argument that begins with -.
        dwi : string or Path, optional
            Series of volumes of the same acquisition as the first image, on its grid,
            corrected for motion.
        t1_mask : string or Path, optional
            Brain mask of the T1 image; only its voxels are compared.
        prealign : string or Path, optional
            Text file of a 4x4 matrix from T1 world to b0 world; by default it is found
            by a rigid registration.
        iterations : int, optional
            With --t1, how often rigid alignment and field are estimated, by default 2;
            with --opposite, the largest number of steps at each resolution, by default
            10.
        still : boolean, optional
            With --opposite: the head did not move between the two images.
        device : string, optional
            auto, cpu, cuda or mps.
        num_threads : int, optional
            Threads on the CPU; by default all.
        report : boolean, optional
            Write a report: a page with slices before and after the correction, beside
            the corrected opposite image or the T1 image.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_corrected : string, optional
            The corrected b0 image; with --opposite, the mean of both.
        out_dwi : string, optional
            The corrected series, if --dwi is given.
        out_field : string, optional
            Distance in voxels by which the first image is displaced in its direction of
            phase encoding. Divided by the total readout time in seconds it is, up to
            the sign, the inhomogeneity of the field in Hz.
        out_mapping : string, optional
            The map from the undistorted image to the first one, for load_mapping and
            for dipy_apply_deep, which does not multiply by the Jacobian determinant:
            give a series as --dwi instead.
        out_rigid : string, optional
            Text file of a matrix: with --t1, T1 world to the world of the corrected
            image; with --opposite, the motion from the world of the first image to that
            of the second.
        out_report : string, optional
            The report, if --report is given.

        Examples
        --------
        From two b0 images of opposite phase encoding, and the series of the first::

            dipy_epi_deep b0_ap.nii.gz --opposite b0_pa.nii.gz \
                --phase_encoding=j- --dwi dwi.nii.gz --out_dir out

        Without such a pair, from the T1 image of the same head::

            dipy_epi_deep b0_ap.nii.gz --t1 t1.nii.gz --t1_mask t1_mask.nii.gz \
                --phase_encoding=j- --out_dir out

        The same with a rigid alignment that is known, and a report::

            dipy_epi_deep b0_ap.nii.gz --t1 t1.nii.gz --prealign t1_to_b0.txt \
                --phase_encoding=j- --report --out_dir checked
        """
        from dipy_dl_reg.workflows.epi_files import EpiFiles, correct_epi_files

        names = {
            "out_corrected": out_corrected,
            "out_field": out_field,
            "out_mapping": out_mapping,
            "out_rigid": out_rigid,
        }
        if dwi is not None:
            names["out_dwi"] = out_dwi
        if report:
            from dipy_dl_reg.maps.html.rendering import check_packages

            names["out_report"] = out_report
            check_packages(out_report)
        files = EpiFiles(b0_files, opposite, t1, dwi, t1_mask, prealign)
        with usage_errors():
            outputs = {n: check_suffix(v, SUFFIXES[n], n) for n, v in names.items()}
            files.check_options(still=still)
        files.check()
        others = [opposite, t1, dwi, t1_mask, prealign]
        rows = self.plan([b0_files], out_dir, outputs, others=others)
        if len(rows) != 1:
            raise ValueError(f"b0_files must be one image, got {len(rows)}")
        ((inputs, targets),) = rows
        summary = correct_epi_files(
            files._replace(b0=inputs[0]),
            targets,
            overwrite=self._force_overwrite,
            phase_encoding=phase_encoding,
            iterations=iterations,
            still=still,
            device=device,
            num_threads=num_threads,
        )
        log_result(summary)


def epi_deep() -> None:
    """Run the command `dipy_epi_deep`."""
    run_command(EpiDeepFlow())


if __name__ == "__main__":
    epi_deep()
