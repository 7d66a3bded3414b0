"""Properties of every affine transform; parameters mean what they mean in DIPY."""

from dipy.align.transforms import regtransforms
import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.affine_transforms.registry import (
    TRANSFORMS,
    make_transform,
    transform_names,
)

every_transform = pytest.mark.parametrize("name", transform_names())
every_dim = pytest.mark.parametrize("dim", [2, 3])


def is_dipys(name):
    """Whether DIPY has a transform of the same name."""
    return (name.replace("_", "").upper(), 3) in regtransforms


def near_identity(transform, rng, count=3):
    """Parameters around those of the identity, which any seed makes invertible."""
    noise = rng.normal(0, 0.2, (count, transform.count))
    return transform.identity() + torch.from_numpy(noise)


@every_transform
def test_names_and_meanings(name):
    assert TRANSFORMS[name].kind == name
    assert TRANSFORMS[name].meaning


@every_transform
@every_dim
def test_identity(name, dim):
    transform = make_transform(name, dim)
    theta = transform.identity()
    assert theta.shape == (1, transform.count)
    eye = torch.eye(dim + 1, dtype=torch.float64)
    assert torch.equal(transform.matrix(theta)[0], eye)
    np.testing.assert_array_equal(transform.numpy_matrix(theta[0].numpy()), eye)


@every_transform
@every_dim
def test_jacobian_is_the_slope_of_the_matrix(name, dim, rng):
    transform, step = make_transform(name, dim), 1e-6
    theta = near_identity(transform, rng)
    jacobian = transform.jacobian(theta)
    assert jacobian.shape == (3, transform.count, dim, dim + 1)
    for k in range(transform.count):
        change = torch.zeros_like(theta)
        change[:, k] = step
        ahead, behind = (transform.matrix(theta + s * change) for s in (1, -1))
        slope = (ahead - behind)[:, :-1] / (2 * step)
        torch.testing.assert_close(jacobian[:, k], slope, rtol=1e-6, atol=1e-8)


@every_transform
@every_dim
def test_batches_and_last_row(name, dim, rng):
    transform = make_transform(name, dim)
    theta = near_identity(transform, rng)
    matrices = transform.matrix(theta)
    assert torch.equal(matrices[:, -1, :-1], torch.zeros_like(matrices[:, -1, :-1]))
    assert torch.equal(matrices[:, -1, -1], torch.ones_like(matrices[:, -1, -1]))
    for one, matrix in zip(theta, matrices):
        assert torch.equal(transform.matrix(one[None])[0], matrix)


@every_transform
@every_dim
def test_change_of_centre(name, dim, rng):
    transform = make_transform(name, dim)
    theta = near_identity(transform, rng)
    centre = torch.from_numpy(rng.normal(0, 50, dim))
    shift = torch.eye(dim + 1, dtype=torch.float64)
    if transform.has_translation:
        shift[:dim, dim] = centre
    wanted = torch.linalg.inv(shift) @ transform.matrix(theta) @ shift
    found = transform.change_centre(theta, centre)
    torch.testing.assert_close(transform.matrix(found), wanted)
    back = transform.change_centre(found, -centre)
    torch.testing.assert_close(back, theta)


def of_dipy(name, dim):
    """DIPY's transform of the same name."""
    return regtransforms[name.replace("_", "").upper(), dim]


def test_every_transform_of_dipy_is_there():
    names = {name.replace("_", "").upper() for name in transform_names()}
    assert {kind for kind, _ in regtransforms} <= names


@pytest.mark.parametrize("name", [n for n in transform_names() if is_dipys(n)])
@every_dim
def test_matrix_and_jacobian_are_dipys(name, dim, rng):
    transform, theirs = make_transform(name, dim), of_dipy(name, dim)
    identity = transform.identity()[0].numpy()
    np.testing.assert_array_equal(identity, theirs.get_identity_parameters())
    thetas = identity + rng.normal(0, 0.7, (3, transform.count))
    matrices = transform.matrix(torch.from_numpy(thetas)).numpy()
    slopes = transform.jacobian(torch.from_numpy(thetas)).numpy()
    point = rng.normal(0, 30, dim)
    for theta, matrix, slope in zip(thetas, matrices, slopes):
        np.testing.assert_allclose(matrix, theirs.param_to_matrix(theta), atol=1e-12)
        np.testing.assert_allclose(transform.numpy_matrix(theta), matrix)
        by_theta = slope @ [*point, 1]
        np.testing.assert_allclose(by_theta.T, theirs.jacobian(theta, point), atol=1e-9)


def test_no_such_transform():
    with pytest.raises(ValueError, match="transform must be one of .*'rigid'"):
        make_transform("shear", 3)
    with pytest.raises(ValueError, match="dim must be 2 or 3, got 4"):
        make_transform("rigid", 4)
