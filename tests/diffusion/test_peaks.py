"""Vectors and peaks are turned as the anatomy is."""

import logging

from closed_forms import (
    FAN_SIZE,
    MOVING,
    MOVING_SHAPE,
    STATIC,
    STATIC_SHAPE,
    angles,
    fan_directions,
    fan_to_static,
    make_affine_map,
    make_fan_map,
    world_points,
)
from dipy.data import get_sphere
from dipy.direction.peaks import PeaksAndMetrics
from dipy.io.peaks import load_pam, save_pam
from dipy.reconst.shm import sh_to_sf_matrix
from maps import make_map, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg import (
    transform_fods,
    transform_peaks,
    transform_tensors,
    transform_vectors,
)
from dipy_dl_reg.diffusion.axis_interpolation import average_axes, find_neighbours
from dipy_dl_reg.diffusion.frames import frame_to_world

SHEAR = np.array([[1.1, 0.6, 0, 0], [0, 0.9, -0.2, 0], [0.1, 0, 1.05, 0], [0, 0, 0, 1]])
FIRST, SECOND = np.array([0.6, 0.8, 0.0]), np.array([0.0, -0.6, 0.8])
INTERPOLATIONS = ["dyadic", "nearest"]
with_each_interpolation = pytest.mark.parametrize("interpolation", INTERPOLATIONS)


def lists(shape, grid2world, frame, *directions):
    """The same directions, given in the world, in all voxels."""
    vectors = np.stack(directions) @ frame_to_world(grid2world, frame)
    return np.broadcast_to(vectors, (*shape, *vectors.shape)).copy()


@with_each_interpolation
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("frame", ["voxel", "fsl", "world"])
def test_two_axes_in_any_order_and_sign(interpolation, inverse, frame, rng):
    """A shear of two fibres; neighbours list them in another order."""
    mapping = make_affine_map(SHEAR)
    shape, grid = (STATIC_SHAPE, STATIC) if inverse else (MOVING_SHAPE, MOVING)
    out_grid = MOVING if inverse else STATIC
    vectors = lists(shape, grid, frame, FIRST, 2 * SECOND)
    vectors *= rng.choice([-1, 1], (*vectors.shape[:-1], 1))
    exchanged = rng.random(shape) < 0.5
    vectors[exchanged] = vectors[exchanged][:, ::-1]
    warped = transform_vectors(
        mapping, vectors, frame=frame, interpolation=interpolation, inverse=inverse
    )
    assert warped.dtype == np.float32
    warped = warped @ frame_to_world(out_grid, frame).T
    found = warped[(warped != 0).any((-1, -2))]
    assert len(found) > 500
    deform = SHEAR[:3, :3] if inverse else np.linalg.inv(SHEAR[:3, :3])
    lengths = np.linalg.norm(found, axis=-1)
    assert_allclose(lengths.min(1), 1, rtol=1e-4)
    assert_allclose(lengths.max(1), 2, rtol=1e-4)
    for direction, choose in ((FIRST, np.argmin), (SECOND, np.argmax)):
        chosen = found[np.arange(len(found)), choose(lengths, axis=1)]
        assert angles(chosen, deform @ direction).max() < 0.05
        assert angles(chosen, direction).min() > 3


def test_scaled_lengths_are_those_of_the_fibre():
    mapping = make_affine_map(SHEAR)
    warped = transform_vectors(
        mapping, lists(MOVING_SHAPE, MOVING, "voxel", 3 * FIRST)[..., 0, :], scale=True
    )
    found = np.linalg.norm(warped[(warped != 0).any(-1)], axis=-1)
    wanted = 3 * np.linalg.norm(np.linalg.inv(SHEAR[:3, :3]) @ FIRST)
    assert_allclose(found, wanted, rtol=1e-4)


def test_fanning_bundle():
    mapping, shape, grid = make_fan_map()
    straight = lists(shape, grid, "voxel", [0.0, 1, 0])[..., 0, :]
    warped = transform_vectors(mapping, straight)[1:-1, 1:-1, 1:-1]
    wanted = fan_directions(world_points(shape, grid))[1:-1, 1:-1, 1:-1]
    assert angles(warped, wanted).max() < 0.5
    points = world_points(shape, grid)
    back = transform_vectors(mapping, fan_directions(points), inverse=True)
    # two voxels from the border of the field, where the map ends
    inner = (np.abs(fan_to_static(points)) < FAN_SIZE - 4).all(-1)
    assert inner.sum() > 200
    assert angles(back[inner], [0.0, 1, 0]).max() < 0.5


def test_principal_directions_of_tensors(rng):
    """The first eigenvector moves as its tensor does by PPD."""
    mapping = oblique_map()
    shape = tuple(mapping.domain_shape)
    axes = rng.normal(size=3) + rng.normal(size=(*shape, 3)) / 10
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    tensors = axes[..., :, None] * axes[..., None, :] + 0.1 * np.eye(3)
    warped = transform_tensors(mapping, tensors, interpolation="linear")
    found = transform_vectors(mapping, axes)
    inside = (found != 0).any(-1)
    assert_array_equal(inside, (warped != 0).any((-1, -2)))
    first = np.linalg.eigh(warped[inside])[1][..., -1]
    assert angles(found[inside], first).max() < 0.01


def test_absent_vectors_have_no_part():
    """Zeros and NaN; the second fibre of half of the voxels fades out."""
    mapping = make_map((10, 9, 8), (10, 9, 8), amplitude=0)
    mapping.backward[..., 0] = 0.25
    vectors = np.zeros((10, 9, 8, 2, 3))
    vectors[2:8, ..., 0, 0] = 1
    vectors[2:5, ..., 1, 1] = 1
    vectors[5:8, ..., 1, :] = np.nan
    flat = vectors.reshape(10, 9, 8, 6)
    warped = transform_vectors(mapping, flat).reshape(10, 9, 8, 2, 3)
    assert (warped[:1] == 0).all() and (warped[8:] == 0).all()
    assert_allclose(np.abs(warped[2:7, 2, 2, 0, 0]), 1, rtol=1e-4)
    assert_allclose(np.abs(warped[4, 2, 2, 1]), [0, 0.75, 0], atol=1e-4)
    assert (warped[5:, ..., 1, :] == 0).all()
    mask = np.zeros((10, 9, 8))
    mask[4:] = 1
    masked = transform_vectors(mapping, flat, mask=mask)
    assert (masked[:3] == 0).all() and (masked[5] != 0).any()


def test_average_of_two_axes():
    """Halfway between two axes, whatever their signs; in proportion to length."""
    mapping = make_map((4, 4, 4), (4, 4, 4), amplitude=0)
    mapping.backward[..., 0] = 0.5
    vectors = np.zeros((4, 4, 4, 3))
    vectors[:2] = [1, 0, 0]
    vectors[2:] = [-np.cos(1), -np.sin(1), 0]
    warped = transform_vectors(mapping, vectors)[1, 1, 1]
    assert angles(warped, np.array([np.cos(0.5), np.sin(0.5), 0])) < 0.05
    assert_allclose(np.linalg.norm(warped), 1, rtol=1e-4)
    vectors[2:] *= 3
    assert np.degrees(np.arctan2(warped[1], warped[0])) % 180 < 40
    longer = transform_vectors(mapping, vectors)[1, 1, 1]
    assert angles(longer, vectors[3, 0, 0]) < 20
    assert_allclose(np.linalg.norm(longer), 2, rtol=1e-4)


def test_neighbours_are_those_of_linear_interpolation(rng):
    image = rng.normal(size=(4, 5, 6))
    known = np.ones(image.shape, bool)
    found = find_neighbours(np.array([[1.25, 2.5, 3.75], [3.0, 4, 5]]), known)
    value = (image.ravel()[found.indices] * found.weights).sum(1)
    part = image[1:3, 2:4, 3:5]
    wanted = np.einsum("ijk,i,j,k", part, [0.75, 0.25], [0.5, 0.5], [0.25, 0.75])
    assert_allclose(value, [wanted, image[3, 4, 5]])
    known[1, 2, 3] = False
    fewer = find_neighbours(np.array([[1.25, 2.5, 3.75]]), known)
    assert_allclose(fewer.weights.sum(), 1 - 0.75 * 0.5 * 0.25)


def test_more_voxels_than_one_chunk(monkeypatch, rng):
    axes = rng.normal(size=(60, 2, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    neighbours = find_neighbours(rng.uniform(0, 3, (40, 3)), np.ones((4, 5, 3), bool))
    whole = average_axes(axes, np.ones((60, 2, 1)), neighbours)
    monkeypatch.setattr("dipy_dl_reg.diffusion.axis_interpolation._CHUNK", 7)
    parts = average_axes(axes, np.ones((60, 2, 1)), neighbours)
    for one, other in zip(whole, parts, strict=True):
        assert_array_equal(one, other)


def make_peaks(*, affine=MOVING, **attributes):
    """Peaks of two crossing fibres in all voxels, as DIPY has them."""
    sphere = get_sphere(name="repulsion724")
    pam = PeaksAndMetrics()
    pam.peak_dirs = np.zeros((*MOVING_SHAPE, 5, 3))
    pam.peak_dirs[..., :2, :] = lists(MOVING_SHAPE, MOVING, "voxel", FIRST, SECOND)
    pam.peak_values = np.zeros((*MOVING_SHAPE, 5))
    pam.peak_values[..., :2] = 0.8, 0.5
    pam.peak_indices = np.full((*MOVING_SHAPE, 5), -1, dtype=np.int32)
    pam.sphere, pam.affine = sphere, affine
    pam.gfa = np.full(MOVING_SHAPE, 0.7)
    pam.qa = pam.peak_values / 2
    for name, value in attributes.items():
        setattr(pam, name, value)
    return pam


@with_each_interpolation
@pytest.mark.parametrize("from_file", [False, True])
def test_peaks_of_dipy(tmp_path, interpolation, from_file, caplog):
    caplog.set_level(logging.INFO, logger="dipy")
    mapping = make_affine_map(SHEAR)
    pam = make_peaks(odf=np.zeros((*MOVING_SHAPE, 724), np.float32))
    if from_file:
        save_pam(str(tmp_path / "peaks.pam5"), pam)
        pam = tmp_path / "peaks.pam5"
    warped = transform_peaks(mapping, pam, interpolation=interpolation)
    save_pam(str(tmp_path / "warped.pam5"), warped)
    warped = load_pam(str(tmp_path / "warped.pam5"))
    assert_allclose(warped.affine, STATIC)
    assert warped.peak_dirs.shape == (*STATIC_SHAPE, 5, 3)
    inside = warped.peak_values[..., 0] > 0
    assert inside.sum() > 500 and not inside.all()
    assert_allclose(
        warped.peak_values[inside],
        np.broadcast_to([0.8, 0.5, 0, 0, 0], (inside.sum(), 5)),
        rtol=1e-4,
    )
    assert_allclose(warped.qa, warped.peak_values / 2, rtol=1e-4)
    turn, deform = frame_to_world(STATIC), np.linalg.inv(SHEAR[:3, :3])
    for k, direction in enumerate((FIRST, SECOND)):
        found = warped.peak_dirs[inside][:, k]
        assert angles(found, turn.T @ deform @ direction).max() < 0.05
        vertices = warped.sphere.vertices[warped.peak_indices[inside][:, k]]
        assert angles(found, vertices).max() < 6
    assert (warped.peak_indices[~inside] == -1).all()
    assert (warped.peak_indices[inside][:, 2:] == -1).all()
    assert (warped.peak_dirs[~inside] == 0).all()
    assert_allclose(warped.gfa[7, 8, 6], 0.7, rtol=1e-5)
    assert "without odf" in caplog.text


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("basis", ["descoteaux07", "tournier07"])
@pytest.mark.parametrize("legacy", [True, False])
def test_harmonics_of_peaks(basis, legacy):
    """The basis is that of the matrix B; the lobe stays near the first peak."""
    mapping = make_affine_map(SHEAR)
    pam = make_peaks()
    options = {"sh_order_max": 6, "basis_type": basis, "legacy": legacy}
    pam.B, back = sh_to_sf_matrix(pam.sphere, **options)
    lobe = (pam.sphere.vertices @ pam.peak_dirs[0, 0, 0, 0]) ** 8
    pam.shm_coeff = np.broadcast_to(lobe @ back, (*MOVING_SHAPE, 28)).copy()
    grid = {"out_shape": (2, 2, 2), "out_grid2world": np.diag([2.0, 2, 2, 1])}
    warped = transform_peaks(mapping, pam, **grid)
    wanted = transform_fods(
        mapping,
        pam.shm_coeff,
        basis=basis,
        legacy=legacy,
        image_grid2world=MOVING,
        **grid,
    )
    assert_allclose(warped.shm_coeff, wanted, atol=1e-6)
    middle = np.s_[1, 1, 1]
    found = warped.sphere.vertices[(warped.shm_coeff[middle] @ pam.B).argmax()]
    assert angles(found, warped.peak_dirs[middle][0]) < 12
    pam.B = pam.B[:, :3]
    with pytest.raises(ValueError, match="peaks must have a matrix B"):
        transform_peaks(mapping, pam)


def test_peaks_without_affine_are_on_the_grid_of_moving():
    mapping = make_affine_map(SHEAR)
    pam = make_peaks()
    del pam.affine
    assert_array_equal(
        transform_peaks(mapping, pam).peak_dirs,
        transform_peaks(mapping, make_peaks()).peak_dirs,
    )


def test_larger_peak_comes_first():
    """Averages may change the order of peaks."""
    mapping = make_map((6, 6, 6), (6, 6, 6), amplitude=0)
    mapping.backward[..., 0] = 0.45
    pam = PeaksAndMetrics()
    pam.peak_dirs = np.zeros((6, 6, 6, 2, 3))
    pam.peak_dirs[..., 0, 0] = pam.peak_dirs[..., 1, 1] = 1
    pam.peak_values = np.zeros((6, 6, 6, 2))
    pam.peak_values[:3] = 0.6, 0.5
    pam.peak_dirs[3:] = pam.peak_dirs[3:, ..., ::-1, :]
    pam.peak_values[3:] = 0.9, 0.1
    warped = transform_peaks(mapping, pam)
    assert_allclose(
        warped.peak_values[2, 2, 2], [0.55 * 0.5 + 0.45 * 0.9, 0.375], rtol=1e-4
    )
    assert_allclose(
        np.abs(warped.peak_dirs[2, 2, 2]), [[0, 1, 0], [1, 0, 0]], atol=1e-6
    )


def test_vectors_from_a_file(tmp_path):
    mapping = make_affine_map(SHEAR)
    vectors = lists(MOVING_SHAPE, MOVING, "fsl", FIRST)[..., 0, :].astype(np.float32)
    nib.save(nib.Nifti1Image(vectors, MOVING), tmp_path / "dti_V1.nii.gz")
    out = np.diag([3.0, 3, 3, 1])
    warped = transform_vectors(
        mapping,
        tmp_path / "dti_V1.nii.gz",
        frame="fsl",
        out_shape=(2, 2, 2),
        out_grid2world=out,
    )
    wanted = [-1, 1, 1] * (np.linalg.inv(SHEAR[:3, :3]) @ FIRST)
    assert angles(warped, wanted).max() < 0.05


GOOD = np.ones((12, 14, 10, 3))


@pytest.mark.parametrize(
    "vectors, options, message",
    [
        (GOOD, {"interpolation": "linear"}, "interpolation must be one of"),
        (GOOD, {"frame": "lps"}, "frame must be one of"),
        (GOOD[..., :2], {}, r"vectors must be real numbers of shape \(X, Y, Z, 3\)"),
        (GOOD[..., None, :, None], {}, "vectors must be real numbers"),
        (GOOD[:-1], {}, "give its image_grid2world"),
        (GOOD * np.nan, {}, "vectors must not be zero or NaN everywhere"),
        (
            GOOD,
            {"mask": np.ones((3, 3, 3))},
            r"mask must have the shape \(12, 14, 10\)",
        ),
    ],
)
def test_wrong_arguments(vectors, options, message):
    mapping = make_map((12, 14, 10), (12, 14, 10))
    with pytest.raises(ValueError, match=message):
        transform_vectors(mapping, vectors, **options)


def test_wrong_peaks(tmp_path):
    mapping = make_affine_map(SHEAR)
    with pytest.raises(ValueError, match="peaks must have peak_dirs of shape"):
        transform_peaks(mapping, PeaksAndMetrics())
    with pytest.raises(ValueError, match="peaks must have peak_values of shape"):
        transform_peaks(mapping, make_peaks(peak_values=np.zeros((2, 2, 2, 5))))
    with pytest.raises(ValueError, match="peaks must have qa of shape"):
        transform_peaks(mapping, make_peaks(qa=np.zeros((2, 2, 2, 5))))
    with pytest.raises(FileNotFoundError, match="peaks: no such file"):
        transform_peaks(mapping, tmp_path / "none.pam5")
    (tmp_path / "bad.pam5").write_text("no peaks")
    with pytest.raises(ValueError, match="bad.pam5 is no file of peaks"):
        transform_peaks(mapping, tmp_path / "bad.pam5")


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
@with_each_interpolation
def test_directions_do_not_depend_on_missing_values(interpolation, value):
    """A peak whose value is not positive keeps its direction."""
    mapping = make_affine_map(SHEAR)
    values = np.full((*MOVING_SHAPE, 5), float(value))
    warped = transform_peaks(
        mapping, make_peaks(peak_values=values, qa=None), interpolation=interpolation
    )
    wanted = transform_peaks(mapping, make_peaks(), interpolation=interpolation)
    assert_allclose(np.abs(warped.peak_dirs), np.abs(wanted.peak_dirs), atol=1e-6)
    assert np.isfinite(warped.peak_values).all()


def test_axes_without_value_count_where_no_other_does():
    """A mean of one axis of length 1, and another of length 0, is the first."""
    axes = np.zeros((2, 1, 3))
    axes[0, 0, 0] = 1
    axes[1, 0, :2] = np.sqrt(0.5)
    scalars = np.array([1.0, 0]).reshape(2, 1, 1)
    known = np.ones((2, 1, 1), dtype=bool)
    neighbours = find_neighbours(np.array([[0.6, 0, 0]]), known)
    directions, means = average_axes(axes, scalars, neighbours)
    assert_allclose(np.abs(directions[0, 0]), [1, 0, 0], atol=1e-6)
    assert_allclose(means[0, 0], 0.4)


def test_gfa_outside_the_mask_has_no_part():
    mapping = make_affine_map(np.eye(4))
    gfa = np.full(MOVING_SHAPE, 0.7)
    mask = np.ones(MOVING_SHAPE)
    gfa[:4], mask[:4] = 50, 0
    gfa[5, 5, 5] = np.nan
    mask[4, 4] = np.nan
    warped = transform_peaks(mapping, make_peaks(gfa=gfa), mask=mask)
    assert_allclose(warped.gfa[warped.gfa != 0], 0.7, rtol=1e-5)
    assert (warped.gfa != 0).sum() > 100
    assert np.isfinite(warped.gfa).all()
