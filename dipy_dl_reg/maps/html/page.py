"""The report of one registration as a page of HTML."""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.maps.checks import check_measures, check_regularity
from dipy_dl_reg.maps.html.charts import draw_energies, draw_similarities
from dipy_dl_reg.maps.html.label_overlap import LabelOverlap
from dipy_dl_reg.maps.html.methods import describe_methods
from dipy_dl_reg.maps.html.pictures import (
    Picture,
    draw_colour_bar,
    draw_pictures,
    draw_thumbnail,
    jacobian_limit,
)
from dipy_dl_reg.maps.html.planes import choose_planes, find_object, obliqueness
from dipy_dl_reg.maps.html.rendering import render
from dipy_dl_reg.maps.html.volumes import ReportImages, Volumes, make_volumes
from dipy_dl_reg.maps.record import RegistrationRecord, list_versions
from dipy_dl_reg.maps.regularity import RegularityMeasures
from dipy_dl_reg.maps.verdict import Verdict

_LAYER_NAMES = {"static": "static", "before": "moving before", "after": "moving after"}


class ReportContent(NamedTuple):
    """The content of a report besides its pictures.

    Attributes
    ----------
    title : str
        Heading.
    verdict : Verdict
        Verdict, the grade of the regularity included.
    regularity : RegularityMeasures
        Folds and inverse consistency.
    record : RegistrationRecord or None
        How the map was computed.
    command : str or None
        The command or the call.
    channel_names : list of str
        Names of the channels.
    labels : LabelOverlap or None
        Overlap of labels.
    """

    title: str
    verdict: Verdict
    regularity: RegularityMeasures
    record: RegistrationRecord | None
    command: str | None
    channel_names: list[str]
    labels: LabelOverlap | None = None


class Page(NamedTuple):
    """A page and the small picture that represents it in the index of a study.

    Attributes
    ----------
    html : str
        The page.
    thumbnail : str
        A picture as a data URI.
    """

    html: str
    thumbnail: str


def make_page(
    images: ReportImages,
    mapping: DiffeomorphicMap,
    jacobian: np.ndarray,
    content: ReportContent,
) -> Page:
    """Make the report of a registration.

    Parameters
    ----------
    images : ReportImages
        The images.
    mapping : DiffeomorphicMap
        The map.
    jacobian : ndarray
        Jacobian determinant of its forward field.
    content : ReportContent
        Everything else.

    Returns
    -------
    page : Page
        The page and a thumbnail.
    """
    volumes = make_volumes(images, mapping, jacobian)
    planes = choose_planes(volumes)
    pictures = draw_pictures(volumes, planes)
    html = render(
        "report",
        date=date.today().isoformat(),
        version=list_versions()["dipy_dl_reg"],
        **_describe_pictures(volumes, pictures, content),
        **_describe_results(content),
    )
    first = next(iter(planes.values()))
    return Page(html, draw_thumbnail(volumes, first[len(first) // 2]))


def _describe_pictures(
    volumes: Volumes, pictures: dict[str, list[Picture]], content: ReportContent
) -> dict[str, Any]:
    """The pictures, and what the text says of them."""
    inside = find_object(volumes)
    limit = float(np.exp(jacobian_limit(volumes, inside)))
    determinants = np.exp(np.nan_to_num(volumes.log_jacobian[inside], nan=-np.inf))
    return {
        "pictures": pictures,
        "middle": [each[len(each) // 2] for each in pictures.values()],
        "layer_names": _LAYER_NAMES,
        "channels": content.channel_names,
        "unit": "voxels" if volumes.grid2world is None else "mm",
        "letters": any(p.plane.letters for each in pictures.values() for p in each),
        "oblique": obliqueness(volumes),
        "masked": volumes.mask is not None,
        "spread": np.percentile(determinants, [5, 95]),
        "colour_bar": draw_colour_bar(),
        "bar_ends": [f"{1 / limit:.2f}", "1", f"{limit:.2f}"],
    }


def _describe_results(content: ReportContent) -> dict[str, Any]:
    """Verdict, measures, record and methods."""
    verdict, record = content.verdict, content.record
    measures = verdict.measures
    similarities: list[tuple[str, float]] = []
    if measures is not None:
        similarities = [
            ("raw", measures.similarity_before),
            ("affine", measures.similarity_affine),
            ("deformed", measures.similarity),
        ]
    checks = [] if measures is None else check_measures(measures)
    return {
        "title": content.title,
        "grade": verdict.grade,
        "reasons": verdict.reasons,
        "has_prealign": measures is None or measures.has_prealign,
        "key_figures": _list_key_figures(content, similarities),
        "regularity": content.regularity,
        "checks": checks + check_regularity(content.regularity),
        "similarity_chart": draw_similarities(similarities) if similarities else "",
        "similarity_text": ", ".join(f"{n} {v:.2f}" for n, v in similarities),
        "dice": content.labels,
        "record": record,
        "energy_chart": "" if record is None else draw_energies(record.levels),
        "command": content.command or (record.command if record else None),
        "versions": record.versions if record else list_versions(),
        "methods": describe_methods(record, content.regularity),
    }


def _list_key_figures(
    content: ReportContent, similarities: list[tuple[str, float]]
) -> list[tuple[str, str]]:
    """The figures at the top of the page."""
    m, record = content.regularity, content.record
    figures = []
    if similarities:
        values = " → ".join(f"{value:.2f}" for _, value in similarities)
        figures.append(("Similarity: raw, affine, deformed", values))
    measures = content.verdict.measures
    if measures is not None and measures.anatomy is not None:
        values = f"{measures.anatomy_affine:.2f} → {measures.anatomy:.2f}"
        figures.append(("Anatomy maps: affine, deformed", values))
    if content.labels is not None:
        values = f"{content.labels.before:.3f} → {content.labels.after:.3f}"
        figures.append(("Dice of labels: before, after", values))
    figures += [
        ("Folded voxels", f"{max(m.folds_percent, m.folds_percent_inverse):.3g} %"),
        ("Round trip, mean", f"{m.round_trip_mean_mm:.3f} mm"),
        ("Round trip, maximum", f"{m.round_trip_max_mm:.3f} mm"),
    ]
    if record is not None:
        figures.append(("Time", f"{sum(record.seconds.values()):.1f} s"))
    return figures
