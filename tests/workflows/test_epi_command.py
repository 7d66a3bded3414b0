"""`dipy_epi_deep`: what it writes, and where it stops."""

from epi_images import distort, make_image, make_shift
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import apply_epi_correction, load_mapping
from dipy_dl_reg.workflows.epi import EpiDeepFlow

SHAPE, AFFINE = (26, 30, 23), np.diag([-2.0, 2, 2.5, 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of opposite encodings, a series, and a T1 image."""
    place = tmp_path_factory.mktemp("epi")
    image = make_image(SHAPE)
    shift = make_shift(SHAPE, 1, 2.5)
    first, second = distort(image, shift, 1), distort(image, -shift, 1)
    series = np.stack([first, 0.5 * first, 0.25 * first], -1)
    t1 = np.where(image > 0.1, 2 / (1 + image), 0).astype(np.float32)
    images = {"b0": first, "other": second, "dwi": series, "t1": t1}
    images |= {"true": image, "shift": shift, "cut": second[:-1], "mask": image > 0.1}
    for name, values in images.items():
        values = np.asarray(values, dtype=np.float32)
        nib.save(nib.Nifti1Image(values, AFFINE), place / f"{name}.nii.gz")
    np.savetxt(place / "eye.txt", np.eye(4))
    return place


def read(path):
    """Values of an image."""
    return nib.load(path).get_fdata(dtype=np.float32)


def run(folder, out, **options):
    """Run the workflow with names of files in the folder."""
    names = ("opposite", "t1", "dwi", "t1_mask")
    given = {k: folder / f"{v}.nii.gz" if k in names else v for k, v in options.items()}
    EpiDeepFlow().run(folder / "b0.nii.gz", out_dir=out, num_threads=1, **given)


@pytest.mark.parametrize("options", [{"opposite": "other"}, {"t1": "t1"}])
def test_outputs(folder, tmp_path, options):
    options = options | {
        "dwi": "dwi",
        "report": True,
        "iterations": 1 if "t1" in options else 8,
    }
    if "t1" in options:
        options["prealign"] = folder / "eye.txt"
    run(folder, tmp_path, **options)
    field, corrected = (
        read(tmp_path / "field.nii.gz"),
        read(tmp_path / "corrected.nii.gz"),
    )
    inside, shift = read(folder / "true.nii.gz") > 0.2, read(folder / "shift.nii.gz")
    assert abs(field - shift)[inside].mean() < 0.6 * abs(shift[inside]).mean()
    report = (tmp_path / "report.html").read_text()
    assert "Distortion of b0.nii.gz" in report
    mapping = load_mapping(tmp_path / "mapping.npz")
    series = nib.load(tmp_path / "dwi_corrected.nii.gz")
    assert series.shape == (*SHAPE, 3)
    np.testing.assert_allclose(series.affine, AFFINE)
    volumes = series.get_fdata(dtype=np.float32)
    wanted = apply_epi_correction(mapping, read(folder / "b0.nii.gz"))
    np.testing.assert_allclose(volumes[..., 0], wanted, atol=1e-5)
    np.testing.assert_allclose(volumes[..., 1], 0.5 * wanted, atol=1e-5)
    if "t1" in options:
        np.testing.assert_allclose(corrected, wanted, atol=1e-5)
    assert np.loadtxt(tmp_path / "rigid.txt").shape == (4, 4)


@pytest.mark.parametrize("options", [{"opposite": "flat"}, {"t1": "flat"}])
def test_last_axis_of_length_1(folder, tmp_path, options):
    """As FSL's fslroi writes one volume of a series."""
    options = options | ({"prealign": folder / "eye.txt"} if "t1" in options else {})
    place = tmp_path / "in"
    place.mkdir()
    for name, source in (("b0", "b0"), ("flat", "t1" if "t1" in options else "other")):
        image = nib.Nifti1Image(read(folder / f"{source}.nii.gz")[..., None], AFFINE)
        nib.save(image, place / f"{name}.nii.gz")
    run(place, tmp_path, iterations=1, **options)
    assert nib.load(tmp_path / "corrected.nii.gz").shape == SHAPE


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "give either --opposite or --t1, got neither"),
        ({"opposite": "other", "t1": "t1"}, "give either --opposite or --t1, not both"),
        ({"opposite": "cut"}, "opposite: .* is not on the grid of"),
        ({"opposite": "dwi"}, "opposite"),
        ({"opposite": "other", "dwi": "t1"}, "dwi: .* must be a series"),
        (
            {"opposite": "other", "phase_encoding": "AP"},
            "phase_encoding must be one of",
        ),
        (
            {"opposite": "other", "t1_mask": "mask"},
            "t1_mask can only be given with --t1",
        ),
        ({"t1": "t1", "still": True}, "still can only be given with --opposite"),
        ({"t1": "t1", "out_mapping": "map.xyz"}, "out_mapping must end in"),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_missing_file(folder, tmp_path):
    with pytest.raises(OSError, match="absent"):
        run(folder, tmp_path, opposite="absent")
