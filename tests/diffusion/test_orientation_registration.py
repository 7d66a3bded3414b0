"""Registration by tensors: directions right in every frame, and errors before work."""

from dipy.reconst.dti import fractional_anisotropy
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg import DeepRegistration, register_tensors, tensor_components
from dipy_dl_reg.diffusion.direction_images import tensor_channels
from dipy_dl_reg.diffusion.frames import frame_to_world
from dipy_dl_reg.diffusion.tensor_components import tensor_matrices

SHAPE = (24, 26, 12)
#: Right-handed, left-handed and oblique.
AFFINES = {
    "RAS": np.diag([2.0, 2, 2, 1]),
    "LAS": np.diag([-2.0, 2, 2, 1]),
    "oblique": np.array(
        [[-1.8, 0.8, 0.1, 9], [0.8, 1.8, -0.3, -7], [0, 0.3, 2.0, 4], [0, 0, 0, 1]]
    ),
}
QUIET = {"progress": False, "level_iters": [30, 30]}


def bundles(shift=0.0):
    """Two adjacent bundles of equal FA, one along x and one along y, in world axes.

    Their border, which FA does not show, is at x = `shift`; the surface of both, which
    FA shows, is the same.
    """
    x, y, z = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE],
                                   indexing="ij"))  # fmt: skip
    directions = np.where((x > shift)[..., None], [1.0, 0, 0], [0, 1.0, 0])
    tensors = np.full((*SHAPE, 3, 3), 1e-3) * np.eye(3)
    inside = (np.abs(y) < 0.7) & (np.abs(x) < 0.8) & (np.abs(z) < 0.8)
    stick = directions[..., None] * directions[..., None, :]
    tensors[inside] = (3e-4 * np.eye(3) + 1.4e-3 * stick)[inside]
    tensors[(np.abs(y) > 0.9) | (np.abs(x) > 0.95) | (np.abs(z) > 0.9)] = 0
    return tensors


def angles(first, second):
    """Angles of the principal directions where both are anisotropic, degrees."""
    evals = [np.linalg.eigvalsh(tensors) for tensors in (first, second)]
    seen = np.all([fractional_anisotropy(e) > 0.4 for e in evals], axis=0)
    axes = [np.linalg.eigh(tensors[seen])[1][..., 2] for tensors in (first, second)]
    cosines = np.clip(np.abs((axes[0] * axes[1]).sum(-1)), 0, 1)
    return np.degrees(np.arccos(cosines))


def turned_to_frame(tensors, affine, frame):
    """Tensors in world axes, given in a frame of an image."""
    rotation = frame_to_world(affine, frame)
    return rotation.T @ tensors @ rotation


def test_border_that_only_directions_show(plain):
    """FA is the same in both images; the tensors show where the bundles meet."""
    static, (warped, mapping) = bundles(0.0), plain
    before = angles(static, bundles(0.25)).mean()
    assert warped.shape == static.shape
    after = angles(static, warped).mean()
    assert before > 8
    assert after < 0.4 * before
    middle = mapping.backward[12, 13, 6]  # static's border is read at moving's
    assert 1.5 < middle[0] < 4.5
    assert np.abs(middle[1:]).max() < 1


@pytest.fixture(scope="module")
def plain():
    """Tensors and map of two images without affines."""
    return register_tensors(bundles(0.25), bundles(0.0), **QUIET)


@pytest.mark.parametrize(
    "frame, static_affine",
    [("voxel", "RAS"), ("fsl", "RAS"), ("fsl", "LAS"), ("world", "LAS"),
     ("voxel", "oblique"), ("fsl", "oblique"), ("world", "oblique")],
)  # fmt: skip
def test_frames(frame, static_affine, plain):
    """The same physical tensors, in each frame and on two grids: the same map."""
    static_affine, moving_affine = AFFINES[static_affine], AFFINES["RAS"]
    prealign = moving_affine @ np.linalg.inv(static_affine)
    # Moving is static's anatomy turned (and reflected) with its voxels.
    turn = frame_to_world(static_affine, "voxel")
    static = turn @ bundles(0.0) @ turn.T
    warped, mapping = register_tensors(
        turned_to_frame(bundles(0.25), moving_affine, frame),
        turned_to_frame(static, static_affine, frame),
        moving_affine=moving_affine,
        static_affine=static_affine,
        prealign=prealign,
        frame=frame,
        **QUIET,
    )
    voxels = mapping.backward @ np.linalg.inv(static_affine[:3, :3]).T
    expected, expected_map = plain
    assert np.abs(voxels - expected_map.backward).mean() < 0.1
    rotation = frame_to_world(static_affine, frame).T @ turn
    assert np.mean(angles(rotation @ expected @ rotation.T, warped)) < 3


def test_form_order_and_pipeline():
    """Six components in FSL's order, after affine steps from a shifted position."""
    static, moving = bundles(0.0), np.roll(bundles(0.2), 2, axis=1)
    affine = AFFINES["LAS"]
    warped, mapping = register_tensors(
        tensor_components(moving, "fsl"),
        tensor_components(static, "fsl"),
        moving_affine=affine,
        static_affine=affine,
        order="fsl",
        pipeline=["center_of_mass", "translation", "deform"],
        affine_options={"level_iters": [20, 10]},
        **QUIET,
    )
    assert warped.shape == (*SHAPE, 6)
    shift = np.linalg.inv(affine) @ np.linalg.inv(mapping.prealign) @ affine
    assert_allclose(shift[:3, 3], [0, 2, 0], atol=0.7)
    # voxel and FSL's axes are the same for a left-handed affine
    assert angles(static, tensor_matrices(warped, "fsl")).mean() < 5


def test_masks_and_options():
    static, moving = bundles(0.0), bundles(0.25)
    mask = np.zeros(SHAPE)
    mask[:, :6] = 1
    seen = []
    _, mapping = register_tensors(
        moving,
        static,
        static_mask=mask,
        callback=lambda registration, stage: seen.append(registration),
        progress=False,
        level_iters=[20],
    )
    assert isinstance(seen[0], DeepRegistration)
    assert len(seen[-1].full_energy_profile) > 1
    length = np.linalg.norm(mapping.backward, axis=-1)
    assert length[:, 18:].max() < 0.1 < length[:, :6].max()


def test_tensor_channels():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(50, 3, 3))
    tensors = 1e-3 * roots @ roots.swapaxes(1, 2)
    channels = tensor_channels(tensor_components(tensors))
    fa = fractional_anisotropy(np.linalg.eigvalsh(tensors))
    assert_allclose(channels[:, 0], fa, atol=1e-6)
    full = tensor_matrices(channels[:, 1:])
    assert_allclose(np.linalg.norm(full, axis=(1, 2)), fa, atol=1e-6)
    assert_allclose(np.trace(full, axis1=1, axis2=2), 0, atol=1e-6)
    missing = np.array([[np.nan, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.0]])
    assert_array_equal(tensor_channels(missing), 0)
    indefinite = np.array([1.0, 0, -1, 0, 0, 0])
    assert tensor_channels(indefinite)[0] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"order": "ants"}, "order must be"),
        ({"frame": "ras"}, "frame must be"),
        ({"fa_weight": -1}, "fa_weight must be"),
        ({"pipeline": ["rigid"]}, "must end with 'deform'"),
        ({"affine_options": {"metric": "MI"}}, "requires affine steps"),
        ({"metric": "CC"}, "metric cannot be chosen"),
        ({"model": "auto"}, "model cannot be chosen"),
        ({"phase_encoding": "j"}, "phase_encoding cannot be chosen"),
        ({"level_iters": [-1]}, "level_iters must be"),
        ({"moving_affine": np.eye(4)}, "static_affine is required"),
        ({"method": "none"}, "method must be"),
        ({"interpolation": "cubic"}, "interpolation must be"),
        ({"static_mask": np.ones((3, 3, 3))}, "static_mask"),
        ({"prealign": np.diag([1.0, 1, 1, 1]) + 1e3 * np.eye(4, k=3)}, "not overlap"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        register_tensors(bundles(), bundles(), **QUIET | options)


@pytest.mark.parametrize("role", ["moving", "static"])
def test_no_tensors(role):
    images = {"moving": bundles(), "static": bundles()}
    images[role] = images[role][..., 0]
    with pytest.raises(ValueError, match=f"{role}: tensors must"):
        register_tensors(**images)
