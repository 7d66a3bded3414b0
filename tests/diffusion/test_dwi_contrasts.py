"""Diffusion data to a template of several images."""

import logging

from dipy.core.gradients import gradient_table
from dipy.sims.voxel import single_tensor
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import register_dwi_to_template
from dipy_dl_reg.diffusion.dwi_contrasts import fit_tensor_maps, has_tensor, mean_b0

AFFINE = np.diag([3.0, 3, 3, 1])
SHORT = {"pipeline": ["deform"], "level_iters": [3], "model": None, "progress": False}
#: b-vectors of six directions that determine a tensor.
SIX = np.array([[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]])
EVALS = np.array([1.7e-3, 0.3e-3, 0.3e-3])


@pytest.fixture(scope="module")
def table():
    bvecs = np.vstack([np.zeros((2, 3)), SIX / np.sqrt(2)])
    return gradient_table(np.array([0.0] * 2 + [1000.0] * 6), bvecs=bvecs)


@pytest.fixture(scope="module")
def series(table):
    """A ball of 12 voxels; its inner part is anisotropic."""
    shape = (18, 18, 18)
    away = np.linalg.norm(np.indices(shape) - 8.5, axis=0)
    data = np.zeros((*shape, 8))
    data[away < 7] = 100 * single_tensor(table, evals=np.full(3, 1e-3), snr=None)
    data[away < 4] = 100 * single_tensor(table, evals=EVALS, snr=None)
    return data.astype(np.float32), away


def test_tensor_maps(series, table):
    data, away = series
    maps = fit_tensor_maps(data, table, mean_b0(data, table))
    d = EVALS - EVALS.mean()
    fa = np.sqrt(1.5 * (d**2).sum() / (EVALS**2).sum())
    np.testing.assert_allclose(maps["FA"][away < 4], fa, atol=1e-3)
    np.testing.assert_allclose(maps["MD"][away < 4], EVALS.mean(), rtol=1e-3)
    assert maps["FA"][(away > 4) & (away < 6)].max() < 0.01
    assert not maps["FA"][away > 9].any()


def test_directions_that_determine_no_tensor(table):
    assert has_tensor(table) and not has_tensor(None)
    bvecs = np.vstack([np.zeros(3), np.tile(SIX[:2] / np.sqrt(2), (4, 1))])
    flat = gradient_table(np.array([0.0] + [1000.0] * 8), bvecs=bvecs)
    assert not has_tensor(flat)


@pytest.mark.parametrize("form", ["dict", "pair"])
def test_template_of_t1_and_fa(series, table, form, caplog):
    data, _ = series
    b0 = mean_b0(data, table)
    fa = fit_tensor_maps(data, table, b0)["FA"]
    images = [nib.Nifti1Image(np.roll(x, 1, 0), AFFINE) for x in (b0.max() - b0, fa)]
    template = dict(zip(("FA", "T1"), images[::-1])) if form == "dict" else images
    caplog.set_level(logging.DEBUG, logger="dipy")
    warped, mapping = register_dwi_to_template(
        data, table, dwi_affine=AFFINE, template=template, **SHORT
    )
    assert warped.shape == b0.shape
    np.testing.assert_allclose(warped, mapping.transform(b0.astype(np.float32)))
    assert "Weights of the channels" in caplog.text


def test_contrast_that_the_series_lacks_is_left_out(series, table, caplog):
    b0 = mean_b0(series[0], table)
    template = {"b0": np.roll(b0, 1, 0), "FA": b0}
    affines = {"dwi_affine": AFFINE, "template_affine": AFFINE}
    options = affines | SHORT
    _, mapping = register_dwi_to_template(b0, None, template=template, **options)
    assert "template's FA is not used" in caplog.text
    _, wanted = register_dwi_to_template(b0, None, template=template["b0"], **options)
    np.testing.assert_array_equal(mapping.backward, wanted.backward)


@pytest.mark.parametrize("names, used", [(("FA", "T1"), "b0"), (("MD", "FA"), "FA")])
def test_affine_registration_uses_one_image(series, table, names, used, caplog):
    """It says so, and the result is the b0 volume whichever image is used."""
    data, _ = series
    b0 = mean_b0(data, table)
    maps = fit_tensor_maps(data, table, b0) | {"b0": b0}
    template = {name: np.roll(maps[name.replace("T1", "b0")], 1, 0) for name in names}
    template_of_used = template["T1" if used == "b0" else used]
    options = {"dwi_affine": AFFINE, "template_affine": AFFINE, "reg_method": "aff"}
    options |= {"pipeline": ["translation"]}
    warped, matrix = register_dwi_to_template(data, table, template=template, **options)
    assert f"one image of each side, here {used}" in caplog.text
    caplog.clear()
    _, alone = register_dwi_to_template(
        data, table, template={used: template_of_used}, **options
    )
    assert "is not used" not in caplog.text
    np.testing.assert_array_equal(matrix, alone)
    np.testing.assert_allclose(matrix[:3, 3], [-3.0, 0, 0], atol=0.3)
    assert abs(warped - np.roll(b0, 1, 0)).mean() < 0.05 * b0.mean()


@pytest.mark.parametrize(
    "template, gtab, words",
    [
        ({"FA": 0}, None, "FA only, which dwi does not provide"),
        ({"T1": 0, "b0": 0}, "table", "two images.*b0"),
        ({"ADC": 0}, "table", "'ADC'"),
        ([0, 0, 0], "table", "got 3 images"),
        ({}, "table", "at least one image"),
    ],
)
def test_bad_templates(series, table, template, gtab, words):
    data = series[0] if gtab else mean_b0(series[0], table)
    gtab = table if gtab else None
    with pytest.raises(ValueError, match=words):
        register_dwi_to_template(data, gtab, dwi_affine=AFFINE, template=template)
