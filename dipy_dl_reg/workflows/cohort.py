"""The command `dipy_cohort_deep`: registers the subjects of a cohort to a template.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`).
"""

from __future__ import annotations

from collections.abc import Sequence
import shlex
import sys
from typing import Any

from dipy_dl_reg.metrics.registry import describe_metrics
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.registration.deformable_options import DeformableOptions
from dipy_dl_reg.workflows.base import (
    PathLike,
    StrictWorkflow,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.commands import name_of_command
from dipy_dl_reg.workflows.exit_codes import PartialFailure, usage_errors
from dipy_dl_reg.workflows.help_texts import describe_options, list_meanings


class CohortDeepFlow(StrictWorkflow):
    """`dipy_cohort_deep`: register a cohort with `register_cohort`."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "cohort_deep".
        """
        return "cohort_deep"

    @fill_docstring(
        metrics=list_meanings(describe_metrics()), **describe_options(DeformableOptions)
    )
    def run(
        self,
        subjects: str,
        template_files: PathLike | Sequence[PathLike],
        template_mask: PathLike | None = None,
        space: str | None = None,
        contrasts: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        further: Sequence[str] | None = None,
        pipeline: Sequence[str] | None = None,
        metric: str = "auto",
        level_iters: Sequence[int] | int | None = None,
        model: str | None = "auto",
        initialization: str | None = None,
        tensor_order: str | None = None,
        frame: str | None = None,
        basis: str | None = None,
        method: str | None = None,
        modulate: bool = False,
        engine: str = "serial",
        n_jobs: int = 1,
        address: str | None = None,
        memory: str | None = None,
        num_threads: int | None = None,
        device: str = "auto",
        no_report: bool = False,
        out_dir: PathLike = "cohort",
    ) -> None:
        r"""Register the subjects of a cohort to a template.

        For each subject: its images are registered to the template, affinely by the
        first contrast and then deformably by all; its images, mask, labels, tensors,
        FODs, series and streamlines are transformed; a report and measures are written.
        Outputs have the names of BIDS derivatives. At the end a table (.tsv) and an
        index page list all subjects.

        Repeat the command after an interruption: a subject that is done is not done
        again unless its files or the options have changed, or --force is given. A
        subject that fails is listed with its reason and does not stop the others; the
        exit code is then not 0.

        Parameters
        ----------
        subjects : string
            A folder in BIDS form; a pattern of images in quotation marks, such as
            'images/*_T1w.nii.gz'; or a table (.tsv or .csv). Columns of a table:
            subject; session, if there are several; one for each contrast, by any name;
            mask; and further files in the world of the first image: labels, tractogram,
            dwi with bvals and bvecs, series, tensors, vectors, fods, peaks, image;
            several of a kind as labels_first, labels_second. Paths begin in the folder
            of the table.
        template_files : variable string or Path
            The template: an image, or one for each contrast, in their order. If the
            subjects are stripped of their skulls, so must be the template.
        template_mask : string or Path, optional
            Mask of the template: only voxels above 0 are compared.
        space : string, optional
            Label of the template in the names of outputs; by default from its file
            name.
        contrasts : variable string, optional
            What is registered: suffixes in BIDS, by default T1w; or columns of a table,
            by default all that have no other meaning.
        entities : variable string, optional
            In BIDS form: entities of the images, such as run-1, if there are several.
        further : variable string, optional
            In BIDS form: suffixes of further files to transform, such as dseg dwi. They
            must lie in the world of the images. The default is dseg.
        pipeline : variable string, optional
            Steps, in order: some of center_of_mass, translation, rigid,
            rigid_isoscaling, rigid_scaling and affine, then deform. The default is
            center_of_mass translation rigid affine deform.
        metric : string, optional
            How the images are compared: auto, which chooses for the pair, {metrics}.
        level_iters : variable int, optional
            Iterations at each level, the coarsest first.
        model : string, optional
            Network whose field refinement starts from: a file that dipy_train_deep
            wrote, the name of a network of the package, or None. auto is the package's
            network for images of any contrast.
        initialization : string, optional
            {initialization}
        tensor_order : string, optional
            Order of the six components of tensors: dipy, fsl or mrtrix.
        frame : string, optional
            Axes along which components of directions are given: voxel, fsl or world
            (see dipy_apply_deep).
        basis : string, optional
            Basis of the spherical harmonics of FODs (see dipy_apply_deep).
        method : string, optional
            Reorientation of tensors and diffusion-weighted series: ppd or
            finite_strain.
        modulate : boolean, optional
            Multiply FODs by the change of the bundle's cross-section.
        engine : string, optional
            What runs several processes: serial (one process), joblib, dask or ray.
        n_jobs : int, optional
            Number of processes; -1 is one for each processor.
        address : string, optional
            Address of a dask or ray cluster that runs already; by default processes are
            started on this computer.
        memory : string, optional
            Memory that one process may need, such as 4GB; by default it is estimated
            from the sizes of the images. If the free memory is not enough for all
            processes, fewer are started, with a message.
        num_threads : int, optional
            Threads of each process on the CPU; by default the number of processors
            divided by the number of processes.
        device : string, optional
            auto, cpu, cuda or mps. With auto or cuda each process has a GPU of its own,
            if there are any.
        no_report : boolean, optional
            Write no reports and no index page.
        out_dir : string or Path, optional
            Folder of the outputs. For each subject: its files in the template's space,
            the map (..._xfm.npz) with its affine part, a report, and the measures
            (..._measures.json), by which a repeated call knows what is done. For all:
            the table ..._measures.tsv, the page ..._index.html, the worst first, and
            logs.

        Examples
        --------
        Register all subjects of a dataset in BIDS form, in two processes::

            dipy_cohort_deep study template.nii.gz --engine joblib --n_jobs 2 \
                --out_dir registered

        Register the images and further files that a table names::

            dipy_cohort_deep subjects.tsv template.nii.gz --space MNI

        Register all images that fit a pattern::

            dipy_cohort_deep "subjects/*.nii.gz" template.nii.gz --space MNI \
                --out_dir by_pattern
        """
        from dipy_dl_reg.groupwise.cohort import register_cohort
        from dipy_dl_reg.groupwise.cohort_plan import check_registration
        from dipy_dl_reg.groupwise.parallel import check_engine, count_processes

        with usage_errors():
            check_engine(engine, address)
            count_processes(n_jobs)
            wanted = _split_entities(entities)
            options: dict[str, Any] = {
                "level_iters": level_iters,
                "model": model,
                "initialization": initialization,
            }
            check_registration(pipeline, metric, options)
        file_options = {
            "tensor_order": tensor_order,
            "frame": frame,
            "basis": basis,
            "method": method,
            "modulate": modulate,
        }
        given = {} if further is None else {"further": list(further)}
        result = register_cohort(
            subjects,
            template_files,
            out_dir,
            template_mask=template_mask,
            space=space,
            contrasts=contrasts,
            entities=wanted,
            pipeline=pipeline,
            metric=metric,
            file_options={name: v for name, v in file_options.items() if v},
            report=not no_report,
            repeat=self._force_overwrite,
            engine=engine,
            n_jobs=n_jobs,
            address=address,
            memory=memory,
            num_threads=num_threads,
            device=device,
            call=shlex.join([name_of_command(), *sys.argv[1:]]),
            **options,
            **given,
        )
        _summarise(result)


def _split_entities(entities: Sequence[str] | None) -> dict[str, str]:
    """Split entities such as "run-1"."""
    pairs = [entity.partition("-") for entity in entities or ()]
    for (key, _, value), entity in zip(pairs, entities or ()):
        if not (key and value):
            raise ValueError(f"entities must have the form run-1, got {entity!r}")
    return {key: value for key, _, value in pairs}


def _summarise(result: Any) -> None:
    """Log how many subjects are done; raise if some are not."""
    rows, failed = result.rows, result.failed
    before = sum(row["was_done"] for row in rows)
    text = f"{len(rows) - len(failed)} of {len(rows)} subjects are done"
    text += f", {before} of them before this call" if before else ""
    if not failed:
        log_result(f"{text}; see {result.table}")
        return
    reasons = "; ".join(f"{row['subject']}: {row['reason']}" for row in failed[:3])
    if len(failed) == len(rows):
        raise RuntimeError(f"all {len(rows)} subjects failed: {reasons}")
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    raise PartialFailure(
        f"{text}; {len(failed)} failed: {reasons}{more}; see {result.table}"
    )


def cohort_deep() -> None:
    """Run the command `dipy_cohort_deep`."""
    run_command(CohortDeepFlow())


if __name__ == "__main__":
    cohort_deep()
