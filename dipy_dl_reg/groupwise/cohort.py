"""Registers the subjects of a cohort to a template.

Start reading at `register_cohort`: it finds the subjects, processes them in parallel
(`subject_registration.process_subject`), and writes the table and the index page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

from dipy.utils.logging import logger

from dipy_dl_reg.groupwise.cohort_plan import CohortPlan, make_plan
from dipy_dl_reg.groupwise.find_subjects import find_subjects
from dipy_dl_reg.groupwise.parallel import (
    WorkerLostError,
    check_engine,
    count_processes,
    run_in_parallel,
)
from dipy_dl_reg.groupwise.study_files import write_description, write_table
from dipy_dl_reg.groupwise.study_progress import watch_progress
from dipy_dl_reg.groupwise.subject_folder import HIDDEN, SubjectFolder
from dipy_dl_reg.groupwise.subject_registration import process_subject
from dipy_dl_reg.groupwise.subjects import Subject, describe_subject
from dipy_dl_reg.groupwise.worker_memory import estimate_worker_memory, limit_processes
from dipy_dl_reg.io.atomic_files import check_writable


class CohortResult(NamedTuple):
    """The result of `register_cohort`.

    Attributes
    ----------
    rows : list of dict
        For each subject: ``subject``, ``status`` ("done" or "failed"), ``reason``,
        ``grade``, ``report``, the measures of its registration, and ``was_done``,
        which says whether an earlier call had done it.
    table : Path
        The table of all subjects.
    index_page : Path or None
        The index page of the reports.
    """

    rows: list[dict[str, Any]]
    table: Path
    index_page: Path | None

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The rows of the subjects that failed."""
        return [row for row in self.rows if row["status"] == "failed"]


def register_cohort(
    subjects: str | os.PathLike | Sequence[Mapping[str, Any]],
    template: str | os.PathLike | Sequence[str | os.PathLike],
    out_dir: str | os.PathLike,
    *,
    template_mask: str | os.PathLike | None = None,
    space: str | None = None,
    contrasts: Sequence[str] | None = None,
    entities: Mapping[str, str] | None = None,
    further: Sequence[str] = ("dseg",),
    pipeline: Sequence[str] | None = None,
    metric: Any = "auto",
    file_options: Mapping[str, Any] | None = None,
    report: bool = True,
    repeat: bool = False,
    engine: str = "serial",
    n_jobs: int = 1,
    address: str | None = None,
    num_threads: int | None = None,
    memory: float | str | None = None,
    device: str = "auto",
    call: str | None = None,
    **options: Any,
) -> CohortResult:
    """Register the subjects of a cohort to a template, and transform their files.

    For each subject: its images are registered to the template, affinely by the first
    contrast and then deformably by all; its images, mask, labels, tensors, FODs, series
    and streamlines are transformed; a report and the measures are written.  A subject
    that fails is listed with its reason, and the others are still processed.  The call
    can be repeated: what is done is not done again, as long as the inputs, by their
    checksums, and the options are the same.

    Parameters
    ----------
    subjects : str, Path or sequence of dict
        A folder in BIDS form; a pattern of image files, such as
        ``"images/*_T1w.nii.gz"``; a table (``.tsv`` or ``.csv``), or its rows as
        dictionaries.  The columns of a table are ``subject``; ``session``, if there
        are several; one for each contrast, by any name; ``mask``; further files in the
        world of the first image: ``labels``, ``tractogram``, ``dwi`` with ``bvals`` and
        ``bvecs``, ``series``, ``tensors``, ``vectors``, ``fods``, ``peaks``, ``image``;
        several of a kind as ``labels_first``, ``labels_second``.  Paths begin in the
        folder of the table.
    template : str, Path or sequence of these
        The template's image; for several contrasts, one for each, in their order.  If
        the subjects are stripped of their skulls, so must be the template.
    out_dir : str or Path
        Folder of the outputs, in the form of BIDS derivatives.
    template_mask : str or Path, optional
        Only voxels of the template above 0 in this mask are compared.
    space : str, optional
        Label of the template in the names of outputs; by default from its file name.
    contrasts : sequence of str, optional
        What is registered: suffixes in BIDS, by default "T1w"; or columns of a table,
        by default all that have no other meaning.
    entities : mapping of str, optional
        In BIDS form: entities that the images must have, such as ``{"run": "1"}``.
    further : sequence of str, optional
        In BIDS form: suffixes of further files to transform, in the world of the
        images.
    pipeline : sequence of str, optional
        Steps, as in `deep_registration`; by default centre of mass, translation, rigid,
        affine and deform.
    metric : str, metric or sequence of these, optional
        See `DeepRegistration`.
    file_options : mapping, optional
        What further files do not store: ``tensor_order``, ``frame``, ``basis``,
        ``method``, ``modulate``, as in ``dipy_apply_deep``.
    report : bool, optional
        Write a report for each subject and an index page.
    repeat : bool, optional
        Register subjects again that are done.
    engine : {"serial", "joblib", "dask", "ray"}, optional
        What runs the processes.  ``"serial"`` uses this process alone.
    n_jobs : int, optional
        Number of processes; -1 uses all processors.
    address : str, optional
        Address of a dask or ray cluster that runs already.
    num_threads : int, optional
        Threads of each process on the CPU; by default the number of processors,
        divided by the number of processes.
    memory : float or str, optional
        Memory that one process may need, in bytes or such as "4 GB"; by default it is
        estimated from the sizes of the images.  `n_jobs` is lowered, with a message,
        to what the free memory permits.
    device : str, optional
        ``"auto"`` or ``"cuda"`` gives each process a GPU of its own, if there are any.
    call : str, optional
        The command or call, for the JSON files; by default a description of this call.
    **options : dict
        Options of `DeepRegistration`.

    Returns
    -------
    result : CohortResult
        The rows of all subjects, and the paths of table and index page.

    Raises
    ------
    FileNotFoundError
        If there is no subject or no template.
    ValueError
        If two subjects have the same name, a column is missing, the template is not an
        image, `out_dir` lies within the inputs, or an option cannot be used.
    ImportError
        If the package of an engine or of the report is not installed.

    See Also
    --------
    build_template : makes a template of the subjects first.
    write_study_report : writes the index page.
    deep_registration : registers one pair.

    Notes
    -----
    Results are the same for all engines and numbers of processes.

    A script must call this function below ``if __name__ == "__main__":`` unless the
    engine is "serial".

    Examples
    --------
    Subjects in a folder in BIDS form, in four processes:

    >>> from dipy_dl_reg import register_cohort
    >>> result = register_cohort(
    ...     "bids", "template.nii.gz", "derivatives", engine="joblib", n_jobs=4
    ... )  # doctest: +SKIP

    A file that is missing is reported before anything is computed:

    >>> rows = [{"subject": "01", "T1w": "missing.nii.gz"}]
    >>> register_cohort(rows, "missing_template.nii.gz", "derivatives")
    Traceback (most recent call last):
        ...
    FileNotFoundError: ...
    """
    check_engine(engine, address)
    count = count_processes(n_jobs)
    if report:
        _check_report()
    templates = [template] if isinstance(template, (str, os.PathLike)) else template
    plan = make_plan(
        [Path(os.path.abspath(path)) for path in templates],
        Path(os.path.abspath(out_dir)),
        space=space,
        template_mask=Path(os.path.abspath(template_mask)) if template_mask else None,
        pipeline=pipeline,
        metric=metric,
        options=options,
        file_options=dict(file_options or {}),
        device=device,
        has_report=report,
        call=call or f"register_cohort({subjects!r}, {template!r}, {out_dir!r})",
    )
    found = find_subjects(
        subjects, contrasts=contrasts, entities=entities, further=further
    )
    _check_inputs(found, plan, subjects)
    if not address:
        count = _limit(count, found, plan, memory)
    write_description(plan)
    run = partial(
        run_in_parallel,
        engine=engine,
        n_jobs=count,
        address=address,
        num_threads=num_threads,
    )
    rows: dict[str, dict[str, Any]] = {}
    try:
        with watch_progress(plan.out_dir / HIDDEN / "marks", len(found)) as marks:
            _process(found, plan, run, rows, repeat=repeat, marks=marks)
    finally:  # also if the call is interrupted: what is done until then is listed
        _add_unfinished(rows, found, plan)
        result = _finish([rows[subject.name] for subject in found], plan)
    for row in result.rows:
        _log_row(row)
    return result


def _check_report() -> None:
    """Check that the packages of the report are installed."""
    for package in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"report: the package {package} is missing: pip install "
                "'dipy_dl_reg[report]', or leave out reports (report=False)"
            )


def _check_inputs(subjects: Sequence[Subject], plan: CohortPlan, source: Any) -> None:
    """Check the number of contrasts, and that outputs do not lie within inputs."""
    for subject in subjects:
        count = len(subject.images)
        if not subject.missing and count != len(plan.template):
            raise ValueError(
                f"template must be {count} images, one for each contrast of "
                f"{subject.name}, got {len(plan.template)}"
            )
    check_writable(plan.out_dir / "dataset_description.json", overwrite=True)
    inside = [
        path
        for subject in subjects
        for path in subject.inputs()
        if plan.out_dir in path.parents
    ]
    if inside:
        raise ValueError(f"out_dir: the input {inside[0]} lies in {plan.out_dir}")
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        folder = Path(os.path.abspath(source))
        derivatives = folder / "derivatives"
        parents = plan.out_dir.parents
        if folder in (plan.out_dir, *parents) and derivatives not in parents:
            raise ValueError(
                f"out_dir must not lie in the folder of the subjects, except in a "
                f"folder of {derivatives}, got {plan.out_dir}"
            )


def _limit(
    count: int,
    subjects: Sequence[Subject],
    plan: CohortPlan,
    memory: float | str | None,
) -> int:
    """Limit the number of processes by memory and GPUs."""
    from dipy_dl_reg.optimization.memory import free_memory, to_bytes
    from dipy_dl_reg.registration.devices import count_gpus, find_device

    needed = estimate_worker_memory(subjects, plan)
    gpus = count_gpus() if plan.device in ("auto", "cuda") else 0
    return limit_processes(
        count,
        needed if memory is None else to_bytes(memory),
        free=free_memory(find_device("cpu")),
        gpus=gpus,
    )


def _process(
    subjects: Sequence[Subject],
    plan: CohortPlan,
    run: Any,
    rows: dict[str, dict[str, Any]],
    **options: Any,
) -> None:
    """Process all subjects; those that another process has begun, at the end."""
    waiting = list(subjects)
    for wait in (False, True):
        call = partial(process_subject, plan=plan, wait=wait, **options)
        for subject, result in zip(waiting, _run_all(run, call, waiting)):
            if result is not None:
                rows[subject.name] = _make_row(subject, result)
        waiting = [subject for subject in waiting if subject.name not in rows]
        if not waiting:
            break
        names = ", ".join(subject.name for subject in waiting)
        logger.info(f"Waiting for another process that works on {names}")


def _add_unfinished(
    rows: dict[str, dict[str, Any]], subjects: Sequence[Subject], plan: CohortPlan
) -> None:
    """Add the rows of subjects without a result, after an interruption."""
    for subject in subjects:
        if subject.name not in rows:
            record = SubjectFolder(
                plan.out_dir, subject.name, plan.record_path(subject)
            ).read_record()
            result: Any = RuntimeError("the call was interrupted")
            if record is not None and record.get("Options") == plan.identity:
                result = {**record["Row"], "was_done": False}
            rows[subject.name] = _make_row(subject, result)


def _run_all(run: Any, call: Any, subjects: Sequence[Subject]) -> list[Any]:
    """Process subjects in parallel; if a process is lost, the others go on.

    An engine that loses a process also loses the results of the other processes, but
    not their outputs, so that it is enough to run it again.  The subject at fault is
    then found by processing each one alone.
    """
    try:
        return run(call, subjects)
    except WorkerLostError as error:
        logger.warning(f"{error}. The subjects are processed one by one")
    results: list[Any] = []
    for subject in subjects:
        try:
            results += run(call, [subject])
        except WorkerLostError as error:
            results.append(error)
    return results


def _make_row(subject: Subject, result: Any) -> dict[str, Any]:
    """The row of a subject, from the result of its process."""
    columns = {**describe_subject(subject), "subject": subject.name}
    if isinstance(result, Exception):
        reason = " ".join(str(result).split()) or type(result).__name__
        if not isinstance(result, (ValueError, OSError, RuntimeError, MemoryError)):
            reason = f"{type(result).__name__}: {reason}"
        failed = {"status": "failed", "reason": reason, "grade": "failed"}
        return {**columns, **failed, "report": None, "was_done": False}
    return {**result, **columns}


def _log_row(row: Mapping[str, Any]) -> None:
    """Log whether a subject is done."""
    if row["status"] == "failed":
        logger.warning(f"{row['subject']} failed: {row['reason']}")
    else:
        was_done = " (was done)" if row["was_done"] else ""
        logger.info(f"{row['subject']} is done{was_done}: {row['grade']}")


def _finish(rows: list[dict[str, Any]], plan: CohortPlan) -> CohortResult:
    """Write the table and the index page."""
    from dipy_dl_reg.maps.html.study_page import write_study_report

    table = plan.out_dir / f"space-{plan.space}_measures.tsv"
    write_table(table, rows, plan)
    index = None
    if plan.has_report:
        index = plan.out_dir / f"space-{plan.space}_index.html"
        write_study_report(index, rows, title=f"Registration to {plan.space}")
    return CohortResult(rows, table, index)
