"""Raw diffusion-weighted series are turned as the anatomy is."""

from closed_forms import (
    FAN_SIZE,
    MOVING,
    MOVING_SHAPE,
    STATIC,
    STATIC_SHAPE,
    angles,
    fan_directions,
    make_affine_map,
    make_fan_map,
    world_points,
)
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from dipy.sims.voxel import multi_tensor, single_tensor
from maps import oblique_map
import numpy as np
from numpy.testing import assert_allclose
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg import apply_mapping, transform_dwi, transform_tensors
from dipy_dl_reg.diffusion.frames import FRAMES, frame_to_world
from dipy_dl_reg.diffusion.tensors import METHODS, reorient_axes
from dipy_dl_reg.geometry.sphere import spread_directions

EVALS = np.array([1.7e-3, 0.5e-3, 0.2e-3])
TURN = Rotation.from_euler("xyz", [0.7, -0.4, 1.1]).as_matrix()
AXES = Rotation.from_euler("xyz", [0.2, 1.3, -0.5]).as_matrix()
SHEAR = np.array([[1.05, 0.3, 0], [0, 0.95, -0.1], [0.05, 0, 1.0]])


def make_table(counts, bvals=(1000.0, 2500.0)):
    """A table of one b0 volume and shells of some directions."""
    shells = [spread_directions(n, hemisphere=True) for n in counts]
    values = [np.zeros(1)] + [np.full(n, b) for n, b in zip(counts, bvals)]
    return gradient_table(
        np.concatenate(values), bvecs=np.vstack([np.zeros((1, 3)), *shells])
    )


def homogeneous(linear):
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    return matrix


def filled(signal, shape):
    return np.broadcast_to(signal, (*shape, len(signal))).copy()


def inner(warped):
    found = warped[(warped != 0).any(-1)]
    # At the border of the image, interpolation weighs the background too.
    found = found[found[:, 0] > 0.999 * found[:, 0].max()]
    assert len(found) > 300
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", [(6,), (20,), (30, 60)])
def test_identity_changes_nothing(method, counts):
    gtab = make_table(counts)
    shape = (6, 7, 8)
    data = np.random.default_rng(0).uniform(50, 900, (*shape, len(gtab.bvals)))
    mapping = make_affine_map(np.eye(4))
    grid = {"image_grid2world": STATIC, "out_shape": shape, "out_grid2world": STATIC}
    warped = transform_dwi(mapping, data, gtab, method=method, **grid)
    assert_allclose(warped, data, rtol=1e-4)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", [(6,), (25,), (12, 30)])
def test_a_tensor_is_turned_as_tensors_are(frame, inverse, method, counts):
    """In all frames, between grids of unlike handedness; eigenvalues are kept."""
    matrix = homogeneous(np.linalg.inv(SHEAR) @ TURN)
    deformation = matrix[:3, :3] if inverse else np.linalg.inv(matrix[:3, :3])
    grids = [(MOVING_SHAPE, MOVING), (STATIC_SHAPE, STATIC)]
    (shape, grid), (_, out_grid) = grids[::-1] if inverse else grids
    axes = frame_to_world(grid, frame).T @ AXES
    gtab = make_table(counts)
    signal = single_tensor(gtab, 1000, evals=EVALS, evecs=axes)
    warped = transform_dwi(
        make_affine_map(matrix),
        filled(signal, shape),
        gtab,
        method=method,
        frame=frame,
        inverse=inverse,
    )
    fit = TensorModel(gtab).fit(inner(warped)[::40])
    expected = frame_to_world(out_grid, frame).T @ reorient_axes(
        AXES, deformation, method
    )
    for k in range(3):
        assert angles(fit.evecs[..., k], expected[:, k]).max() < 0.1
    assert_allclose(fit.evals, np.broadcast_to(EVALS, fit.evals.shape), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "counts, limit", [((15,), 0.05), ((30,), 0.02), ((30, 60), 0.02)]
)
def test_crossing_fibres_are_rotated(method, counts, limit):
    """The signal at other directions, in closed form."""
    gtab = make_table(counts)
    fibres = {
        "mevals": np.array([EVALS, EVALS]),
        "angles": [(20, 10), (80, 70)],
        "fractions": [60, 40],
        "snr": None,
    }
    signal, _ = multi_tensor(gtab, S0=1, **fibres)
    rotated_back = gradient_table(gtab.bvals, bvecs=gtab.bvecs @ TURN)
    expected, _ = multi_tensor(rotated_back, S0=1, **fibres)
    mapping = make_affine_map(homogeneous(TURN.T))
    data = filled(signal, MOVING_SHAPE)
    warped = inner(transform_dwi(mapping, data, gtab, method=method, frame="world"))
    assert np.abs(signal - expected).max() > 0.15
    assert np.abs(warped - expected).max() < limit


def test_b0_volumes_are_interpolated_alone():
    gtab = make_table((20,))
    mapping = oblique_map()
    shape = tuple(mapping.domain_shape)
    data = np.random.default_rng(1).uniform(100, 900, (*shape, 21))
    warped = transform_dwi(mapping, data, gtab)
    plain = apply_mapping(mapping, data[..., 0], interpolation="linear")
    inside = apply_mapping(mapping, np.ones(shape), interpolation="linear") > 0.999
    assert_allclose(warped[inside][:, 0], plain[inside], rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_fit_of_the_warped_series_is_the_warped_fit(method):
    """Of noisy signals of fibres that vary over the image, through a deformation."""
    mapping = oblique_map()
    shape = tuple(mapping.domain_shape)
    places = np.moveaxis(np.indices(shape), 0, -1)
    turns = Rotation.from_euler("zy", places[..., :2].reshape(-1, 2) / 15).as_matrix()
    gtab = make_table((30,))
    tensors = (turns * EVALS) @ np.swapaxes(turns, 1, 2)
    exponents = np.einsum("ki,vij,kj->vk", gtab.bvecs, tensors, gtab.bvecs)
    data = (1000 * np.exp(-gtab.bvals * exponents)).reshape(*shape, -1)
    data += np.random.default_rng(0).normal(scale=20, size=data.shape)
    model = TensorModel(gtab)
    series = transform_dwi(mapping, data, gtab, method=method)
    after = model.fit(series)
    before = transform_tensors(
        mapping, model.fit(data).quadratic_form, method=method, interpolation="linear"
    )
    inside = apply_mapping(mapping, np.ones(shape), interpolation="linear") > 0.999
    evals, evecs = np.linalg.eigh(before[inside])
    turned = angles(after.evecs[inside][..., 0], evecs[..., -1])
    assert np.mean(turned) < 1.0 and np.percentile(turned, 99) < 4
    assert_allclose(after.md[inside], evals.mean(-1), rtol=0.05)
    plain = model.fit(apply_mapping(mapping, data, interpolation="linear"))
    assert np.mean(angles(plain.evecs[inside][..., 0], evecs[..., -1])) > 5


def test_a_fanning_bundle():
    mapping, shape, grid = make_fan_map()
    gtab = make_table((20,), (2500.0,))
    along_y = np.eye(3)[:, [1, 0, 2]]
    signal = single_tensor(gtab, 1000, evals=EVALS, evecs=along_y)
    warped = transform_dwi(mapping, filled(signal, shape), gtab, image_grid2world=grid)
    points = world_points(shape, grid)
    inside = (np.abs(points) < 0.7 * FAN_SIZE).all(-1) & (warped[..., 0] > 999)
    fit = TensorModel(gtab).fit(warped[inside])
    assert angles(fit.evecs[..., 0], fan_directions(points[inside])).max() < 0.5


def test_signals_stay_positive():
    gtab = make_table((20,), (3000.0,))
    data = np.random.default_rng(1).rayleigh(20, (*MOVING_SHAPE, 21))
    warped = transform_dwi(make_affine_map(homogeneous(TURN)), data, gtab)
    assert np.isfinite(warped).all() and warped.min() >= 0 and warped.max() < 300


def refuse(gtab, match, shape=(*MOVING_SHAPE, 21), **options):
    with pytest.raises(ValueError, match=match):
        transform_dwi(make_affine_map(np.eye(4)), np.ones(shape), gtab, **options)


def test_wrong_tables_are_refused():
    gtab = make_table((20,))
    bvals, bvecs = gtab.bvals, gtab.bvecs
    refuse((bvals, bvecs.T), "transposed")
    refuse((bvals, 1.2 * bvecs), "length 1")
    refuse((bvals[1:], bvecs[1:]), "b0 volume|20 entries")
    refuse((bvals + 100, bvecs), "b0 volume|length 1")
    refuse(gtab, "21 entries for 22 volumes", (*MOVING_SHAPE, 22))
    refuse((np.zeros(21), np.zeros((21, 3))), "b0 volumes alone")
    refuse(gtab, "series of real numbers", MOVING_SHAPE)
    refuse(gtab, "method must be one of", method="rotation")


def test_shells_with_few_directions_are_refused():
    table = make_table((20,))
    bvals = table.bvals.copy()
    bvals[7] = 700
    refuse((bvals, table.bvecs), r"6 directions or more.*b = 700 has 1 \(volumes 7\)")
    flat = table.bvecs.copy()
    flat[1:, 2] = 0
    flat[1:] /= np.linalg.norm(flat[1:], axis=1, keepdims=True)
    refuse((table.bvals, flat), "not in one plane")


def test_a_frame_that_is_in_doubt_is_a_warning(caplog):
    """FSL reverses the first axis of b-vectors if the determinant is positive."""
    gtab = make_table((6,))
    grid = {"out_shape": (4, 4, 4), "out_grid2world": STATIC}
    data = np.ones((4, 4, 4, 7))
    mapping = make_affine_map(np.eye(4))
    reversed_axis = STATIC @ np.diag([-1.0, 1, 1, 1])
    for affine, frame, warned in [
        (STATIC, None, np.linalg.det(STATIC) > 0),
        (reversed_axis, None, True),
        (reversed_axis, "fsl", False),
    ]:
        caplog.clear()
        with caplog.at_level("WARNING", logger="dipy"):
            transform_dwi(
                mapping, data, gtab, image_grid2world=affine, frame=frame, **grid
            )
        assert ("frame was not given" in caplog.text) == warned


@pytest.mark.filterwarnings("error")
def test_overflow_in_a_fit_is_no_warning(monkeypatch):
    """Of noise, DIPY's model may estimate a signal S0 that overflows."""

    class Model(TensorModel):
        def fit(self, data, **options):
            assert np.exp(np.full(2, 800.0))[0] == np.inf
            return super().fit(data, **options)

    monkeypatch.setattr("dipy_dl_reg.diffusion.dwi.TensorModel", Model)
    gtab = make_table((20,))
    data = np.random.default_rng(1).rayleigh(20, (*MOVING_SHAPE, 21))
    warped = transform_dwi(make_affine_map(homogeneous(TURN)), data, gtab)
    assert np.isfinite(warped).all()
