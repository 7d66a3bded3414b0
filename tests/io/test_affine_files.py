"""Affines in the files of this and of other programs."""

from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg import read_affine, write_affine
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.affine_files import AFFINE_FORMATS, affine_format_name
from dipy_dl_reg.io.affine_itk import affine_of_parameters

STATIC = Grid((12, 14, 10), affine([2, -1.5, 2.5], (0.1, -0.2, 0.05), [5, -9, 3]))
MOVING = Grid((9, 11, 13), affine([-1.8, 2.2, 1.6], (-0.15, 0.1, 0.2), [400, -20, 5]))
MATRIX = affine([1.05, 0.95, 1.02], (0.05, 0.1, -0.05), [395, 10, -3])
MATRIX[0, 1] += 0.04  # a shear


@pytest.mark.parametrize("name", AFFINE_FORMATS)
@pytest.mark.parametrize("dim", [2, 3])
def test_written_affine_is_read_as_the_same(name, dim, tmp_path):
    entry = AFFINE_FORMATS[name]
    matrix, grids = MATRIX, {"static": STATIC, "moving": MOVING}
    if dim == 2:
        matrix, grids = affine([1.1, 0.9], (0.2,), [3, -4]), {}
    for suffix in entry.suffixes:
        path = tmp_path / f"a{suffix}"
        if dim not in entry.dimensions:
            with pytest.raises(ValueError, match="3D"):
                write_affine(matrix, path, **grids)
            continue
        write_affine(matrix, path, **grids)
        assert_allclose(read_affine(path, dim=dim, **grids), matrix, atol=1e-9)
        with pytest.raises(FileExistsError):
            write_affine(matrix, path, **grids)


def test_points_are_mapped_as_itk_maps_them(tmp_path):
    """In LPS, from static to moving, by ITK's own reader."""
    sitk = pytest.importorskip("SimpleITK")
    point = np.array([12.0, -7, 30])
    lps = np.array([-1, -1, 1])
    for name in ("a.mat", "a.tfm"):
        write_affine(MATRIX, tmp_path / name)
        found = sitk.ReadTransform(str(tmp_path / name)).TransformPoint(point * lps)
        wanted = MATRIX[:3, :3] @ point + MATRIX[:3, 3]
        assert_allclose(found * lps, wanted, atol=1e-9)


@pytest.mark.parametrize("suffix", [".mat", ".tfm"])
def test_transforms_that_itk_wrote_are_read(suffix, tmp_path, rng):
    """Of each type that is affine, with a centre."""
    sitk = pytest.importorskip("SimpleITK")
    euler = sitk.Euler3DTransform()
    zyx = sitk.Euler3DTransform()
    zyx.SetComputeZYX(True)
    for transform in (
        sitk.AffineTransform(3),
        euler,
        zyx,
        sitk.TranslationTransform(3),
        sitk.AffineTransform(2),
        sitk.Euler2DTransform(),
    ):
        size = len(transform.GetParameters())
        transform.SetParameters((rng.random(size) + 0.1).tolist())
        dim = transform.GetDimension()
        if transform.GetName() != "TranslationTransform":
            transform.SetCenter([3.0, -5.0, 7.0][:dim])
        path = tmp_path / f"a{suffix}"
        sitk.WriteTransform(transform, str(path))
        point, lps = rng.random(dim) * 50, np.array([-1, -1, 1])[:dim]
        matrix = read_affine(path)
        found = matrix[:dim, :dim] @ point + matrix[:dim, dim]
        assert_allclose(found, transform.TransformPoint(point * lps) * lps, atol=1e-9)


def test_points_are_mapped_as_nitransforms_maps_them(tmp_path):
    """FreeSurfer's file, from moving to static; types 1 and 0."""
    lta = pytest.importorskip("nitransforms.io.lta")
    path = tmp_path / "a.lta"
    write_affine(MATRIX, path, static=STATIC, moving=MOVING)
    array = lta.FSLinearTransformArray.from_string(path.read_text())
    found = array.xforms[0]
    assert_allclose(found["m_L"], np.linalg.inv(MATRIX), atol=1e-12)
    for side, grid in (("src", MOVING), ("dst", STATIC)):
        assert_allclose(found[side].as_affine(), grid.affine, atol=1e-5)
    in_voxels = STATIC.inverse @ np.linalg.inv(MATRIX) @ MOVING.affine
    found.structarr["m_L"], array.structarr["type"] = in_voxels, 0
    path.write_text(array.to_string())
    assert_allclose(read_affine(path), MATRIX, atol=1e-4)


def test_lta_of_the_other_direction_is_inverted(tmp_path):
    path = tmp_path / "a.lta"
    write_affine(np.linalg.inv(MATRIX), path, static=MOVING, moving=STATIC)
    assert_allclose(read_affine(path), np.linalg.inv(MATRIX), atol=1e-9)
    found = read_affine(path, static=STATIC, moving=MOVING)
    assert_allclose(found, MATRIX, atol=1e-9)


def test_flirt_matrix_needs_both_images(tmp_path):
    """A text file ending in .mat is FSL's, unless like says otherwise."""
    path = tmp_path / "a.mat"
    write_affine(MATRIX, path, static=STATIC, moving=MOVING, like="fsl")
    image = nib.Nifti1Image(np.zeros(STATIC.shape), STATIC.affine)
    nib.save(image, tmp_path / "static.nii")
    found = read_affine(path, static=tmp_path / "static.nii", moving=MOVING)
    assert_allclose(found, MATRIX, atol=1e-4)
    with pytest.raises(ValueError, match="moving must be given"):
        read_affine(path, static=STATIC)
    with pytest.raises(ValueError, match="static must be given"):
        write_affine(MATRIX, tmp_path / "b.fsl.mat", moving=MOVING)
    np.savetxt(path, MATRIX)
    assert_array_equal(read_affine(path, like="text"), MATRIX)


@pytest.mark.parametrize("dim", [2, 3])
def test_matrix_of_text_is_read(tmp_path, dim):
    matrix = np.eye(dim + 1)
    matrix[0, -1] = 3.5
    np.savetxt(tmp_path / "matrix.txt", matrix)
    assert_array_equal(read_affine(tmp_path / "matrix.txt", dim=dim), matrix)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", b"", "prealign: .*must hold a matrix, got an empty file"),
        ("a.txt", b"no matrix", "prealign: .*holds no matrix in the format of text"),
        ("a.txt", b"1 0 0\n0 1 0\n0 0 1", "prealign: .*must have the shape"),
        ("a.txt", b"1 0 0 0\n" * 4, "prealign: .*must have the last row"),
        ("a.lta", b"type = 1\n", "prealign: .*FreeSurfer"),
        ("a.tfm", b"#Insight Transform File V1.0\nTransform: X_double_3_3\n", "ITK"),
        ("a.mat", b"\0\0AffineTransform_double_3_3\0\0", "prealign: .*ITK and ANTs"),
    ],
)
def test_other_files_are_errors(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_affine(path, dim=3, name="prealign")
    with pytest.raises(FileNotFoundError, match="prealign: no such file"):
        read_affine(tmp_path / "none.txt", name="prealign")


def test_bad_arguments_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"path must be a file in .*\.lta"):
        write_affine(MATRIX, tmp_path / "a.xfm")
    assert affine_format_name("a.xfm", "text") == "text"
    with pytest.raises(ValueError, match="like must be one of"):
        write_affine(MATRIX, tmp_path / "a.txt", like="elastix")
    with pytest.raises(ValueError, match="matrix must be invertible"):
        write_affine(np.diag([1.0, 0, 1, 1]), tmp_path / "a.txt")
    with pytest.raises(ValueError, match="got VersorRigid3DTransform_double_3_3"):
        affine_of_parameters(
            np.zeros(6), np.zeros(3), "VersorRigid3DTransform_double_3_3"
        )
