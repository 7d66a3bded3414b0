"""The search over rotations: covers them all, and finds the object in any pose."""

import numpy as np
import pytest

from dipy_dl_reg.initialization.rotation_search import make_rotations


@pytest.mark.parametrize("dim, farthest", [(2, 15), (3, 45)])
def test_every_rotation_is_near_one(dim, farthest, rng):
    turns = make_rotations(dim)
    eye = np.eye(dim)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1) - eye, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    np.testing.assert_array_equal(turns[0], eye)
    wanted, _ = np.linalg.qr(rng.normal(size=(500, dim, dim)))
    wanted[:, 0] *= np.sign(np.linalg.det(wanted))[:, None]
    traces = np.einsum("aij,bij->ab", wanted, turns).max(1)
    cosine = (traces - 1) / 2 if dim == 3 else traces / 2
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() <= farthest + 1e-6


def test_the_rotations_of_3d_are_a_group():
    """As those of an icosahedron: products are among them."""
    turns = make_rotations(3)
    assert len(turns) == 60
    products = np.einsum("aij,bjk->abik", turns, turns).reshape(-1, 9)
    apart = np.abs(products[:, None] - turns.reshape(1, -1, 9)).max(2)
    assert apart.min(1).max() < 1e-12
