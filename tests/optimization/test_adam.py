"""Adam for displacement fields: direction, length and scale of its steps."""

import pytest
import torch

from dipy_dl_reg.optimization.adam import Adam

SHAPE = (1, 3, 6, 5, 4)


def gradients(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_the_first_step_is_along_the_gradient(step):
    """The largest gradient moves its voxel by a full step, others by almost one."""
    gradient = gradients()
    move = Adam(gradient, epsilon=0.01).direction(gradient.clone(), step)
    length, size = move.norm(dim=1), gradient.norm(dim=1)
    assert float(length[size == size.max()]) == pytest.approx(step, rel=1e-4)
    assert bool((length <= step * 1.0001).all())
    cosine = -(move * gradient).sum(1) / (length * size)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_weak_gradients_move_in_proportion():
    gradient = torch.zeros(SHAPE)
    gradient[0, 0, 0, 0, 0], gradient[0, 0, 1, 0, 0] = 1.0, 1e-5
    move = Adam(gradient, epsilon=0.1).direction(gradient.clone(), 1.0)
    assert float(move[0, 0, 1, 0, 0]) == pytest.approx(-1.1e-4, rel=1e-2)


def test_scale_of_the_gradient_does_not_matter():
    one, other = (Adam(torch.zeros(SHAPE), epsilon=0.01) for _ in range(2))
    for seed in range(4):
        a = one.direction(gradients(seed), 0.5)
        b = other.direction(1000 * gradients(seed), 0.5)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_round_off_moves_nothing():
    gradient = 1e-9 * gradients()
    move = Adam(gradient, epsilon=0.01).direction(gradient.clone(), 0.5)
    assert float(move.abs().max()) < 1e-2


def test_the_result_takes_the_memory_of_the_gradient():
    gradient = gradients()
    adam = Adam(gradient, epsilon=0.01)
    assert adam.direction(gradient, 0.5).data_ptr() == gradient.data_ptr()
    assert float(adam.largest_gradient) > 1
