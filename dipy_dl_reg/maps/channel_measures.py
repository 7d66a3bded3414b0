"""Measures of a registration of images with several channels."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.maps.measures import Measures, measure_registration

if TYPE_CHECKING:
    import torch


def measure_channels(pair: Pair, displacement: torch.Tensor | None = None) -> Measures:
    """Measure two images of one or several channels before and after registration.

    Parameters
    ----------
    pair : Pair
        The images.
    displacement : Tensor, shape (1, D, *static_shape), optional
        Field in voxels of the static grid; by default there is only the affine part.

    Returns
    -------
    measures : Measures
        Those of the channel that is most similar after the affine part.
    """
    each = [
        measure_registration(pair.channel(k), displacement)
        for k in range(pair.channels)
    ]
    return max(each, key=_similarity)


def _similarity(measures: Measures) -> float:
    """Similarity after the affine part; below all others if it is unknown."""
    value = measures.similarity_affine
    return -1.0 if isnan(value) else value
