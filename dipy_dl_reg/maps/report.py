"""A picture of one registration, with the measures of its map."""

from __future__ import annotations

import os
import textwrap

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.io.images import ImageLike, read_image
from dipy_dl_reg.maps.dipy_map import check_mapping
from dipy_dl_reg.maps.figure import draw_registration, load_matplotlib
from dipy_dl_reg.maps.regularity import (
    RegularityMeasures,
    format_regularity,
    jacobian_determinant,
    measure_regularity,
)
from dipy_dl_reg.maps.verdict import Verdict

#: Characters in a line below the picture.
_LINE_WIDTH = 130


def plot_registration(
    path: str | os.PathLike,
    static: ImageLike,
    moving: ImageLike,
    mapping: DiffeomorphicMap,
    *,
    static_grid2world: np.ndarray | None = None,
    moving_grid2world: np.ndarray | None = None,
    warped: np.ndarray | None = None,
    verdict: Verdict | None = None,
    title: str | None = None,
    overwrite: bool = True,
) -> RegularityMeasures:
    """Draw one registration to a file.

    The columns are: static with its outlines; moving before registration (with the
    prealign only) and after, both with static's outlines; a checkerboard of static and
    moving; a regular grid of moving transformed to static; the logarithm of the
    Jacobian determinant. The rows are three planes through the middle of static's
    foreground (in 2D the image itself), in true proportions, on the grid of the field.
    The measures that are returned are written below.

    Parameters
    ----------
    path : str or Path
        The picture: PNG, or another format that matplotlib knows by its suffix.
    static, moving : ndarray, nibabel image, str or Path
        The two images: those that were registered, or others in the same spaces, on
        any grid.
    mapping : DiffeomorphicMap
        The map of a registration.
    static_grid2world, moving_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Grid-to-world matrices of the images; by default those of the files or of the
        map.
    warped : ndarray, shape of the map's field, optional
        Moving on static's grid, such as the result of ``mapping.transform(moving)``;
        computed by default.
    verdict : Verdict, optional
        Verdict on the registration (`DeepRegistration.verdict`), written below the
        measures.
    title : str, optional
        A line above the picture.
    overwrite : bool, optional
        Replace the file if it exists.

    Returns
    -------
    measures : RegularityMeasures
        The measures that are written below the picture.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If an image does not fit the map.
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    write_report : a page with all pictures and measures.
    assess_mapping : the verdict.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, plot_registration
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> mapping = DeepRegistration("SSD").optimize(static=static, moving=moving)
    >>> measures = plot_registration(f"{mkdtemp()}/result.png", static, moving, mapping)
    >>> measures.folds_percent
    0.0
    """
    load_matplotlib()
    check_mapping(mapping)
    check_writable(path, overwrite=overwrite)
    static, static_grid2world = read_image(static, static_grid2world, name="static")
    moving, moving_grid2world = read_image(moving, moving_grid2world, name="moving")
    _check_images(mapping, static, moving, warped)
    forward = jacobian_determinant(mapping.get_forward_field(), mapping.disp_grid2world)
    measures = measure_regularity(mapping, forward_jacobian=forward)
    figure = draw_registration(
        static,
        moving,
        mapping,
        static_grid2world=static_grid2world,
        moving_grid2world=moving_grid2world,
        warped=warped,
        jacobian=forward,
        lines=[*_format_measures(measures), *_format_verdict(verdict)],
        title=title,
    )
    with write_atomically(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=120, facecolor="white")
    return measures


def _check_images(
    mapping: DiffeomorphicMap,
    static: np.ndarray,
    moving: np.ndarray,
    warped: np.ndarray | None,
) -> None:
    """Check that images have the map's dimension and `warped` its field's shape."""
    for name, image in (("static", static), ("moving", moving)):
        if image.ndim != mapping.dim:
            raise ValueError(f"{name} must be {mapping.dim}D, got shape {image.shape}")
    field_shape = tuple(int(n) for n in mapping.disp_shape)
    if warped is not None and np.shape(warped) != field_shape:
        raise ValueError(
            f"warped must have the shape {field_shape} of the map's field, got "
            f"{np.shape(warped)}"
        )


def _format_verdict(verdict: Verdict | None) -> list[str]:
    """The verdict, in lines as long as those of the measures."""
    return [] if verdict is None else textwrap.wrap(f"verdict: {verdict}", _LINE_WIDTH)


def _format_measures(measures: RegularityMeasures) -> list[str]:
    """The measures in lines of text: first the words of the log."""
    text = (
        f"{format_regularity(measures)} ({measures.round_trip_mean_mm:.3f} and "
        f"{measures.round_trip_max_mm:.3f} mm); standard deviation of the logarithm of "
        f"the determinant {measures.sd_log_jacobian:.3f}"
    )
    return textwrap.wrap(text, _LINE_WIDTH)
