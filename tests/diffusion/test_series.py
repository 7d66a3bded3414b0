"""Motion correction of diffusion series, and registration of other series."""

from dipy.core.gradients import gradient_table
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import (
    deep_motion_correction,
    deep_register_dwi_series,
    deep_register_series,
)
from dipy_dl_reg.diffusion.motion_log import log_gradient_table
from dipy_dl_reg.diffusion.motion_registration import resample_volume
from dipy_dl_reg.io.series_files import open_series
from tests.diffusion.moving_series import errors, simulate


@pytest.fixture(scope="module")
def series():
    """A small series of a head that moves."""
    return simulate()


@pytest.fixture(scope="module")
def corrected(series):
    """The series after correction, and the matrices found."""
    return deep_motion_correction(
        series.data, series.gtab, series.grid2world, num_threads=2
    )


def test_known_motion_is_found(series, corrected):
    image, affines = corrected
    assert affines.shape == (4, 4, series.data.shape[3])
    before = errors(np.repeat(np.eye(4)[..., None], 11, axis=-1), series.affines)
    angles, shifts = errors(affines, series.affines)
    assert before[0].max() > 2 and before[1].max() > 2
    assert angles.max() < 1.3 and shifts.max() < 0.25
    np.testing.assert_array_equal(affines[..., 0], np.eye(4))
    np.testing.assert_allclose(np.linalg.det(np.moveaxis(affines, -1, 0)), 1)
    assert image.shape == series.data.shape and image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, series.grid2world)


def test_raw_volumes_are_interpolated_once(series, corrected):
    """The corrected volume is what DIPY's map makes of the raw one."""
    from dipy.align.imaffine import AffineMap

    image, affines = corrected
    shape, grid = series.data.shape[:3], series.grid2world
    for k in (3, 10):
        affine_map = AffineMap(
            affines[..., k],
            domain_grid_shape=shape,
            domain_grid2world=grid,
            codomain_grid_shape=shape,
            codomain_grid2world=grid,
        )
        wanted = affine_map.transform(series.data[..., k])
        np.testing.assert_allclose(image.dataobj[..., k], wanted, atol=1e-3)


def test_correction_aligns_the_volumes(series, corrected):
    image, _ = corrected
    inside = np.s_[6:-6, 6:-6, 4:-4, :]
    shell = series.gtab.bvals == 1000
    before = series.data[inside][..., shell].std(-1).mean()
    after = np.asarray(image.dataobj)[inside][..., shell].std(-1).mean()
    assert after < 0.6 * before


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_give_the_same(series, tmp_path, suffix):
    """From file to file, volume by volume, with any number of threads."""
    source, target = tmp_path / f"dwi{suffix}", tmp_path / f"moved{suffix}"
    nib.save(series.image, source)
    paths = tmp_path / "bvals", tmp_path / "bvecs"
    np.savetxt(paths[0], series.gtab.bvals[None])
    np.savetxt(paths[1], series.gtab.bvecs.T)
    short = {"iterations": 1, "level_iters": [3]}
    image, affines = deep_register_dwi_series(
        source, paths, out_file=target, num_threads=1, **short
    )
    wanted, matrices = deep_motion_correction(
        series.image, series.gtab, num_threads=3, **short
    )
    np.testing.assert_allclose(affines, matrices, atol=1e-9)
    np.testing.assert_allclose(
        nib.load(target).get_fdata(), wanted.get_fdata(), atol=1e-3
    )
    assert image.get_filename() == str(target)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["bvals", "bvecs", source.name, target.name]
    )
    with pytest.raises(FileExistsError):
        deep_motion_correction(source, paths, out_file=target)


def test_reference_and_pipeline(series):
    image, affines = deep_motion_correction(
        series.image,
        series.gtab,
        b0_ref=1,
        pipeline=["rigid"],
        iterations=1,
        interpolation="cubic",
        level_iters=[10, 5],
    )
    np.testing.assert_allclose(affines[..., 4], np.eye(4), atol=1e-9)
    inside = np.s_[1:-1, 1:-1, 1:-1, 4]
    np.testing.assert_allclose(
        image.dataobj[inside], series.data[inside], rtol=1e-4, atol=1e-2
    )
    linear = np.moveaxis(affines[:3, :3], -1, 0)
    np.testing.assert_allclose(np.linalg.det(linear), 1)


def test_a_still_series_is_not_rescaled(series):
    """A shell of another contrast than b0 keeps its size by default."""
    b0 = series.data[..., 0]
    noise = np.random.default_rng(3).normal(0, 8, (*b0.shape, 8))
    still = np.concatenate([b0[..., None], 0.6 * b0[..., None] + noise], axis=-1)
    chosen = [0, 1, 2, 3, 5, 6, 7, 8, 9]
    table = series.gtab.bvals[chosen], series.gtab.bvecs[chosen]
    _, affines = deep_motion_correction(still, table, series.grid2world)
    scales = np.cbrt(np.linalg.det(np.moveaxis(affines[:3, :3], -1, 0)))
    np.testing.assert_allclose(scales, 1, atol=2e-3)


def test_affine_steps(series):
    _, affines = deep_motion_correction(
        series.data,
        series.gtab,
        series.grid2world,
        pipeline=["rigid", "affine"],
        iterations=1,
        level_iters=[5],
    )
    assert abs(np.linalg.det(np.moveaxis(affines, -1, 0)) - 1).max() > 1e-4


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_missing_values_become_zero(series, interpolation):
    volume = series.data[..., 0].copy()
    volume[10:13, 10:13, 8:11], volume[3, 3, 3] = np.nan, np.inf
    matrix = np.eye(4)
    matrix[0, 3] = 0.4
    found = resample_volume(volume, matrix, series.grid2world, interpolation)
    assert np.isfinite(found).all()
    if interpolation == "linear":
        assert found[11, 11, 9] == 0


def test_one_b0_and_shells_of_one_volume(series):
    chosen = [0, 1, 10]
    table = series.gtab.bvals[chosen], series.gtab.bvecs[chosen]
    _, affines = deep_motion_correction(
        series.data[..., chosen], table, series.grid2world
    )
    angles, shifts = errors(affines, series.affines[..., chosen])
    assert angles.max() < 1.5 and shifts.max() < 1.0


def test_mask(series):
    mask = np.zeros(series.data.shape[:3], np.uint8)
    mask[4:-4, 4:-4, 2:-2] = 1
    _, affines = deep_motion_correction(
        series.image, series.gtab, static_mask=mask, iterations=1
    )
    angles, shifts = errors(affines, series.affines)
    assert angles.max() < 1.6 and shifts.max() < 0.3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": np.zeros((5, 5, 5))}, r"series of volumes, .* got shape \(5, 5, 5\)"),
        ({"data": np.zeros((5, 5, 5, 3))}, "11 entries for 3 volumes"),
        ({"gtab": (np.full(11, 1000), np.eye(3)[[0] * 11])}, "must have a b0 volume"),
        ({"gtab": (np.arange(11), np.zeros((3, 11)))}, "transposed"),
        ({"gtab": (np.arange(11) * 100, np.ones((11, 3)))}, "must have length 1"),
        ({"affine": None}, "affine is required"),
        ({"affine": np.zeros((4, 4))}, "affine"),
        ({"b0_ref": 2}, "below the number of b0 volumes, 2"),
        ({"static_mask": np.ones((3, 3, 3))}, "static_mask must be of shape"),
        ({"static_mask": np.zeros((32, 32, 20))}, "voxels other than 0"),
        ({"pipeline": ["syn"]}, r"pipeline\[0\]"),
        ({"iterations": 0}, "iterations must be a whole number from 1"),
        ({"frame": "ras"}, "frame must be one of"),
        ({"interpolation": "nearest"}, "interpolation must be one of"),
        ({"out_file": "moved.mgz"}, "ending in .nii"),
    ],
)
def test_wrong_input(series, changes, message):
    call = {"data": series.data, "gtab": series.gtab, "affine": series.grid2world}
    with pytest.raises(ValueError, match=message):
        deep_motion_correction(**call | changes)


def test_constant_volume_is_named(series):
    data = series.data.copy()
    data[..., 5] = 0
    with pytest.raises(ValueError, match="volume 5 cannot be registered"):
        deep_motion_correction(data, series.gtab, series.grid2world)


def test_series_to_a_volume_and_to_an_image(series):
    data = series.data[..., [0, 4]]
    xformed, affines = deep_register_series(
        data, 0, series_affine=series.grid2world, pipeline=["rigid"]
    )
    np.testing.assert_array_equal(xformed[..., 0], data[..., 0])
    angles, shifts = errors(affines, series.affines[..., [0, 4]])
    assert angles.max() < 0.6 and shifts.max() < 0.35
    other, others = deep_register_series(
        nib.Nifti1Image(data, series.grid2world),
        nib.Nifti1Image(data[..., 0], series.grid2world),
        pipeline=["rigid"],
    )
    np.testing.assert_allclose(others[..., 1], affines[..., 1], atol=1e-9)
    with pytest.raises(ValueError, match="ref must be a volume from 0 to 1"):
        deep_register_series(data, 2, series_affine=series.grid2world)
    with pytest.raises(ValueError, match="ref_affine must be None"):
        deep_register_series(
            data, 0, series_affine=series.grid2world, ref_affine=np.eye(4)
        )
    with pytest.raises(ValueError, match="series_affine is required if series"):
        deep_register_series(data, 0)
    with pytest.raises(ValueError, match="ref_affine is required if ref"):
        deep_register_series(data, data[..., 0], series_affine=series.grid2world)
    with pytest.raises(ValueError, match="ref must be one volume"):
        deep_register_series(data, data, series_affine=np.eye(4), ref_affine=np.eye(4))


def test_a_table_of_another_series_is_noticed(series, caplog):
    """Its b0 volume is darker than its diffusion-weighted ones."""
    order = np.roll(np.arange(len(series.gtab.bvals)), 1)
    moved = gradient_table(series.gtab.bvals[order], bvecs=series.gtab.bvecs[order])
    milli = gradient_table(series.gtab.bvals / 1000, bvecs=series.gtab.bvecs)
    opened = open_series(series.image)
    for table, b0_ref, warning in (
        (series.gtab, 0, None),
        (moved, 0, "is darker than volume"),
        (milli, 0, "b-values must be in s/mm^2"),
    ):
        caplog.clear()
        log_gradient_table(opened, table, b0_ref, "voxel")
        warned = [r.message for r in caplog.records if r.levelname == "WARNING"]
        assert len(warned) == (warning is not None)
        assert warning is None or warning in warned[0]
