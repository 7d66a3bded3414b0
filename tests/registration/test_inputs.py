"""Arrays, affines and files of any kind, slices and single-slice volumes."""

from dipy.align.imaffine import AffineMap
from maps import affine as affine_matrix
import nibabel as nib
import numpy as np
import pytest
from short_runs import SHORT, apart, ball, run, same

from dipy_dl_reg import DeepRegistration, deep_registration
from dipy_dl_reg.initialization.single_slice import flatten_slices
from dipy_dl_reg.registration.dipy_adapter import make_pair as make_pair_of_tensors


def test_inputs_are_left_alone(flat):
    """Arguments are neither changed nor stored."""
    mask = ball(flat.static).astype(np.uint8)
    given = {
        "static": np.where(ball(flat.static, 0.9), flat.static, np.nan),
        "moving": flat.moving.astype(np.float32),
        "static_mask": mask,
        "static_grid2world": flat.static_grid2world,
        "moving_grid2world": flat.moving_grid2world,
        "prealign": flat.prealign,
    }
    before = {name: value.copy() for name, value in given.items()}
    mapping = run(flat, **given)
    for name, value in given.items():
        assert np.array_equal(value, before[name], equal_nan=value.dtype.kind == "f")
    held = [v for v in vars(mapping).values() if isinstance(v, np.ndarray)]
    assert not any(np.shares_memory(h, g) for h in held for g in given.values())


def variants():
    def read_only(x):
        x = x.copy()
        x.flags.writeable = False
        return x

    return {
        "uint8": lambda x: x.astype(np.uint8),
        "int64": lambda x: x.astype(np.int64),
        "big-endian int16": lambda x: x.astype(">i2"),
        "big-endian float32": lambda x: x.astype(">f4"),
        "big-endian float64": lambda x: x.astype(">f8"),
        "float16": lambda x: x.astype(np.float16),
        "Fortran": np.asfortranarray,
        "read-only": read_only,
        "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
        "nested list": lambda x: x.tolist(),
    }


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("dim", [2, 3])
def test_arrays_of_any_make(flat, solid, variant, dim):
    """The same whole numbers, however they are stored, give the same map."""
    pair = flat if dim == 2 else solid
    images = [
        np.rint(200 * (i - i.min()) / np.ptp(i)) for i in (pair.static, pair.moving)
    ]
    wanted = run(pair, static=images[0], moving=images[1], **SHORT)
    stored = [variants()[variant](i) for i in images]
    assert same(run(pair, static=stored[0], moving=stored[1], **SHORT), wanted)


def test_images_of_bool(flat):
    images = {"static": flat.static > 0.3, "moving": flat.moving > 0.3}
    wanted = {name: image.astype(float) for name, image in images.items()}
    assert same(run(flat, **images), run(flat, **wanted))


@pytest.mark.parametrize("variant", ["read-only", "Fortran", "nested list"])
def test_affines_of_any_make(flat, variant):
    affines = {n: variants()[variant](a) for n, a in flat.affines.items()}
    mapping = run(flat, **affines, **SHORT)
    assert same(mapping, run(flat, **SHORT))
    assert all(
        type(getattr(mapping, name)) is np.ndarray
        for name in ("prealign", "domain_grid2world", "codomain_grid2world")
    )


@pytest.mark.parametrize("metric", ["SSD", "CC", "MI"])
@pytest.mark.parametrize("change", ["offset", "scale", "both"])
def test_units_of_intensity_do_not_matter(flat, metric, change):
    """An offset of 10 000 times the contrast, or tiny numbers: much the same map."""
    offset = 0.0 if change == "scale" else 1e4
    scale = 1.0 if change == "offset" else 1e-4 if change == "scale" else 30.0
    images = {
        name: getattr(flat, name).astype(np.float64) * scale + offset
        for name in ("static", "moving")
    }
    assert apart(run(flat, metric, **images), run(flat, metric)) < 0.1


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC", "MI"])
@pytest.mark.parametrize("role", ["static", "moving", "static moving"])
def test_one_extreme_voxel(flat, metric, role, log):
    """The extreme value is clipped and reported; the rest is registered as without it.

    These images are so small that quantiles of a thousandth lie between two voxels.
    """
    spoilt = {r: getattr(flat, r).astype(np.float64) for r in role.split()}
    for image in spoilt.values():
        image[9, 11] = 1e10
    mapping = run(flat, metric, level_iters=[20, 20], **spoilt)
    said = [m for m in log() if "extreme" in m]
    assert [m.split(":")[0] for m in said] == role.split()
    assert all("1 voxels" in m and "1e+10" in m for m in said)
    still = run(flat, level_iters=[0]).transform(flat.moving) - flat.static
    found = mapping.transform(flat.moving) - flat.static
    assert np.square(found).sum() < 0.6 * np.square(still).sum()


@pytest.fixture(scope="module")
def files(solid, tmp_path_factory):
    """The 3D pair as files, as images and as arrays, all float32."""
    folder = tmp_path_factory.mktemp("images")
    arrays = {k: getattr(solid, k).astype(np.float32) for k in ("static", "moving")}
    affine = {k: getattr(solid, f"{k}_grid2world") for k in arrays}
    images = {k: nib.Nifti1Image(arrays[k], affine[k]) for k in arrays}
    paths = {k: folder / f"{k}.nii.gz" for k in arrays}
    for k in arrays:
        nib.save(images[k], paths[k])
    return {
        "paths": paths,
        "strings": {k: str(p) for k, p in paths.items()},
        "images": images,
        "arrays": {
            **arrays,
            "static_affine": affine["static"],
            "moving_affine": affine["moving"],
        },
    }


@pytest.mark.parametrize("kind", ["paths", "strings", "images", "arrays"])
def test_deep_registration_takes_all_that_holds_an_image(solid, files, kind):
    given = dict(files[kind])
    moving, static = given.pop("moving"), given.pop("static")
    options = {"metric": "SSD", "level_iters": [8, 8], "model": None, **given}
    warped, mapping = deep_registration(moving, static, **options)
    arrays = files["arrays"]
    wanted = run(
        solid, level_iters=[8, 8], static=arrays["static"], moving=arrays["moving"]
    )
    assert same(mapping, wanted)
    assert warped.shape == solid.static.shape
    assert np.allclose(warped, wanted.transform(arrays["moving"]), atol=1e-6)
    assert np.allclose(mapping.codomain_grid2world, solid.static_grid2world)


def test_affine_of_a_file_can_be_overruled(files, solid):
    other = np.diag([2.0, 2, 2, 1]) @ solid.static_grid2world
    affines = {"static_affine": other, "moving_affine": other}
    _, mapping = deep_registration(
        files["images"]["moving"], files["paths"]["static"], **affines, **SHORT
    )
    assert np.array_equal(mapping.codomain_grid2world, other)
    assert np.array_equal(mapping.domain_grid2world, other)


def test_prealign_may_be_dipys_affine_map(flat):
    options = {
        "static_affine": flat.static_grid2world,
        "moving_affine": flat.moving_grid2world,
        **SHORT,
    }
    _, wanted = deep_registration(*flat[1::-1], prealign=flat.prealign, **options)
    by_map = AffineMap(flat.prealign)
    _, found = deep_registration(*flat[1::-1], prealign=by_map, **options)
    assert same(found, wanted)
    assert np.array_equal(found.prealign, wanted.prealign)
    assert np.allclose(found.prealign_inv, flat.prealign)


def test_a_slice_in_a_file_has_its_plane(flat, tmp_path):
    """A 2D NIfTI has a 3D affine: that of its two axes counts."""
    affine = np.diag([1.5, 2.5, 4.0, 1.0])
    affine[:3, 3] = 7, -3, 50
    image = nib.Nifti1Image(flat.static.astype(np.float32), affine)
    _, mapping = deep_registration(image, image, **SHORT)
    assert mapping.dim == 2
    wanted = [[1.5, 0, 7], [0, 2.5, -3], [0, 0, 1]]
    assert np.allclose(mapping.codomain_grid2world, wanted)


def test_masks_and_options_reach_the_registration(flat, solid, files, tmp_path):
    mask = ball(solid.static)
    path = tmp_path / "mask.nii"
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), solid.static_grid2world), path)
    images = files["images"]
    options = {"metric": "SSD", "level_iters": [6, 6], "step_length": 0.2}
    found = [
        deep_registration(
            images["moving"], images["static"], static_mask=m, num_threads=1, **options
        )[1]
        for m in (mask, path)
    ]
    assert same(*found)
    arrays = {k: files["arrays"][k] for k in ("static", "moving")}
    options |= {"num_threads": 1, **arrays}
    assert same(found[0], run(solid, static_mask=mask, **options))
    assert not same(found[0], run(solid, **options))
    options["moving_mask"] = ball(solid.moving, 0.5)
    assert not same(found[0], run(solid, static_mask=mask, **options))


@pytest.mark.parametrize("metric", ["SSD", "NCC"])
@pytest.mark.parametrize("dim", [2, 3])
def test_an_image_and_itself(flat, solid, metric, dim):
    """Equal images: the map is nearly the identity."""
    image = (flat if dim == 2 else solid).static
    registration = DeepRegistration(metric, level_iters=[10, 10])
    mapping = registration.optimize(image, image)
    assert np.linalg.norm(mapping.backward, axis=-1).max() < 0.25


def as_volume(pair, axis):
    """A 2D pair as volumes of one slice, which lies in a plane of the world."""
    own = [k for k in range(3) if k != axis]

    def matrix(flat, thickness):
        whole = np.eye(4)
        whole[np.ix_([*own, 3], [*own, 3])] = flat
        whole[axis, axis], whole[axis, 3] = thickness, 30.0 if thickness > 1 else 0.0
        return whole

    return type(pair)(
        np.expand_dims(pair.static, axis),
        np.expand_dims(pair.moving, axis),
        matrix(pair.static_grid2world, 3.0),
        matrix(pair.moving_grid2world, 4.0),
        matrix(pair.prealign, 1.0),
    )


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_registered_as_the_slice(flat, axis, oblique):
    """The network of 2D images included, which is what finds large displacements."""
    options = {"level_iters": [6]}
    wanted = DeepRegistration(**options)
    rigid = np.array([[0.995, 0.0998, 4.0], [-0.0998, 0.995, -6.0], [0, 0, 1]])
    flat = flat._replace(prealign=rigid)  # without scale, which levels go by
    by_slice = wanted.optimize(flat.static, flat.moving, **flat.affines)
    volume, turn = as_volume(flat, axis), np.eye(4)
    if oblique:
        turn[:3, :3] = affine_matrix([1, 1, 1], (0.2, 0.1, -0.15))[:3, :3]
        volume = volume._replace(
            static_grid2world=turn @ volume.static_grid2world,
            prealign=volume.prealign @ np.linalg.inv(turn),
        )
    found = DeepRegistration(**options)
    mapping = found.optimize(volume.static, volume.moving, **volume.affines)
    assert wanted.network_used and found.network_used
    assert found.network is not None and found.network.dim == 2
    field = mapping.backward @ turn[:3, :3]  # back into the plane
    field = np.delete(field.squeeze(axis), axis, axis=-1)
    assert np.abs(mapping.backward).max() > 1
    assert np.abs(field - by_slice.backward).max() < (0.2 if oblique else 1e-3)


def test_slices_that_lie_apart_have_no_network(flat):
    """Nor a slice and a slab: what is there is compared, as before."""
    volume = as_volume(flat, 2)
    pair = make_pair_of_tensors(volume.static, volume.moving, **volume.affines)
    assert flatten_slices(pair) is not None
    tilt = volume.prealign @ affine_matrix([1, 1, 1], (0, 0.5, 0))
    tilted = volume.affines | {"prealign": tilt}
    pair = make_pair_of_tensors(volume.static, volume.moving, **tilted, apart=True)
    assert flatten_slices(pair) is None
    slab = np.repeat(volume.moving, 3, axis=2)
    assert (
        flatten_slices(make_pair_of_tensors(volume.static, slab, **volume.affines))
        is None
    )
