"""The command `dipy_segment_deep`: structures and brain masks of images.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipy_dl_reg.workflows.base import (
    NIFTI,
    PathLike,
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.exit_codes import UsageError, usage_errors

if TYPE_CHECKING:
    import numpy as np

#: What the command can write, with the parameter of the file's name.
OUTPUTS = {"labels": "out_labels", "mask": "out_mask"}


class SegmentDeepFlow(StrictWorkflow):
    """`dipy_segment_deep`: segment heads and brains, and mask the brain."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "segment_deep".
        """
        return "segment_deep"

    def run(
        self,
        input_files: PathLike,
        write: str = "both",
        no_fluid: bool = False,
        threshold: float | None = None,
        device: str = "auto",
        num_threads: int | None = None,
        skip_existing: bool = False,
        out_dir: PathLike = "",
        out_labels: str = "labels.nii.gz",
        out_mask: str = "brain_mask.nii.gz",
    ) -> None:
        r"""Segment heads and brains of any contrast, and mask the brain.

        A small network finds 32 structures of the brain, bone and soft tissue at 2 mm:
        in T1, T2, FLAIR, b0, FA, MD and other contrasts, with or without skull.

        Parameters
        ----------
        input_files : string or Path
            3D images; a pattern in quotes stands for several.
        write : string, optional
            What is written: labels, mask or both.
        no_fluid : boolean, optional
            Exclude the cerebrospinal fluid around the brain from the mask.
        threshold : float, optional
            Probability above which a voxel belongs to the brain mask, between 0 and 1;
            the default gives masks like those of usual programs.
        device : string, optional
            auto, cpu, cuda or mps.
        num_threads : int, optional
            Threads on the CPU; by default all.
        skip_existing : boolean, optional
            Leave out images of which all outputs exist.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_labels : string, optional
            The structures on the grid of the image, in FreeSurfer's numbering, and 0
            for air, 165 for bone, 258 for soft tissue.
        out_mask : string, optional
            The brain mask on the grid of the image.

        Examples
        --------
        The brain mask of an image::

            dipy_segment_deep t1.nii.gz --write mask --out_dir out

        Structures of all images of a folder, with names after those of the images::

            dipy_segment_deep "images/*.nii.gz" --write labels --mix_names \
                --out_dir out

        A mask that ends at the brain, without the fluid around it::

            dipy_segment_deep b0_ap.nii.gz --write mask --no_fluid --out_dir tight
        """
        from dipy_dl_reg.io.images import open_volume
        from dipy_dl_reg.registration.structures import (
            check_threshold,
            segment_anatomy,
        )

        with usage_errors():
            outputs = _name_outputs(write, out_labels, out_mask)
            options: dict[str, Any] = {"fluid": not no_fluid}
            if threshold is not None:
                options["threshold"] = check_threshold(threshold)
        rows = self.plan([input_files], out_dir, outputs, skip_existing=skip_existing)
        images = [open_volume(given[0], "input_files") for given, _ in rows]
        for image, (_, targets) in zip(images, rows):
            found = segment_anatomy(image, device=device, num_threads=num_threads)
            data = {"out_labels": found.labels}
            if "out_mask" in targets:
                data["out_mask"] = found.brain_mask(**options).astype("uint8")
            _write_images(image, data, targets, overwrite=self._force_overwrite)
            log_result(f"Saved {', '.join(map(str, targets.values()))}")


def _name_outputs(write: str, labels: str, mask: str) -> dict[str, str]:
    """Names of the files to be written, by parameter."""
    if write not in (*OUTPUTS, "both"):
        raise UsageError(f"write must be labels, mask or both, got {write!r}")
    names = {"out_labels": labels, "out_mask": mask}
    return {
        parameter: check_suffix(names[parameter], NIFTI, parameter)
        for what, parameter in OUTPUTS.items()
        if write in (what, "both")
    }


def _write_images(
    reference: Any,
    data: dict[str, np.ndarray],
    targets: dict[str, Path],
    *,
    overwrite: bool,
) -> None:
    """Write arrays on the grid of an image, all or none."""
    import nibabel as nib

    from dipy_dl_reg.io.atomic_files import write_all_or_none
    from dipy_dl_reg.io.images import make_nifti

    with write_all_or_none(list(targets.values()), overwrite=overwrite) as temporary:
        for name, file in zip(targets, temporary):
            nib.save(make_nifti(reference, data[name]), file)


def segment_deep() -> None:
    """Run the command `dipy_segment_deep`."""
    run_command(SegmentDeepFlow())


if __name__ == "__main__":
    segment_deep()
