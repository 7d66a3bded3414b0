"""Maps applied to images."""

import logging
import warnings

from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from maps import affine, blob, make_map, maps_of_all_forms, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.ndimage import map_coordinates

from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.maps.storage import (
    load_mapping,
    save_mapping,
)


def by_scipy(mapping, image, image_grid2world, shape, grid2world):
    """The image on a grid of static's world, by formula."""
    dim = mapping.dim
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    points = points.reshape(dim, -1)

    def times(matrix, x):
        return matrix[:dim, :dim] @ x + matrix[:dim, dim:]

    world = times(grid2world, points)
    at = times(np.linalg.inv(mapping.disp_grid2world), world)
    moved = world + np.stack(
        [
            map_coordinates(
                mapping.backward[..., d].astype(float),
                at,
                order=1,
                mode="grid-constant",
            )
            for d in range(dim)
        ]
    )
    moved = times(np.linalg.inv(mapping.prealign), moved)
    at = times(np.linalg.inv(image_grid2world), moved)
    values = map_coordinates(image.astype(float), at, order=1, mode="grid-constant")
    return values.reshape(shape), at.reshape(dim, *shape)


@pytest.mark.parametrize("dim", [2, 3])
def test_image_on_other_grids_agrees_with_formula(rng, dim):
    mapping = oblique_map(dim)
    own = mapping.domain_grid2world @ affine([0.5, 0.7, 0.6][:dim], origin=[-1.0] * dim)
    out = mapping.codomain_grid2world @ affine([0.8] * dim, (0.1,), [0.5] * dim)
    image = rng.random((30, 31, 32)[:dim])
    out_shape = (15, 18, 21)[:dim]
    wanted, _ = by_scipy(mapping, image, own, out_shape, out)
    warped = apply_mapping(
        mapping, image, image_grid2world=own, out_shape=out_shape, out_grid2world=out
    )
    assert warped.dtype == np.float32 and warped.std() > 0.05
    assert_allclose(warped, wanted, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_own_grids_give_what_the_map_gives(rng, dim, inverse, interpolation):
    mapping = oblique_map(dim)
    shape = mapping.codomain_shape if inverse else mapping.domain_shape
    image = rng.random(shape).astype(np.float32)
    call = mapping.transform_inverse if inverse else mapping.transform
    wanted = call(image, interpolation=interpolation)
    warped = apply_mapping(mapping, image, interpolation=interpolation, inverse=inverse)
    assert_array_equal(warped, wanted)


def test_maps_without_affines_and_of_the_other_form(rng):
    for name in ("2D, no affines", "3D, no affines", "not SyN's form"):
        mapping = maps_of_all_forms()[name]
        for inverse in (False, True):
            own = mapping.is_inverse != inverse
            image = rng.random(mapping.domain_shape if own else mapping.codomain_shape)
            call = mapping.transform_inverse if inverse else mapping.transform
            assert_array_equal(
                apply_mapping(mapping, image, inverse=inverse),
                call(image.astype(np.float32)),
            )


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "u2", ">i2", "i4", ">i4", "u4", "i8", "u8", "f2", ">f8"]
)
def test_labels_keep_type_and_values(rng, dtype):
    mapping = oblique_map()
    dtype = np.dtype(dtype)
    top = 2 if dtype.kind == "b" else 100
    labels = rng.integers(0, top, mapping.domain_shape).astype(dtype)
    if dtype.itemsize == 8 and dtype.kind in "iu":
        labels[labels == 7] = 2**53 + 1
    labels.flags.writeable = False
    warped = apply_mapping(mapping, labels, interpolation="nearest")
    assert warped.dtype == dtype and warped.flags["WRITEABLE"]
    _, at = by_scipy(
        mapping,
        labels,
        mapping.domain_grid2world,
        tuple(mapping.codomain_shape),
        mapping.codomain_grid2world,
    )
    # halfway between two voxels rounding decides; beyond the border DIPY gives 0
    sure = (np.abs(at % 1 - 0.5) > 1e-3).all(axis=0)
    inside = (at >= 0).all(0) & (at.T <= np.array(labels.shape) - 1).all(-1).T
    sure &= inside
    assert sure.mean() > 0.3
    voxels = tuple(np.rint(at).astype(int)[:, sure])
    assert_array_equal(warped[sure], labels[voxels])
    assert set(np.unique(warped)) <= set(np.unique(labels)) | {0}


def test_strided_image_and_series_go_volume_by_volume(rng):
    mapping = oblique_map()
    series = rng.random((4, *mapping.domain_shape[::-1])).T[..., ::-1]
    assert series.shape == (*mapping.domain_shape, 4)
    labels = (100 * series).astype("u1")
    warped = apply_mapping(mapping, series)
    warped_labels = apply_mapping(mapping, labels, interpolation="nearest")
    assert warped.shape == warped_labels.shape == (*mapping.codomain_shape, 4)
    for k in range(4):
        volume = np.ascontiguousarray(series[..., k])
        assert_array_equal(warped[..., k], mapping.transform(volume))
        assert_array_equal(
            warped_labels[..., k],
            apply_mapping(mapping, labels[..., k], interpolation="nearest"),
        )


def test_nan_stays_where_it_is(rng):
    mapping = oblique_map()
    whole = 1 + rng.random(mapping.domain_shape).astype(np.float32)
    holed = whole.copy()
    holed[rng.random(whole.shape) < 0.02] = np.nan
    holed[3, 4, 5] = np.inf
    before = holed.copy()
    warped = apply_mapping(mapping, holed)
    assert_array_equal(holed, before)
    missing = mapping.transform((~np.isfinite(holed)).astype(np.float32))
    plain = mapping.transform(whole)
    untouched = missing == 0
    assert_allclose(warped[untouched], plain[untouched], rtol=1e-6)
    assert_array_equal(np.isnan(warped), missing > 0.5 + 1e-6)
    # the rest are means of their known neighbours
    partly = (missing > 0) & ~np.isnan(warped)
    assert partly.sum() > 50
    inside = mapping.transform(np.ones_like(whole)) > 0.999
    assert np.all((warped >= 1 - 1e-5) & (warped <= 2 + 1e-5) | ~partly | ~inside)
    # DIPY's own spreads them
    assert np.isnan(mapping.transform(holed)).sum() > np.isnan(warped).sum()


def test_constant_with_missing_voxels_stays_constant(rng):
    mapping = oblique_map()
    image = np.full(mapping.domain_shape, 7.0)
    image[rng.random(image.shape) < 0.3] = np.nan
    warped = apply_mapping(mapping, image)
    inside = mapping.transform(np.ones_like(image)) > 0.9999
    known = inside & np.isfinite(warped)
    assert known.sum() > 300
    assert_allclose(warped[known], 7, rtol=1e-3)


def test_all_missing_gives_all_missing_inside():
    mapping = oblique_map()
    warped = apply_mapping(mapping, np.full(mapping.domain_shape, np.nan))
    inside = mapping.transform(np.ones(mapping.domain_shape)) > 0.9999
    assert np.isnan(warped[inside]).all()


def test_inverse_comes_back(rng):
    mapping = oblique_map()
    centre = mapping.codomain_grid2world @ [8, 9, 7, 1]
    there = mapping.transform_points(centre[None, :3])[0]
    image = blob(mapping.codomain_shape, mapping.codomain_grid2world, centre[:3], 4)
    on_moving = apply_mapping(mapping, image, inverse=True)
    assert on_moving.shape == tuple(mapping.domain_shape)
    peak = np.unravel_index(on_moving.argmax(), on_moving.shape)
    peak = (mapping.domain_grid2world @ [*peak, 1])[:3]
    assert np.linalg.norm(peak - there) < 2.2


def test_images_and_paths_bring_their_own_grid(tmp_path, rng):
    mapping = oblique_map()
    own = mapping.domain_grid2world @ affine([0.9] * 3)
    data = rng.random((20, 18, 24)).astype(np.float32)
    image = nib.Nifti1Image(data, own)
    nib.save(image, tmp_path / "image.nii.gz")
    wanted = apply_mapping(mapping, data, image_grid2world=own)
    assert_array_equal(apply_mapping(mapping, image), wanted)
    from_file = apply_mapping(mapping, tmp_path / "image.nii.gz")
    assert_allclose(from_file, wanted, atol=1e-4)


def blocks(shape):
    """Whole numbers in blocks of four voxels."""
    return (np.indices(shape) // 4).sum(0)


def test_labels_are_not_interpolated_unnoticed(tmp_path, recwarn):
    mapping = oblique_map()
    labels = blocks(mapping.domain_shape).astype(np.int16)
    image = nib.Nifti1Image(labels, mapping.domain_grid2world)
    with pytest.warns(
        UserWarning, match='seems to contain labels.*interpolation="nearest"'
    ):
        warped = apply_mapping(mapping, image)
    assert warped.dtype == np.float32
    with pytest.warns(UserWarning, match="seems to contain labels"):
        apply_mapping(mapping, np.stack([labels, labels], axis=-1))
    recwarn.clear()
    assert_array_equal(apply_mapping(mapping, image, interpolation="linear"), warped)
    nearest = apply_mapping(mapping, image, interpolation="nearest")
    image.header.set_intent("label")
    nib.save(image, tmp_path / "labels.nii.gz")
    for declared in (image, tmp_path / "labels.nii.gz"):
        found = apply_mapping(mapping, declared)
        assert found.dtype == np.int16
        assert_array_equal(found, nearest)
    assert_array_equal(apply_mapping(mapping, image, interpolation="linear"), warped)
    assert not recwarn.list


def test_series_are_said_not_to_be_reoriented(rng, caplog):
    caplog.set_level(logging.INFO, logger="dipy")
    mapping = oblique_map()
    apply_mapping(mapping, rng.random(mapping.domain_shape))
    assert "reoriented" not in caplog.text
    apply_mapping(mapping, rng.random((*mapping.domain_shape, 5)))
    assert caplog.text.count("b-vectors") == 1


def test_signalling_nan_are_cast_without_a_warning(tmp_path, rng):
    """FA maps hold such NaN; only a cast of them tells them from others."""
    mapping = oblique_map()
    image = rng.random(mapping.domain_shape)
    image[:3] = np.nan
    wanted = apply_mapping(mapping, image)
    image[:3] = np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    nib.save(nib.Nifti1Image(image, mapping.domain_grid2world), tmp_path / "fa.nii")
    with warnings.catch_warnings(), np.errstate(invalid="warn"):
        warnings.simplefilter("error")
        for given in (image, tmp_path / "fa.nii"):
            assert_allclose(apply_mapping(mapping, given), wanted, atol=1e-5)


def test_more_voxels_than_can_be_numbered():
    """An error before memory is taken for their numbers (all are one byte here)."""
    many = np.broadcast_to(np.uint8(1), (2**11, 2**10, 2**10))
    with pytest.raises(
        ValueError, match=r"fewer than 2\*\*31 voxels .* got 2147483648"
    ):
        apply_mapping(
            make_map((6, 6, 6), (6, 6, 6)),
            many,
            interpolation="nearest",
            image_grid2world=np.eye(4),
        )


def test_bad_arguments_are_named():
    mapping = oblique_map()
    image = np.zeros(mapping.domain_shape)
    for options, message in (
        ({"interpolation": "cubic"}, "interpolation must be"),
        ({"interpolation": None}, "interpolation must be"),
        ({"image_grid2world": np.eye(3)}, "image_grid2world must have the shape"),
        ({"image_grid2world": np.diag([1, 0, 1, 1])}, "image_grid2world must be inv"),
        ({"out_grid2world": np.full((4, 4), np.nan)}, "out_grid2world must be finite"),
        ({"out_grid2world": "identity"}, "out_grid2world must be a matrix"),
        ({"out_grid2world": np.ones((4, 4))}, "out_grid2world must have the last row"),
        ({"out_shape": (5, 5)}, "out_shape must be 3 positive"),
        ({"out_shape": (5, 5, 0)}, "out_shape must be 3 positive"),
        ({"out_shape": (5, 5, 5)}, "give out_grid2world"),
        ({"inverse": True}, "give its image_grid2world"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_mapping(mapping, image, **options)
    for wrong, message in (
        (np.zeros((4, 4)), "image must have 3 axes"),
        (np.zeros((4, 4, 4, 4, 4)), "image must have 3 axes"),
        (np.zeros((0, 4, 4)), "image must have voxels"),
        (image.astype(complex), "image must hold real numbers"),
        (image[1:], "give its image_grid2world"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_mapping(mapping, wrong)
    with pytest.raises(ValueError, match="mapping must be a DiffeomorphicMap"):
        apply_mapping("map.npz", image)


def test_map_of_syn_itself(tmp_path, rng):
    """The results do not depend on how the maps of these tests are made."""
    grids = affine([2.0, 2, 2], origin=[-10, -10, -10]), affine([2.5, 2, 2])
    grids[1][:3, 3] = -11
    prealign = affine([1.0, 1, 1], (0.1,), [0.5, 0, 0.5])
    static = blob((14, 14, 14), grids[0], [3.0, 3, 3], 6)
    moving = blob((13, 15, 14), grids[1], [4.0, 2, 3], 5)
    mapping = SymmetricDiffeomorphicRegistration(
        SSDMetric(3), level_iters=[5]
    ).optimize(
        static,
        moving,
        static_grid2world=grids[0],
        moving_grid2world=grids[1],
        prealign=prealign,
    )
    assert np.abs(mapping.backward).max() > 0.05
    save_mapping(mapping, tmp_path / "map.npz")
    loaded = load_mapping(tmp_path / "map.npz")
    assert_array_equal(loaded.transform(moving), mapping.transform(moving))
    wanted, _ = by_scipy(mapping, moving, grids[1], static.shape, grids[0])
    assert_allclose(apply_mapping(loaded, moving), wanted, atol=1e-5)
