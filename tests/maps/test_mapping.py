"""Maps in files, and maps applied to images."""

import io
import logging
import os
from pathlib import Path
import struct
import warnings
import zipfile

from dipy.align import read_mapping, write_mapping
from dipy.align.imwarp import DiffeomorphicMap, SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from maps import affine, blob, make_map, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from scipy.ndimage import map_coordinates

from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.maps.storage import (
    load_mapping,
    read_dipy_mapping,
    save_mapping,
    write_dipy_mapping,
)


def maps():
    plain = {d: make_map((12, 14, 10)[:d], (12, 14, 10)[:d]) for d in (2, 3)}
    forward = make_map((9, 8, 7), (7, 8, 9), amplitude=1)
    forward.is_inverse = False
    return {
        "2D": oblique_map(2),
        "3D": oblique_map(3),
        "2D, no affines": plain[2],
        "3D, no affines": plain[3],
        "not SyN's form": forward,
    }


def user_prealign(mapping):
    """Static world to moving world."""
    return np.eye(4) if mapping.prealign is None else mapping.prealign_inv


@pytest.mark.parametrize("name", maps())
def test_saved_map_is_the_same_map(tmp_path, rng, name):
    mapping = maps()[name]
    save_mapping(mapping, tmp_path / "map.npz")
    loaded = load_mapping(tmp_path / "map.npz")
    assert type(loaded) is DiffeomorphicMap
    assert vars(loaded).keys() == vars(mapping).keys()
    for key, value in vars(mapping).items():
        assert (getattr(loaded, key) is None) == (value is None), key
        assert_array_equal(getattr(loaded, key), value, err_msg=key)
    for field in (loaded.forward, loaded.backward):
        assert field.dtype == np.float32
        assert field.flags["C_CONTIGUOUS"] and field.flags["WRITEABLE"]
    for side in ("domain", "codomain"):
        image = rng.random(getattr(mapping, f"{side}_shape")).astype(np.float32)
        for call in ("transform", "transform_inverse"):
            assert_array_equal(
                getattr(loaded, call)(image), getattr(mapping, call)(image)
            )
    points = rng.uniform(-5, 30, (50, mapping.dim))
    for call in ("transform_points", "transform_points_inverse"):
        assert_array_equal(
            getattr(loaded, call)(points), getattr(mapping, call)(points)
        )


def test_file_of_release_0_1_0_is_read(tmp_path):
    """Its name of the format, its entries and their types are those written today."""
    path = Path(__file__).parent / "data" / "mapping_0.1.0.npz"
    mapping = make_map(
        (7, 6, 5),
        (6, 5, 7),
        static_grid2world=affine([2.0, -1.5, 2.5], (0.1, -0.2, 0.05), [5.0, -9, 3]),
        moving_grid2world=affine([-1.8, 2.2, 1.6], (-0.15, 0.1, 0.2), [14.0, -10, 5]),
        prealign=affine([1.05, 0.95, 1.02], (0.05, 0.1, -0.05), [1.0, -2, 0.5]),
        amplitude=1.0,
    )
    loaded = load_mapping(path)
    for key, value in vars(mapping).items():
        assert_allclose(getattr(loaded, key), value, atol=1e-6, err_msg=key)
    save_mapping(loaded, tmp_path / "again.npz")
    with np.load(path) as old, np.load(tmp_path / "again.npz") as new:
        assert list(old) == list(new)
        for name in old:
            assert old[name].dtype == new[name].dtype
            assert_array_equal(old[name], new[name], err_msg=name)


def test_fields_in_any_memory_are_saved(tmp_path):
    mapping = oblique_map()
    wanted = mapping.backward.copy()
    mapping.backward = np.asfortranarray(wanted.astype(">f8"))
    save_mapping(mapping, tmp_path / "map.npz")
    assert_array_equal(load_mapping(tmp_path / "map.npz").backward, wanted)


def test_existing_map_is_kept_unless_told(tmp_path):
    path = tmp_path / "map.npz"
    save_mapping(oblique_map(2), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists"):
        save_mapping(oblique_map(3), path)
    assert path.read_bytes() == before
    save_mapping(oblique_map(3), path, overwrite=True)
    assert load_mapping(path).dim == 3
    assert os.listdir(tmp_path) == ["map.npz"]


def test_saving_says_what_is_wrong_and_writes_nothing(tmp_path):
    empty = DiffeomorphicMap(3, (4, 4, 4))
    with pytest.raises(ValueError, match=r"mapping.forward must have the shape"):
        save_mapping(empty, tmp_path / "map.npz")
    with pytest.raises(ValueError, match="DiffeomorphicMap, got ndarray"):
        save_mapping(np.eye(4), tmp_path / "map.npz")
    with pytest.raises(ValueError, match="must end in .npz"):
        save_mapping(oblique_map(), tmp_path / "map.nii.gz")
    with pytest.raises(FileNotFoundError, match="folder"):
        save_mapping(oblique_map(), tmp_path / "none" / "map.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileExistsError, match="is a folder"):
        save_mapping(oblique_map(), tmp_path / "folder.npz", overwrite=True)
    assert os.listdir(tmp_path) == ["folder.npz"]


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "map.npz"
    save_mapping(oblique_map(2), path)
    before = path.read_bytes()

    def full(file, **entries):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        save_mapping(oblique_map(3), path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["map.npz"]


def test_bad_map_file_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_mapping(tmp_path / "none.npz")
    good = tmp_path / "good.npz"
    save_mapping(oblique_map(), good)
    data = good.read_bytes()
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, forward=np.zeros(3))
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, format=np.array([{}], dtype=object))
    for content in (
        b"",
        b"not an archive",
        data[: len(data) // 2],
        data[:-10],
        foreign.read_bytes(),
        pickled.read_bytes(),
    ):
        bad = tmp_path / "bad.npz"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="path: "):
            load_mapping(bad)
    array = tmp_path / "array.npy"
    np.save(array, np.zeros(4))
    with pytest.raises(ValueError, match="path: "):
        load_mapping(array)
    with pytest.raises(ValueError, match="path: "):
        load_mapping(tmp_path)


def test_no_damaged_byte_goes_unnoticed(tmp_path, rng):
    """Any byte changed: either a ValueError, or the very same map."""
    mapping = make_map((4, 3), (5, 4), amplitude=0.3)
    path = tmp_path / "map.npz"
    save_mapping(mapping, path)
    data = path.read_bytes()
    refused = 0
    for position in rng.choice(len(data), 400, replace=False):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = load_mapping(path)
        except ValueError:
            refused += 1
            continue
        assert_array_equal(loaded.forward, mapping.forward)
        assert_array_equal(loaded.domain_shape, mapping.domain_shape)
    assert refused > 100


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": np.array(99)}, "version 99"),
        ({"format": np.array("other")}, "no map of save_mapping"),
        ({"forward": np.zeros((2, 2, 2, 3))}, "forward is not on its grid"),
        ({"prealign": np.eye(3)}, "prealign is no affine"),
        ({"domain_shape": np.array([2, 2])}, "domain_shape"),
        ({"backward": None}, "backward missing"),
    ],
)
def test_wrong_entries_are_named(tmp_path, change, message):
    path = tmp_path / "map.npz"
    save_mapping(oblique_map(), path)
    with np.load(path) as archive:
        entries = {**archive, **change}
    np.savez(path, **{k: v for k, v in entries.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        load_mapping(path)


def npy(shape, dtype="<f4", data=b""):
    """A file of NumPy that declares a shape, whatever it holds."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_declared_size_is_checked_before_memory_is_taken(tmp_path, packing):
    path = tmp_path / "map.npz"
    save_mapping(oblique_map(), path)
    huge = (10**6, 10**6, 10**6, 3)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["forward.npy"] = npy(huge)
    entries["disp_shape.npy"] = npy((3,), "<i4", np.full(3, 10**6, "<i4").tobytes())
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"path: .*forward.npy is not as large"):
        load_mapping(path)
    # and where the archive's list of contents tells the same
    entries["forward.npy"] = npy(huge := (2**30 - 32,), "<u1")
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        info = archive.getinfo("forward.npy")
        sizes = struct.pack("<II", info.compress_size, info.file_size)
    told = struct.pack("<II", info.compress_size, info.file_size + huge[0])
    data = path.read_bytes()
    assert sizes in data
    path.write_bytes(data.replace(sizes, told))
    with pytest.raises(ValueError, match=r"path: .*forward.npy is not as large"):
        load_mapping(path)


def test_packed_archives_are_read(tmp_path):
    """As others may have written it: entries packed."""
    mapping, path = oblique_map(), tmp_path / "map.npz"
    mapping.forward[:] = 0  # packs very well
    save_mapping(mapping, path)
    with np.load(path) as archive:
        entries = dict(archive)
    np.savez_compressed(path, **entries)
    assert_array_equal(load_mapping(path).backward, mapping.backward)


def test_file_holds_no_pickle(tmp_path):
    save_mapping(oblique_map(), tmp_path / "map.npz")
    with zipfile.ZipFile(tmp_path / "map.npz") as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                np.lib.format.read_array(file, allow_pickle=False)


# DIPY's file ------------------------------------------------------------------------


def grids_of(mapping, folder):
    """Files with the grids of static and moving."""
    paths = []
    for side in ("codomain", "domain"):
        shape, matrix = (
            getattr(mapping, f"{side}_{k}") for k in ("shape", "grid2world")
        )
        paths.append(folder / f"{side}.nii.gz")
        nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), matrix), paths[-1])
    return paths


@pytest.mark.filterwarnings("ignore:the map has a prealign")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_dipy_reads_what_is_written_here(tmp_path, rng, suffix):
    mapping = oblique_map()
    static, moving = grids_of(mapping, tmp_path)
    path = tmp_path / f"field{suffix}"
    write_dipy_mapping(mapping, path)
    theirs = read_mapping(
        str(path),
        nib.load(moving),
        nib.load(static),
        prealign=np.linalg.inv(user_prealign(mapping)),
    )
    image = rng.random(mapping.domain_shape).astype(np.float32)
    assert_allclose(theirs.transform(image), mapping.transform(image), atol=1e-4)
    image = rng.random(mapping.codomain_shape).astype(np.float32)
    assert_allclose(
        theirs.transform_inverse(image), mapping.transform_inverse(image), atol=1e-4
    )


def test_what_dipy_writes_is_read_here(tmp_path, rng):
    mapping = oblique_map()
    static, moving = grids_of(mapping, tmp_path)
    path = tmp_path / "field.nii.gz"
    write_mapping(mapping, str(path))
    ours = read_dipy_mapping(
        path, static, nib.load(moving), prealign=user_prealign(mapping)
    )
    assert type(ours) is DiffeomorphicMap
    assert ours.backward.flags["C_CONTIGUOUS"] and ours.backward.flags["WRITEABLE"]
    assert_array_equal(ours.backward, mapping.backward)
    points = rng.uniform(-5, 30, (50, 3))
    assert_allclose(
        ours.transform_points(points), mapping.transform_points(points), atol=1e-4
    )
    image = rng.random(mapping.domain_shape).astype(np.float32)
    assert_allclose(ours.transform(image), mapping.transform(image), atol=1e-4)


def test_writing_warns_of_the_prealign_it_cannot_hold(tmp_path, recwarn):
    with pytest.warns(UserWarning, match="prealign"):
        write_dipy_mapping(oblique_map(), tmp_path / "a.nii.gz")
    recwarn.clear()
    mapping = make_map((8, 9, 7), (8, 9, 7), static_grid2world=np.eye(4))
    write_dipy_mapping(mapping, tmp_path / "b.nii.gz")
    assert not recwarn.list
    with pytest.raises(FileExistsError):
        write_dipy_mapping(mapping, tmp_path / "b.nii.gz")


def test_maps_that_dipys_file_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "field.nii.gz"
    with pytest.raises(ValueError, match="must be 3D"):
        write_dipy_mapping(oblique_map(2), path)
    with pytest.raises(ValueError, match="must have affines"):
        write_dipy_mapping(make_map((8, 9, 7), (8, 9, 7)), path)
    turned = oblique_map()
    turned.is_inverse = False
    with pytest.raises(ValueError, match="is_inverse"):
        write_dipy_mapping(turned, path)
    elsewhere = oblique_map()
    elsewhere.codomain_grid2world = affine([2, 2, 2])
    with pytest.raises(ValueError, match="on static's grid"):
        write_dipy_mapping(elsewhere, path)
    with pytest.raises(ValueError, match=r"end in \.nii"):
        write_dipy_mapping(oblique_map(), tmp_path / "field.mgz")
    assert not os.listdir(tmp_path)


def test_bad_dipy_file_is_one_clear_error(tmp_path):
    mapping = oblique_map()
    static, moving = grids_of(mapping, tmp_path)
    path = tmp_path / "field.nii.gz"
    write_mapping(mapping, str(path))
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(mapping.codomain_shape), np.eye(4)), other)
    with pytest.raises(ValueError, match="static has"):
        read_dipy_mapping(path, moving, moving)
    with pytest.raises(ValueError, match="another grid than static's"):
        read_dipy_mapping(path, other, moving)
    with pytest.raises(ValueError, match=r"\(X, Y, Z, 3, 2\)"):
        read_dipy_mapping(static, static, moving)
    with pytest.raises(ValueError, match="prealign must be invertible"):
        read_dipy_mapping(path, static, moving, prealign=np.diag([1, 1, 0, 1]))
    with pytest.raises(ValueError, match="prealign must have the shape"):
        read_dipy_mapping(path, static, moving, prealign=np.eye(3))
    with pytest.raises(FileNotFoundError):
        read_dipy_mapping(tmp_path / "none.nii", static, moving)
    data = path.read_bytes()
    for content in (b"", b"no image", data[:100], data[: len(data) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="path: "):
            read_dipy_mapping(path, static, moving)


# Images -----------------------------------------------------------------------------


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
        mapping = maps()[name]
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
    with pytest.warns(UserWarning, match='looks like labels.*interpolation="nearest"'):
        warped = apply_mapping(mapping, image)
    assert warped.dtype == np.float32
    with pytest.warns(UserWarning, match="looks like labels"):
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
        ({"out_grid2world": np.ones((4, 4))}, "out_grid2world must end in the row"),
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
    """Nothing above depends on how the maps were built here."""
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
