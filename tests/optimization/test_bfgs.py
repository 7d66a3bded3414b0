"""Minimization of a batch: the entries are independent of each other."""

import torch

from dipy_dl_reg.optimization.bfgs import minimize_batch


def bowls(size, batch):
    """Quadratic functions of unlike steepness, and their minima."""
    generator = torch.Generator().manual_seed(3)
    options = {"generator": generator, "dtype": torch.float64}
    root = torch.randn(batch, size, size, **options)
    hessian = root @ root.transpose(1, 2) + 0.3 * torch.eye(size, dtype=torch.float64)
    middle = 5 * torch.randn(batch, size, **options)

    def function(place, entries):
        slope = (hessian[entries] @ (place - middle[entries])[:, :, None])[:, :, 0]
        return 0.5 * ((place - middle[entries]) * slope).sum(1), slope

    return function, middle


def test_quadratics():
    function, middle = bowls(6, 5)
    found = minimize_batch(
        function, torch.zeros_like(middle), iterations=200, first_step=1, tolerance=1e-9
    )
    torch.testing.assert_close(found.parameters, middle, atol=1e-5, rtol=0)
    assert found.evaluations < 100


def test_entries_do_not_touch_each_other():
    function, middle = bowls(4, 4)
    options = {"iterations": 12, "first_step": 1.0, "tolerance": 1e-6}
    together = minimize_batch(function, torch.zeros_like(middle), **options)
    for k in range(4):

        def alone(place, entries, k=k):
            return function(place, entries * 0 + k)

        single = minimize_batch(alone, torch.zeros_like(middle[:1]), **options)
        torch.testing.assert_close(single.parameters[0], together.parameters[k])


def test_curved_valley():
    """Rosenbrock's function."""

    def function(place, entries):
        x, y = place.unbind(1)
        value = (1 - x) ** 2 + 100 * (y - x * x) ** 2
        by_x = -2 * (1 - x) - 400 * x * (y - x * x)
        return value, torch.stack([by_x, 200 * (y - x * x)], 1)

    start = torch.tensor([[-1.2, 1.0], [2.0, -1.0]], dtype=torch.float64)
    found = minimize_batch(
        function, start, iterations=300, first_step=0.1, tolerance=1e-8
    )
    torch.testing.assert_close(
        found.parameters, torch.ones_like(start), atol=1e-4, rtol=0
    )


def test_walls_and_flats():
    """Steps to infinite values are shortened; no entry becomes worse than its start."""

    def function(place, entries):
        x = place[:, 0]
        value = torch.where(x < 2, -x, torch.inf)
        flat = entries == 1
        slope = torch.where(flat, 0.0, -1.0).double()
        return torch.where(flat, 0.0, value).double(), slope[:, None]

    start = torch.zeros(2, 1, dtype=torch.float64)
    found = minimize_batch(function, start, iterations=60, first_step=1, tolerance=1e-6)
    assert (
        1.5 < float(found.parameters[0, 0]) < 2 and float(found.parameters[1, 0]) == 0
    )
    assert bool((found.value <= 0).all())
