"""A paragraph for the methods section of a paper, with its references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dipy_dl_reg.maps.record import RegistrationRecord, list_versions
from dipy_dl_reg.maps.regularity import RegularityMeasures

#: References by what they describe.
_DIPY = (
    "Garyfallidis E, Brett M, Amirbekian B, et al. (2014). Dipy, a library for the "
    "analysis of diffusion MRI data. Frontiers in Neuroinformatics 8:8. "
    "doi:10.3389/fninf.2014.00008"
)
_METRICS = {
    "CC": "Avants BB, Epstein CL, Grossman M, Gee JC (2008). Symmetric diffeomorphic "
    "image registration with cross-correlation: evaluating automated labeling of "
    "elderly and neurodegenerative brain. Medical Image Analysis 12(1):26-41. "
    "doi:10.1016/j.media.2007.06.004",
    "MI": "Mattes D, Haynor DR, Vesselle H, Lewellen TK, Eubank W (2003). PET-CT image "
    "registration in the chest using free-form deformations. IEEE Transactions on "
    "Medical Imaging 22(1):120-128. doi:10.1109/TMI.2003.809072",
    "CR": "Roche A, Malandain G, Pennec X, Ayache N (1998). The correlation ratio as a "
    "new similarity measure for multimodal image registration. MICCAI 1998:1115-1124. "
    "doi:10.1007/BFb0056301",
    "MIND": "Heinrich MP, Jenkinson M, Papiez BW, Brady M, Schnabel JA (2013). Towards "
    "realtime multimodal fusion for image-guided interventions using "
    "self-similarities. MICCAI 2013:187-194. doi:10.1007/978-3-642-40811-3_24",
}


class Methods(NamedTuple):
    """A paragraph for a paper.

    Attributes
    ----------
    text : str
        The paragraph, with the numbers of the references in brackets.
    references : tuple of str
        The references, from number 1.
    """

    text: str
    references: tuple[str, ...]


def describe_methods(
    record: RegistrationRecord | None, regularity: RegularityMeasures
) -> Methods:
    """Describe how a map was computed, for a paper.

    Parameters
    ----------
    record : RegistrationRecord or None
        How the map was computed; None if unknown.
    regularity : RegularityMeasures
        Measures of the map.

    Returns
    -------
    methods : Methods
        The paragraph and its references.
    """
    # A record that was made by hand may have no versions.
    versions = {**list_versions(), **({} if record is None else record.versions)}
    own = f"The dipy_dl_reg developers. dipy_dl_reg, version {versions['dipy_dl_reg']}."
    references = [own, _DIPY]
    software = (
        f"dipy_dl_reg {versions['dipy_dl_reg']} [1] with DIPY "
        f"{versions.get('dipy', '')} [2]"
    )
    quality = (
        f"The map folds in {regularity.folds_percent:.3g} % of the voxels; its inverse "
        f"consistency error is {regularity.round_trip_mean_mm:.3f} mm on average and "
        f"{regularity.round_trip_max_mm:.3f} mm at most."
    )
    if record is None:
        text = f"The map was assessed by {software}. {quality}"
        return Methods(text, tuple(references))
    sentences = [
        _describe_affine(record),
        f"The moving image was registered to the static image by {software}: "
        f"{_describe_start(record)}{_describe_refinement(record)}"
        f"{_describe_metrics(record, references)}.",
        _describe_similarity(record),
        quality,
    ]
    return Methods(" ".join(s for s in sentences if s), tuple(references))


def _describe_affine(record: RegistrationRecord) -> str:
    """The affine registration."""
    if not record.affine_steps:
        return ""
    steps = ", ".join(step.replace("_", " ") for step in record.affine_steps)
    return f"The images were first aligned by an affine registration ({steps})."


def _describe_start(record: RegistrationRecord) -> str:
    """The initial field."""
    names = {
        "landmarks": "a thin-plate spline through landmarks",
        "network": f"the network {record.network}",
        "search": "a discrete search",
    }
    if not record.start:
        return ""
    return f"a displacement field from {_join([names[s] for s in record.start])} was "


def _describe_refinement(record: RegistrationRecord) -> str:
    """Levels and iterations of the refinement."""
    counts = [level.iterations for level in record.levels if level.iterations]
    if not counts:
        return "used without refinement" if record.start else "no displacement was used"
    iterations = _join([str(count) for count in counts])
    plural = "s" if len(counts) > 1 else ""
    verb = "refined" if record.start else "a displacement field was refined"
    return (
        f"{verb} by adaptive gradient descent (Adam) at {len(counts)} "
        f"resolution{plural} ({iterations} iterations), together with its inverse,"
    )


def _describe_metrics(record: RegistrationRecord, references: list[str]) -> str:
    """The metrics, whose references are appended to a list."""
    if not any(level.iterations for level in record.levels):
        return ""
    parts = []
    for metric in record.metrics:
        source = _METRICS.get(metric.name)
        if source is not None and source not in references:
            references.append(source)
        cite = "" if source is None else f" [{references.index(source) + 1}]"
        weight = f", weight {metric.weight:.2f}" if len(record.metrics) > 1 else ""
        parts.append(f"{metric.meaning} ({metric.name}{weight}){cite}")
    channels = " of the channels" if len(parts) > 1 else ""
    return f" with the metric {_join(parts)}{channels}"


def _describe_similarity(record: RegistrationRecord) -> str:
    """The similarity in the stages of the registration."""
    stages = ("raw", "affine", "deformed")
    values = [record.similarity.get(stage) for stage in stages]
    known = [v for v in values if v is not None and v == v]
    if len(known) < len(stages):
        return ""
    raw, affine, deformed = (f"{value:.2f}" for value in known)
    return (
        f"The mean squared local correlation of the images was {raw} before "
        f"registration, {affine} after the affine part and {deformed} after the "
        "deformation."
    )


def _join(words: Sequence[str]) -> str:
    """Words with commas and "and"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
