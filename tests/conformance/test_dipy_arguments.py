"""What DIPY's functions and classes accept, this package's accept by the same name."""

import inspect

from dipy import align
from dipy.align import imaffine, imwarp
import pytest

import dipy_dl_reg

PAIRS = {
    "deep_affine_registration": align.affine_registration,
    "deep_registration": align.syn_registration,
    "deep_register_series": align.register_series,
    "register_dwi_to_template": align.register_dwi_to_template,
    "DeepRegistration": imwarp.SymmetricDiffeomorphicRegistration,
    "DeepAffineRegistration": imaffine.AffineRegistration,
}
#: Arguments of versions of DIPY that may not be the installed one.
NEWER = {"deep_affine_registration": ["optimizer_method"]}  # DIPY 1.13


@pytest.mark.parametrize("name", PAIRS)
def test_every_argument_has_its_place(name):
    """By name, and positional arguments in the same order."""
    theirs, ours = (
        inspect.signature(f).parameters
        for f in (PAIRS[name], getattr(dipy_dl_reg, name))
    )
    named = [p for p in theirs.values() if p.kind != p.VAR_KEYWORD]
    wanted = [p.name for p in named] + NEWER.get(name, [])
    assert set(wanted) <= set(ours)
    first = [p.name for p in named if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(first)] == first
