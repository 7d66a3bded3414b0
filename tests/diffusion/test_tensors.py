"""Tensors are interpolated and turned as the anatomy is."""

import logging

from closed_forms import (
    MOVING,
    MOVING_SHAPE,
    STATIC,
    STATIC_SHAPE,
    angles,
    fan_directions,
    make_affine_map,
    make_fan_map,
    principal,
    world_points,
)
from dipy.align.imaffine import AffineMap
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel, decompose_tensor, vec_val_vect
from dipy.reconst.utils import convert_tensors
from maps import make_map, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg import (
    apply_mapping,
    tensor_components,
    tensor_matrices,
    transform_streamlines,
    transform_tensor_fit,
    transform_tensors,
)
from dipy_dl_reg.diffusion.frames import frame_to_world
from dipy_dl_reg.diffusion.tensors import reorient_axes

EVALS = np.array([1.7e-3, 0.5e-3, 0.2e-3])
METHODS = ["ppd", "finite_strain"]
with_each_method = pytest.mark.parametrize("method", METHODS)
in_both_directions = pytest.mark.parametrize("inverse", [False, True])


def rotation(angle, axis=2):
    """A rotation about an axis, in degrees."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    turn[[i, j], [i, j]], turn[i, j], turn[j, i] = c, -s, s
    return turn


def homogeneous(linear):
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    return matrix


TURN = rotation(40) @ rotation(25, 0) @ rotation(-15, 1)
SHEAR = np.array([[1.1, 0.6, 0], [0, 0.9, -0.2], [0.1, 0, 1.05]])
AXES = rotation(20, 1) @ rotation(70, 2)
TENSOR = AXES @ np.diag(EVALS) @ AXES.T


def filled(tensor_in_world, shape, grid2world, frame):
    """The same tensor in all voxels, in a frame."""
    turn = frame_to_world(grid2world, frame)
    return np.broadcast_to(turn.T @ tensor_in_world @ turn, (*shape, 3, 3)).copy()


def inner(warped):
    """The tensors of an output grid that lie within the input image."""
    found = warped[(warped != 0).any((-2, -1))]
    assert len(found) > 500
    return found


def in_world(warped, grid2world, frame):
    turn = frame_to_world(grid2world, frame)
    return turn @ warped @ turn.T


@with_each_method
@in_both_directions
@pytest.mark.parametrize("frame", ["voxel", "fsl", "world"])
def test_rotation_turns_tensors_between_frames(method, inverse, frame):
    """T = Q x: the anatomy is turned by the transpose."""
    mapping = make_affine_map(homogeneous(TURN))
    image = (STATIC_SHAPE, STATIC) if inverse else (MOVING_SHAPE, MOVING)
    out_grid = MOVING if inverse else STATIC
    warped = transform_tensors(
        mapping,
        filled(TENSOR, *image, frame),
        method=method,
        frame=frame,
        inverse=inverse,
    )
    turn = TURN if inverse else TURN.T
    found = inner(in_world(warped, out_grid, frame))
    wanted = turn @ TENSOR @ turn.T
    assert angles(principal(found), principal(wanted)).max() < 0.01
    assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=2e-4, atol=1e-8)


@with_each_method
def test_shear_of_a_map_with_displacement(method):
    """The closed form for F = inv(J), both methods."""
    mapping = make_affine_map(homogeneous(SHEAR))
    warped = transform_tensors(
        mapping, filled(TENSOR, MOVING_SHAPE, MOVING, "voxel"), method=method
    )
    deform = np.linalg.inv(SHEAR)
    if method == "ppd":
        first = deform @ AXES[:, 0]
    else:
        left, _, right = np.linalg.svd(deform)
        first = left @ right @ AXES[:, 0]
    found = principal(inner(in_world(warped, STATIC, "voxel")))
    assert angles(found, np.broadcast_to(first, found.shape)).max() < 0.01
    wrong = np.broadcast_to(AXES[:, 0], found.shape)
    assert angles(found, wrong).min() > 5


def rotate_around(axis, angle):
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def preservation_of_principal_direction(tensor, deform):
    """The two rotations of Alexander et al. 2001, as the article gives them."""
    _, vectors = np.linalg.eigh(tensor)
    e1, e2 = vectors[:, 2], vectors[:, 1]
    n1, n2 = (deform @ e / np.linalg.norm(deform @ e) for e in (e1, e2))
    first = rotate_around(np.cross(e1, n1), np.arccos(e1 @ n1))
    in_plane = n2 - (n2 @ n1) * n1
    in_plane /= np.linalg.norm(in_plane)
    turned = first @ e2
    angle = np.arctan2(n1 @ np.cross(turned, in_plane), turned @ in_plane)
    both = rotate_around(n1, angle) @ first
    return both @ tensor @ both.T


def test_construction_of_the_article(rng):
    for _ in range(50):
        deform = np.eye(3) + 0.4 * rng.normal(size=(3, 3))
        if np.linalg.det(deform) < 0.1:
            continue
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        tensor = axes @ np.diag(EVALS) @ axes.T
        new = reorient_axes(axes, deform)
        assert_allclose(new.T @ new, np.eye(3), atol=1e-12)
        assert_allclose(
            new @ np.diag(EVALS) @ new.T,
            preservation_of_principal_direction(tensor, deform),
            atol=1e-12,
        )


def test_planar_tensors_keep_their_plane():
    """If the two largest eigenvalues are equal, their plane is deformed."""
    plane = np.diag([1.0, 1.0, 0.2]) * 1e-3
    mapping = make_affine_map(homogeneous(SHEAR))
    warped = transform_tensors(mapping, filled(plane, MOVING_SHAPE, MOVING, "voxel"))
    deform = np.linalg.inv(SHEAR)
    normal = np.cross(deform[:, 0], deform[:, 1])
    found = np.linalg.eigh(inner(in_world(warped, STATIC, "voxel")))[1][..., 0]
    assert angles(found, np.broadcast_to(normal, found.shape)).max() < 0.05


def test_fanning_bundle():
    """A straight bundle becomes a fan, within half a degree everywhere inside."""
    mapping, shape, grid = make_fan_map()
    tensors = filled(np.diag([0.3, 1.7, 0.3]) * 1e-3, shape, grid, "voxel")
    warped = transform_tensors(mapping, tensors)
    wanted = fan_directions(world_points(shape, grid))[1:-1, 1:-1, 1:-1]
    found = principal(warped)[1:-1, 1:-1, 1:-1]
    assert angles(found, wanted).max() < 0.5
    assert angles(np.array([0.0, 1, 0]), wanted).max() > 15
    strain = principal(transform_tensors(mapping, tensors, method="finite_strain"))
    # finite strain does not follow a shear
    assert angles(strain[1:-1, 1:-1, 1:-1], wanted).max() > 2


@in_both_directions
@pytest.mark.parametrize("syn_form", [True, False])
def test_principal_directions_follow_streamlines(inverse, syn_form, rng):
    """The tensor of a fibre is turned as a short streamline through it."""
    mapping = oblique_map()
    if not syn_form:
        mapping = make_map((26, 27, 25), (26, 27, 25), amplitude=1.5)
        mapping.is_inverse = False
    forward = bool(mapping.is_inverse) != inverse
    side, other = ("domain", "codomain") if forward else ("codomain", "domain")
    shape, grid = (getattr(mapping, f"{side}_{k}") for k in ("shape", "grid2world"))
    out_grid = getattr(mapping, f"{other}_grid2world")
    grid = np.eye(4) if grid is None else grid
    out_grid = np.eye(4) if out_grid is None else out_grid
    warped = transform_tensors(
        mapping, filled(TENSOR, tuple(shape), grid, "voxel"), inverse=inverse
    )
    # the map from an output point to its input point, and back along the fibre
    places = world_points(warped.shape[:3], out_grid)[5:-5, 5:-5, 5:-5].reshape(-1, 3)
    inputs = transform_streamlines(mapping, [places], inverse=not inverse)[0]
    ends = [
        transform_streamlines(mapping, [inputs + s * AXES[:, 0]], inverse=inverse)[0]
        for s in (0.5, -0.5)
    ]
    found = principal(in_world(warped, out_grid, "voxel"))[5:-5, 5:-5, 5:-5]
    off = angles(found.reshape(-1, 3), ends[0] - ends[1])
    # fields of some 16 voxels are inverses of each other up to that
    assert np.median(off) < 1.5 and np.percentile(off, 95) < 4
    assert (
        np.median(angles(np.broadcast_to(AXES[:, 0], places.shape), ends[0] - ends[1]))
        > 5
    )


@pytest.mark.parametrize("order", ["dipy", "fsl", "mrtrix"])
def test_orders_are_those_of_dipy(order, rng):
    matrices = rng.normal(size=(4, 3, 2, 3, 3))
    matrices += matrices.swapaxes(-1, -2)
    ours = tensor_components(matrices, order)
    assert_array_equal(
        ours, convert_tensors(tensor_components(matrices), "dipy", order)
    )
    assert_array_equal(tensor_matrices(ours, order), matrices)


@pytest.mark.parametrize(
    "order, frame", [("dipy", "voxel"), ("fsl", "fsl"), ("mrtrix", "world")]
)
def test_components_in_the_frame_of_their_program(order, frame):
    """The same tensors, whatever the program, give the same result."""
    mapping = make_affine_map(homogeneous(SHEAR))
    matrices = transform_tensors(
        mapping, filled(TENSOR, MOVING_SHAPE, MOVING, frame), frame=frame
    )
    tensors = tensor_components(filled(TENSOR, MOVING_SHAPE, MOVING, frame), order)
    warped = transform_tensors(mapping, tensors, order=order)
    assert warped.shape == (*STATIC_SHAPE, 6) and warped.dtype == np.float32
    assert_allclose(tensor_matrices(warped, order), matrices, atol=1e-9)


@pytest.mark.parametrize("tail", [(6,), (1, 6)])
def test_files_on_grids_of_the_user(tmp_path, tail):
    """Five axes are ANTs's and NIfTI's form."""
    mapping = make_affine_map(homogeneous(TURN))
    tensors = tensor_components(filled(TENSOR, MOVING_SHAPE, MOVING, "voxel"))
    tensors = tensors.reshape(*MOVING_SHAPE, *tail)
    path = tmp_path / "tensors.nii.gz"
    nib.save(nib.Nifti1Image(tensors.astype(np.float32), MOVING), path)
    out = np.diag([3.0, 3, 3, 1])
    warped = transform_tensors(
        mapping, path, out_shape=(2, 3, 2), out_grid2world=out
    ).reshape(2, 3, 2, 6)
    turned = TURN.T @ TENSOR @ TURN
    assert_allclose(
        warped, np.broadcast_to(tensor_components(turned), warped.shape), atol=1e-7
    )


def test_there_and_back():
    mapping = oblique_map()
    shape, grid = tuple(mapping.domain_shape), mapping.domain_grid2world
    tensors = filled(TENSOR, shape, grid, "voxel")
    there = transform_tensors(mapping, tensors)
    back = transform_tensors(mapping, there, inverse=True)
    middle = np.s_[6:-6, 6:-6, 6:-6]
    found, wanted = principal(back)[middle], principal(tensors)[middle]
    assert np.percentile(angles(found, wanted), 95) < 2


def test_grids_are_those_of_apply_mapping(rng):
    """Linear interpolation of tensors that nothing turns is that of any image."""
    mapping = make_affine_map(homogeneous(np.eye(3)))
    data = rng.uniform(1, 2, (*MOVING_SHAPE, 6)).astype(np.float32)
    warped = transform_tensors(mapping, data, frame="world", interpolation="linear")
    wanted = apply_mapping(mapping, data)
    inside = (warped != 0).any(-1)
    coverage = apply_mapping(mapping, np.ones(MOVING_SHAPE, np.float32))
    assert_array_equal(inside, coverage > 0.5)
    full = coverage > 0.9999
    assert_allclose(warped[full], wanted[full], rtol=1e-4)


def test_background_does_not_bleed():
    """Zeros, NaN and voxels out of the mask have no part in what is interpolated."""
    mapping = make_map((12, 12, 12), (12, 12, 12), amplitude=0)
    mapping.backward[..., 0] = 0.4
    tensors = np.zeros((12, 12, 12, 3, 3))
    tensors[3:9] = TENSOR
    tensors[9] = np.nan
    tensors[10:] = np.eye(3)
    mask = np.ones((12, 12, 12))
    mask[10:] = 0
    for interpolation in ("log-euclidean", "linear", "nearest"):
        warped = transform_tensors(
            mapping, tensors, interpolation=interpolation, mask=mask
        )
        assert np.isfinite(warped).all()
        assert (warped[:2] == 0).all() and (warped[9:] == 0).all()
        assert_allclose(
            warped[3:9, 1:-1, 1:-1],
            np.broadcast_to(TENSOR, (6, 10, 10, 3, 3)),
            rtol=1e-4,
            atol=1e-9,
        )


def test_interpolation_of_two_tensors():
    """Halfway: the mean, or the exponential of the mean of the logarithms."""
    mapping = make_map((4, 4, 4), (4, 4, 4), amplitude=0)
    mapping.backward[..., 0] = 0.5
    one, other = np.diag([1.6, 0.4, 0.1]) * 1e-3, np.diag([0.4, 0.4, 0.9]) * 1e-3
    tensors = np.zeros((4, 4, 4, 3, 3))
    tensors[:2], tensors[2:] = one, other
    wanted = {
        "linear": (one + other) / 2,
        "log-euclidean": np.diag(np.sqrt(np.diag(one) * np.diag(other))),
    }
    for interpolation, tensor in wanted.items():
        warped = transform_tensors(mapping, tensors, interpolation=interpolation)
        assert_allclose(warped[1, 1, 1], tensor, rtol=1e-4, atol=1e-9)


def test_tensors_that_are_not_positive(caplog):
    caplog.set_level(logging.INFO, logger="dipy")
    mapping = make_map((6, 6, 6), (6, 6, 6), amplitude=0)
    tensors = np.zeros((6, 6, 6, 3, 3))
    tensors[:] = np.diag([1e-3, 4e-4, 3e-4])
    tensors[2] = np.diag([1e-3, 4e-4, -1e-4])
    tensors[3] = -np.eye(3)
    warped = transform_tensors(mapping, tensors)
    assert (np.linalg.eigvalsh(warped[[0, 1, 2, 4, 5]]) > 0).all()
    assert_allclose(warped[2, 2, 2], np.diag([1e-3, 4e-4, 1e-5]), rtol=1e-4)
    assert (warped[3] == 0).all()
    assert "36 had eigenvalues below 1%" in caplog.text
    assert "36 without a positive mean diffusivity" in caplog.text
    linear = transform_tensors(mapping, tensors, interpolation="linear")
    assert_allclose(linear, tensors, atol=1e-9)


def test_tensor_fit(rng):
    """DIPY's fit: the same tensors, and its maps."""
    bvecs = rng.normal(size=(20, 3))
    bvecs[0] = 0
    bvecs[1:] /= np.linalg.norm(bvecs[1:], axis=1, keepdims=True)
    gtab = gradient_table(np.r_[0, np.full(19, 1000.0)], bvecs=bvecs)
    tensor = filled(TENSOR, (1, 1, 1), MOVING, "voxel")[0, 0, 0]
    signal = np.exp(-gtab.bvals * np.einsum("ni,ij,nj->n", bvecs, tensor, bvecs))
    data = np.broadcast_to(100 * signal, (*MOVING_SHAPE, 20))
    fit = TensorModel(gtab).fit(data)
    mapping = make_affine_map(homogeneous(SHEAR))
    warped = transform_tensor_fit(mapping, fit)
    wanted = transform_tensors(mapping, fit.quadratic_form)
    assert_allclose(warped.quadratic_form, wanted, atol=1e-8)
    assert warped.shape == STATIC_SHAPE
    middle = np.s_[7, 8, 6]
    assert_allclose(warped.fa[middle], fit.fa[0, 0, 0], atol=1e-4)
    assert_allclose(warped.evals[middle], EVALS, rtol=1e-3)
    assert_allclose(
        warped.predict(gtab, S0=1)[middle],
        np.exp(-gtab.bvals * np.einsum("ni,ij,nj->n", bvecs, wanted[middle], bvecs)),
        atol=1e-5,
    )
    assert_allclose(vec_val_vect(warped.evecs, warped.evals), wanted, atol=1e-8)
    assert decompose_tensor(wanted)[0].shape == (*STATIC_SHAPE, 3)


def test_affine_map_of_dipy():
    """An affine registration's map, with both grids."""
    affine_map = AffineMap(
        homogeneous(SHEAR),
        domain_grid_shape=STATIC_SHAPE,
        domain_grid2world=STATIC,
        codomain_grid_shape=MOVING_SHAPE,
        codomain_grid2world=MOVING,
    )
    tensors = filled(TENSOR, MOVING_SHAPE, MOVING, "voxel")
    assert_allclose(
        transform_tensors(affine_map, tensors),
        transform_tensors(make_affine_map(homogeneous(SHEAR)), tensors),
        atol=1e-8,
    )
    with pytest.raises(ValueError, match="mapping must have the grids of both images"):
        transform_tensors(AffineMap(homogeneous(SHEAR)), tensors)


GOOD = np.broadcast_to(TENSOR, (12, 14, 10, 3, 3))


@pytest.mark.parametrize(
    "tensors, options, message",
    [
        (GOOD, {"method": "PPD"}, "method must be one of"),
        (GOOD, {"interpolation": "cubic"}, "interpolation must be one of"),
        (GOOD, {"order": "itk"}, "order must be one of"),
        (GOOD, {"frame": "lps"}, "frame must be one of"),
        (GOOD[..., 0], {}, r"tensors must be real numbers of shape \(X, Y, Z, 6\)"),
        (GOOD + np.triu(np.ones((3, 3)), 1), {}, "tensors must be symmetric"),
        (GOOD[:-1], {}, "give its image_grid2world"),
        (GOOD * 0, {}, "tensors must not be zero or NaN everywhere"),
        (
            GOOD,
            {"mask": np.ones((3, 3, 3))},
            r"mask must have the shape \(12, 14, 10\)",
        ),
        (GOOD, {"mask": np.zeros((12, 14, 10))}, "everywhere inside the mask"),
        (-GOOD, {}, "tensors must have a positive mean diffusivity"),
        (GOOD, {"out_shape": (3, 3, 3)}, "give out_grid2world too"),
    ],
)
def test_wrong_arguments(tensors, options, message):
    mapping = make_map((12, 14, 10), (12, 14, 10))
    with pytest.raises(ValueError, match=message):
        transform_tensors(mapping, tensors, **options)


def test_maps_of_slices_are_refused():
    with pytest.raises(ValueError, match="mapping must be 3D for directions, got 2D"):
        transform_tensors(make_map((8, 8), (8, 8)), GOOD)
    with pytest.raises(ValueError, match="mapping must be a DiffeomorphicMap"):
        transform_tensors(np.eye(4), GOOD)


def test_matrix_between_given_grids(rng):
    """A matrix transforms as the map made of it, in both directions."""
    matrix = np.diag([1.1, 0.9, 1, 1]) + 0.2 * np.eye(4, k=1)
    matrix[3] = 0, 0, 0, 1
    mapping = make_affine_map(matrix)
    for inverse in (False, True):
        shape, grid = (STATIC_SHAPE, STATIC) if inverse else (MOVING_SHAPE, MOVING)
        roots = rng.normal(size=(*shape, 3, 3))
        tensors = roots @ roots.swapaxes(-1, -2)
        wanted = transform_tensors(mapping, tensors, inverse=inverse)
        found = transform_tensors(
            matrix,
            tensors,
            inverse=inverse,
            image_grid2world=grid,
            out_shape=wanted.shape[:3],
            out_grid2world=MOVING if inverse else STATIC,
        )
        assert_allclose(found, wanted, atol=1e-4)
        assert (wanted != 0).any()
