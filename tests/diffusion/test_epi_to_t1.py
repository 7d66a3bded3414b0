"""A b0 image whose distortion is known, and a T1 image of the same head."""

from epi_images import distort, make_image, make_shift
import numpy as np
import phantom
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg import deep_epi_to_t1
from dipy_dl_reg.diffusion import epi_to_t1
from dipy_dl_reg.diffusion.epi_to_t1 import match_contrast
from dipy_dl_reg.registration.affine.steps import AffineResult

SHAPE, AFFINE = (38, 44, 34), phantom.grid((38, 44, 34), 2.5)
#: The head lies in another pose in the T1 image.
POSE = phantom.rigid(Rotation.from_rotvec([0.05, 0.08, -0.06]).as_matrix(), [4, -3, 5])


def make_case():
    """Make a T1 image, its matrix, a b0 image without distortion, and its shift."""
    t1 = make_image(SHAPE)
    t1[t1 < 0.1] = 0
    b0 = np.where(t1 > 0, 2.5 / (1 + t1), 0).astype(np.float32)
    return t1, POSE @ AFFINE, b0, make_shift(SHAPE, 1, 4.0)


def test_known_shift_between_contrasts():
    t1, affine, b0, shift = make_case()
    distorted = distort(b0, shift, 1)
    found = deep_epi_to_t1(
        distorted,
        t1,
        affine=AFFINE,
        t1_affine=affine,
        phase_encoding="j-",
        prealign=np.linalg.inv(POSE),
        iterations=1,
    )
    inside = b0 > 0
    error = abs(-found.field - shift)[inside].mean()
    assert error < 0.7 * abs(shift[inside]).mean()
    np.testing.assert_allclose(found.field_mm, 2.5 * found.field, rtol=1e-5)
    assert not found.mapping.backward[..., [0, 2]].any()
    assert not found.mapping.forward[..., [0, 2]].any()
    assert found.t1.shape == SHAPE


def test_alignment_is_improved_by_iterations():
    t1, affine, b0, shift = make_case()
    near = np.linalg.inv(POSE)
    near[:3, 3] += [2, 0, -2]
    images = {"affine": AFFINE, "t1_affine": affine, "prealign": near}
    found = deep_epi_to_t1(distort(b0, shift / 2, 1), t1, **images, iterations=2)
    truth = np.linalg.inv(POSE)
    gap = phantom.misplacement(found.t1_to_b0, truth)
    assert gap < 0.75 * phantom.misplacement(near, truth)


def test_failed_alignment_keeps_the_given_one(rng, caplog):
    """Noise has no alignment."""
    t1, affine, b0, _ = make_case()
    noise = rng.uniform(1, 2, SHAPE).astype(np.float32)
    prealign = np.linalg.inv(POSE)
    found = deep_epi_to_t1(
        noise, t1, affine=AFFINE, t1_affine=affine, prealign=prealign, iterations=2
    )
    np.testing.assert_array_equal(found.t1_to_b0, prealign)
    assert "The rigid registration of t1 failed" in caplog.text


def test_given_prealign_is_used():
    t1, affine, b0, _ = make_case()
    prealign = np.linalg.inv(POSE)
    found = deep_epi_to_t1(
        b0, t1, affine=AFFINE, t1_affine=affine, prealign=prealign, iterations=1
    )
    np.testing.assert_array_equal(found.t1_to_b0, prealign)
    assert abs(found.field[b0 > 0]).mean() < 0.3


def test_match_contrast_is_the_known_function(rng):
    image = rng.uniform(0, 1, (20, 20, 20)).astype(np.float32)
    matched = match_contrast(image, 2 - image**2, image > 0.1)
    inside = (image > 0.15) & (image < 0.95)
    np.testing.assert_allclose(matched[inside], (2 - image**2)[inside], atol=0.01)
    assert not matched[image <= 0.1].any()


def test_both_steps_use_the_device(monkeypatch):
    t1, affine, b0, _ = make_case()
    devices = []

    def find(*images, device, **options):
        devices.append(device)
        return AffineResult(*[None] * 9)._replace(matrix=np.linalg.inv(POSE))

    monkeypatch.setattr(epi_to_t1, "find_affine", find)
    images = {"affine": AFFINE, "t1_affine": affine}
    deep_epi_to_t1(b0, t1, **images, iterations=1, device="cpu")
    assert devices == ["cpu", "cpu"]  # from the scanner's coordinates and the centres


B0 = make_case()[2]
FAR = phantom.rigid(np.eye(3), [500.0, 0, 0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"phase_encoding": "x"}, "phase_encoding must be one of"),
        ({"affine": None}, "affine is required"),
        ({"t1_affine": None}, "t1_affine is required"),
        ({"t1": B0[0]}, "t1 must be 3D"),
        ({"b0": np.zeros(SHAPE)}, "b0 must be an image with signal"),
        ({"iterations": 0}, "iterations must be"),
        ({"prealign": np.zeros((4, 4))}, "prealign"),
        ({"t1_mask": np.ones((2, 2, 2))}, "t1_mask must be of the shape of t1"),
        ({"t1_mask": np.zeros(SHAPE)}, "t1_mask must have voxels other than 0"),
        ({"t1": np.full(SHAPE, 3.0)}, "t1 must have different values, got only 3"),
        ({"t1_mask": B0 == 0}, "t1 must have different values within t1_mask"),
        ({"prealign": FAR}, "t1 must overlap the signal of b0"),
        ({"prealign": FAR, "t1_mask": B0 > 0}, "t1 must overlap the signal of b0"),
    ],
)
def test_bad_input(changes, message):
    given = {"b0": B0, "t1": B0, "affine": AFFINE, "t1_affine": AFFINE}
    given |= changes
    with pytest.raises(ValueError, match=message):
        deep_epi_to_t1(given.pop("b0"), given.pop("t1"), **given)
