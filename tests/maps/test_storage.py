"""Maps written to files and read: the package's own format, and DIPY's."""

from dataclasses import replace
import io
import os
from pathlib import Path
import struct
import zipfile

from dipy.align import read_mapping, write_mapping
from dipy.align.imwarp import DiffeomorphicMap
from maps import affine, make_map, maps_of_all_forms, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg.maps.formats import npz
from dipy_dl_reg.maps.formats.table import FORMATS
from dipy_dl_reg.maps.storage import (
    load_mapping,
    read_dipy_mapping,
    save_mapping,
    write_dipy_mapping,
)


def user_prealign(mapping):
    """Static world to moving world."""
    return np.eye(4) if mapping.prealign is None else mapping.prealign_inv


@pytest.mark.parametrize("name", maps_of_all_forms())
def test_saved_map_is_the_same_map(tmp_path, rng, name):
    mapping = maps_of_all_forms()[name]
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


def test_a_map_is_written_to_the_given_path(tmp_path):
    """Also where the suffix is in capitals, as the commands allow."""
    npz.write(oblique_map(), tmp_path / "MAP.NPZ")
    assert [path.name for path in tmp_path.iterdir()] == ["MAP.NPZ"]


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
        file.write(b"half")
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
        ({"format": np.array("other")}, "not written by save_mapping"),
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
    with pytest.raises(ValueError, match=r"path: .*forward.npy does not have its"):
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
    with pytest.raises(ValueError, match=r"path: .*forward.npy does not have its"):
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


def test_suffix_decides_on_the_format(tmp_path, monkeypatch):
    """Of those that hold the whole map; any other file is read as .npz."""
    twin = replace(FORMATS["npz"], suffixes=(".twin",))
    monkeypatch.setitem(FORMATS, "twin", twin)
    save_mapping(oblique_map(), tmp_path / "map.twin")
    read = load_mapping(tmp_path / "map.twin")
    assert_array_equal(read.forward, oblique_map().forward)
    monkeypatch.undo()
    save_mapping(oblique_map(), tmp_path / "map.npz")
    (tmp_path / "map.npz").rename(tmp_path / "map.dat")
    assert_array_equal(
        load_mapping(tmp_path / "map.dat").forward, oblique_map().forward
    )
    monkeypatch.setitem(FORMATS, "twin", twin)
    with pytest.raises(ValueError, match=r"must end in \.npz or \.twin, got .*map\.h5"):
        save_mapping(oblique_map(), tmp_path / "map.h5")
    (tmp_path / "map.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match=r"path: .*reads files in \.npz or \.twin"):
        load_mapping(tmp_path / "map.h5")


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
