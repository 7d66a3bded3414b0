"""Registers one subject of a cohort to the template, and writes its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import logging
import os
from pathlib import Path
import time
from typing import Any, NamedTuple
import warnings

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.groupwise.cohort_plan import CohortPlan
from dipy_dl_reg.groupwise.gpus import claim_device
from dipy_dl_reg.groupwise.provenance import (
    compute_checksum,
    describe_provenance,
    sidecar_path,
    write_json,
)
from dipy_dl_reg.groupwise.study_progress import mark_finished
from dipy_dl_reg.groupwise.subject_folder import SubjectFolder
from dipy_dl_reg.groupwise.subject_outputs import SubjectOutputs
from dipy_dl_reg.groupwise.subjects import Subject
from dipy_dl_reg.io.input_channels import read_input_channels
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.maps.verdict import PoseComparison, Verdict
from dipy_dl_reg.progress import show_progress
from dipy_dl_reg.registration.affine.call import align_images, make_call_options

#: Folder of the logs of all subjects.
LOGS = "logs"


class Registered(NamedTuple):
    """The result of the registration of a subject.

    Attributes
    ----------
    mapping : DiffeomorphicMap
        The map of the subject to the template.
    prealign : ndarray, shape (4, 4)
        Template's world to subject's world.
    verdict : Verdict
        Verdict on the registration.
    record : RegistrationRecord
        How the map was computed.
    seconds : float
        Time of the registration.
    """

    mapping: DiffeomorphicMap
    prealign: np.ndarray
    verdict: Verdict
    record: RegistrationRecord
    seconds: float


def process_subject(
    subject: Subject,
    plan: CohortPlan,
    *,
    wait: bool = True,
    repeat: bool = False,
    marks: Path | None = None,
) -> dict[str, Any] | None:
    """Register a subject and write its outputs, unless that is done already.

    Parameters
    ----------
    subject : Subject
        The subject.
    plan : CohortPlan
        What all subjects have in common.
    wait : bool, optional
        Wait if another process works on the subject.
    repeat : bool, optional
        Register it also if it is done.
    marks : Path, optional
        Folder in which a file says that the subject is finished.

    Returns
    -------
    row : dict or None
        Its row of the table of the study; ``"was_done"`` says whether nothing was to
        do.  None if another process works on the subject and `wait` is False.

    Raises
    ------
    OSError
        If an input is missing, or an output cannot be written.
    ValueError
        If an input cannot be used.
    """
    folder = SubjectFolder(plan.out_dir, subject.name, plan.record_path(subject))
    with folder.lock(wait=wait) as locked:
        if not locked:
            return None
        try:
            return _process_locked(subject, plan, folder, repeat)
        finally:
            mark_finished(marks, subject.name)


def _process_locked(
    subject: Subject, plan: CohortPlan, folder: SubjectFolder, repeat: bool
) -> dict[str, Any]:
    """Register a subject unless it is done, while no other process can."""
    try:
        if subject.missing:
            raise ValueError(subject.missing)
        checksums = {str(path): compute_checksum(path) for path in subject.inputs()}
    except (OSError, ValueError):
        folder.clear()  # outputs of other inputs must not be taken for those of these
        raise
    record = None if repeat else folder.read_record()
    if record is not None and _fits(record, subject, checksums, plan):
        return {**record["Row"], "was_done": True}
    folder.clear()
    with _log_to_file(plan.out_dir / LOGS / f"{subject.name}.log"):
        return {**_register(subject, plan, folder, checksums), "was_done": False}


def _fits(
    record: Mapping[str, Any],
    subject: Subject,
    checksums: dict[str, str],
    plan: CohortPlan,
) -> bool:
    """Whether a record has the inputs and options of this run."""
    same_inputs = record.get("Inputs") == _identify(subject, checksums)
    return same_inputs and record.get("Options") == plan.identity


def _identify(subject: Subject, checksums: dict[str, str]) -> list[list[str]]:
    """The roles and checksums of a subject's files, wherever they are stored."""
    roles = []
    for file in (*subject.images, *subject.files):
        entities = [f"{key}-{value}" for key, value in file.entities]
        name = "_".join([*entities, file.suffix])
        roles.append([name, file.kind, checksums[str(file.path)]])
        roles += [[name, option, checksums[path]] for option, path in file.options]
    if subject.mask is not None:
        roles.append(["mask", "mask", checksums[str(subject.mask)]])
    return roles


def _register(
    subject: Subject, plan: CohortPlan, folder: SubjectFolder, checksums: dict[str, str]
) -> dict[str, Any]:
    """Register a subject, write all outputs, and return its row."""
    start, cpu_start = time.perf_counter(), time.process_time()
    static = _read_side(plan.template, plan.template_mask, "template")
    paths = [image.path for image in subject.images]
    moving = _read_side(paths, subject.mask, "image")
    outputs = SubjectOutputs(subject, plan, folder)
    outputs.check_files(static[0], moving[0])
    with claim_device(plan.device) as device, show_progress(bars=False, lines=False):
        result = _align_and_deform(static, moving, plan, device)
    outputs.write_map(result.mapping, result.prealign)
    outputs.write_files(result.mapping)
    row = outputs.write_report(static, moving, result)
    row["seconds"] = round(time.perf_counter() - start, 1)
    row["cpu_seconds"] = round(time.process_time() - cpu_start, 1)
    provenance = describe_provenance(plan.call, checksums)
    for path in outputs.paths[:]:
        sidecar = sidecar_path(path)
        if path.suffix not in (".html", ".bval", ".bvec"):
            fields = outputs.describe(path)
            write_json(folder.stage(sidecar), {**fields, **provenance})
            outputs.paths.append(sidecar)
    record = {
        **provenance,
        "Inputs": _identify(subject, checksums),
        "Options": plan.identity,
        "Registration": result.record.as_dict(),
        "Verdict": {
            "Grade": result.verdict.grade,
            "Reasons": result.verdict.reasons,
        },
        "Row": row,
    }
    folder.publish(dict.fromkeys(outputs.paths), record)
    logger.info(f"{subject.name} is done")
    return row


def _read_side(paths: Sequence[Path], mask: Path | None, name: str) -> list[InputImage]:
    """Read the images of one side on the grid of the first, and their mask."""
    return read_input_channels(list(paths), masks=mask, name=name)


def _align_and_deform(
    static: Sequence[InputImage],
    moving: Sequence[InputImage],
    plan: CohortPlan,
    device: str,
) -> Registered:
    """Register images affinely by the first contrast, and then deformably by all.

    The verdict contains the overlap of the anatomy maps.
    """
    from dipy_dl_reg.registration.anatomy_check import check_anatomy
    from dipy_dl_reg.registration.deformable import DeepRegistration
    from dipy_dl_reg.registration.head_masks import mask_heads

    prealign: np.ndarray = np.eye(4)
    poses: PoseComparison | None = None
    start = time.perf_counter()
    if plan.steps and len(static) == 1:
        static, moving = ([each] for each in mask_heads(static[0], moving[0]))
    if plan.steps:
        options = make_call_options(device=device)
        found = align_images(static[0], moving[0], plan.steps, options)
        prealign, poses = found.matrix, found.poses
    affine_seconds = time.perf_counter() - start
    given = {**plan.options, "device": device, "progress": False}
    registration = DeepRegistration(plan.metric, **given)
    registration.poses = poses
    mapping = registration.optimize(
        _stack(static),
        _stack(moving),
        static_grid2world=static[0].grid2world,
        moving_grid2world=moving[0].grid2world,
        prealign=prealign,
        static_mask=static[0].mask,
        moving_mask=moving[0].mask,
    )
    record = registration.record.with_affine(plan.steps, affine_seconds)
    seconds = time.perf_counter() - start
    verdict = check_anatomy(
        registration.verdict, mapping, static[0].values, moving[0].values
    )
    return Registered(mapping, prealign, verdict, record, seconds)


def _stack(images: Sequence[InputImage]) -> np.ndarray:
    """The values of one image, or of several along the last axis."""
    if len(images) == 1:
        return images[0].values
    return np.stack([np.asarray(image.values) for image in images], -1)


@contextmanager
def _log_to_file(path: Path) -> Iterator[None]:
    """Write the log of DIPY and warnings to a file, errors included, and not elsewhere.

    The lines of several processes would be mixed on the terminal.
    """
    os.makedirs(path.parent, exist_ok=True)
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s"))
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _log_warning
            yield
    except Exception:
        logger.exception("The subject failed")
        raise
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
        handler.close()


def _log_warning(
    message: Any,
    category: Any,
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    """Write a warning to the log in one line."""
    logger.warning(" ".join(str(message).split()))
