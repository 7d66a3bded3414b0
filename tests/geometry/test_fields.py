"""Fields against SciPy, NumPy and closed forms, in 2D and 3D."""

import numpy as np
import pytest
from scipy import ndimage
import torch

from dipy_dl_reg.geometry import fields
from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.smoothing import box_sum, gaussian_taps, smooth

SHAPES = [(9, 12), (7, 9, 11), (8, 1, 9)]


def wave(shape, amplitude=1.0, batch=1):
    """A smooth field of low frequency, float64."""
    rng = np.random.default_rng(len(shape))
    noise = rng.standard_normal((batch, len(shape), *shape))
    noise = ndimage.gaussian_filter(noise, (0, 0, *[2] * len(shape)), mode="nearest")
    noise *= amplitude / np.abs(noise).max()
    for axis, size in enumerate(shape):
        if size == 1:
            noise[:, axis] = 0
    return torch.from_numpy(noise)


def sampled(image, points, order=1):
    """SciPy's interpolation of a NumPy image, edges extended."""
    return ndimage.map_coordinates(image, points, order=order, mode="nearest")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_warp_is_scipys(shape, mode):
    image = torch.rand(1, 2, *shape, dtype=torch.float64)
    u = wave(shape, 2.3)
    points = np.indices(shape) + u[0].numpy()
    warped = fields.warp(image, u, mode=mode)
    for channel in range(2):
        expected = sampled(
            image[0, channel].numpy(), points, order=1 if mode == "linear" else 0
        )
        np.testing.assert_allclose(warped[0, channel], expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_warp_through_an_affine_onto_another_grid(shape):
    dim = len(shape)
    image = torch.rand(1, 1, *(n + 3 for n in shape), dtype=torch.float64)
    affine = np.eye(dim + 1)
    affine[:dim, :dim] += 0.1 * np.arange(dim * dim).reshape(dim, dim) / dim
    affine[:dim, dim] = 0.7
    u = wave(shape, 1.5)
    points = np.indices(shape) + u[0].numpy()
    points = np.tensordot(affine[:dim, :dim], points, 1)
    points += affine[:dim, dim].reshape(-1, *[1] * dim)
    frame = fields.frame(
        shape, image.shape[2:], affine=torch.from_numpy(affine), dtype=u.dtype
    )
    warped = fields.warp(image, u, frame_=frame)
    np.testing.assert_allclose(warped[0, 0], sampled(image[0, 0].numpy(), points))


def test_a_batch_is_its_members():
    u, image = wave((6, 7, 8), 1.0, batch=3), torch.rand(3, 1, 6, 7, 8).double()
    together = fields.warp(image, u)
    for k in range(3):
        alone = fields.warp(image[k : k + 1], u[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone)


def test_threads_do_not_change_a_large_warp():
    u, image = wave((24, 25, 26), 3.0), torch.rand(1, 3, 24, 25, 26).double()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(fields.warp(image, u))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_sample_is_scipys():
    image = torch.rand(1, 2, 6, 7, 8, dtype=torch.float64)
    points = 9 * torch.rand(3, 50, dtype=torch.float64) - 1
    values = fields.sample(image, points)
    for channel in range(2):
        expected = sampled(image[0, channel].numpy(), points.numpy())
        np.testing.assert_allclose(values[channel], expected, atol=1e-12)


def test_compose_translations_and_order():
    first, second = torch.zeros(2, 1, 2, 9, 9).double()
    first[:, 0], second[:, 1] = 1.5, -0.5
    total = fields.compose(first, second)
    torch.testing.assert_close(total[0, :, 4, 4], torch.tensor([1.5, -0.5]).double())
    # second(first(x)): the second field is read where the first one leads.
    ramp = fields.identity((9, 9), dtype=torch.float64) * 0.1
    total = fields.compose(first, ramp)
    expected = 1.5 + 0.1 * (2 + 1.5)
    assert total[0, 0, 2, 4].item() == pytest.approx(expected)


def test_exp_of_a_linear_velocity():
    """dx/dt = a x has the flow exp(a) x: y = x + u with u = (e^a - 1) x."""
    shape, rate = (33, 33), 0.2
    x = fields.identity(shape, dtype=torch.float64) - 16
    u = fields.exp(rate * x, steps=10)
    inner = (..., slice(8, 25), slice(8, 25))
    expected = (np.exp(rate) - 1) * x
    torch.testing.assert_close(u[inner], expected[inner], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_exp_of_minus_is_the_inverse(shape):
    velocity = wave(shape, 0.8)
    there, back = fields.exp(velocity), fields.exp(-velocity)
    inside = (..., *(slice(2, -2) if n > 4 else slice(None) for n in shape))
    assert fields.compose(there, back)[inside].abs().max() < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_resize_keeps_an_affine_map(shape):
    dim = len(shape)
    x = fields.identity(shape, dtype=torch.float64)
    matrix = torch.linspace(-0.2, 0.2, dim * dim, dtype=torch.float64).view(dim, dim)
    keep = torch.tensor([n > 1 for n in shape])
    u = torch.einsum("ij,bj...->bi...", matrix, x) * keep.view(1, -1, *[1] * dim)
    new = tuple(2 * n + 1 if n > 1 else 1 for n in shape)
    scale = torch.tensor(
        [(m - 1) / (n - 1) if n > 1 else 1.0 for m, n in zip(new, shape)]
    ).double()
    y = fields.identity(new, dtype=torch.float64)
    resized = fields.resize(u, new)
    stretched = torch.einsum(
        "ij,bj...->bi...", matrix * scale[:, None] / scale[None], y
    ) * keep.view(1, -1, *[1] * dim)
    torch.testing.assert_close(resized, stretched)
    assert fields.resize(u, shape) is u


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_is_numpys(shape):
    u = wave(shape, 2.0)
    dim = len(shape)
    matrix = np.zeros((*shape, dim, dim))
    for i in range(dim):
        for j in range(dim):
            if shape[j] > 1:
                matrix[..., i, j] = np.gradient(u[0, i].numpy(), axis=j)
    expected = np.linalg.det(matrix + np.eye(dim))
    np.testing.assert_allclose(jacobian(u)[0], expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_smooth_is_a_renormalised_gaussian(shape):
    x = torch.rand(1, 2, *shape, dtype=torch.float64)
    kept = x.clone()
    radius = len(gaussian_taps(1.2)) - 1
    options = {"sigma": 1.2, "mode": "constant", "radius": radius}
    weight = ndimage.gaussian_filter(np.ones(shape), **options)
    result = smooth(x, 1.2)
    for channel in range(2):
        expected = ndimage.gaussian_filter(x[0, channel].numpy(), **options) / weight
        np.testing.assert_allclose(result[0, channel], expected, atol=1e-12)
    assert torch.equal(x, kept)
    assert smooth(x, 1.2, out=x) is x
    torch.testing.assert_close(x, result)


def test_smooth_along_chosen_axes():
    x = torch.rand(1, 1, 8, 9, dtype=torch.float64)
    result = smooth(x, [0, 0.8])
    taps = gaussian_taps(0.8)
    kernel = np.array([*taps[:0:-1], *taps])
    ones = ndimage.convolve1d(np.ones((8, 9)), kernel, axis=1, mode="constant")
    expected = ndimage.convolve1d(x[0, 0].numpy(), kernel, axis=1, mode="constant")
    np.testing.assert_allclose(result[0, 0], expected / ones, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_box_sum_is_scipys(shape):
    x = torch.rand(1, 2, *shape, dtype=torch.float64)
    expected = ndimage.uniform_filter(x[0, 1].numpy(), 5, mode="constant")
    expected *= 5 ** len(shape)
    np.testing.assert_allclose(box_sum(x, 2)[0, 1], expected, atol=1e-11)
