"""Whether maps show an upright head: the mean brain, and the same turned."""

from brain_image import load_brain
import numpy as np
import pytest
import torch

from dipy_dl_reg import deep_affine_registration
from dipy_dl_reg.anatomy.plausibility import (
    fit_mean_brain,
    is_plausible,
    measure_centroids,
)
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, predict_anatomy
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.registration.affine import orientation

#: Half a turn about the axis from left to right, and reversed slices.
TURNED = {"turned": np.diag([1.0, -1, -1, 1]), "mirrored": np.diag([1.0, 1, -1, 1])}


@pytest.fixture(scope="module")
def template():
    return load_brain(resolution=4)


@pytest.fixture(scope="module")
def upright(template):
    grid = Grid(template.shape, template.affine)
    return predict_anatomy(template.get_fdata(), grid)


def test_mean_brain_fits_the_template(upright):
    fit = fit_mean_brain(upright)
    assert fit.is_plausible()
    assert fit.residual < 3
    assert 1500 < fit.volume < 2200
    assert rotation_angle(fit.matrix[:3, :3]) < 15


def test_centroids_of_single_voxels():
    maps = predict_anatomy(
        np.zeros((6, 7, 8)), Grid((6, 7, 8), np.diag([2.0, 2, 2, 1]))
    )
    maps.probabilities[:, 3, 4, 5] = 0
    maps.probabilities[2, 3, 4, 5] = 1
    volumes, centroids = measure_centroids(maps)
    assert volumes[2] == pytest.approx(8)
    np.testing.assert_allclose(centroids[2], [6, 8, 10])
    assert fit_mean_brain(maps) is None
    assert not is_plausible(maps)


@pytest.mark.parametrize("name", TURNED)
def test_wrong_headers_are_found_and_a_pose_helps(template, upright, name):
    matrix = TURNED[name] @ template.affine
    values, grid = template.get_fdata(), Grid(template.shape, matrix)
    assert not is_plausible(predict_anatomy(values, grid))
    pose = np.linalg.inv(TURNED[name])
    posed = predict_anatomy(values, grid, pose=pose)
    assert is_plausible(posed, pose)
    turned = TURNED[name] @ upright.grid.affine
    np.testing.assert_allclose(posed.grid.affine, turned, atol=1e-9)
    torch.testing.assert_close(posed.probabilities, upright.probabilities)


def test_affine_warns_of_a_wrong_header(heads, template, upright, monkeypatch):
    """The maps are replaced: the network's own are tested above."""
    wrong = TURNED["turned"] @ template.affine

    def predict(image, grid, **options):
        right = np.allclose(grid.affine, template.affine)
        nothing = AnatomyMaps(upright.probabilities.flip(3), upright.grid)
        return upright if right else nothing

    monkeypatch.setattr(orientation, "predict_anatomy", predict)
    data = template.get_fdata(dtype=np.float32)
    options = {
        "pipeline": ["center_of_mass", "rigid"],
        "level_iters": [5],
        "factors": [2],
    }
    images = {"moving": data, "static": data, "static_affine": template.affine}
    with pytest.warns(UserWarning, match="moving shows no upright head .* 180 degrees"):
        deep_affine_registration(**images, moving_affine=wrong, **options)
