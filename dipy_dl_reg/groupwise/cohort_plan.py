"""What all subjects of a cohort have in common: template, options, output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import Any

from dipy_dl_reg.groupwise.identity import describe_value
from dipy_dl_reg.groupwise.provenance import compute_checksum
from dipy_dl_reg.groupwise.subjects import (
    Subject,
    make_label,
    parse_name,
    strip_suffix,
)
from dipy_dl_reg.io.images import open_volume
from dipy_dl_reg.registration.affine.steps import AFFINE_STEPS
from dipy_dl_reg.registration.pipeline import (
    DEFORM,
    disable_deformation,
    split_pipeline,
)

#: Steps of the registration by default.
PIPELINE = (*AFFINE_STEPS, DEFORM)


@dataclass(frozen=True)
class CohortPlan:
    """What all subjects of a cohort have in common.

    Attributes
    ----------
    template : tuple of Path
        Images of the template, one for each contrast.
    space : str
        Label of the template in names of outputs.
    out_dir : Path
        Folder of the outputs.
    template_mask : Path or None
        Mask of the template.
    steps : tuple of str
        Affine steps.
    deforms : bool
        Whether the deformable step follows.
    metric : object
        Metric of the deformable registration.
    options : mapping
        Options of `DeepRegistration`.
    file_options : mapping
        Options of the kinds of further files, such as ``tensor_order``.
    device : str
        Device of the registration.
    has_report : bool
        Whether a report is written for each subject.
    call : str
        The command or call.
    identity : mapping
        What the results depend on, besides the subject: in JSON's types.
    """

    template: tuple[Path, ...]
    space: str
    out_dir: Path
    template_mask: Path | None = None
    steps: tuple[str, ...] = AFFINE_STEPS
    deforms: bool = True
    metric: Any = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    file_options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    has_report: bool = True
    call: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)

    def record_path(self, subject: Subject) -> Path:
        """Name the record of a subject.

        Parameters
        ----------
        subject : Subject
            The subject.

        Returns
        -------
        path : Path
            Relative to the folder of the outputs.
        """
        return subject.folder / f"{subject.name}_space-{self.space}_measures.json"


def make_plan(
    template: Sequence[Path],
    out_dir: Path,
    *,
    space: str | None,
    template_mask: Path | None,
    pipeline: Sequence[str] | None,
    metric: Any,
    options: Mapping[str, Any],
    **fields: Any,
) -> CohortPlan:
    """Check what all subjects have in common.

    Parameters
    ----------
    template : sequence of Path
        Images of the template.
    out_dir : Path
        Folder of the outputs.
    space : str or None
        Label of the template; by default from its file name.
    template_mask : Path or None
        Its mask.
    pipeline : sequence of str or None
        Steps of the registration; `PIPELINE` by default.
    metric : object
        Metric of the deformable registration.
    options : mapping
        Options of `DeepRegistration`.
    **fields : object
        Other attributes of `CohortPlan`.

    Returns
    -------
    plan : CohortPlan
        The same, checked.

    Raises
    ------
    FileNotFoundError
        If a file of the template is missing.
    ValueError
        If the template is not an image, or an option cannot be used.
    """
    for path in template:
        open_volume(path, "template")
    if template_mask is not None:
        open_volume(template_mask, "template_mask")
    if len(template) > 1 and not isinstance(metric, (list, tuple)):
        metric = [metric] * len(template)
    steps, deforms, options = check_registration(pipeline, metric, options)
    plan = CohortPlan(
        tuple(template),
        make_label(space or _name_template(template[0]), "space"),
        out_dir,
        template_mask,
        tuple(steps),
        deforms,
        metric,
        options,
        **fields,
    )
    identity = _identify(plan)
    return CohortPlan(**{**plan.__dict__, "identity": identity})


def check_registration(
    pipeline: Sequence[str] | None, metric: Any, options: Mapping[str, Any]
) -> tuple[list[str], bool, dict[str, Any]]:
    """Check the options of the registration, before files are read.

    Parameters
    ----------
    pipeline : sequence of str or None
        Steps; `PIPELINE` by default.
    metric : object
        Metric of the deformable registration.
    options : mapping
        Options of `DeepRegistration`.

    Returns
    -------
    steps : list of str
        The affine steps.
    deforms : bool
        Whether the deformable step follows.
    options : dict
        The options; without iterations if there is no such step.

    Raises
    ------
    ValueError
        If one cannot be used.
    """
    from dipy_dl_reg.registration.deformable import DeepRegistration

    steps, deforms = split_pipeline(PIPELINE if pipeline is None else pipeline)
    options = dict(options) if deforms else disable_deformation(dict(options))
    DeepRegistration(metric, **options)
    return steps, deforms, options


def _name_template(path: Path) -> str:
    """The label of a template: that behind ``tpl-``, or the name of the file."""
    for part in strip_suffix(path.name).split("_"):
        if part.startswith("tpl-") and len(part) > 4:
            return part[4:]
    entities, _ = parse_name(path.name)
    return entities.get("space") or strip_suffix(path.name)


def _identify(plan: CohortPlan) -> dict[str, Any]:
    """What the results depend on, besides the subject."""
    # By their content: a study may be moved to another folder.
    mask = plan.template_mask
    values = {
        "Template": [compute_checksum(path) for path in plan.template],
        "TemplateMask": None if mask is None else compute_checksum(mask),
        "Space": plan.space,
        "Steps": [*plan.steps, *[DEFORM] * plan.deforms],
        "Metric": describe_value(plan.metric),
        "Options": describe_value(plan.options),
        "FileOptions": describe_value(plan.file_options),
        "Report": plan.has_report,
    }
    return json.loads(json.dumps(values, sort_keys=True))
