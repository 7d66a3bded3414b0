"""Parameters mean what they mean in DIPY's transforms, of every kind."""

from dipy.align.transforms import regtransforms
import numpy as np
import pytest
import torch

from dipy_dl_reg.geometry.affine_transforms import KINDS, AffineTransform

NAMES = {kind.replace("_", "").upper(): kind for kind in KINDS}
ALL = sorted(regtransforms)


def test_every_transform_of_dipy_is_there():
    assert {kind for kind, _ in ALL} == set(NAMES)


@pytest.mark.parametrize("kind, dim", ALL)
def test_matrix_and_jacobian_are_dipys(kind, dim, rng):
    transform, family = regtransforms[kind, dim], AffineTransform(NAMES[kind], dim)
    identity = family.identity()[0].numpy()
    np.testing.assert_array_equal(identity, transform.get_identity_parameters())
    thetas = identity + rng.normal(0, 0.7, (3, family.count))
    matrices = family.matrix(torch.from_numpy(thetas)).numpy()
    slopes = family.jacobian(torch.from_numpy(thetas)).numpy()
    point = rng.normal(0, 30, dim)
    for theta, matrix, slope in zip(thetas, matrices, slopes):
        np.testing.assert_allclose(matrix, transform.param_to_matrix(theta), atol=1e-12)
        np.testing.assert_allclose(family.array(theta), matrix)
        by_theta = slope @ [*point, 1]
        np.testing.assert_allclose(
            by_theta.T, transform.jacobian(theta, point), atol=1e-9
        )


@pytest.mark.parametrize("kind, dim", ALL)
def test_recentred(kind, dim, rng):
    family = AffineTransform(NAMES[kind], dim)
    theta = torch.from_numpy(family.identity().numpy() + rng.normal(0, 0.5))
    centre = torch.from_numpy(rng.normal(0, 50, dim))
    shift = torch.eye(dim + 1, dtype=torch.float64)
    if family.shifts:
        shift[:dim, dim] = centre
    wanted = torch.linalg.inv(shift) @ family.matrix(theta) @ shift
    found = family.matrix(family.change_centre(theta, centre))
    torch.testing.assert_close(found, wanted)


def test_no_such_family():
    for kind, dim in (("shear", 3), ("rigid", 4)):
        with pytest.raises(ValueError, match="a family is one of"):
            AffineTransform(kind, dim)
