"""The line of an echo-planar distortion, and the gradient of a modulated image."""

import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import warp
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.optimization.phase_encoding import (
    constrain_to_axis,
    line_determinant,
    modulated_gradient,
)


def make_pair(shape=(7, 8, 6), turn=None):
    """Make a pair of empty images; static's grid may be oblique to moving's."""
    affine = np.eye(4)
    if turn is not None:
        affine[:3, :3] = turn
    images = [torch.zeros(1, 1, *shape)] * 2
    return Pair(*images, Grid(shape, affine), Grid(shape, np.eye(4)), np.eye(4))


def test_projection_is_exact_and_idempotent(rng):
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag([1, 2, 3])
    pair = make_pair(turn=turn)
    constraint = constrain_to_axis(pair, "j")
    field = torch.from_numpy(rng.normal(size=(1, 3, 7, 8, 6)))
    projected = constraint.project(field.clone(), pair.static_grid)
    moving = np.einsum("ij,bj...->bi...", turn, projected.numpy())
    assert abs(moving[:, [0, 2]]).max() < 1e-12 * abs(moving).max()
    shift = constraint.coordinates(projected, pair.static_grid)
    np.testing.assert_allclose(shift[:, 0], moving[:, 1], atol=1e-12)
    again = constraint.project(projected.clone(), pair.static_grid)
    np.testing.assert_allclose(again, projected, atol=1e-12)


def test_component_across_a_single_slice_is_restored(rng):
    """Fields across a single slice are 0; the projection must not lose length."""
    turn = np.array([[1, 0, 0], [0, 0.8, 0.6], [0, -0.6, 0.8]])
    pair = make_pair((9, 8, 1), turn=turn)
    constraint = constrain_to_axis(pair, "j")
    along = torch.from_numpy(rng.normal(size=(1, 1, 9, 8, 1)))
    parts = [float(p) for p in constraint.in_voxels(pair.static_grid)]
    field = torch.cat([along * p for p in parts], 1)
    whole = field.clone()
    field[:, 2] = 0
    constraint.project(field, pair.static_grid)
    np.testing.assert_allclose(field, whole, atol=1e-12)


def test_slice_without_the_direction_is_refused():
    pair = make_pair((9, 8, 1), turn=np.array([[1, 0, 0], [0, 0, 1.0], [0, 1, 0]]))
    moving = pair._replace(moving_grid=Grid((9, 8, 7), np.eye(4)))
    with pytest.raises(ValueError, match="leads out of static"):
        constrain_to_axis(moving, "j")


def test_line_determinant_is_the_jacobian_determinant(rng):
    direction = rng.normal(size=3)
    shift = torch.from_numpy(rng.normal(size=(1, 1, 7, 8, 6)))
    field = torch.cat([shift * float(d) for d in direction], 1)
    np.testing.assert_allclose(
        line_determinant(field)[:, 0], jacobian(field), atol=1e-10
    )


def test_gradient_of_the_modulated_image():
    """It is that of the energy by a smooth step, by finite differences."""
    axes = torch.meshgrid(
        *[torch.linspace(-1, 1, n).double() for n in (40, 41)], indexing="ij"
    )
    image = torch.exp(-3 * (axes[0] ** 2 + 2 * axes[1] ** 2))[None, None]
    static = torch.exp(-4 * ((axes[0] - 0.1) ** 2 + axes[1] ** 2))[None, None]
    step = torch.zeros(1, 2, 40, 41).double()
    step[:, 1] = torch.exp(-5 * (axes[0] ** 2 + axes[1] ** 2))

    def modulated(size):
        return warp(image, size * step) * line_determinant(size * step)

    def energy(size):
        return 0.5 * (modulated(size) - static).square().sum()

    gradient = torch.empty_like(step)
    modulated_gradient(image, image - static, out=gradient)
    found = float((gradient * step).sum())
    size = 0.05
    wanted = float(energy(size) - energy(-size)) / (2 * size)
    assert found == pytest.approx(wanted, rel=0.02)


def test_gradient_of_channels_is_their_sum(rng):
    image, factor = torch.from_numpy(rng.normal(size=(2, 1, 3, 6, 7, 5)))
    together = torch.empty(1, 3, 6, 7, 5, dtype=torch.float64)
    modulated_gradient(image, factor, out=together)
    parts = torch.empty(3, 1, 3, 6, 7, 5, dtype=torch.float64)
    for k, part in enumerate(parts):
        modulated_gradient(image[:, k : k + 1], factor[:, k : k + 1], out=part)
    torch.testing.assert_close(together, parts.sum(0))
