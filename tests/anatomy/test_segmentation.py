"""Labels and masks on the grid of an image."""

from brain_image import cut_to_brain, load_brain
from maps import affine
import nibabel as nib
from nilearn.datasets import load_mni152_brain_mask
import numpy as np
import pytest
import torch

from dipy_dl_reg import brain_mask, segment_anatomy
from dipy_dl_reg.anatomy import segmentation
from dipy_dl_reg.anatomy.classes import CLASSES, MIRRORED, brain_probability
from dipy_dl_reg.anatomy.prediction import AnatomyMaps
from dipy_dl_reg.anatomy.resampling import resample_maps
from dipy_dl_reg.anatomy.segmentation import (
    fill_largest_part,
    label_voxels,
    mask_brain,
    sample_probability,
)
from dipy_dl_reg.grid import Grid

COARSE = Grid((8, 9, 10), affine([2.0, 2, 2], origin=[-8.0, -9, -10]))
FINE = Grid((30, 14, 30), affine([0.7, -1.3, 0.9], (0.1, 0.2, 0), [-9.0, 9, -12]))


def make_maps(seed=0):
    logits = torch.randn(
        len(CLASSES), *COARSE.shape, generator=torch.Generator().manual_seed(seed)
    )
    return AnatomyMaps((3 * logits).softmax(0), COARSE)


def test_left_and_right_are_pairs():
    names = [of.name for of in CLASSES]
    for here, there in enumerate(MIRRORED):
        assert MIRRORED[there] == here
        swapped = names[here].replace("left ", "RIGHT ").replace("right ", "left ")
        assert names[there] == swapped.replace("RIGHT ", "right ")
    labels = [of.label for of in CLASSES]
    assert len(set(labels)) == len(labels) == 35


def test_probability_of_the_brain():
    p = make_maps().probabilities
    outside = {"air", "bone", "soft tissue"}
    brain = [n for n, of in enumerate(CLASSES) if of.name not in outside]
    torch.testing.assert_close(brain_probability(p), p[brain].sum(0))
    brain.remove([of.label for of in CLASSES].index(24))
    without = brain_probability(p, fluid=False)
    torch.testing.assert_close(without, p[brain].sum(0))


def test_resampled_maps_are_probabilities_with_air_outside():
    sampled = resample_maps(make_maps(), FINE)
    torch.testing.assert_close(sampled.sum(1), torch.ones(1, *FINE.shape))
    far = Grid((3, 3, 3), affine([1.0, 1, 1], origin=[90.0, 0, 0]))
    assert bool((resample_maps(make_maps(), far)[:, 0] == 1).all())
    own = resample_maps(make_maps(), COARSE)[0]
    torch.testing.assert_close(own, make_maps().probabilities)
    nearest = resample_maps(make_maps(), FINE, order=0)[0]
    values = set(make_maps().probabilities[5].flatten().tolist())
    assert set(nearest[5].flatten().tolist()) <= values | {0.0}


def test_labels_in_slabs_are_those_of_the_whole(monkeypatch):
    expected = resample_maps(make_maps(), FINE)[0].argmax(0)
    wanted = np.array([of.label for of in CLASSES])[expected.numpy()]
    assert np.array_equal(label_voxels(make_maps(), FINE), wanted)
    monkeypatch.setattr(segmentation, "_VALUES", 35 * 14 * 30 * 4)
    assert np.array_equal(label_voxels(make_maps(), FINE), wanted)


def test_probability_of_one_class():
    maps = make_maps()
    sampled = sample_probability(maps.probabilities[7], maps.grid, FINE)
    torch.testing.assert_close(
        torch.from_numpy(sampled), resample_maps(maps, FINE)[0, 7]
    )


def test_largest_part_without_holes():
    mask = np.zeros((10, 10, 10), bool)
    mask[1:7, 1:7, 1:7] = True
    mask[3, 3, 3] = False
    mask[9, 9, 9] = True
    filled = np.zeros_like(mask)
    filled[1:7, 1:7, 1:7] = True
    assert np.array_equal(fill_largest_part(mask), filled)


def test_mask_of_maps():
    p = torch.zeros(len(CLASSES), *COARSE.shape)
    p[0] = 1
    p[:, 2:6, 2:7, 2:8] = 0
    p[3, 2:6, 2:7, 2:8] = 0.3
    p[28, 2:6, 2:7, 2:8] = 0.3  # fluid
    p[34, 2:6, 2:7, 2:8] = 0.4
    maps = AnatomyMaps(p, COARSE)
    assert mask_brain(maps, COARSE, threshold=0.5).sum() == 4 * 5 * 6
    assert not mask_brain(maps, COARSE, threshold=0.7).any()
    assert not mask_brain(maps, COARSE, fluid=False, threshold=0.5).any()


def test_template():
    """The mean brain: its mask, and left and right on their sides."""
    template = load_brain(resolution=3)
    found = segment_anatomy(template, mirror=False)
    given = cut_to_brain(load_mni152_brain_mask(resolution=3), 3).get_fdata() > 0
    mask = found.brain_mask()
    assert 2 * (mask & given).sum() / (mask.sum() + given.sum()) > 0.96
    assert np.array_equal(mask, brain_mask(template))
    labels = {name: label for label, name in found.names.items()}
    for structure in ("thalamus", "caudate", "cerebral cortex"):
        places = [
            np.argwhere(found.labels == labels[f"{side} {structure}"]).mean(0)
            for side in ("left", "right")
        ]
        left, right = nib.affines.apply_affine(template.affine, places)
        assert left[0] < -5 and right[0] > 5
    thalamus = found.probability("left thalamus")
    assert thalamus.shape == template.shape
    assert thalamus[found.labels == labels["left thalamus"]].min() > 1 / 35
    with pytest.raises(ValueError, match="name must be one of"):
        found.probability("thalamus")


@pytest.mark.parametrize("call", [segment_anatomy, brain_mask])
def test_errors(call):
    image = np.random.default_rng(0).random((8, 8, 8))
    with pytest.raises(ValueError, match="grid2world is required"):
        call(image)
    with pytest.raises(ValueError, match="3D"):
        call(image[0], grid2world=np.eye(3))
    with pytest.raises(ValueError, match="3 slices"):
        call(image[:2], grid2world=np.eye(4))
    with pytest.raises(ValueError, match="constant"):
        call(np.ones((8, 8, 8)), grid2world=np.eye(4))
    with pytest.raises(ValueError, match="NaN everywhere"):
        call(image * np.nan, grid2world=np.eye(4))
    micrometres = np.diag([100.0, 250, 100, 1])
    with pytest.raises(ValueError, match="voxels of 100 x 250 x 100 mm .*large"):
        call(np.resize(image, (12, 12, 12)), grid2world=micrometres)
    metres = np.diag([0.002, 0.002, 0.002, 1])
    with pytest.raises(ValueError, match="voxels of 0.002 x .*small"):
        call(image, grid2world=metres)
    with pytest.raises(ValueError, match="one 3D volume"):
        call(np.stack([image, image], -1), grid2world=np.eye(4))
    with pytest.raises(FileNotFoundError):
        call("missing.nii.gz")


@pytest.mark.parametrize("shape", [(8,), (8, 8, 1), (9, 8, 8)])
def test_mask_has_the_shape_of_the_image(shape):
    image = np.random.default_rng(0).random((8, 8, 8))
    with pytest.raises(ValueError, match="mask must have the shape of image"):
        segment_anatomy(image, grid2world=np.eye(4), mask=np.ones(shape))
    with pytest.raises(ValueError, match="0 in all voxels"):
        segment_anatomy(image, grid2world=np.eye(4), mask=np.zeros(image.shape))


@pytest.mark.parametrize("threshold", [0, 1, 2, float("nan"), "high"])
def test_threshold_is_checked_first(threshold):
    with pytest.raises(ValueError, match="threshold must be above 0 and below 1"):
        brain_mask("missing.nii.gz", threshold=threshold)
