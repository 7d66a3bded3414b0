"""What is logged of a series and its gradient table before a motion correction."""

from __future__ import annotations

from dipy.core.gradients import GradientTable
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.gradient_tables import describe_shells
from dipy_dl_reg.io.series_files import VolumeSeries


def log_gradient_table(
    series: VolumeSeries, table: GradientTable, b0_ref: int, frame: str
) -> None:
    """Log the shells, and warn of a table that does not seem to be that of the series.

    A diffusion-weighted volume is darker than b0.

    Parameters
    ----------
    series : VolumeSeries
        The series.
    table : GradientTable
        Its gradient table.
    b0_ref : int
        Which of the b0 volumes is the reference.
    frame : {"voxel", "fsl", "world"}
        The frame of the b-vectors.
    """
    logger.info(f"Series of {describe_shells(table)}; b-vectors in the frame {frame}")
    weighted = np.flatnonzero(~table.b0s_mask)
    if not len(weighted):
        logger.warning(
            "gtab has no diffusion-weighted volume: its largest b-value is "
            f"{table.bvals.max():g}. b-values must be in s/mm^2."
        )
        return
    reference = int(np.flatnonzero(table.b0s_mask)[b0_ref])
    highest = int(weighted[np.argmax(table.bvals[weighted])])
    b0, dark = (np.nanmean(series.read(k)) for k in (reference, highest))
    if dark > b0:
        logger.warning(
            f"Volume {reference} is b0 by the gradient table, but is darker than "
            f"volume {highest} (b = {table.bvals[highest]:g}): check that the table "
            "is that of the series."
        )
