"""Values along streamlines are those of the map of uncertainties at their points."""

from dipy.io.stateful_tractogram import Space, StatefulTractogram
from dipy.tracking.streamline import Streamlines
from maps import affine, make_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg import transform_streamlines, uncertainty_along_streamlines
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.registration.uncertainty import MappingUncertainty
from dipy_dl_reg.registration.uncertainty_calibration import find_calibration

SHAPE = (16, 15, 14)
MATRIX = affine([2.0, -2.0, 2.0], (0.1, 0.0, 0.0))


@pytest.fixture(scope="module")
def uncertainty():
    """The disagreement grows by 0.1 mm for each mm along the first axis."""
    mapping = make_map(
        SHAPE, SHAPE, static_grid2world=MATRIX, moving_grid2world=MATRIX, amplitude=1.5
    )
    voxels = np.moveaxis(np.indices(SHAPE), 0, -1)
    x = (voxels @ MATRIX[:3, :3].T + MATRIX[:3, 3])[..., 0]
    calibration = find_calibration("same", 3)
    return MappingUncertainty(
        (0.1 * x + 10).astype(np.float32),
        np.zeros(SHAPE, np.float32),
        np.ones(SHAPE, bool),
        Grid(SHAPE, MATRIX),
        mapping,
        calibration,
    )


@pytest.fixture(scope="module")
def lines():
    random = np.random.default_rng(0)
    return [
        (random.uniform(4, 9, (n, 3)) @ MATRIX[:3, :3].T + MATRIX[:3, 3]).astype("f4")
        for n in (5, 1, 8)
    ]


def test_values_are_those_at_the_points(uncertainty, lines):
    values = uncertainty_along_streamlines(uncertainty, lines)
    assert [v.shape for v in values] == [(5, 1), (1, 1), (8, 1)]
    mean = uncertainty.calibration.mean.disagreement
    for value, line in zip(values, lines):
        assert_allclose(value[:, 0], mean * (0.1 * line[:, 0] + 10), rtol=1e-4)
    wider = uncertainty_along_streamlines(uncertainty, lines, level=0.95)
    assert (wider.get_data() > values.get_data()).all()


def test_streamlines_of_moving_are_mapped_first(uncertainty, lines):
    moved = transform_streamlines(uncertainty.mapping, lines)
    values = uncertainty_along_streamlines(uncertainty, lines, space="moving")
    wanted = uncertainty_along_streamlines(uncertainty, moved)
    assert_allclose(values.get_data(), wanted.get_data(), rtol=1e-3)


def test_tractogram_in_voxels_takes_values_as_data_per_point(uncertainty, lines):
    reference = nib.Nifti1Image(np.zeros(SHAPE, np.float32), MATRIX)
    tractogram = StatefulTractogram(lines, reference, Space.RASMM)
    tractogram.to_vox()
    before = tractogram.streamlines.get_data().copy()
    values = uncertainty_along_streamlines(uncertainty, tractogram)
    assert_allclose(tractogram.streamlines.get_data(), before)
    tractogram.data_per_point["expected_error"] = values
    wanted = uncertainty_along_streamlines(uncertainty, Streamlines(lines))
    assert_allclose(values.get_data(), wanted.get_data(), rtol=1e-4)


def test_slices_and_none_at_all(uncertainty, lines):
    values = uncertainty_along_streamlines(uncertainty, Streamlines(lines)[1:])
    wanted = uncertainty_along_streamlines(uncertainty, lines[1:])
    assert_allclose(values.get_data(), wanted.get_data())
    assert len(uncertainty_along_streamlines(uncertainty, [])) == 0


def test_outside_of_the_field_of_view_nothing_is_known(uncertainty):
    far = np.array([[500.0, 0, 0]])
    assert np.isnan(uncertainty_along_streamlines(uncertainty, [far])[0]).all()


def test_holder_of_streamlines_is_refused(uncertainty, lines):
    with pytest.raises(ValueError, match=r"\.streamlines"):
        uncertainty_along_streamlines(
            uncertainty, nib.streamlines.Tractogram(lines, affine_to_rasmm=np.eye(4))
        )
