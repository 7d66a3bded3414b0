"""The subjects of a template or of all pairs, their options, and their state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import shutil
from typing import Any

from dipy.utils.logging import logger

from dipy_dl_reg.groupwise.parallel import run_in_parallel
from dipy_dl_reg.groupwise.provenance import write_json
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_subjects import (
    compute_digest,
    read_subject,
    write_subject,
)

#: Folder of the state, in the folder of the results.
WORK = ".template_work"
#: File of the average in the folder of a stage.  Names of subjects, which are names of
#: files there, begin with no full stop.
AVERAGE = ".template.npz"


@dataclass(frozen=True)
class TemplateState:
    """The subjects of a template, its options, and the folder of its state.

    Attributes
    ----------
    folder : Path
        Folder of the state.
    names : tuple of str
        Names of the subjects, in the order of their checksums.
    options : TemplateOptions
        The options.
    run : callable
        ``run(function, jobs)`` calls a function for each job (`run_in_parallel`).
    """

    folder: Path
    names: tuple[str, ...]
    options: TemplateOptions
    run: Callable[..., list[Any]] = run_in_parallel

    def subject_file(self, name: str) -> Path:
        """File of a subject.

        Parameters
        ----------
        name : str
            Name of the subject.

        Returns
        -------
        path : Path
            The file, as `write_subject` writes it.
        """
        return self.folder / "subjects" / f"{name}.npz"

    def stage(self, name: str) -> Path:
        """Folder of a stage; it is made if needed.

        Parameters
        ----------
        name : str
            Name of the stage.

        Returns
        -------
        path : Path
            The folder.
        """
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def iteration(self, number: int) -> Path:
        """Folder of an iteration.

        Parameters
        ----------
        number : int
            Number of the iteration; 0 averages the affine maps.

        Returns
        -------
        path : Path
            The folder, which is made if needed.
        """
        return self.stage(f"iteration_{number:02d}")

    def call(self, function: Callable, jobs: Sequence[Any], text: str) -> list:
        """Call a function for each subject; raise the error of the first that failed.

        Parameters
        ----------
        function : callable
            Function of a job.
        jobs : sequence
            One for each subject, in the order of `names`, or of pairs.
        text : str
            What is done, for the log.

        Returns
        -------
        results : list
            What the function returned.
        """
        logger.info(f"{text} ({len(jobs)})")
        results = self.run(function, jobs)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                name = job.result.stem
                raise RuntimeError(f"{text}: {name} failed: {result}") from result
        return results


def prepare_study(
    images: Sequence[Any],
    masks: Sequence[Any] | None,
    names: Sequence[str],
    folder: Path,
    options: TemplateOptions,
    *,
    run: Callable[..., list[Any]] = run_in_parallel,
    overwrite: bool = False,
) -> tuple[TemplateState, dict[str, str]]:
    """Read the subjects, check them, and store them in the folder of the state.

    Parameters
    ----------
    images, masks, names : sequence
        As in `build_template`.
    folder : Path
        Folder of the state.
    options : TemplateOptions
        The options.
    run : callable, optional
        See `TemplateState`.
    overwrite : bool, optional
        Discard a state of other images or options.

    Returns
    -------
    study : TemplateState
        The subjects in the order of their checksums.
    digests : dict of str
        Checksum of each subject, by its name, in this order.

    Raises
    ------
    ValueError
        If there are fewer than two images, an image or mask cannot be used, the numbers
        of channels or axes differ, or the folder contains another state.
    """
    if len(images) < 2:
        raise ValueError(f"images must be at least 2, got {len(images)}.")
    masks = [None] * len(images) if masks is None else list(masks)
    if len(masks) != len(images):
        raise ValueError(
            f"masks must have one entry for each of the {len(images)} images, got "
            f"{len(masks)}."
        )
    subjects = {}
    for name, image, mask in zip(names, images, masks):
        subjects[name] = read_subject(image, mask, name)
        shape, first = subjects[name].values.shape, subjects[names[0]].values.shape
        if (len(shape), shape[-1]) != (len(first), first[-1]):
            raise ValueError(
                f"all images must have the same numbers of axes and channels, got "
                f"{len(first) - 1} axes and {first[-1]} channels for {names[0]}, "
                f"{len(shape) - 1} and {shape[-1]} for {name}."
            )
    digests = {name: compute_digest(subject) for name, subject in subjects.items()}
    order = dict(sorted(digests.items(), key=lambda item: (item[1], item[0])))
    settings = {"subjects": order, "options": options.describe()}
    _check_state(folder, settings, overwrite)
    study = TemplateState(folder, tuple(order), options, run)
    study.stage("subjects")
    for name, subject in subjects.items():
        write_subject(subject, study.subject_file(name))
    write_json(folder / "settings.json", settings, overwrite=True)
    return study, order


def _check_state(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Check that the state in a folder, if any, belongs to the same call."""
    path = folder / "settings.json"
    if not path.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"out_dir: {folder} is no state of a computation of this package: "
                "remove it or give another folder."
            )
        return
    if json.loads(path.read_text()) == json.loads(json.dumps(settings)):
        logger.info(f"Continuing the template in {folder.parent}")
        return
    if not overwrite:
        raise ValueError(
            f"out_dir: {folder.parent} contains an unfinished computation of other "
            "images or options: give another folder, or overwrite=True to discard it."
        )
    shutil.rmtree(folder)
