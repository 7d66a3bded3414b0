"""Names and meanings of the metrics, for help texts, which must not load torch."""

from __future__ import annotations

#: What each metric of `dipy_dl_reg.metrics.registry.METRICS` measures.
METRIC_MEANINGS = {
    "CC": "local correlation",
    "SSD": "squared difference",
    "NCC": "global correlation",
    "MI": "mutual information",
    "CR": "correlation ratio",
    "MIND": "self-similarity",
}
