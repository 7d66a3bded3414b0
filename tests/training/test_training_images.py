"""Training images: their grids, affines, prealigns, labels and missing data."""

import json
from pathlib import Path
from typing import NamedTuple

from image_files import (
    CENTRE,
    GRIDS,
    OPTIONS,
    grid_of,
    inner,
    picture,
    read,
    resampled,
    scaled,
)
from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from pairs import anatomy, centred, move, voxels
import pytest
from scipy.ndimage import gaussian_filter
import torch

from dipy_dl_reg import fit
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.initialization.network import sample_pair_on_grid
from dipy_dl_reg.training.pairing import open_training_images, read_pairs
from dipy_dl_reg.training.prealigns import find_prealigns
from dipy_dl_reg.training.subjects import open_subjects


def test_images_of_any_grid_come_onto_the_first():
    images = [picture(name) for name in GRIDS]
    pairs, _ = read(images, spacing=2)
    shape, grid = grid_of(images[0], 2)
    wanted = anatomy(move(grid, voxels(shape)), CENTRE)
    for image, brought in zip(images, pairs.images):
        assert brought.shape == (1, *shape)
        theirs = scaled(resampled(image, shape, grid))
        assert_allclose(inner(brought[0].numpy()), inner(theirs), atol=0.02)
        assert_allclose(inner(brought[0].numpy()), inner(scaled(wanted)), atol=0.05)
    assert_allclose(pairs.images[0][0], scaled(images[0].get_fdata()), atol=1e-6)


@pytest.mark.parametrize("name", ["lps", "turned"])
def test_reference_gives_the_field_of_view_and_the_finest_voxel(name):
    images = [picture("ras"), picture("oblique")]
    opened = open_training_images(images, reference=picture(name))
    assert opened.spacing == pytest.approx(2)
    shape, grid = grid_of(picture(name), 2)
    assert opened.grids() == [shape]
    pairs, _ = read_pairs(find_prealigns(opened))
    wanted = scaled(anatomy(move(grid, voxels(shape)), CENTRE))
    for brought in pairs.images:
        assert_allclose(inner(brought[0].numpy()), inner(wanted), atol=0.06)


def test_atlas_is_the_reference_and_matrices_lead_to_images():
    matrices = [affine([1.05, 1, 0.95], (0.2, 0, 0.1), [9.0, 4, -6])]
    matrices.append(affine([0.9, 1, 1.1], (0, 0.3, 0), [-30.0, 4, 12]))
    images = [picture("ras", matrices[0]), picture("lps", matrices[1])]
    pairs, _ = read(images, atlas=picture("oblique"), prealign=matrices)
    shape, grid = grid_of(picture("oblique"), 2)
    wanted = scaled(anatomy(move(grid, voxels(shape)), CENTRE))
    assert_allclose(inner(pairs.atlas[0][0].numpy()), inner(wanted), atol=0.06)
    for image, matrix, brought in zip(images, matrices, pairs.images):
        assert_allclose(inner(brought[0].numpy()), inner(wanted), atol=0.07)
        theirs = scaled(resampled(image, shape, grid, matrix))
        assert_allclose(inner(brought[0].numpy()), inner(theirs), atol=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_holding_out_moves_no_image(seed):
    """The first image is the reference, held out or not; matrices start from it."""
    shifts = [affine([1, 1, 1.0], (), [30.0 * i, -8.0 * i, 0]) for i in range(4)]
    images = [picture("ras", shift) for shift in shifts]
    opened = open_training_images(images, prealign=shifts, validation=0.5, seed=seed)
    pairs, held = read_pairs(find_prealigns(opened))
    wanted = scaled(images[0].get_fdata())
    for brought in [*pairs.images, *held.static, *held.moving]:
        assert_allclose(brought[0], wanted, atol=0.01)


def test_each_pair_lies_on_its_static_image():
    matrix = affine([1, 1, 1.0], (0.3, 0, 0), [5.0, 0, 3])
    images = [(picture("lps"), picture("ras", matrix))]
    images.append((picture("oblique"), picture("turned")))
    opened = open_training_images(images, prealign=[matrix, np.eye(4)])
    pairs, _ = read_pairs(find_prealigns(opened))
    for (static, _), example in zip(images, (pairs[0], pairs[1])):
        shape, grid = grid_of(static, 2)
        assert example.static.shape == example.moving.shape == (1, *shape)
        wanted = scaled(anatomy(move(grid, voxels(shape)), CENTRE))
        assert_allclose(inner(example.moving[0].numpy()), inner(wanted), atol=0.07)
    with pytest.raises(ValueError, match="batch_size above 1 requires .* reference"):
        fit("unet", images, steps=1, batch_size=2)
    together = open_training_images(
        images, prealign=[matrix, np.eye(4)], reference=picture("ras")
    )
    assert len(together.grids()) == 1


@pytest.mark.parametrize("spacing", [2, 4])
def test_network_meets_in_training_what_it_meets_later(spacing):
    """The same images as DeepRegistration gives a network, but for interpolation."""
    static, moving = picture("turned"), picture("oblique")
    opened = open_training_images([(static, moving)], spacing=spacing)
    example = read_pairs(find_prealigns(opened))[0][0]
    data = [image.get_fdata(dtype=np.float32) for image in (static, moving)]
    tensors = [torch.from_numpy(d)[None, None] for d in data]
    volumes = [opened.cases[0].static.image, opened.cases[0].subject.image]
    pair = Pair(*tensors, *(volume.grid for volume in volumes), np.eye(4))
    later = sample_pair_on_grid(pair, volumes[0].grid.to_standard(spacing))
    for ours, theirs in zip(example, later):
        assert ours.shape == theirs.shape[1:]
        ours, theirs = ours[0].numpy(), scaled(theirs[0, 0].numpy())
        assert_allclose(ours, theirs, atol=0.1)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.998


def test_affine_registration_goes_first():
    matrix = affine([1.05, 1, 0.95], (0.25, 0.1, 0), [12.0, -9, 5])
    images = [picture("ras"), picture("oblique", matrix)]
    plain, _ = read(images)
    pairs, _ = read(images, prealign="affine")
    fixed, before = pairs.images[0].numpy(), plain.images[1].numpy()
    assert_array_equal(fixed, plain.images[0].numpy())
    after = pairs.images[1].numpy()
    assert np.abs(after - fixed).mean() < 0.25 * np.abs(before - fixed).mean()


def test_affine_registration_to_an_atlas_on_a_reference():
    """Where nobody's world is another's: all come to lie on the reference."""
    shifts = [affine([1, 1, 1.0], (), t) for t in ([6.0, -5, 4], [-7.0, 4, 6])]
    atlas = picture("lps", shifts[0], textured=True)
    image = picture("oblique", shifts[1], textured=True)
    reference = picture("ras", textured=True)
    opened = open_training_images(
        [image], atlas=atlas, reference=reference, prealign="affine"
    )
    pairs, _ = read_pairs(find_prealigns(opened))
    wanted = scaled(reference.get_fdata())
    atlas, image = pairs.atlas[0][0].numpy(), pairs.images[0][0].numpy()
    apart = [np.abs(inner(a - b)).mean() for a, b in
             ((atlas, image), (atlas, wanted), (image, wanted))]  # fmt: skip
    assert apart[0] < 0.03 and max(apart) < 0.06  # 0.25 and more before


def test_affines_are_found_once(tmp_path, monkeypatch):
    """A training that goes on takes those of the first time, to the last bit."""
    images = [picture("ras"), picture("lps", affine([1, 1, 1.0], (), [5.0, 3, 0]))]
    options = {**OPTIONS, "batch_size": 1, "spacing": 4, "prealign": "affine"}
    options |= {"checkpoint": tmp_path / "c.npz", "resume": True}
    fit("dirnet", images, steps=1, **options)
    kept = np.array(json.loads((tmp_path / "c.prealign.json").read_text())["matrices"])
    assert_array_equal(kept[0], np.eye(4))
    assert_allclose(kept[1][:3, 3], [5, 3, 0], atol=1)

    def never(*arguments):
        raise AssertionError("registered again")

    monkeypatch.setattr("dipy_dl_reg.training.prealigns.find_prealign", never)
    assert fit("dirnet", images, steps=2, **options).history.steps == 2
    with pytest.raises(AssertionError, match="again"):
        fit("dirnet", images[::-1], steps=2, **options)


def test_affines_are_shared_out():
    """Each process finds its part; both have all in the end."""

    class Two(NamedTuple):
        rank: int
        size = 2
        others: list

        def total(self, found):
            self.others.append(found)
            return sum(self.others)

    images = [picture("ras"), picture("lps"), picture("turned")]
    parts = []
    for rank in (0, 1):
        opened = open_training_images(images, prealign="affine")
        opened = find_prealigns(opened, group=Two(rank, parts))
    assert [[bool(m.any()) for m in part] for part in parts] == [
        [True, False, True],
        [False, True, False],
    ]
    for case, matrix in zip(opened.cases, sum(parts)):
        assert_array_equal(case.prealign, matrix)


def test_coarser_grids_are_smoothed_for(rng):
    noise = nib.Nifti1Image(rng.random((31, 31, 31)).astype(np.float32), np.eye(4))
    pairs, _ = read([noise, noise], spacing=3)
    smooth = gaussian_filter(noise.get_fdata(dtype=np.float32), 1.0)
    assert_allclose(pairs.images[0][0], scaled(smooth[::3, ::3, ::3]), atol=1e-4)
    # sizes in the image's own world: one twice as large is smoothed as much
    double = nib.Nifti1Image(noise.get_fdata(), np.diag([2, 2, 2, 1]))
    matrices = [np.eye(4), np.diag([2, 2, 2, 1])]
    pairs, _ = read([noise, double], spacing=3, prealign=matrices)
    assert_allclose(pairs.images[0], pairs.images[1], atol=1e-5)


def test_images_go_on_beyond_their_edge(rng):
    """As they do where a network is applied, instead of breaking off."""
    small, wide = rng.random((6, 6, 6)), rng.random((10, 12, 9))
    place = affine([1.0, 1, 1], (), [2, 3, 1])
    images = [nib.Nifti1Image(wide, np.eye(4)), nib.Nifti1Image(small, place)]
    pairs, _ = read(images)
    wanted = np.pad(small, [(2, 2), (3, 3), (1, 2)], mode="edge")
    assert_allclose(pairs.images[1][0], scaled(wanted), atol=1e-5)


def test_missing_data_becomes_0():
    image = picture("oblique")
    data = image.get_fdata()
    data[8:14, 8:14, 8:14] = np.nan
    holed = nib.Nifti1Image(data, image.affine)
    pairs, _ = read([picture("ras"), holed])
    brought = pairs.images[1][0].numpy()
    shape, grid = grid_of(picture("ras"), 2)
    inside = nib.Nifti1Image(np.isnan(data).astype(float), image.affine)
    hole = resampled(inside, shape, grid)
    assert (brought[hole > 0.75] == 0).all() and (hole > 0.75).sum() > 50
    whole = scaled(resampled(nib.Nifti1Image(data, image.affine), shape, grid))
    clear = (hole == 0) & np.isfinite(whole)
    assert_allclose(inner(brought)[inner(clear)], inner(whole)[inner(clear)], atol=0.08)


def test_labels_go_along_by_nearest_neighbour(rng):
    images = [picture("ras"), picture("oblique")]
    labels = [
        nib.Nifti1Image(rng.integers(0, 9, i.shape).astype(np.uint8), i.affine)
        for i in images
    ]
    # and a map on a grid of its own
    finer = centred(np.eye(3) * 1.13, (33, 34, 35), CENTRE)
    labels.append(
        nib.Nifti1Image(rng.integers(0, 9, (33, 34, 35)).astype(float), finer)
    )
    pairs, _ = read([*images, picture("lps")], labels=labels)
    shape, grid = grid_of(images[0], 2)
    for given, brought in zip(labels, pairs.labels):
        theirs = resampled(given, shape, grid, nearest=True)
        same = brought[0].numpy() == theirs
        assert not brought.is_floating_point()
        assert inner(same).mean() > 0.999


def test_arrays_are_taken_as_they_lie(rng):
    stack = rng.random((4, 9, 12))
    for images in (stack, list(stack)):
        opened = open_training_images(images)
        assert not opened.has_affine and opened.dim == 2
        pairs, _ = read_pairs(find_prealigns(opened))
        assert_allclose(pairs.images[3][0], scaled(stack[3]), atol=1e-6)
    pairs, _ = read(rng.random((3, 9, 12, 7)))
    assert pairs.images[0].shape == (1, 9, 12, 7)


def test_tensors_are_arrays(rng):
    stack = rng.random((3, 9, 12), dtype=np.float32)
    tensors = torch.from_numpy(stack).requires_grad_()
    labels = torch.from_numpy((stack > 0.5).astype(np.uint8))
    wanted, _ = read(stack, labels=labels.numpy())
    for images in (tensors, list(tensors)):
        pairs, _ = read(images, labels=labels)
        for name in ("images", "labels"):
            for ours, theirs in zip(getattr(pairs, name), getattr(wanted, name)):
                assert torch.equal(ours, theirs)
    pairs, _ = read([(tensors[0], tensors[1])], atlas=None)
    assert torch.equal(pairs.moving[0], wanted.images[1])


def test_slices_in_files(rng, tmp_path):
    """2D NIfTI has affines too: a finer slice of the plane comes onto the first."""
    x = np.linspace(0, np.pi, 21)
    slice_ = np.sin(x)[:, None] * np.sin(x[:17])
    finer = np.sin(x / 2)[:, None] * np.sin(x / 2)
    place = affine([2, 2, 2.0], (), [10.0, 20, 30])
    nib.save(nib.Nifti1Image(slice_, place), tmp_path / "a.nii")
    nib.save(
        nib.Nifti1Image(finer, place @ np.diag([0.5, 0.5, 1, 1])), tmp_path / "b.nii"
    )
    opened = open_training_images(tmp_path)
    assert opened.dim == 2 and opened.spacing == 2
    pairs, _ = read_pairs(find_prealigns(opened))
    assert pairs.images[1].shape == (1, 21, 17)
    assert_allclose(pairs.images[1][0, 1:10, 1:10], slice_[1:10, 1:10], atol=0.02)


def test_labels_of_a_folder_go_by_name(tmp_path):
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir(), maps.mkdir()
    pictures = ["b.nii.gz", "a.nii", "sub-1_T1w.nii.gz"]
    names = ["b.nii", "a_seg.nii.gz", "sub-1_T1w_dseg.nii.gz"]
    volume = nib.Nifti1Image(np.arange(64).reshape(4, 4, 4).astype(np.uint8), np.eye(4))
    for folder, files in ((images, pictures), (maps, names)):
        for file in files:
            nib.save(volume, folder / file)
    (images / "notes.txt").touch()
    (images / "._b.nii.gz").touch()
    subjects = open_subjects(images, maps)
    found = [(Path(i.name).name, Path(m.name).name) for i, m in subjects]
    assert found == [
        ("a.nii", "a_seg.nii.gz"),
        ("b.nii.gz", "b.nii"),
        ("sub-1_T1w.nii.gz", "sub-1_T1w_dseg.nii.gz"),
    ]
    nib.save(volume, maps / "a.nii")
    with pytest.raises(ValueError, match="are both for .*a.nii"):
        open_subjects(images, maps)
    (maps / "a.nii").unlink(), (maps / "b.nii").unlink()
    with pytest.raises(FileNotFoundError, match="no file for .*b.nii.gz"):
        open_subjects(images, maps)
