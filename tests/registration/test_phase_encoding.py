"""Displacements on one axis of the moving image's own grid."""

from epi_images import distort, make_image, make_shift
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from dipy_dl_reg import DeepRegistration, deep_registration
from dipy_dl_reg.registration.dipy_adapter import make_pair
from dipy_dl_reg.registration.phase_encoding import constrain

SHORT = {"level_iters": [8, 8], "progress": False}
#: Axes of the moving grid: RAS, LAS, permuted and reflected, oblique.
GRIDS = {
    "RAS": np.diag([2.0, 2, 2]),
    "LAS": np.diag([-2.0, 2, 2]),
    "permuted": np.array([[0, 0, 2.0], [-2, 0, 0], [0, 2.5, 0]]),
    "oblique": Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix()
    @ np.diag([2.0, -2.5, 3]),
}


def make_affine(linear, shape):
    """Make a matrix whose grid has its middle at the origin of the world."""
    dim = len(shape)
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = linear
    affine[:dim, dim] = -linear @ ((np.array(shape) - 1) / 2)
    return affine


def off_axis(field, direction):
    """Largest distance of the vectors of a field from a line, relative to the field."""
    direction = direction / np.linalg.norm(direction)
    along = field.astype(float) @ direction
    across = field - along[..., None] * direction
    return np.linalg.norm(across, axis=-1).max() / abs(along).max()


@pytest.mark.parametrize("letter", ["i", "j-", "k"])
@pytest.mark.parametrize("name", GRIDS)
def test_displacement_lies_on_moving_axis(name, letter):
    """Independent of static's grid and of a prealign that rotates."""
    static_shape, shape = (23, 26, 21), (25, 22, 24)
    static, moving = make_image(static_shape), make_image(shape, seed=1)
    static_affine = make_affine(GRIDS["oblique"] * 0.9, static_shape)
    affine = make_affine(GRIDS[name], shape)
    prealign = np.eye(4)
    prealign[:3, :3] = Rotation.from_rotvec([0.2, 0.3, -0.1]).as_matrix() * 1.05
    prealign[:3, 3] = [1, -2, 0.5]
    mapping = DeepRegistration("CC", phase_encoding=letter, **SHORT).optimize(
        static,
        moving,
        static_grid2world=static_affine,
        moving_grid2world=affine,
        prealign=prealign,
    )
    axis = "ijk".index(letter[0])
    direction = np.linalg.inv(prealign[:3, :3]) @ affine[:3, axis]
    assert abs(mapping.backward).max() > 0.5
    assert off_axis(mapping.backward, direction) < 1e-6
    assert off_axis(mapping.forward, direction) < 1e-6
    points = np.random.default_rng(2).uniform(-12, 12, (50, 3))
    moved = mapping.transform_points(points)
    straight = points @ prealign[:3, :3].T + prealign[:3, 3]
    voxels = (moved - straight) @ np.linalg.inv(affine[:3, :3]).T
    assert abs(np.delete(voxels, axis, axis=1)).max() < 1e-4


@pytest.mark.parametrize("modulate", [False, True])
def test_known_shift_is_found(modulate):
    """The distorted image of a known shift; modulation lowers the error."""
    image = make_image((36, 40, 31))
    shift = make_shift(image.shape, axis=1, longest=2.5)
    distorted = distort(image, shift, 1)
    mapping = DeepRegistration(
        "CC", phase_encoding="j", modulate=modulate, progress=False
    ).optimize(image, distorted)
    error = abs(mapping.backward[..., 1] - shift)[image > 0.2].mean()
    assert error < (0.12 if modulate else 0.25)
    assert not mapping.backward[..., [0, 2]].any()


def test_modulated_intensities_are_proportional_to_the_signal():
    """The quantiles within a mask, by which images are scaled, are not 0."""
    image = make_image((20, 22, 18)) + 0.5
    mask = image > 0.8
    pair = make_pair(image, image, static_mask=mask)
    options = DeepRegistration(phase_encoding="i", modulate=True)
    restored, constraint = constrain(pair, image, image, options)
    ratio = restored.moving[0, 0].numpy()[mask] / image[mask]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert constraint.modulates
    ratio = pair.moving[0, 0].numpy()[mask] / image[mask]
    assert np.ptp(ratio) > 0.1  # before


def test_two_dimensions():
    image = make_image((45, 50))
    shift = make_shift(image.shape, axis=0, longest=2)
    moving = distort(image, shift, 0)
    warped, mapping = deep_registration(
        moving, image, metric="CC", phase_encoding="i-", progress=False
    )
    assert abs(mapping.backward[..., 0] - shift)[image > 0.2].mean() < 0.4
    assert not mapping.backward[..., 1].any()
    assert not mapping.forward[..., 1].any()


def test_different_contrasts_are_compared_by_self_similarity():
    image = gaussian_filter(make_image((26, 28, 24)), 0.5)
    registration = DeepRegistration(phase_encoding="j", modulate=True, **SHORT)
    registration.optimize(1.2 - image, image)
    assert registration.metric.name == "MIND"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"phase_encoding": "y"}, "phase_encoding must be one of"),
        ({"phase_encoding": 1}, "phase_encoding must be one of"),
        ({"phase_encoding": "j", "model": "voxelmorph-t1"}, "model cannot"),
        ({"phase_encoding": "j", "initialization": "auto"}, "initialization cannot"),
        (
            {"phase_encoding": "j", "landmarks": (np.eye(4)[:, :3], np.eye(4)[:, :3])},
            "landmarks cannot",
        ),
        ({"modulate": True}, "modulate=True requires phase_encoding"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        DeepRegistration(**options)


def test_axes_that_the_images_do_not_have():
    image = make_image((20, 22))
    with pytest.raises(ValueError, match="phase_encoding must be one of"):
        DeepRegistration(phase_encoding="k").optimize(image, image)
    slab = image[..., None]
    with pytest.raises(ValueError, match="one voxel along this axis"):
        DeepRegistration(phase_encoding="k").optimize(slab, slab)
