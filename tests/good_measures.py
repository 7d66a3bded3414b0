"""Measures of a good registration, for tests."""

from dipy_dl_reg.maps.measures import Measures

GOOD = Measures(
    similarity_before=0.1,
    similarity_affine=0.4,
    similarity=0.7,
    similarity_wrong=None,
    overlap_before=0.5,
    overlap_affine=0.93,
    overlap=0.97,
    visible=1.0,
    displacement=0.02,
    displacement_95=0.04,
    volume_ratio=1.02,
    rotation=5.0,
    smallest_scale=0.95,
    largest_scale=1.05,
    mirrors=False,
    has_prealign=True,
)
