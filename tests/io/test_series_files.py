"""Series that are read and written volume by volume."""

import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg.io.series_files import (
    open_series,
    series_header,
    unpack_series,
    write_series,
)

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 2, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])


def make_image(dtype=np.int16):
    """A series of four volumes with a scale factor, a step in time and units."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 1000, (6, 5, 4, 4)).astype(dtype)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_zooms((2, 2, 3, 1.5))
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    return image


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nii.bz2"])
def test_round_trip(tmp_path, suffix):
    image = make_image()
    nib.save(image, tmp_path / f"in{suffix}")
    series = open_series(tmp_path / f"in{suffix}")
    assert (series.shape, series.volume_count) == ((6, 5, 4), 4)
    with unpack_series(series, tmp_path) as opened:
        volumes = (opened.read(k) for k in range(4))
        write_series(tmp_path / "out.nii.gz", volumes, opened)
    found = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(found.get_fdata(), image.get_fdata())
    np.testing.assert_allclose(found.affine, AFFINE)
    assert found.header.get_zooms() == image.header.get_zooms()
    assert found.header.get_xyzt_units() == ("mm", "sec")
    assert (int(found.header["sform_code"]), found.get_data_dtype()) == (1, np.float32)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"in{suffix}", "out.nii.gz"]


def test_compressed_files_are_unpacked_only_there(tmp_path):
    nib.save(make_image(), tmp_path / "in.nii.gz")
    nib.save(make_image(), tmp_path / "in.nii")
    packed = open_series(tmp_path / "in.nii.gz")
    with unpack_series(packed, tmp_path) as opened:
        assert str(opened.values.file_like).endswith(".nii")
        assert len(list(tmp_path.iterdir())) == 3
    assert len(list(tmp_path.iterdir())) == 2
    plain = open_series(tmp_path / "in.nii")
    with unpack_series(plain) as opened:
        assert opened is plain


@pytest.mark.parametrize("named", ["hdr", "img"])
def test_compressed_pairs_are_unpacked(tmp_path, named):
    image = make_image()
    pair = nib.Nifti1Pair(image.dataobj, image.affine, image.header)
    nib.save(pair, tmp_path / "in.img.gz")
    packed = open_series(tmp_path / f"in.{named}.gz")
    with unpack_series(packed, tmp_path) as opened:
        assert str(opened.values.file_like).endswith(".img")
        np.testing.assert_array_equal(opened.read(2), image.get_fdata()[..., 2])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "sform, qform, grid, code", [(1, 3, 1, 1), (0, 3, 1, 3), (0, 0, 1, 2), (1, 1, 2, 2)]
)
def test_code_of_the_affine(sform, qform, grid, code):
    """The code of the input, and 2 if it has none or another affine was given."""
    image = make_image()
    image.set_sform(AFFINE, sform)
    image.set_qform(AFFINE, qform)
    affine = image.affine @ np.diag([grid, grid, grid, 1])
    header = series_header(open_series(image, affine))
    assert int(header["sform_code"]) == code


def test_memory_is_that_of_a_volume(tmp_path):
    """Reading and writing 40 volumes needs the memory of a few."""
    import tracemalloc

    data = np.zeros((40, 40, 40, 40), np.float32)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "in.nii.gz")
    size = data[..., 0].nbytes
    del data
    series = open_series(tmp_path / "in.nii.gz")
    tracemalloc.start()
    with unpack_series(series, tmp_path) as opened:
        volumes = (opened.read(k) for k in range(40))
        write_series(tmp_path / "out.nii", volumes, opened)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * size


def test_missing_and_masked_values():
    data = np.ones((4, 4, 4, 2))
    data[0, 0, 0, 1] = np.nan
    masked = np.ma.masked_equal(data, np.nan)
    masked.mask = np.isnan(data)
    for values in (data, masked):
        assert np.isnan(open_series(values, AFFINE).read(1)[0, 0, 0])


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"must be a series .* shape \(3, 3, 3\)"):
        open_series(np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="affine is required if dwi is an array"):
        open_series(np.zeros((3, 3, 3, 2)), name="dwi")
    with pytest.raises(ValueError, match="real numbers"):
        open_series(np.zeros((3, 3, 3, 2), complex), np.eye(4))
    with pytest.raises(FileNotFoundError):
        open_series(tmp_path / "missing.nii")
    path = tmp_path / "cut.nii.gz"
    nib.save(make_image(), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged"), unpack_series(open_series(path)):
        pass
    series = open_series(np.zeros((3, 3, 3, 2)), np.eye(4))
    with pytest.raises(ValueError, match="expected 2 volumes, got 1"):
        write_series(tmp_path / "out.nii", [np.zeros((3, 3, 3))], series)
