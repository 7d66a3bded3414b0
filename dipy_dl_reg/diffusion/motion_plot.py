"""A figure of the motion in a series."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dipy_dl_reg.diffusion.motion_table import Motion
from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.maps.figure import load_matplotlib
from dipy_dl_reg.validation import wrong_value

_AXES = ("x", "y", "z")
#: Size of the figure in inches, and its resolution.
_SIZE, _DPI = (9.0, 7.0), 120


def plot_motion(
    path: str | os.PathLike,
    motion: Motion,
    *,
    bvals: np.ndarray | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> None:
    """Draw the translations, the rotations and the displacements of a series.

    Parameters
    ----------
    path : str or Path
        The picture: PNG, or another format that matplotlib knows by its suffix.
    motion : Motion
        From `measure_motion`.
    bvals : ndarray, shape (N,), optional
        b-values; each shell then has a colour in the panel of the displacements.
    title : str, optional
        A line above the picture.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the number of b-values is not that of the volumes.
    OSError
        If the file exists or cannot be written.

    See Also
    --------
    measure_motion : computes what is drawn.
    write_motion_table : the same as a table.
    deep_motion_correction : gives the affines.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from dipy_dl_reg import measure_motion, plot_motion
    >>> affines = np.repeat(np.eye(4)[..., None], 5, axis=-1)
    >>> affines[0, 3] = [0, 1, 0, 2, 1]
    >>> motion = measure_motion(affines, (96, 96, 60), np.eye(4))
    >>> plot_motion(f"{tempfile.mkdtemp()}/motion.png", motion)
    """
    figure = load_matplotlib().Figure(figsize=_SIZE, layout="constrained")
    count = len(motion.rms)
    if bvals is not None:
        bvals = np.asarray(bvals, dtype=np.float64)
        if bvals.shape != (count,):
            raise wrong_value("bvals", f"of shape ({count},)", bvals.shape)
    check_writable(path, overwrite=overwrite)
    panels = figure.subplots(3, 1, sharex=True)
    _draw_lines(panels[0], motion.translations, "translation (mm)")
    _draw_lines(panels[1], motion.rotations, "rotation (degrees)")
    _draw_displacements(panels[2], motion, bvals)
    panels[2].set_xlabel("volume")
    panels[0].set_title(title or "motion relative to the reference volume")
    with write_atomically(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _draw_lines(panel: Any, values: np.ndarray, label: str) -> None:
    """Draw one line for each axis of the world."""
    for axis, name in enumerate(_AXES):
        panel.plot(values[:, axis], marker=".", linewidth=1, label=name)
    panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    panel.set_ylabel(label)
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _draw_displacements(panel: Any, motion: Motion, bvals: np.ndarray | None) -> None:
    """Draw the framewise displacement, with a colour for each b-value."""
    steps = np.nan_to_num(motion.framewise_displacement)
    volumes = np.arange(len(steps))
    if bvals is None:
        panel.bar(volumes, steps, color="0.6", label="framewise")
    else:
        rounded = np.round(bvals, -2)
        for bval in np.unique(rounded):
            shown = rounded == bval
            panel.bar(volumes[shown], steps[shown], label=f"b = {bval:g}")
    panel.plot(volumes, motion.rms, color="black", linewidth=1, label="from reference")
    panel.set_ylabel("displacement (mm)")
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
