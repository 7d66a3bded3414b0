"""The report of one registration, in HTML."""

from __future__ import annotations

import os
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.io.image_kinds import slice_affine
from dipy_dl_reg.io.images import read_image
from dipy_dl_reg.io.input_channels import read_input_channels
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.checks import add_regularity
from dipy_dl_reg.maps.dipy_map import as_mapping, make_mapping
from dipy_dl_reg.maps.figure import load_matplotlib
from dipy_dl_reg.maps.html.label_overlap import LabelOverlap, measure_label_overlap
from dipy_dl_reg.maps.html.page import ReportContent, make_page
from dipy_dl_reg.maps.html.rendering import check_templates
from dipy_dl_reg.maps.html.summary import ReportSummary, collect_measures
from dipy_dl_reg.maps.html.volumes import ReportImages
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.maps.regularity import jacobian_determinant, measure_regularity
from dipy_dl_reg.maps.verdict import Verdict
from dipy_dl_reg.registration.anatomy_check import check_anatomy
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
    anatomy: bool = True,
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
    anatomy : bool, optional
        Measure the overlap of the anatomy maps of the first images of both sides,
        unless the verdict has it already (`assess_mapping`): one to three seconds of
        a core for each.
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

    See Also
    --------
    write_study_report : the page of a study, with a row for each report.
    plot_registration : one picture.
    assess_mapping : the verdict alone.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, write_report
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> registration = DeepRegistration("SSD", level_iters=[5])
    >>> mapping = registration.optimize(static=static, moving=moving)
    >>> summary = write_report(
    ...     f"{mkdtemp()}/report.html",
    ...     static,
    ...     moving,
    ...     mapping,
    ...     record=registration.record,
    ...     verdict=registration.verdict,
    ... )
    >>> summary.grade == registration.verdict.grade
    True
    """
    load_matplotlib()
    check_templates()
    mapping = _with_field(as_mapping(mapping))
    check_writable(path, overwrite=overwrite)
    static_channels = _read_side(
        static, static_grid2world, static_mask, mapping, "static"
    )
    moving_channels = _read_side(
        moving, moving_grid2world, moving_mask, mapping, "moving"
    )
    if len(static_channels) != len(moving_channels):
        raise ValueError(
            "static and moving must have the same number of images (channels), got "
            f"{len(static_channels)} and {len(moving_channels)}"
        )
    if verdict is None:
        verdict = _assess(mapping, static_channels, moving_channels)
    jacobian = jacobian_determinant(
        mapping.get_forward_field(), mapping.disp_grid2world
    )
    regularity = measure_regularity(mapping, forward_jacobian=jacobian)
    verdict = add_regularity(verdict, regularity)
    if anatomy:
        first = static_channels[0].values, moving_channels[0].values
        verdict = check_anatomy(verdict, mapping, *first)
    labels = _compare_labels(mapping, static_labels, moving_labels)
    content = ReportContent(
        title=title or "Registration",
        verdict=verdict,
        regularity=regularity,
        record=record,
        command=command,
        channel_names=[f"Channel {k + 1}" for k in range(len(static_channels))],
        labels=labels,
    )
    images = _collect_images(mapping, static_channels, moving_channels, warped)
    page = make_page(images, mapping, jacobian, content)
    with write_atomically(path, overwrite=overwrite) as temporary:
        temporary.write_text(page.html, encoding="utf-8")
    measures = collect_measures(regularity, verdict, record, labels)
    return ReportSummary(verdict.grade, verdict.reasons, measures, page.thumbnail)


def _with_field(mapping: DiffeomorphicMap) -> DiffeomorphicMap:
    """A map whose field has static's grid, if its field has one voxel only."""
    if tuple(mapping.disp_shape) == tuple(mapping.codomain_shape):
        return mapping
    if np.prod(mapping.disp_shape) > 1:
        return mapping
    shape = tuple(int(n) for n in mapping.codomain_shape)
    zeros = np.zeros((*shape, mapping.dim), dtype=np.float32)
    return make_mapping(
        *(zeros, zeros, shape, mapping.codomain_grid2world),
        *(mapping.domain_shape, mapping.domain_grid2world, mapping.prealign_inv),
    )


def _read_side(
    images: Any, grid2world: Any, mask: Any, mapping: DiffeomorphicMap, name: str
) -> list[InputImage]:
    """The channels of a side, of the dimension of the map."""
    if isinstance(images, np.ndarray) and images.ndim == mapping.dim + 1:
        single = images.shape[-1] == 1
        images = [images[..., 0]] if single else list(np.moveaxis(images, -1, 0))
    if not isinstance(images, (list, tuple)):
        images = [images]
    read = read_input_channels(images, grid2world, mask, name=name)
    channels = [_drop_last_axis(channel, mapping.dim) for channel in read]
    for channel in channels:
        if channel.values.ndim != mapping.dim:
            raise ValueError(
                f"{name} must be {mapping.dim}D, got shape {channel.values.shape}"
            )
    return channels


def _drop_last_axis(image: InputImage, dim: int) -> InputImage:
    """A slice of shape (X, Y, 1) as a 2D image, if the map is 2D."""
    values, matrix, mask = image
    if dim != 2 or values.ndim != 3 or values.shape[-1] != 1:
        return image
    flat = None if mask is None else np.asarray(mask).reshape(values.shape[:2])
    return InputImage(values[..., 0], slice_affine(matrix, dim), flat)


def _assess(
    mapping: DiffeomorphicMap, static: list[InputImage], moving: list[InputImage]
) -> Verdict:
    """The verdict on the channel that is most similar after the affine part."""
    verdicts = [
        assess_mapping(
            mapping,
            *(first.values, second.values),
            static_mask=first.mask,
            moving_mask=second.mask,
        )
        for first, second in zip(static, moving)
    ]
    return max(verdicts, key=_similarity)


def _similarity(verdict: Verdict) -> float:
    """Similarity after the affine part; below all others if it is unknown."""
    value = np.nan if verdict.measures is None else verdict.measures.similarity_affine
    return -1.0 if np.isnan(value) else value


def _compare_labels(
    mapping: DiffeomorphicMap, static: Any, moving: Any
) -> LabelOverlap | None:
    """The overlap of labels, if both images have some."""
    if static is None and moving is None:
        return None
    if static is None or moving is None:
        raise ValueError("give both static_labels and moving_labels, or neither")
    first, _ = read_image(static, name="static_labels")
    second, matrix = read_image(moving, name="moving_labels")
    if mapping.dim == 2:
        first, second = (a.reshape(a.shape[:2]) for a in (first, second))
        matrix = slice_affine(matrix, 2)
    return measure_label_overlap(mapping, first, second, matrix)


def _collect_images(
    mapping: DiffeomorphicMap,
    static: list[InputImage],
    moving: list[InputImage],
    warped: np.ndarray | None,
) -> ReportImages:
    """The images for the pictures."""
    count = len(static)
    known: list[np.ndarray | None] = [None] * count
    if warped is not None:
        shape = tuple(int(n) for n in mapping.disp_shape)
        one = warped.reshape(shape) if count == 1 else None
        known = [one] if count == 1 else list(np.moveaxis(warped, -1, 0))
    mask, shape = static[0].mask, tuple(int(n) for n in mapping.codomain_shape)
    return ReportImages(
        [channel.values for channel in static],
        [channel.values for channel in moving],
        [channel.grid2world for channel in static],
        [channel.grid2world for channel in moving],
        known,
        mask if mask is not None and np.shape(mask) == shape else None,
    )
