"""Writes the outputs of a subject of a cohort, with names as in BIDS derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.diffusion.kinds.base import FileKind, Request
from dipy_dl_reg.diffusion.kinds.table import KINDS, find_kind
from dipy_dl_reg.groupwise.cohort_plan import CohortPlan
from dipy_dl_reg.groupwise.subject_folder import SubjectFolder
from dipy_dl_reg.groupwise.subjects import Subject, SubjectFile, format_name
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.dipy_map import without_displacement
from dipy_dl_reg.maps.storage import save_mapping

if TYPE_CHECKING:
    from dipy_dl_reg.groupwise.subject_registration import Registered


class SubjectOutputs:
    """The outputs of a subject in the staging folder.

    Parameters
    ----------
    subject : Subject
        The subject.
    plan : CohortPlan
        What all subjects have in common.
    folder : SubjectFolder
        Places of its outputs.

    Attributes
    ----------
    paths : list of Path
        What was written, relative to the folder of all outputs.
    """

    def __init__(
        self, subject: Subject, plan: CohortPlan, folder: SubjectFolder
    ) -> None:
        self.subject, self.plan, self.folder = subject, plan, folder
        self.paths: list[Path] = []
        self._fields: dict[Path, dict[str, Any]] = {}

    def check_files(self, static: InputImage, moving: InputImage) -> None:
        """Check that all further files can be transformed, before the registration.

        Parameters
        ----------
        static, moving : InputImage
            The images.

        Raises
        ------
        ValueError
            If a file cannot be transformed.
        """
        mapping = without_displacement(
            AffineMap(
                np.eye(4),
                domain_grid_shape=static.values.shape,
                domain_grid2world=static.grid2world,
                codomain_grid_shape=moving.values.shape,
                codomain_grid2world=moving.grid2world,
            )
        )
        for file in (*self.subject.images, *self.subject.files):
            _, kind, request = self._plan(file, mapping)
            kind.check(file.path, request)

    def write_map(self, mapping: DiffeomorphicMap, prealign: np.ndarray) -> None:
        """Write the map and its affine part.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        prealign : ndarray, shape (4, 4)
            Its affine part.
        """
        ends = [("from", self.subject.images[0].suffix), ("to", self.plan.space)]
        ends.append(("mode", "image"))
        name = format_name(self.subject, "xfm", ends)
        save_mapping(
            mapping,
            self._add(
                Path("anat", f"{name}.npz"),
                Description="Map that transforms images of the subject to the template "
                "(dipy_apply_deep, load_mapping); it includes the affine part",
            ),
        )
        affine = format_name(self.subject, "xfm", [*ends, ("desc", "affine")])
        text = "Affine part: template's world to subject's world, mm, RAS"
        path = self._add(Path("anat", f"{affine}.txt"), Description=text)
        np.savetxt(path, prealign, header=text)

    def write_files(self, mapping: DiffeomorphicMap) -> None:
        """Transform the images and the further files.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        """
        files = [*self.subject.images, *self.subject.files]
        if self.subject.mask and self.subject.mask not in [f.path for f in files]:
            entities = (("desc", "brain"),)
            files.append(SubjectFile(self.subject.mask, "mask", "labels", entities))
        for file in files:
            kind_name, kind, request = self._plan(file, mapping)
            name = format_name(
                self.subject, file.suffix, file.entities, space=self.plan.space
            )
            beside = kind.name_outputs(
                file.path, Path(file.datatype, f"{name}.nii.gz"), is_default=True
            )
            targets = [
                self._add(
                    path,
                    Description=KINDS[kind_name].description,
                    SpatialReference=str(self.plan.template[0]),
                    TransformedFrom=str(file.path),
                )
                for path in beside
            ]
            kind.transform(file.path, targets, request)

    def write_report(
        self,
        static: Sequence[InputImage],
        moving: Sequence[InputImage],
        result: Registered,
    ) -> dict[str, Any]:
        """Write the report, if one is wanted.

        Parameters
        ----------
        static, moving : sequence of InputImage
            The images.
        result : Registered
            The registration.

        Returns
        -------
        row : dict
            The row of the subject for the study's table and index page.
        """
        from dipy_dl_reg.maps.html.summary import ReportSummary, collect_measures
        from dipy_dl_reg.maps.regularity import measure_regularity
        from dipy_dl_reg.registration.report_files import write_report

        verdict = result.verdict
        if not self.plan.has_report:
            measures = collect_measures(measure_regularity(result.mapping), verdict)
            summary = ReportSummary(verdict.grade, verdict.reasons, measures)
            return summary.as_row(self.subject.name, "")
        name = format_name(self.subject, "report", space=self.plan.space)
        summary = write_report(
            self._add(Path(f"{name}.html")),
            [image.values for image in static] if len(static) > 1 else static[0].values,
            [image.values for image in moving] if len(moving) > 1 else moving[0].values,
            result.mapping,
            record=result.record,
            verdict=verdict,
            static_mask=static[0].mask,
            moving_mask=moving[0].mask,
            title=f"{self.subject.name} to {self.plan.space}",
            command=self.plan.call,
        )
        return summary.as_row(self.subject.name, self.paths[-1].as_posix())

    def describe(self, path: Path) -> dict[str, Any]:
        """Describe an output, for the JSON file beside it.

        Parameters
        ----------
        path : Path
            The output, relative to the folder of all outputs.

        Returns
        -------
        fields : dict
            Entries of the JSON file.
        """
        return self._fields[path]

    def _add(self, path: Path, **fields: Any) -> Path:
        """List an output in the subject's folder; return where it is staged."""
        path = self.subject.folder / path
        if path in self.paths:
            raise ValueError(
                f"two files of {self.subject.name} have the output {path}: tell them "
                "apart by columns such as labels_first and labels_second"
            )
        self.paths.append(path)
        self._fields[path] = fields
        return self.folder.stage(path)

    def _plan(
        self, file: SubjectFile, mapping: DiffeomorphicMap
    ) -> tuple[str, FileKind, Request]:
        """The kind of a file, and how it is transformed."""
        given = {**self.plan.file_options, **dict(file.options)}
        name = file.kind
        if name == "auto":
            name = find_kind(file.path, **given)
        kind = KINDS[name].load()
        options = {n: value for n, value in given.items() if n in kind.choices}
        if name == "image":
            options["interpolation"] = "linear"
        return name, kind, Request(mapping, options=options)
