"""The command `dipy_align_deep`: registers image files with `DeepRegistration`.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dipy_dl_reg.maps.formats.table import whole_map_suffixes
from dipy_dl_reg.metrics.registry import describe_metrics
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.registration.deformable_options import DeformableOptions
from dipy_dl_reg.workflows.base import (
    NIFTI,
    PathLike,
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.exit_codes import usage_errors
from dipy_dl_reg.workflows.help_texts import describe_options, list_meanings

#: Suffixes of the outputs, by parameter; the prealign may have any suffix.
SUFFIXES = {
    "out_warped": NIFTI,
    "out_inv_static": NIFTI,
    "out_field": NIFTI,
    "out_mapping": whole_map_suffixes(),
    "out_prealign": ("",),
    "out_uncertainty": NIFTI,
    "out_report": (".html", ".png", ".pdf", ".svg", ".jpg"),
}


class AlignDeepFlow(StrictWorkflow):
    """`dipy_align_deep`: register files with `DeepRegistration`."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "align_deep".
        """
        return "align_deep"

    @fill_docstring(
        metrics=list_meanings(describe_metrics()), **describe_options(DeformableOptions)
    )
    def run(
        self,
        static_image_files: PathLike | Sequence[PathLike],
        moving_image_files: PathLike | Sequence[PathLike],
        prealign: PathLike | None = None,
        affine: bool = False,
        pipeline: Sequence[str] | None = None,
        metric: str = "auto",
        level_iters: Sequence[int] | int | None = None,
        model: str | None = "auto",
        anatomy: str = "auto",
        static_channels: Sequence[PathLike] | None = None,
        moving_channels: Sequence[PathLike] | None = None,
        channel_metrics: Sequence[str] | None = None,
        channel_weights: Sequence[float] | None = None,
        static_mask: PathLike | None = None,
        moving_mask: PathLike | None = None,
        static_landmarks: PathLike | None = None,
        moving_landmarks: PathLike | None = None,
        landmark_weight: float = 1.0,
        initialization: str | None = None,
        device: str = "auto",
        max_memory: str | None = None,
        num_threads: int | None = None,
        report: bool = False,
        same_subject: bool = False,
        skip_existing: bool = False,
        out_dir: PathLike = "",
        out_warped: str = "warped_moved.nii.gz",
        out_inv_static: str | None = None,
        out_field: str | None = None,
        out_mapping: str = "mapping.npz",
        out_prealign: str = "prealign.txt",
        out_uncertainty: str | None = None,
        out_report: str = "report.html",
    ) -> None:
        r"""Register images deformably.

        The images are two volumes, or two slices in 2D: files of shape (X, Y) or
        (X, Y, 1). Static is given first. The outputs are moving on static's grid, the
        map, which dipy_apply_deep reads, and the prealign; on request also static on
        moving's grid, the displacement field in DIPY's format, and a picture. Either
        all files of a pair are written, or none.

        Parameters
        ----------
        static_image_files : string or Path
            The static image: one 3D volume, or one slice. Several (a pattern or a
            folder) are paired with as many moving images.
        moving_image_files : variable string or Path
            The moving image or images. For several, add --mix_names, which gives each
            its own output names.
        prealign : string or Path, optional
            Text file of a 4x4 matrix (3x3 for slices) from static world to moving
            world, as dipy_align_affine writes it, or an affine of ITK and ANTs (.mat,
            .tfm), FSL (.mat) or FreeSurfer (.lta). A pipeline starts from it.
        affine : boolean, optional
            Find the prealign first, by mutual information: centre of mass with a search
            over rotations, translation, rigid, affine.
        pipeline : variable string, optional
            Steps, in order: some of center_of_mass, translation, rigid,
            rigid_isoscaling, rigid_scaling and affine, then deform. Without deform the
            map holds no displacement. The default is deform alone, or with --affine its
            steps and deform.
        metric : string, optional
            How the images are compared: auto, which chooses for the pair, {metrics}.
        level_iters : variable int, optional
            Iterations at each level, the coarsest first. 0 writes the network's field
            unrefined; if that field is not used, this is an error.
        model : string, optional
            Network whose field refinement starts from: a file that dipy_train_deep
            wrote, the name of a network of the package (such as voxelmorph-t1), or
            None. auto is the package's network for images of any contrast.
        anatomy : string, optional
            Whether maps of anatomical structures, predicted from each image, are used:
            auto, if the images have opposite contrasts, such as b0 and T1; yes, as
            further channels for all contrasts; or no.
        static_channels : variable string or Path, optional
            Further images of static, such as FA besides T1, on any grid of its world.
            They are compared with the moving_channels, in the same order; one map is
            found for all. For one pair of images only.
        moving_channels : variable string or Path, optional
            Further images of moving, such as FA besides b0; as many as of static. The
            affine steps use the first image of each side only. Of moving, only the
            first image is written; dipy_apply_deep transforms the others.
        channel_metrics : variable string, optional
            A metric for each image of a side, the first included; by default that of
            --metric for all.
        channel_weights : variable float, optional
            A weight for each image of a side, the first included; only their ratios
            matter. By default they are estimated: images that agree more weigh more.
        static_mask : string or Path, optional
            Mask of static: an image on static's grid with values above 0 inside.
        moving_mask : string or Path, optional
            Mask of moving: an image on moving's grid with values above 0 inside.
        static_landmarks : string or Path, optional
            Text file (such as CSV) of points in static whose counterparts in moving
            are known, one a line: x, y, z in mm in the image's world (RAS for NIfTI).
            At least 4, not in one plane. Registration starts from them. For slices the
            two coordinates in the plane, at least 3 points, not on one line.
        moving_landmarks : string or Path, optional
            The corresponding points in moving's world, in the same order.
        landmark_weight : float, optional
            {landmark_weight}
        initialization : string, optional
            {initialization}
        device : string, optional
            auto, cpu, cuda or mps. {device}
        max_memory : string, optional
            {max_memory}
        num_threads : int, optional
            Threads on the CPU; by default all.
        report : boolean, optional
            Write a report: a page with slices before and after, the deformation, the
            measures with their limits, and how the map was computed.
        same_subject : boolean, optional
            For --out_uncertainty: both images show the same person.
        skip_existing : boolean, optional
            Skip pairs whose outputs all exist. If only some exist, this is an error
            unless --force is given.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_warped : string, optional
            Moving on static's grid: the registered image.
        out_inv_static : string, optional
            Static on moving's grid, by the inverse; written only if a name is given.
            dipy_apply_deep --inverse writes the same image from the map.
        out_field : string, optional
            Both displacement fields in DIPY's format, for programs that read it: a
            large file, for volumes only, written only if a name is given. It does not
            hold the prealign: a program also needs out_prealign.
        out_mapping : string, optional
            The whole map, prealign included, for dipy_apply_deep and load_mapping.
        out_prealign : string, optional
            The prealign that was used; the identity if there was no prealign. The
            suffix decides on the format: .mat or .tfm is a transform of ITK and ANTs,
            .fsl.mat a matrix of FSL, .lta a transform of FreeSurfer, any other suffix
            text: a matrix from static world to moving world.
        out_uncertainty : string, optional
            The expected error of the map at each voxel of static, mm; only if a name
            is given. The pair is registered once more for it, with the same options.
        out_report : string, optional
            The report, if --report is given: a page that ends in .html, or one picture
            (.png, .pdf, .svg or .jpg).

        Examples
        --------
        A subject to a template, from its raw position, with a picture of the result::

            dipy_align_deep template.nii.gz t1.nii.gz --affine --report --out_dir out

        By two contrasts, T1 and FA, which are registered by one map::

            dipy_align_deep template.nii.gz t1.nii.gz --affine --out_dir out \
                --static_channels template_fa.nii.gz --moving_channels fa.nii.gz

        All subjects of a folder; the same command continues after an interruption::

            dipy_align_deep template.nii.gz "subjects/*.nii.gz" --affine --mix_names \
                --skip_existing --quiet --log_file log.txt --out_dir out
        """
        from dipy_dl_reg.workflows.align_options import (
            check_channels,
            check_pairs,
            choose_steps,
            make_registration,
            read_options,
        )
        from dipy_dl_reg.workflows.prealign_files import (
            check_out_prealign,
            read_prealigns,
        )
        from dipy_dl_reg.workflows.register_files import register_files
        from dipy_dl_reg.workflows.uncertainty_options import uncertainty_options

        steps, deforms = choose_steps(prealign, affine, pipeline)
        outputs = _name_outputs(
            out_warped=out_warped,
            out_mapping=out_mapping,
            out_prealign=out_prealign,
            out_inv_static=out_inv_static,
            out_field=out_field,
            out_uncertainty=out_uncertainty,
            out_report=out_report if report else None,
        )
        given = {"metric": metric, "device": device, "max_memory": max_memory}
        landmark_files = static_landmarks, moving_landmarks
        options = read_options(
            anatomy,
            landmark_files,
            landmark_weight,
            model=model,
            level_iters=level_iters,
            initialization=initialization,
        )
        channels = check_channels(
            static_channels, moving_channels, channel_metrics, channel_weights
        )
        uncertainty = {}
        if out_uncertainty is not None:
            repeated = given | (options if deforms else {})
            uncertainty = uncertainty_options(repeated, channels[0], same_subject)
        registration = make_registration(
            given,
            options,
            deforms,
            channel_metrics=channel_metrics,
            channel_weights=channel_weights,
            channels=len(channels[0]),
            verbose=self.log_options.verbose,
        )
        masks = {"static_mask": static_mask, "moving_mask": moving_mask}
        others = [prealign, *masks.values(), *landmark_files]
        rows = self.plan(
            [static_image_files, moving_image_files],
            out_dir,
            outputs,
            others=[*others, *channels[0], *channels[1]],
            skip_existing=skip_existing,
        )
        pairs = [inputs for inputs, _ in rows]
        dims = check_pairs(pairs, masks, options.get("landmarks"), out_field, channels)
        check_out_prealign(out_prealign, dims)
        prealigns = read_prealigns(prealign, dims, pairs)
        for (static, moving), files in rows:
            summary = register_files(
                static,
                moving,
                files,
                registration=registration,
                masks=masks,
                steps=steps,
                prealigns=prealigns,
                num_threads=num_threads,
                overwrite=self._force_overwrite,
                channels=channels,
                uncertainty=uncertainty,
            )
            log_result(summary)


@usage_errors()
def _name_outputs(**names: str | None) -> dict[str, str]:
    """Check the suffixes of the requested outputs; return their names by parameter."""
    if names["out_report"] is not None:
        from dipy_dl_reg.maps.html.rendering import check_packages

        check_packages(names["out_report"])
    return {
        parameter: check_suffix(name, SUFFIXES[parameter], parameter)
        for parameter, name in names.items()
        if name is not None
    }


def align_deep() -> None:
    """Run the command `dipy_align_deep`."""
    run_command(AlignDeepFlow())


if __name__ == "__main__":
    align_deep()
