"""Diffusion data to a template of one image."""

from dipy.align.imwarp import DiffeomorphicMap
from dipy.core.gradients import gradient_table
import nibabel as nib
import numpy as np
import phantom
from poses import SHORT, TRUTH, WHOLE, make_poses
import pytest

from dipy_dl_reg import register_dwi_to_template

BVALS = np.array([0, 1000, 1000, 0])
BVECS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.0]])


@pytest.fixture(scope="module")
def pair():
    return make_poses()


@pytest.fixture(scope="module")
def series(pair, tmp_path_factory):
    """A series of a b0, two weighted volumes and a second b0; and its table."""
    b0 = pair["moving"]
    data = np.stack([b0 + 0.01, 0.3 * b0, 0.2 * b0, b0 - 0.01], axis=-1)
    folder = tmp_path_factory.mktemp("series")
    path = folder / "dwi.nii.gz"
    nib.save(nib.Nifti1Image(data, pair["moving_affine"]), path)
    for name, values in (("bval", BVALS[None]), ("bvec", BVECS.T)):
        np.savetxt(folder / f"dwi.{name}", values)
    files = [str(folder / f"dwi.{name}") for name in ("bval", "bvec")]
    return data, gradient_table(BVALS, bvecs=BVECS), path, files


def test_dwi_to_template(pair, series):
    data, gtab, path, files = series
    template = nib.Nifti1Image(pair["static"], pair["static_affine"])
    options = {"pipeline": WHOLE, **SHORT}
    warped, mapping = register_dwi_to_template(
        data, gtab, dwi_affine=pair["moving_affine"], template=template, **options
    )
    assert isinstance(mapping, DiffeomorphicMap) and warped.shape == template.shape
    assert np.abs(warped - pair["static"]).mean() < 0.15 * pair["static"].mean()
    again, _ = register_dwi_to_template(path, files, template=template, **options)
    np.testing.assert_allclose(again, warped, atol=1e-4)
    b0, _ = register_dwi_to_template(
        pair["moving"],
        None,
        dwi_affine=pair["moving_affine"],
        template=template,
        **options,
    )
    np.testing.assert_allclose(b0, warped, atol=0.05)


def test_dwi_to_template_affinely(pair, series):
    data, gtab, _, _ = series
    affines = {
        "dwi_affine": pair["moving_affine"],
        "template": pair["static"],
        "template_affine": pair["static_affine"],
    }
    warped, matrix = register_dwi_to_template(data, gtab, reg_method="aff", **affines)
    assert matrix.shape == (4, 4) and warped.shape == pair["static"].shape
    assert phantom.misplacement(matrix, TRUTH) < 6  # its freedom of scale included


def test_a_mask_of_the_series(pair, series):
    data, gtab, _, _ = series
    mask = np.indices(pair["moving"].shape)[0] < 18
    options = {
        "dwi_affine": pair["moving_affine"],
        "template": nib.Nifti1Image(pair["static"], pair["static_affine"]),
        "pipeline": ["rigid"],
        "prealign": TRUTH,
    }
    _, wanted = register_dwi_to_template(data, gtab, moving_mask=mask, **options)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = mask.shape[0] - 1
    stored = nib.Nifti1Image(mask[::-1].astype(np.uint8), pair["moving_affine"] @ flip)
    _, found = register_dwi_to_template(data, gtab, moving_mask=stored, **options)
    assert np.array_equal(found.prealign, wanted.prealign)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reg_method": "syn"}, "reg_method"),
        ({"gtab": "bvals"}, "gtab must be"),
        ({"gtab": (BVALS, BVECS.T)}, "gtab: .* transposed"),
        ({"gtab": (BVALS, 2 * BVECS)}, "gtab: .* must have length 1"),
        ({"gtab": None}, "must be 3D"),
        ({"dwi": np.zeros((5, 6, 7, 3))}, "must be 4D"),
        ({"template_affine": None}, "template_affine is required"),
    ],
)
def test_unfit_series(pair, series, change, message):
    given = {
        "dwi": series[0],
        "gtab": series[1],
        "dwi_affine": pair["moving_affine"],
        "template": pair["static"],
        "template_affine": pair["static_affine"],
    } | change
    with pytest.raises(ValueError, match=message):
        register_dwi_to_template(given.pop("dwi"), given.pop("gtab"), **given)


def test_missing_table(series):
    with pytest.raises(FileNotFoundError, match="gtab: no such file: .*absent.bval"):
        register_dwi_to_template(series[2], ("absent.bval", "absent.bvec"))
