"""Two images of opposite phase encodings whose distortion is known."""

from epi_images import distort, make_image, make_shift
import numpy as np
from pairs import interpolate, move, voxels
import phantom
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg import DeepRegistration, apply_epi_correction, deep_epi_correction
from dipy_dl_reg.diffusion.epi import modulation_factor
from dipy_dl_reg.diffusion.epi_checks import log_difference

SHAPE = (31, 36, 27)
OBLIQUE = phantom.grid(
    SHAPE,
    [2, 2.2, 2.5],
    turn=Rotation.from_euler("xyz", [20, 10, -30], True).as_matrix(),
)
FLIPPED = np.diag([-2.0, 2, -2, 1])


def make_pair(axis, shape=SHAPE, longest=2.5):
    """Make an image, a shift, and the image distorted by it in both directions."""
    image, shift = make_image(shape), make_shift(shape, axis, longest)
    return image, shift, distort(image, shift, axis), distort(image, -shift, axis)


def error(found, truth, image):
    """Mean difference of two shifts in the object, voxels."""
    return abs(found - truth)[image > 0.2].mean()


@pytest.mark.parametrize(
    "letter, affine", [("i", OBLIQUE), ("j", FLIPPED), ("k", np.eye(4))]
)
def test_known_shift(letter, affine):
    axis = "ijk".index(letter)
    image, shift, first, second = make_pair(axis)
    found = deep_epi_correction(first, second, affine=affine, phase_encoding=letter)
    before = error(0, shift, image)
    assert error(found.field, shift, image) < 0.1 * before
    size = np.linalg.norm(affine[:3, axis])
    np.testing.assert_allclose(found.field_mm, found.field * size, rtol=1e-5)
    gap, was = abs(found.first - found.second), abs(first - second)
    assert gap.sum() < 0.15 * was.sum()
    # Interpolation blurs the corrected images.
    assert abs(found.corrected - image).sum() < 0.35 * abs(first - image).sum()
    for mapping, sign in ((found.first_mapping, 1), (found.second_mapping, -1)):
        direction = affine[:3, axis]
        wanted = sign * found.field[..., None] * direction
        turn = np.linalg.norm(found.motion[:3, :3] - np.eye(3))
        np.testing.assert_allclose(mapping.backward, wanted, atol=1e-5 + 10 * turn)


def test_minus_exchanges_the_images():
    """The field is the distance in the first image's direction of encoding."""
    _, _, first, second = make_pair(1)
    found = deep_epi_correction(first, second, affine=np.eye(4), motion=False)
    minus = deep_epi_correction(
        second, first, affine=np.eye(4), phase_encoding="j-", motion=False
    )
    np.testing.assert_allclose(minus.field, found.field, atol=0.05)
    np.testing.assert_allclose(minus.first, found.second, atol=0.05)


def test_motion_between_the_images():
    """The head of the second image is turned; its distortion turns with it."""
    image, shift, first, _ = make_pair(1)
    affine = FLIPPED @ np.eye(4)
    centre = move(affine, (np.array(SHAPE) - 1) / 2)
    motion = phantom.rigid(Rotation.from_rotvec([0.04, -0.03, 0.05]).as_matrix(), 0)
    motion[:3, 3] = centre - motion[:3, :3] @ centre + [1.5, 0, -1]
    back = np.linalg.inv(affine) @ np.linalg.inv(motion) @ affine
    places = move(back, voxels(SHAPE))
    second = distort(interpolate(image, places), -interpolate(shift, places), 1)
    found = deep_epi_correction(first, 1.7 * second, affine=affine)
    gap = found.motion @ np.linalg.inv(motion)
    assert (
        np.degrees(np.linalg.norm(Rotation.from_matrix(gap[:3, :3]).as_rotvec())) < 0.4
    )
    assert abs(move(gap, centre) - centre).max() < 0.3
    assert found.gain == pytest.approx(1 / 1.7, rel=0.03)
    still = deep_epi_correction(first, second, affine=affine, motion=False)
    np.testing.assert_array_equal(still.motion, np.eye(4))
    off = error(found.field, shift, image)
    assert off < 0.5 * error(still.field, shift, image)
    direction = np.linalg.inv(found.motion[:3, :3]) @ affine[:3, 1]
    direction /= np.linalg.norm(direction)
    field = found.second_mapping.backward.astype(float)
    across = field - (field @ direction)[..., None] * direction
    assert abs(across).max() < 1e-5


def test_maps_do_not_fold_and_invert():
    """Also if the truth is nearly a fold."""
    image, shift, first, second = make_pair(0, (40, 24, 20), longest=4)
    found = deep_epi_correction(first, second, affine=np.eye(4), phase_encoding="i")
    steps = np.diff(found.field, axis=0)
    assert abs(steps).max() < 1
    points = np.random.default_rng(0).uniform(8, 14, (100, 3))
    for mapping in (found.first_mapping, found.second_mapping):
        there = mapping.transform_points(points)
        back = mapping.transform_points_inverse(there)
        assert abs(back - points).max() < 0.5


def test_two_dimensions_and_odd_sizes():
    image, shift, first, second = make_pair(1, (33, 47))
    found = deep_epi_correction(first, second, affine=np.eye(3), phase_encoding="j")
    assert found.corrected.shape == (33, 47)
    assert error(found.field, shift, image) < 0.15 * error(0, shift, image)


def test_one_slice():
    image, shift, first, second = make_pair(1, (33, 47))
    found = deep_epi_correction(
        first[..., None], second[..., None], affine=np.eye(4), motion=False
    )
    assert error(found.field[..., 0], shift, image) < 0.15 * error(0, shift, image)
    assert not found.first_mapping.backward[..., 2].any()


def test_series_and_density():
    """Every volume is corrected, and the sum of the signal is that before."""
    image, _, first, second = make_pair(1)
    found = deep_epi_correction(first, second, affine=np.eye(4), motion=False)
    series = np.stack([first, 2 * first], -1)
    corrected = apply_epi_correction(found.first_mapping, series)
    np.testing.assert_allclose(corrected[..., 0], found.first, rtol=1e-5)
    np.testing.assert_allclose(corrected[..., 1], 2 * found.first, rtol=1e-4)
    assert corrected[..., 0].sum() == pytest.approx(first.sum(), rel=0.01)
    plain = apply_epi_correction(found.first_mapping, first, modulate=False)
    np.testing.assert_allclose(
        plain * modulation_factor(found.first_mapping), found.first
    )


def test_nan_is_no_signal():
    _, _, first, second = make_pair(1)
    first[first == 0] = np.nan
    found = deep_epi_correction(first, second, affine=np.eye(4))
    assert np.isfinite(found.corrected).all()


IMAGE = make_image((12, 13, 14))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"phase_encoding": "AP"}, "phase_encoding must be one of"),
        ({"second": IMAGE[:-1]}, "must be on one grid"),
        ({"affine": None}, "affine is required"),
        ({"affine": np.eye(3)}, "affine"),
        ({"second": np.zeros_like(IMAGE)}, "second must be an image with signal"),
        (
            {"second": np.full_like(IMAGE, np.nan)},
            "second must be an image with signal",
        ),
        ({"second": np.where(IMAGE > 1, np.inf, IMAGE)}, "second must be finite"),
        ({"first": np.stack([IMAGE] * 2, -1)}, "first"),
        ({"smoothness": 0}, "smoothness must be above 0"),
        ({"iterations": 0}, "iterations must be a whole number from 1"),
        ({"levels": 1.5}, "levels must be a whole number from 1"),
    ],
)
def test_bad_input(changes, message):
    given = {"first": IMAGE, "second": IMAGE, "affine": np.eye(4)} | changes
    with pytest.raises(ValueError, match=message):
        deep_epi_correction(**given)


def test_encoding_across_one_slice_is_refused():
    flat = IMAGE[..., :1]
    with pytest.raises(ValueError, match="one voxel along"):
        deep_epi_correction(flat, flat, affine=np.eye(4), phase_encoding="k")


def test_modulation_of_other_maps_is_refused():
    mapping = DeepRegistration("SSD", model=None, progress=False).optimize(
        IMAGE, make_image((12, 13, 14), seed=5)
    )
    with pytest.raises(ValueError, match="on one line"):
        apply_epi_correction(mapping, IMAGE)
    line = DeepRegistration("SSD", phase_encoding="j", progress=False).optimize(
        IMAGE, make_image((12, 13, 14), seed=5)
    )
    with pytest.raises(ValueError, match="grid of the map's field"):
        apply_epi_correction(line, IMAGE, out_shape=(5, 5, 5), out_grid2world=np.eye(4))


def test_a_pair_that_cannot_be_corrected_is_noticed(rng, caplog):
    image = rng.random((12, 12, 8)) + 1
    for second, warning in ((image, "same image"), (image[::-1], "hardly makes")):
        caplog.clear()
        log_difference((image, second), (image, second), 1.0)
        assert warning in caplog.text
    caplog.clear()
    log_difference((image, image[::-1]), (image, 1.01 * image), 1.0)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
