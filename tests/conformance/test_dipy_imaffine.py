"""DIPY's own affine tests, with DeepAffineRegistration in place of AffineRegistration.

DIPY's wheel contains these tests. They use the class as `imaffine.AffineRegistration`
and the function as `test_api.affine_registration`; the tests below replace these two
names and run DIPY's tests unchanged.
"""

from types import SimpleNamespace

from dipy.align import imaffine
from dipy.align.tests import test_api, test_imaffine
import dipy.data
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import DeepAffineRegistration, deep_affine_registration

#: DIPY requires that the absolute difference decreases by more than 0.9 (by 0.89 with
#: static and moving exchanged).
REDUCTION = 0.9


@pytest.fixture
def reductions(monkeypatch):
    """Replace the class in DIPY's tests; list the relative decreases of difference."""
    reductions = []

    class Recorded(DeepAffineRegistration):
        def optimize(self, static, moving, transform, params0, **options):
            affine_map = super().optimize(static, moving, transform, params0, **options)
            moved = affine_map.transform(moving)
            before, after = (np.abs(static - x).sum() for x in (moving, moved))
            reductions.append(1 - after / before)
            return affine_map

    names = {**vars(imaffine), "AffineRegistration": Recorded}
    monkeypatch.setattr(test_imaffine, "imaffine", SimpleNamespace(**names))
    return reductions


@pytest.mark.parametrize("name", ["test_affreg_all_transforms", "test_affreg_defaults"])
def test_registration(name, reductions):
    getattr(test_imaffine, name)(None)
    assert len(reductions) >= 10 and min(reductions) > REDUCTION


def test_affine_registration(monkeypatch):
    """DIPY's test of `affine_registration`, until it downloads images.

    It uses a part of DIPY's bundled b0 of the same size as the image that DIPY's test
    would download first.
    """

    class Download(Exception):
        pass

    def get_fnames(**_):
        raise Download

    b0 = nib.load(dipy.data.get_fnames(name="aniso_vox")).get_fdata()
    piece = b0[25:30, 25:30, 22:27]
    monkeypatch.setattr(test_api, "subset_b0", piece, raising=False)
    monkeypatch.setattr(test_api, "affine_registration", deep_affine_registration)
    monkeypatch.setattr(test_api, "dpd", SimpleNamespace(get_fnames=get_fnames))
    with pytest.raises(Download):
        test_api.test_affine_registration()
