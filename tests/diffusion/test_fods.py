"""FODs are interpolated and turned as the anatomy is."""

import shutil
import subprocess

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
from dipy.align.imaffine import AffineMap
from dipy.data import get_sphere
from maps import oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg import apply_mapping, convert_harmonics, transform_fods
from dipy_dl_reg.diffusion.fods import WEIGHTS, reorient_fods
from dipy_dl_reg.diffusion.frames import FRAMES, frame_to_world
from dipy_dl_reg.diffusion.harmonics import HarmonicBasis
from dipy_dl_reg.diffusion.spherical_functions import evaluate_harmonics, power_matrix

BASIS = HarmonicBasis("descoteaux07", 8)
SPHERE = get_sphere(name="repulsion724").vertices
TURN = Rotation.from_euler("xyz", [0.7, -0.4, 1.1]).as_matrix()
SHEAR = np.array([[1.05, 0.25, 0], [0, 0.95, -0.1], [0.05, 0, 1.0]])
needs_mrtrix = pytest.mark.skipif(
    not shutil.which("mrtransform"), reason="needs MRtrix3"
)
with_each_weights = pytest.mark.parametrize("weights", WEIGHTS)


#: Shapes of one fibre by DIPY's constrained spherical deconvolution, by order and
#: b-value, and the delta function cut off at order 8: factors of degrees 0, 2, 4 ...
LOBES = {
    "csd, order 4, b = 2500": [1, 0.993, 0.839],
    "csd, order 8, b = 1000": [1, 0.954, 0.645, 0.333, 0.110],
    "csd, order 8, b = 3000": [1, 0.996, 0.788, 0.426, 0.183],
    "delta": [1, 1, 1, 1, 1],
}


def lobes(directions, basis=BASIS):
    """FODs of one fibre each, as constrained spherical deconvolution shows them."""
    shape = np.array(LOBES["csd, order 8, b = 3000"])[basis.degrees // 2]
    shaped = basis.evaluate(np.reshape(directions, (-1, 3))) * shape
    return shaped.reshape(*np.shape(directions)[:-1], -1)


def peaks(sh, basis=BASIS, near=None):
    """Directions of the largest amplitude, found on ever finer grids of directions."""
    if near is None:
        near = SPHERE[(sh @ basis.evaluate(SPHERE).T).argmax(-1)]
    steps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    found = near / np.linalg.norm(near, axis=-1, keepdims=True)
    powers = power_matrix(basis)
    for size in 0.08 * 0.6 ** np.arange(14):
        frames = np.linalg.svd(found[:, None])[2][:, 1:]
        tried = found[:, None] + size * np.einsum("sk,vki->vsi", steps, frames)
        tried /= np.linalg.norm(tried, axis=-1, keepdims=True)
        best = evaluate_harmonics(powers, tried, sh).argmax(1)
        found = tried[np.arange(len(tried)), best]
    return found


def random_directions(count, seed=0):
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def repeated(matrix, count):
    return np.broadcast_to(matrix, (count, 3, 3))


def homogeneous(linear):
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    return matrix


@with_each_weights
@pytest.mark.parametrize("modulate", [False, True])
def test_identity_changes_nothing(weights, modulate):
    sh = np.random.default_rng(2).normal(size=(300, 45))
    result = reorient_fods(
        sh, repeated(np.eye(3), 300), BASIS, weights=weights, modulate=modulate
    )
    assert_allclose(result, sh, atol=1e-10)


@with_each_weights
@pytest.mark.parametrize(
    "basis",
    [
        HarmonicBasis("descoteaux07", 2),
        HarmonicBasis("descoteaux07", 8, False),
        HarmonicBasis("tournier07", 6),
        HarmonicBasis("mrtrix", 12),
        HarmonicBasis("tournier07", 5, False, True),
    ],
    ids=str,
)
def test_rotation_is_exact(basis, weights):
    """Any function, not only FODs, is rotated as its harmonics are."""
    sh = np.random.default_rng(2).normal(size=(20, len(basis.degrees)))
    for matrix in (TURN, -TURN):
        result = reorient_fods(sh, repeated(matrix, 20), basis, weights=weights)
        assert_allclose(result, sh @ basis.rotation(matrix).T, atol=1e-8)


@pytest.mark.parametrize("shape", LOBES.values(), ids=LOBES)
@with_each_weights
def test_one_fibre_follows_the_deformation(shape, weights):
    """Least squares leave errors of degrees; MRtrix3's are as large."""
    basis = HarmonicBasis("descoteaux07", 2 * len(shape) - 2)
    directions = random_directions(40)
    sh = basis.evaluate(directions) * np.array(shape)[basis.degrees // 2]
    result = reorient_fods(sh, repeated(SHEAR, 40), basis, weights=weights)
    expected = directions @ SHEAR.T
    assert angles(directions, expected).max() > 9
    limit = {4: 0.8, 8: 0.5}[basis.order] if weights == "nonnegative" else 3.5
    assert angles(peaks(result, basis, expected), expected).max() < limit


def test_crossing_fibres_are_turned_separately():
    """A shear changes the angle between two bundles, which no rotation does."""
    first, second = np.eye(3)[:2]
    sh = lobes(first)[None] + 0.7 * lobes(second)[None]
    result = reorient_fods(sh, SHEAR[None], BASIS)
    turned = SHEAR @ first, SHEAR @ second
    expected = lobes(turned[0])[None] + 0.7 * lobes(turned[1])[None]
    for near in turned:
        error = angles(peaks(result, near=near[None]), peaks(expected, near=near[None]))
        assert error[0] < 0.5
    assert abs(angles(*turned) - 90) > 10


@with_each_weights
def test_the_sum_of_weights_is_kept_without_modulation(weights):
    """Degree 0 is the integral over the sphere."""
    sh = lobes(random_directions(20)) + 0.3 * lobes(random_directions(20, 1))
    result = reorient_fods(sh, repeated(SHEAR, 20), BASIS, weights=weights)
    assert_allclose(result[:, 0], sh[:, 0], rtol=1e-9)


@pytest.mark.parametrize("along, factor", [(0, 2.0), (1, 0.5), (2, 0.5)])
def test_modulation_keeps_the_amount_across_the_bundle(along, factor):
    """Stretched to twice the width, a bundle has half the amplitude.

    One whose length alone is doubled keeps its cross-section and its amplitude.
    """
    stretch = np.diag([1.0, 2.0, 1.0])
    stretch = np.diag([2.0, 1.0, 1.0]) if along == 0 else stretch
    fibre = np.eye(3)[0 if along != 1 else 2]
    sh = lobes(fibre)[None]
    result = reorient_fods(sh, stretch[None], BASIS, modulate=True)
    expected = 1.0 if along == 0 else factor
    assert_allclose(result[0, 0] / sh[0, 0], expected, rtol=0.03)


def filled(direction_in_world, shape, grid2world, frame, basis=BASIS):
    """The same fibre in all voxels, in a frame."""
    direction = frame_to_world(grid2world, frame).T @ direction_in_world
    one = lobes(direction, basis)
    return np.broadcast_to(one, (*shape, len(one))).copy()


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("inverse", [False, True])
def test_frames_and_directions_of_the_map(frame, inverse):
    matrix = homogeneous(np.linalg.inv(SHEAR) @ TURN)
    mapping = make_affine_map(matrix)
    deformation = matrix[:3, :3] if inverse else np.linalg.inv(matrix[:3, :3])
    fibre = np.array([0.3, 0.9, -0.2])
    grids = [(MOVING_SHAPE, MOVING), (STATIC_SHAPE, STATIC)]
    given, wanted = grids[::-1] if inverse else grids
    basis = HarmonicBasis("descoteaux07", 6)
    sh = filled(fibre, *given, frame, basis)
    warped = transform_fods(mapping, sh, frame=frame, inverse=inverse)
    assert warped.shape == (*wanted[0], 28) and warped.dtype == np.float32
    inner = warped[(warped != 0).any(-1)]
    assert len(inner) > 500
    found = peaks(inner[::50], basis) @ frame_to_world(wanted[1], frame).T
    assert angles(found, deformation @ fibre).max() < 0.5


@pytest.mark.parametrize(
    "basis, legacy",
    [("descoteaux07", False), ("tournier07", True), ("tournier07", False)]
    + [("mrtrix", True)],
)
def test_bases_give_the_same_functions(basis, legacy):
    """What is converted before is what is converted after; MRtrix3's is in RAS."""
    mapping = make_affine_map(homogeneous(SHEAR))
    sh = filled([0.3, 0.9, -0.2], MOVING_SHAPE, MOVING, "voxel")
    there = {"to_legacy": legacy, "affine": MOVING}
    given = convert_harmonics(sh, "descoteaux07", basis, **there)
    how = {"weights": "least_squares"}
    warped = transform_fods(mapping, given, basis=basis, legacy=legacy, **how)
    expected = convert_harmonics(
        transform_fods(mapping, sh, **how),
        "descoteaux07",
        basis,
        to_legacy=legacy,
        affine=STATIC,
    )
    assert_allclose(warped, expected, atol=2e-3)


def test_a_fanning_bundle():
    mapping, shape, grid = make_fan_map()
    along_y = np.array([0.0, 1, 0])
    sh = np.broadcast_to(lobes(along_y), (*shape, 45))
    warped = transform_fods(mapping, sh, image_grid2world=grid)
    points = world_points(shape, grid)
    inside = (np.abs(points) < 0.7 * FAN_SIZE).all(-1) & (warped[..., 0] != 0)
    expected = fan_directions(points[inside])
    assert angles(expected, along_y).max() > 10
    errors = angles(peaks(warped[inside], near=expected), expected)
    # The fan is up to 1.7 times as wide as the straight bundle.
    assert np.mean(errors) < 0.25 and errors.max() < 0.7


def test_there_and_back():
    """Of a field of FODs that varies over the image."""
    mapping = oblique_map()
    shape = tuple(mapping.domain_shape)
    places = np.moveaxis(np.indices(shape), 0, -1)
    fibres = np.stack(
        [np.ones(shape), np.sin(places[..., 0] / 8), np.cos(places[..., 1] / 8)], -1
    )
    basis = HarmonicBasis("descoteaux07", 4)
    sh = lobes(fibres, basis)
    static = transform_fods(mapping, sh)
    back = transform_fods(mapping, static, inverse=True)
    ones = np.ones(shape, dtype=np.float32)
    inside = apply_mapping(mapping, apply_mapping(mapping, ones), inverse=True) > 0.999
    assert inside.sum() > 300
    some, true = back[inside][::10], fibres[inside][::10]
    error = angles(peaks(some, basis, true), true)
    assert np.mean(error) < 0.5 and error.max() < 3
    assert_allclose(back[inside][:, 0], sh[inside][:, 0], atol=1e-3)


def test_missing_voxels_do_not_spread():
    mapping = oblique_map()
    shape, basis = tuple(mapping.domain_shape), HarmonicBasis("descoteaux07", 4)
    sh = filled([0.0, 1, 0], shape, np.eye(4), "world", basis)
    grid = mapping.codomain_grid2world.copy()
    grid[:3, 3] += grid[:3, :3] @ [5, 6, 4]
    there = {"out_shape": (7, 8, 7), "out_grid2world": grid}
    whole = transform_fods(mapping, sh, **there)
    sh[8:11, 7:10, 10:13] = np.nan
    with_hole = transform_fods(mapping, sh, **there)
    assert np.isfinite(with_hole).all()
    full = (whole[..., 0] > 0) & (with_hole[..., 0] > 0)
    assert 300 < full.sum() < (whole[..., 0] > 0).sum()
    assert_allclose(with_hole[full], whole[full], atol=2e-3)
    masked = transform_fods(mapping, sh, mask=np.isfinite(sh[..., 0]), **there)
    assert_array_equal(masked, with_hole)


def test_maps_of_dipy_and_images_of_nibabel():
    grid = {"domain_grid_shape": (6, 7, 8), "codomain_grid_shape": (6, 7, 8)}
    sh = np.random.default_rng(0).normal(size=(6, 7, 8, 15)).astype(np.float32)
    image = nib.Nifti1Image(sh, np.eye(4))
    warped = transform_fods(AffineMap(np.eye(4), **grid), image)
    assert_allclose(warped, sh, atol=1e-5)


def test_wrong_arguments():
    mapping = oblique_map()
    shape = tuple(mapping.domain_shape)
    with pytest.raises(ValueError, match="sh must have.*got 14"):
        transform_fods(mapping, np.ones((*shape, 14)))
    with pytest.raises(ValueError, match="sh must have four axes.*got shape"):
        transform_fods(mapping, np.ones(shape))
    with pytest.raises(ValueError, match="sh must hold real numbers"):
        transform_fods(mapping, np.ones((*shape, 15), dtype=complex))
    with pytest.raises(ValueError, match="weights must be one of"):
        transform_fods(mapping, np.ones((*shape, 15)), weights="positive")
    with pytest.raises(ValueError, match="basis must be one of"):
        transform_fods(mapping, np.ones((*shape, 15)), basis="mrtrix3")
    with pytest.raises(ValueError, match="frame must be one of"):
        transform_fods(mapping, np.ones((*shape, 15)), frame="ras")
    with pytest.raises(ValueError, match="must be 3D"):
        transform_fods(oblique_map(2), np.ones((*shape, 15)))


def run_mrtransform(folder, sh, moving, mapping, static_shape, static, *options):
    """MRtrix3's result, through the map as its deformation field."""
    points = mapping.transform_points(world_points(static_shape, static).reshape(-1, 3))
    deformation = points.reshape(*static_shape, 3).astype(np.float32)
    nib.save(nib.Nifti1Image(deformation, static), folder / "warp.nii")
    nib.save(nib.Nifti1Image(sh.astype(np.float32), moving), folder / "sh.nii")
    command = ["mrtransform", "sh.nii", "out.nii", "-warp", "warp.nii"]
    command += ["-interp", "linear", "-reorient_fod", "yes", "-quiet", *options]
    subprocess.run(command, check=True, cwd=folder)
    return nib.as_closest_canonical(nib.load(folder / "out.nii"))


def deformations(mapping, points):
    """Matrices that deform directions of moving, by differences of points."""
    steps = [mapping.transform_points(points + s) for s in 0.5 * np.eye(3)]
    steps = np.stack(steps, -1) - np.stack(
        [mapping.transform_points(points - s) for s in 0.5 * np.eye(3)], -1
    )
    return np.linalg.inv(steps)


@needs_mrtrix
@pytest.mark.parametrize("modulate", [False, True])
def test_agrees_with_mrtransform(tmp_path, modulate):
    """Through a deformation and a prealign, between oblique, anisotropic grids."""
    mapping = oblique_map()
    moving, static = mapping.domain_grid2world, mapping.codomain_grid2world
    shape, static_shape = tuple(mapping.domain_shape), tuple(mapping.codomain_shape)
    basis, fibre = HarmonicBasis("mrtrix", 8), np.array([0.3, 0.9, -0.2])
    sh = np.broadcast_to(lobes(fibre, basis), (*shape, 45))
    options = ["-modulate", "fod"] if modulate else []
    theirs = run_mrtransform(
        tmp_path, sh, moving, mapping, static_shape, static, *options
    )
    grid, theirs = theirs.affine, theirs.get_fdata()
    inside = np.zeros(theirs.shape[:3], dtype=bool)
    inside[3:-3:2, 3:-3:2, 3:-3:2] = True
    inside &= theirs[..., 0] > 0
    assert inside.sum() > 150
    points, theirs = world_points(inside.shape, grid)[inside], theirs[inside]
    expected = deformations(mapping, points) @ fibre
    assert angles(expected, fibre).max() > 8
    their_peaks = peaks(theirs, basis, expected)
    for weights in WEIGHTS:
        ours = transform_fods(
            mapping, sh, basis="mrtrix", modulate=modulate, weights=weights
        )
        image = nib.as_closest_canonical(nib.Nifti1Image(ours, static))
        assert_allclose(image.affine, grid, atol=1e-4)
        ours = image.get_fdata()[inside]
        our_peaks = peaks(ours, basis, expected)
        between = angles(our_peaks, their_peaks)
        assert np.mean(between) < 1.0 and np.percentile(between, 95) < 2.5
        errors = angles(our_peaks, expected)
        assert np.mean(errors) < np.mean(angles(their_peaks, expected))
        if weights == "nonnegative":
            assert np.mean(errors) < 0.3 and errors.max() < 0.9
        assert_allclose(ours[:, 0], theirs[:, 0], rtol=0.05)
        ratio = amplitudes(ours, our_peaks, basis)
        ratio /= amplitudes(theirs, their_peaks, basis)
        assert abs(np.median(ratio) - 1) < 0.1


def amplitudes(sh, directions, basis):
    return (basis.evaluate(directions) * sh).sum(1)
