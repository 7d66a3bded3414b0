"""What the tests of training run under: one thread, for what they train on is small."""

from image_files import PLACE, ring
import nibabel as nib
import numpy as np
import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path):
    """Files of twelve rings, and their label maps in another folder."""
    generator = np.random.default_rng(3)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for i in range(12):
        image = ring(generator)
        labels = (image > 50).astype(np.uint8) + (image > 200)
        nib.save(nib.Nifti1Image(image, PLACE), tmp_path / f"images/sub-{i:02}.nii.gz")
        path = tmp_path / f"labels/sub-{i:02}_labels.nii"
        nib.save(nib.Nifti1Image(labels, PLACE), path)
    return tmp_path / "images"
