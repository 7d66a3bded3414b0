"""Charts of a report, drawn by matplotlib as SVG."""

from __future__ import annotations

from collections.abc import Sequence
import io
from typing import Any

from dipy_dl_reg.maps.figure import load_matplotlib
from dipy_dl_reg.maps.html.pictures import make_data_uri
from dipy_dl_reg.maps.record import LevelRecord

#: Colours of Okabe and Ito, which colour-blind people distinguish.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: Options of the SVG: text as text, and the same file for the same values.
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "dipy_dl_reg", "font.size": 10}


def draw_energies(levels: Sequence[LevelRecord]) -> str:
    """Draw the energy of each iteration, one curve for each level.

    Parameters
    ----------
    levels : sequence of LevelRecord
        The levels, the coarsest first.

    Returns
    -------
    uri : str
        SVG as a data URI; empty if there were no iterations.
    """
    levels = [level for level in levels if level.energies]
    if not levels:
        return ""
    figure = load_matplotlib().Figure(figsize=(7.2, 2.6), layout="constrained")
    panel, start = figure.subplots(), 0
    for level, colour in zip(levels, _COLOURS * len(levels)):
        iterations = range(start + 1, start + 1 + len(level.energies))
        style = {"color": colour, "label": f"level {level.level}", "marker": "."}
        panel.plot(iterations, level.energies, markersize=3, linewidth=1.4, **style)
        start += len(level.energies)
    panel.set_xlabel("iteration")
    panel.set_ylabel("energy")
    panel.legend(frameon=False, ncols=len(levels))
    return _encode(figure)


def draw_similarities(values: Sequence[tuple[str, float]]) -> str:
    """Draw the similarity of the images in the stages of a registration.

    Parameters
    ----------
    values : sequence of tuple
        Name and similarity, from 0 to 1, of each stage; NaN is not drawn.

    Returns
    -------
    uri : str
        SVG as a data URI.
    """
    figure = load_matplotlib().Figure(figsize=(7.2, 1.5), layout="constrained")
    panel = figure.subplots()
    names = [name for name, _ in values]
    lengths = [value if value == value else 0.0 for _, value in values]
    bars = panel.barh(names, lengths, color=["#999999", "#56b4e9", "#0072b2"])
    texts = [f"{v:.2f}" if v == v else "unknown" for _, v in values]
    panel.bar_label(bars, texts, padding=3)
    panel.set_xlim(0, 1)
    panel.invert_yaxis()
    panel.set_xlabel("mean squared local correlation (1 is best)")
    return _encode(figure)


def _encode(figure: Any) -> str:
    """A figure as a data URI."""
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    with load_matplotlib().mpl.rc_context(_SVG):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return make_data_uri(buffer.getvalue(), "image/svg+xml")
