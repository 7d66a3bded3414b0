"""`dipy_motion_deep`: diffusion series in files corrected for motion."""

import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import rotate_gradients
from dipy_dl_reg.workflows import MotionDeepFlow
from tests.diffusion.moving_series import simulate

SHORT = {"iterations": 1, "level_iters": 2, "num_threads": 1}
OUTPUTS = ["affine.txt", "motion.tsv", "moved.bval", "moved.bvec", "moved.nii.gz"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A series of five volumes in files, and its gradient table."""
    series, folder = simulate(), tmp_path_factory.mktemp("series")
    image = nib.Nifti1Image(series.data[..., :5], series.grid2world)
    nib.save(image, folder / "dwi.nii.gz")
    np.savetxt(folder / "dwi.bval", series.gtab.bvals[None, :5])
    np.savetxt(folder / "dwi.bvec", series.gtab.bvecs[:5].T)
    return [folder / f"dwi.{ending}" for ending in ("nii.gz", "bval", "bvec")]


def make_flow(**options):
    """The workflow as the command makes it."""
    return MotionDeepFlow(**options)


def test_outputs(files, tmp_path):
    make_flow().run(*map(str, files), out_dir=str(tmp_path), **SHORT)
    assert sorted(p.name for p in tmp_path.iterdir()) == OUTPUTS
    affines = np.loadtxt(tmp_path / "affine.txt").reshape(5, 4, 4).transpose(1, 2, 0)
    np.testing.assert_allclose(affines[..., 0], np.eye(4))
    grid = nib.load(files[0]).affine
    table = rotate_gradients((files[1], files[2]), affines, grid2world=grid)
    found = np.loadtxt(tmp_path / "moved.bvec")
    np.testing.assert_allclose(found, table.bvecs.T, atol=1e-6)
    assert not np.allclose(found, np.loadtxt(files[2]), atol=1e-3)
    moved = nib.load(tmp_path / "moved.nii.gz")
    assert moved.shape == (32, 32, 20, 5)
    np.testing.assert_allclose(
        moved.dataobj[..., 0], nib.load(files[0]).dataobj[..., 0], rtol=1e-5
    )
    assert len((tmp_path / "motion.tsv").read_text().splitlines()) == 6


def test_existing_outputs(files, tmp_path):
    (tmp_path / "motion.tsv").write_text("mine")
    with pytest.raises(FileExistsError, match="motion.tsv"):
        make_flow().run(*map(str, files), out_dir=str(tmp_path), **SHORT)
    assert [p.name for p in tmp_path.iterdir()] == ["motion.tsv"]


def test_plot(files, tmp_path):
    pytest.importorskip("matplotlib")
    make_flow(force=True).run(
        *map(str, files), out_dir=str(tmp_path), report=True, **SHORT
    )
    assert (tmp_path / "motion.png").stat().st_size > 10_000


def test_lengths_within_the_tolerance(files, tmp_path):
    """b-vectors that --bvecs_tol accepts are rotated and written, lengths kept."""
    bvecs = 1.03 * np.loadtxt(files[2])
    np.savetxt(tmp_path / "long.bvec", bvecs)
    inputs = str(files[0]), str(files[1]), str(tmp_path / "long.bvec")
    make_flow().run(*inputs, bvecs_tol=0.05, out_dir=str(tmp_path / "out"), **SHORT)
    found = np.loadtxt(tmp_path / "out" / "moved.bvec")
    lengths = np.linalg.norm(bvecs, axis=0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), lengths, atol=1e-5)


def test_errors_come_before_the_work(files, tmp_path):
    wrong = tmp_path / "wrong.bvec"
    np.savetxt(wrong, 2 * np.loadtxt(files[2]))
    series, bvals, bvecs = map(str, files)
    for inputs, options, message in (
        ((series, bvals, str(wrong)), {}, "must have length 1"),
        ((series, bvals, bvecs), {"out_bvecs": "b.nii"}, "out_bvecs must end in"),
        ((series, bvals, bvecs), {"pipeline": ["syn"]}, "pipeline"),
        ((bvals, bvals, bvecs), {}, "not an image"),
        ((series, bvecs, bvals), {}, "are no gradient table"),
    ):
        with pytest.raises(ValueError, match=message):
            make_flow().run(*inputs, out_dir=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()
