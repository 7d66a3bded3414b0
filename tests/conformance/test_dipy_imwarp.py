"""DIPY's own registration tests, with DeepRegistration in place of SyN.

DIPY's wheel contains these tests. They use every class through the module `imwarp`; the
tests below replace this name and run DIPY's tests unchanged.
"""

import inspect
from types import SimpleNamespace

from dipy.align import imwarp
from dipy.align.tests import test_imwarp
import pytest

from dipy_dl_reg import DeepRegistration

REGISTRATIONS = [
    "test_ssd_2d_demons",
    "test_ssd_2d_gauss_newton",
    "test_ssd_3d_demons",
    "test_ssd_3d_gauss_newton",
    "test_cc_2d",
    "test_cc_3d",
    "test_em_2d_demons",
    "test_em_2d_gauss_newton",
    "test_em_3d_demons",
    "test_em_3d_gauss_newton",
]
#: DIPY asks for more than 0.9 of the squared difference gone; SyN itself reaches this.
SYN_REDUCTION = {
    "test_ssd_2d_demons": 0.990,
    "test_ssd_3d_demons": 0.970,
    "test_cc_2d": 0.993,
}
# test_optimizer_exceptions reaches into SyN's private parts and is left out.
MAPS = [
    "test_mult_aff",
    "test_diffeomorphic_map_2d",
    "test_diffeomorphic_map_simplification_2d",
    "test_diffeomorphic_map_simplification_3d",
    "test_get_direction_and_spacings",
    "test_coordinate_mapping",
]


@pytest.fixture
def registrations(monkeypatch):
    """Replace the class in DIPY's tests; list the registrations that they make."""
    made = []

    class Recorded(DeepRegistration):
        def optimize(self, static, moving, **options):
            mapping = super().optimize(static, moving, **options)
            warped = mapping.transform(moving)
            before, after = ((static - x) ** 2 for x in (moving, warped))
            made.append((self, 1 - after.sum() / before.sum()))
            return mapping

    names = {**vars(imwarp), "SymmetricDiffeomorphicRegistration": Recorded}
    monkeypatch.setattr(test_imwarp, "imwarp", SimpleNamespace(**names))
    return made


def run(name):
    """Run one of DIPY's tests; some take pytest's config as their argument."""
    test = getattr(test_imwarp, name)
    test(*[None] * ("pytestconfig" in inspect.signature(test).parameters))


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_registration(name, registrations):
    run(name)
    ((registration, reduction),) = registrations
    assert reduction > SYN_REDUCTION.get(name, 0.9)
    quality = registration.quality
    assert min(quality.minimum_jacobian, quality.minimum_jacobian_inverse) > 0
    assert quality.round_trip_mean <= 0.05 and quality.round_trip_max <= 0.5


@pytest.mark.parametrize("name", MAPS)
def test_maps(name, registrations):
    run(name)
