"""Each transpose against the definition of a transpose."""

import pytest
import torch

from dipy_dl_reg.geometry.derivatives import derivative
from dipy_dl_reg.geometry.transposed import (
    derivative_transposed,
    forward_difference,
    forward_transposed,
    sum_of_neighbours,
)

PAIRS = [
    (derivative, derivative_transposed),
    (forward_difference, forward_transposed),
    (sum_of_neighbours, sum_of_neighbours),
]


@pytest.mark.parametrize("forward, transposed", PAIRS)
@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 3, 1), (4, 5)])
def test_transpose(forward, transposed, shape):
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 1, 1, *shape, generator=generator, dtype=torch.float64)
    for axis in range(len(shape)):
        left = (forward(a, axis) * b).sum()
        right = (a * transposed(b, axis)).sum()
        torch.testing.assert_close(left, right)
