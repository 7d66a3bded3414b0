"""Slices, which are registered in 2D."""

import sys

from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from workflow_files import Swift, fails, save, slices

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.maps.storage import load_mapping
from dipy_dl_reg.workflows.align import align_deep
from dipy_dl_reg.workflows.apply import apply_deep
from dipy_dl_reg.workflows.image_pair import open_pair, read_pair


@pytest.mark.parametrize("form", ["(X, Y)", "(X, Y, 1)"])
@pytest.mark.parametrize("axis", [2, 1])
def test_slices_are_registered_in_2d(tmp_path, command, axis, form):
    (static, moving), grid = slices(tmp_path, axis=axis, form=form)
    out = tmp_path / "out"
    options = ("--metric", "ssd", "--model", "None", "--level_iters", 20, 10)
    more = ("--out_inv_static", "back.nii.gz", "--report")
    command(align_deep, static, moving, *options, *more, "--out_dir", out)
    images = [nib.load(path) for path in (static, moving)]
    data = [i.get_fdata(dtype=np.float32).reshape(40, 36) for i in images]
    registration = DeepRegistration("ssd", model=None, level_iters=[20, 10])
    wanted = registration.optimize(
        *data, static_grid2world=grid, moving_grid2world=grid
    )
    mapping = load_mapping(out / "mapping.npz")
    assert mapping.dim == 2
    assert_allclose(mapping.backward, wanted.backward, atol=1e-4)
    assert np.abs(wanted.backward).max() > 2
    assert_array_equal(np.loadtxt(out / "prealign.txt"), np.eye(3))
    for name, image, result in (
        ("warped_moved.nii.gz", images[0], wanted.transform(data[1])),
        ("back.nii.gz", images[1], wanted.transform_inverse(data[0])),
    ):
        written = nib.load(out / name)
        assert written.shape == image.shape
        assert_allclose(written.affine, image.affine)
        assert_allclose(written.get_fdata().reshape(40, 36), result, atol=1e-4)
    command(apply_deep, out / "mapping.npz", moving, "--out_dir", out)
    again = nib.load(out / "transformed.nii.gz")
    first = nib.load(out / "warped_moved.nii.gz")
    assert again.shape == first.shape
    assert_allclose(again.affine, first.affine, atol=1e-5)
    assert_array_equal(again.get_fdata(), first.get_fdata())
    again = "--out_dir", out, "--force", "--inverse", "--reference", moving
    command(apply_deep, out / "mapping.npz", static, *again)
    assert_array_equal(
        nib.load(out / "transformed.nii.gz").get_fdata(),
        nib.load(out / "back.nii.gz").get_fdata(),
    )


def test_slices_with_masks_prealign_and_affine(swift, tmp_path, command):
    (static, moving), grid = slices(tmp_path)
    mask = np.zeros((40, 36), np.uint8)
    mask[5:-5, 5:-5] = 1
    mask = save(tmp_path / "mask.nii", mask, nib.load(static).affine)
    matrix = tmp_path / "matrix.txt"
    np.savetxt(matrix, affine([1.0, 1], origin=[3.0, -4]))
    calls = []

    class Flat(Swift):
        def optimize(self, static, moving, **options):
            calls.append({"shapes": (static.shape, moving.shape), **options})
            syn = SymmetricDiffeomorphicRegistration(SSDMetric(2), level_iters=[2])
            known = "static_grid2world", "moving_grid2world", "prealign"
            return syn.optimize(static, moving, **{k: options[k] for k in known})

    sys.modules["dipy_dl_reg.registration.deformable"].DeepRegistration = Flat
    images = (align_deep, static, moving, "--out_dir", tmp_path / "out")
    command(*images, "--prealign", matrix, "--static_mask", mask)
    assert_array_equal(calls[0]["prealign"], np.loadtxt(matrix))
    assert calls[0]["static_mask"].shape == (40, 36)
    assert calls[0]["shapes"] == ((40, 36), (40, 36))
    assert_array_equal(calls[0]["static_grid2world"], grid)
    command(*images, "--pipeline", "translation", "deform", "--force")
    found = calls[1]["prealign"]
    assert found.shape == (3, 3) and np.linalg.norm(found[:2, 2]) > 3
    assert "3D maps only" in fails(command, *images, "--force", "--out_field", "f.nii")


def test_slices_with_landmarks(tmp_path, command, pair):
    shift = np.array([1.5 * 4, 2.0 * 4])  # of `slices`, in mm
    (static, moving), grid = slices(tmp_path)
    points = np.array([[18.0, 17], [24, 22], [10, 25], [28, 9]])
    points = points @ grid[:2, :2].T + grid[:2, 2]
    np.savetxt(tmp_path / "s.csv", points, delimiter=",")
    np.savetxt(tmp_path / "m.csv", points + shift, delimiter=",")
    options = ("--metric", "ssd", "--model", "None", "--level_iters", 2, 2)
    options += ("--static_landmarks", tmp_path / "s.csv")
    options += ("--moving_landmarks", tmp_path / "m.csv")
    out = tmp_path / "out"
    command(align_deep, static, moving, *options, "--out_dir", out)
    found = load_mapping(out / "mapping.npz").transform_points(points)
    assert np.abs(found - points - shift).max() < 1.5  # a voxel
    volume = save(tmp_path / "v.nii", np.random.default_rng(0).random((9, 8, 7)))
    out = "--out_dir", tmp_path / "other"
    said = fails(command, align_deep, volume, volume, *options, *out)
    assert "have 2 coordinates, but the images are 3D" in said
    assert not out[1].exists()


def test_slices_and_volumes_do_not_mix(swift, pair, tmp_path, command):
    (axial, _), _ = slices(tmp_path, form="(X, Y)")
    other = tmp_path / "other"
    other.mkdir()
    (coronal, _), _ = slices(other, axis=1)
    out = "--out_dir", pair["out"]
    moving = tmp_path / "moving.nii.gz"  # `slices` has written over the volume
    volume = save(tmp_path / "volume.nii", np.random.default_rng(0).random((9, 8, 7)))
    for images, message in (
        ((axial, volume), "both 2D or both 3D, got shapes (40, 36) and (9, 8, 7)"),
        ((volume, axial), "both 2D or both 3D, got shapes (9, 8, 7) and (40, 36)"),
        ((moving, coronal), "different orientations: static lies along the world's xy"),
    ):
        assert message in fails(command, align_deep, *images, *out)
        assert not pair["out"].exists()
    assert not swift


def test_slice_of_a_volume_stays_in_3d(swift, pair, command, tmp_path):
    """One thick slice against a whole volume is a registration in 3D."""
    image = nib.load(pair["static"])
    one = save(tmp_path / "one.nii", image.get_fdata()[..., 8:9], image.affine)
    opened = open_pair(one, pair["moving"])
    assert [len(i.shape) for i in opened] == [3, 3]
    assert read_pair(one, pair["moving"]).dim == 3
    assert read_pair(one, one).dim == 2
