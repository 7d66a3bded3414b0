"""Bases of spherical harmonics are DIPY's and MRtrix3's."""

import shutil
import subprocess

from closed_forms import STATIC
from dipy.core.sphere import Sphere
from dipy.reconst.shm import (
    convert_sh_descoteaux_tournier,
    convert_sh_from_legacy,
    sh_to_sf,
)
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg import convert_harmonics
from dipy_dl_reg.diffusion.frames import frame_to_world
from dipy_dl_reg.diffusion.harmonics import (
    BASES,
    HarmonicBasis,
    harmonic_order,
    make_basis,
)
from dipy_dl_reg.diffusion.spherical_functions import (
    evaluate_harmonics,
    power_matrix,
    sum_harmonics,
)
from dipy_dl_reg.geometry.sphere import spread_directions

ORDERS = [(order, False) for order in (0, 2, 8, 16)]
ORDERS += [(order, True) for order in (0, 1, 3, 8)]
DIPY_BASES = [(name, legacy) for name in BASES[:2] for legacy in (True, False)]
DIRECTIONS = np.random.default_rng(5).normal(size=(40, 3))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)


def coefficients(basis, voxels=3):
    return np.random.default_rng(1).normal(size=(voxels, len(basis.degrees)))


@pytest.mark.parametrize("name, legacy", DIPY_BASES)
@pytest.mark.parametrize("full", [False, True])
def test_functions_are_those_of_dipy(name, legacy, full):
    basis = HarmonicBasis(name, 4, legacy, full)
    sh = coefficients(basis)
    expected = sh_to_sf(
        sh,
        Sphere(xyz=DIRECTIONS),
        sh_order_max=4,
        basis_type=name,
        full_basis=full,
        legacy=legacy,
    )
    assert_allclose(sh @ basis.evaluate(DIRECTIONS).T, expected, atol=1e-12)


@pytest.mark.skipif(not shutil.which("sh2amp"), reason="needs MRtrix3")
def test_functions_are_those_of_mrtrix(tmp_path):
    basis = HarmonicBasis("mrtrix", 8)
    each = np.eye(45, dtype=np.float32).reshape(45, 1, 1, 45)
    nib.save(nib.Nifti1Image(each, np.eye(4)), tmp_path / "sh.nii")
    np.savetxt(tmp_path / "directions.txt", DIRECTIONS)
    names = [str(tmp_path / n) for n in ("sh.nii", "directions.txt", "amplitudes.nii")]
    subprocess.run(["sh2amp", "-quiet", *names], check=True)
    values = nib.load(names[2]).get_fdata()[:, 0, 0]
    assert_allclose(values.T, basis.evaluate(DIRECTIONS), atol=1e-6)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("order, full", ORDERS)
def test_powers_give_the_same_functions(name, order, full):
    basis = HarmonicBasis(name, order, False, full)
    matrix = power_matrix(basis)
    directions = DIRECTIONS.reshape(4, 10, 3)
    functions = np.stack([basis.evaluate(d) for d in directions])
    sh = coefficients(basis, 4)
    values = evaluate_harmonics(matrix, directions, sh)
    assert_allclose(values, np.einsum("vkc,vc->vk", functions, sh), atol=1e-7)
    weights = DIRECTIONS[:, 0].reshape(4, 10)
    sums = sum_harmonics(matrix, directions, weights)
    assert_allclose(sums, np.einsum("vkc,vk->vc", functions, weights), atol=1e-7)


@pytest.mark.parametrize("full", [False, True])
def test_rotation_moves_values_with_the_directions(full):
    basis = HarmonicBasis("descoteaux07", 4, True, full)
    turn = Rotation.from_euler("xyz", [0.4, -1.2, 2.0]).as_matrix()
    sh = coefficients(basis)
    for matrix in (turn, -turn):
        turned = sh @ basis.rotation(matrix).T
        assert_allclose(
            turned @ basis.evaluate(DIRECTIONS @ matrix.T).T,
            sh @ basis.evaluate(DIRECTIONS).T,
            atol=1e-10,
        )


@pytest.mark.parametrize("order", range(0, 17, 2))
def test_order_from_the_number_of_coefficients(order):
    assert harmonic_order((order + 1) * (order + 2) // 2) == order
    assert harmonic_order((order + 1) ** 2, full_basis=True) == order


@pytest.mark.parametrize("count", [0, 2, 3, 7, 10, 14, 16, 21, 44, 190])
def test_impossible_counts_are_refused(count):
    with pytest.raises(ValueError, match=rf"sh must have.*15, 28, 45.*got {count}"):
        make_basis("descoteaux07", count)


def test_the_message_names_the_full_basis():
    with pytest.raises(ValueError, match="got 16; give full_basis=True"):
        harmonic_order(16)
    with pytest.raises(ValueError, match="all degrees, got 15"):
        harmonic_order(15, full_basis=True)


def test_unknown_basis_is_refused():
    with pytest.raises(ValueError, match="basis must be one of"):
        make_basis("tournier", 15)


def test_conversion_is_that_of_dipy():
    sh = coefficients(HarmonicBasis("descoteaux07", 6))
    assert_allclose(
        convert_harmonics(
            sh, "descoteaux07", "mrtrix", from_frame="world", to_frame="world"
        ),
        convert_sh_descoteaux_tournier(sh),
        atol=1e-12,
    )
    for name in BASES[:2]:
        assert_allclose(
            convert_harmonics(sh, name, name, to_legacy=False),
            convert_sh_from_legacy(sh, name),
            atol=1e-12,
        )


@pytest.mark.parametrize("frame", ["voxel", "fsl"])
def test_conversion_between_frames_keeps_the_function_in_the_world(frame):
    before, after = HarmonicBasis("descoteaux07", 4), HarmonicBasis("mrtrix", 4)
    sh = coefficients(before)
    converted = convert_harmonics(
        sh, "descoteaux07", "mrtrix", affine=STATIC, from_frame=frame
    )
    in_world = DIRECTIONS @ frame_to_world(STATIC, frame).T
    assert_allclose(
        converted @ after.evaluate(in_world).T,
        sh @ before.evaluate(DIRECTIONS).T,
        atol=1e-10,
    )


def test_conversion_between_frames_needs_the_affine():
    with pytest.raises(ValueError, match="affine must be given from voxel to world"):
        convert_harmonics(np.zeros(15), "descoteaux07", "mrtrix")


@pytest.mark.parametrize("hemisphere, count", [(True, 181), (False, 362)])
def test_directions_are_spread_evenly(hemisphere, count):
    directions = spread_directions(count, hemisphere=hemisphere)
    assert_allclose(np.linalg.norm(directions, axis=1), 1)
    cosines = DIRECTIONS @ directions.T
    nearest = (np.abs(cosines) if hemisphere else cosines).max(1)
    assert np.degrees(np.arccos(nearest)).max() < 8


def test_wrong_conversions_are_refused():
    bases = ("descoteaux07", "mrtrix")
    with pytest.raises(
        ValueError, match=r"sh must be an array of shape \(\.\.\., count"
    ):
        convert_harmonics(3.0, *bases)
    for name in ("from_frame", "to_frame"):
        options = {"from_frame": "world", "to_frame": "world", name: "a"}
        with pytest.raises(ValueError, match=f"{name} must be"):
            convert_harmonics(np.zeros(15), *bases, **options)
    with pytest.raises(ValueError, match="from_frame must be"):
        convert_harmonics(np.zeros(15), *bases, from_frame="a", to_frame="a")
