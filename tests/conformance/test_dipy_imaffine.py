"""DIPY's own affine tests, with DeepAffineRegistration in place of AffineRegistration.

They ship in DIPY's wheel and reach the class through the module's name `imaffine`, the
function through `test_api.affine_registration`, so that rebinding those names runs them
unchanged.
"""

from types import SimpleNamespace

from dipy.align import imaffine
from dipy.align.tests import test_api, test_imaffine
import dipy.data
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import DeepAffineRegistration, deep_affine_registration

#: DIPY asks for more than 0.9 of the absolute difference gone (0.89 the other way).
REDUCTION = 0.9


@pytest.fixture
def rebound(monkeypatch):
    """DIPY's tests with the class replaced; what part of the difference went."""
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
def test_registration(name, rebound):
    getattr(test_imaffine, name)(None)
    assert len(rebound) >= 10 and min(rebound) > REDUCTION


def test_one_call(monkeypatch):
    """DIPY's test of `affine_registration`, up to where it downloads images.

    It is given a piece of the b0 that DIPY bundles, of the size of its own.
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
