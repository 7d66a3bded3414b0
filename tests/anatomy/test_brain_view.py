"""Whether an image can show a brain."""

import numpy as np
import pytest

from dipy_dl_reg.anatomy.brain_view import can_show_brain
from dipy_dl_reg.grid import Grid


@pytest.mark.parametrize(
    "shape, spacing, possible",
    [
        ((80, 100, 80), (2, 2, 2), True),
        ((100, 100, 12), (2, 2, 4), True),  # a slab of 48 mm
        ((100, 100, 12), (2, 2, 2), False),  # 24 mm
        ((45, 45, 45), (2, 2, 2), False),  # 90 mm wide
        ((100, 100), (2, 2), False),
        ((40, 40, 40), (1000, 1000, 1000), False),  # micrometres
        ((132, 80, 114), (100, 100, 100), False),  # a mouse brain in micrometres
        ((100, 100, 2201), (1, 1, 1), False),
        ((250, 250, 900), (2, 2, 2), True),  # a whole body
    ],
)
def test_field_of_view(shape, spacing, possible):
    assert can_show_brain(Grid(shape, np.diag([*spacing, 1.0]))) == possible


@pytest.mark.parametrize(
    "shape, spacing, possible",
    [
        ((80, 100, 80), (2, 2, 2), True),
        ((100, 100, 12), (2, 2, 4), False),  # a slab
        ((51, 51, 51), (2, 2, 2), False),  # 1.1 litres
        ((40, 40, 40), (1000, 1000, 1000), False),
    ],
)
def test_field_of_view_of_a_whole_head(shape, spacing, possible):
    assert can_show_brain(Grid(shape, np.diag([*spacing, 1.0])), whole=True) == possible
