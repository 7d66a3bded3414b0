"""The command `dipy_apply_deep`: transforms images by a map that is read from a file.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dipy.utils.logging import logger

from dipy_dl_reg.maps.formats.table import describe_formats
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.workflows.base import (
    NIFTI,
    PathLike,
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)


class ApplyDeepFlow(StrictWorkflow):
    """`dipy_apply_deep`: transform image files by a map."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "apply_deep".
        """
        return "apply_deep"

    @fill_docstring(formats=describe_formats())
    def run(
        self,
        mapping_file: PathLike,
        image_files: PathLike | Sequence[PathLike],
        reference: PathLike | None = None,
        interpolation: str = "auto",
        inverse: bool = False,
        prealign: PathLike | None = None,
        skip_existing: bool = False,
        out_dir: PathLike = "",
        out_file: str = "transformed.nii.gz",
    ) -> None:
        """Transform images by the map of a registration.

        The images lie in moving's world, on any grid: other images of that subject,
        labels, and series, volume by volume (gradients, vectors and tensors of
        diffusion data are not reoriented). With --inverse they lie in static's world.
        A map of slices transforms slices.

        Parameters
        ----------
        mapping_file : string or Path
            The map, such as mapping.npz of dipy_align_deep: a file in {formats}.
        image_files : variable string or Path
            The image or images. For several, add --mix_names, which gives each its own
            output name.
        reference : string or Path, optional
            Image whose grid the output has; by default static's, with --inverse
            moving's. A map of slices does not hold the position of their plane: the
            output lies in the plane of the image, or of this reference.
        interpolation : string, optional
            linear, or nearest for labels, which keeps their type. auto is nearest for
            files that declare labels (NIfTI intent 1002) and linear for others, with a
            warning if they look like labels.
        inverse : boolean, optional
            Transform from static to moving.
        prealign : string or Path, optional
            Text file of the prealign of the registration. It is needed for a map in a
            format that does not contain the prealign, such as DIPY's.
        skip_existing : boolean, optional
            Skip images whose output exists.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_file : string, optional
            The transformed image.
        """
        from dipy_dl_reg.io.atomic_files import write_all_or_none
        from dipy_dl_reg.maps.interpolation import INTERPOLATIONS
        from dipy_dl_reg.workflows.transform_files import (
            check_image_file,
            open_reference,
            read_map,
            transform_file,
        )

        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be auto, linear or nearest, got {interpolation}"
            )
        outputs = {"out_file": check_suffix(out_file, NIFTI, "out_file")}
        rows = self.plan(
            [mapping_file, image_files],
            out_dir,
            outputs,
            others=[reference, prealign],
            skip_existing=skip_existing,
        )
        grid = open_reference(reference)
        maps = {
            path: read_map(path, prealign=prealign, reference=grid, inverse=inverse)
            for path in dict.fromkeys(inputs[0] for inputs, _ in rows)
        }
        for (mapping, image), _ in rows:
            check_image_file(image, maps[mapping].dim)
        for (mapping, image), files in rows:
            path, overwrite = files["out_file"], self._force_overwrite
            with write_all_or_none([path], overwrite=overwrite) as (target,):
                logger.info(f"Transforming {image} by {mapping}")
                transform_file(
                    maps[mapping],
                    image,
                    target,
                    reference=grid,
                    interpolation=interpolation,
                    inverse=inverse,
                )
            log_result(f"Saved {path}")


def apply_deep() -> None:
    """Run the command `dipy_apply_deep`."""
    run_command(ApplyDeepFlow())
