"""The figure of a template's iterations: energy, sharpness, spread, displacement."""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import TYPE_CHECKING

from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.maps.figure import load_matplotlib

if TYPE_CHECKING:
    from dipy_dl_reg.groupwise.template_stages import IterationMeasures

#: The panels: measures that are drawn together, and the label of the axis.
PANELS = (
    (("energy",), "energy (lower is better)"),
    (("sharpness",), "gradient / intensity (1/mm)"),
    (("spread",), "standard deviation / intensity"),
    (("shape_update", "mean_displacement"), "mean displacement (voxels)"),
)


def plot_iterations(
    history: Sequence[IterationMeasures],
    path: str | os.PathLike,
    *,
    overwrite: bool = False,
) -> None:
    """Draw the measures of a template over its iterations.

    Parameters
    ----------
    history : sequence of IterationMeasures
        One for each iteration.
    path : str or Path
        File of the picture, such as ``iterations.png``.
    overwrite : bool, optional
        Replace the file if it exists.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written.
    """
    load_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axes, (names, label) in zip(figure.subplots(1, len(PANELS)), PANELS):
        for name in names:
            drawn = [m for m in history if getattr(m, name) is not None]
            if name == "shape_update":  # iteration 0 has no registration
                drawn = [m for m in drawn if m.iteration]
            axes.plot(
                [m.iteration for m in drawn],
                [getattr(m, name) for m in drawn],
                marker="o",
                label=name.replace("_", " "),
            )
        axes.set_xlabel("iteration")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(names) > 1:
            axes.legend(frameon=False, fontsize="small")
    with write_atomically(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=110)
