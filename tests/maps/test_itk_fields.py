"""Files of ITK and ANTs: SimpleITK reads and applies what is written, and back."""

from foreign_fields import both_directions, largest_difference
from itk_resampling import read_field, resample, sitk_image
from maps import affine
import numpy as np
from numpy.testing import assert_allclose
import pytest
from test_formats import GRIDS, map_on

from dipy_dl_reg import read_mapping, write_mapping
from dipy_dl_reg.maps.formats.dense_field import forward_field, inverse_field, map_grids

sitk = pytest.importorskip("SimpleITK")
KINDS = pytest.mark.parametrize("kind", GRIDS)
DIMS = pytest.mark.parametrize("dim", [2, 3])


def check_warps(mapping, transforms, rng):
    """Check that ITK's transforms give the map's images in both directions."""
    for direction, transform in zip(both_directions(mapping, rng), transforms):
        field = direction.field
        warped = resample(direction.image, field.input_grid, field.grid, transform)
        assert largest_difference(direction, warped) < 1e-3


@KINDS
@DIMS
def test_itk_warps_by_the_fields_as_the_map(kind, dim, tmp_path, rng):
    mapping = map_on(kind, dim, prealign=True)
    paths = tmp_path / "warp.nii.gz", tmp_path / "inverse.nii.gz"
    write_mapping(mapping, paths[0], inverse=paths[1], like="itk")
    check_warps(mapping, map(read_field, paths), rng)


@KINDS
@DIMS
def test_itk_warps_by_the_triple_as_the_map(kind, dim, tmp_path, rng):
    """ITK's composite applies the last transform to points first."""
    mapping = map_on(kind, dim, prealign=True)
    write_mapping(mapping, tmp_path / "a_1Warp.nii.gz")
    affine = sitk.ReadTransform(str(tmp_path / "a_0GenericAffine.mat"))
    warp, inverse = (
        read_field(tmp_path / f"a_1{name}.nii.gz") for name in ("Warp", "InverseWarp")
    )
    forward = sitk.CompositeTransform([affine, warp])
    back = sitk.CompositeTransform([inverse, affine.GetInverse()])
    check_warps(mapping, (forward, back), rng)


@KINDS
@DIMS
def test_itk_warps_by_the_composites_as_the_map(kind, dim, tmp_path, rng):
    pytest.importorskip("h5py")
    mapping = map_on(kind, dim, prealign=True)
    paths = tmp_path / "Composite.h5", tmp_path / "InverseComposite.h5"
    write_mapping(mapping, paths[0], inverse=paths[1])
    check_warps(mapping, (sitk.ReadTransform(str(path)) for path in paths), rng)


def itk_field(displacement, grid):
    """A displacement in RAS as an image of ITK."""
    lps = np.array([-1.0, -1, 1])
    image = sitk.GetImageFromArray(
        np.ascontiguousarray((displacement * lps).transpose(2, 1, 0, 3)), isVector=True
    )
    image.CopyInformation(sitk_image(np.zeros(grid.shape), grid))
    return image


@KINDS
def test_files_that_itk_wrote_are_read(kind, tmp_path, rng):
    """A field, and composites of an affine with a centre and a field."""
    pytest.importorskip("h5py")
    mapping = map_on(kind, 3, prealign=True)
    static, moving = map_grids(mapping)
    affine = sitk.AffineTransform(3)
    lps = np.diag([-1.0, -1, 1, 1])
    matrix = lps @ mapping.prealign_inv @ lps
    centre = np.array([3.0, -20, 7])
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetCenter(centre.tolist())
    affine.SetTranslation((matrix[:3, 3] - centre + matrix[:3, :3] @ centre).tolist())
    b, f = (itk_field(d, static) for d in (mapping.backward, mapping.forward))
    sitk.WriteImage(b, str(tmp_path / "a1Warp.nii.gz"))
    sitk.WriteImage(f, str(tmp_path / "a1InverseWarp.nii.gz"))
    sitk.WriteTransform(affine, str(tmp_path / "a0GenericAffine.mat"))
    there, back = tmp_path / "Composite.h5", tmp_path / "InverseComposite.h5"
    fields = [
        sitk.DisplacementFieldTransform(sitk.Cast(i, sitk.sitkVectorFloat64))
        for i in (b, f)
    ]
    composite = sitk.CompositeTransform([affine, fields[0]])
    sitk.WriteTransform(composite, str(there))
    composite = sitk.CompositeTransform([fields[1], affine.GetInverse()])
    sitk.WriteTransform(composite, str(back))
    found = [
        read_mapping(tmp_path / "a1Warp.nii.gz", moving=moving),
        read_mapping(there, inverse=back, moving=moving),
    ]
    for evaluate in (forward_field, inverse_field):
        wanted = evaluate(mapping).positions
        for other in found:
            assert_allclose(evaluate(other).positions, wanted, atol=1e-4)


def itk_affine(matrix):
    """A matrix in RAS as a transform of ITK."""
    lps = np.diag([-1.0, -1, 1, 1])
    matrix = lps @ matrix @ lps
    found = sitk.AffineTransform(3)
    found.SetMatrix(matrix[:3, :3].ravel().tolist())
    found.SetTranslation(matrix[:3, 3].tolist())
    return found


def write_stages(mapping, folder):
    """Composites with the prealign as three stages, the first a translation alone."""
    static = map_grids(mapping)[0]
    fields = [
        sitk.DisplacementFieldTransform(
            sitk.Cast(itk_field(d, static), sitk.sitkVectorFloat64)
        )
        for d in (mapping.backward, mapping.forward)
    ]
    rigid = affine([1.0, 1, 1], (0.2, -0.1, 0.3), [4.0, 2, -6])
    first = sitk.TranslationTransform(3, [3.0, -5, 8])
    shift = np.eye(4)
    shift[:3, 3] = -3, 5, 8  # in RAS
    rest = np.linalg.inv(shift @ rigid) @ mapping.prealign_inv
    stages = [first, itk_affine(rigid), itk_affine(rest)]
    back = [stage.GetInverse() for stage in stages[::-1]]
    paths = folder / "Composite.h5", folder / "InverseComposite.h5"
    for path, parts in zip(paths, ([*stages, fields[0]], [fields[1], *back])):
        sitk.WriteTransform(sitk.CompositeTransform(parts), str(path))
    between = sitk.CompositeTransform([stages[0], fields[0], *stages[1:]])
    sitk.WriteTransform(between, str(folder / "between.h5"))
    several = sitk.CompositeTransform([*stages, *fields])
    sitk.WriteTransform(several, str(folder / "several.h5"))
    return paths


def test_affines_of_several_stages_are_composed(tmp_path, rng):
    """In ITK's order: the images are those of ITK's own composite."""
    pytest.importorskip("h5py")
    mapping = map_on("oblique", 3, prealign=True)
    there, back = write_stages(mapping, tmp_path)
    check_warps(mapping, (sitk.ReadTransform(str(p)) for p in (there, back)), rng)
    found = read_mapping(there, inverse=back, moving=map_grids(mapping)[1])
    assert_allclose(found.prealign_inv, mapping.prealign_inv, atol=1e-9)
    check_warps(found, (sitk.ReadTransform(str(p)) for p in (there, back)), rng)
    for name in ("between", "several"):
        with pytest.raises(ValueError, match="before or after all affines, got Trans"):
            read_mapping(tmp_path / f"{name}.h5")


def test_vectors_along_ras_are_recognised(tmp_path):
    """ITK changes the signs of vectors of intent 1006, which FreeSurfer writes."""
    mapping = map_on("oblique", 3, prealign=False)
    path = tmp_path / "warp.nii.gz"
    write_mapping(mapping, path, like="freesurfer")
    found = read_mapping(path, like="itk")
    wanted = forward_field(mapping).positions
    assert_allclose(forward_field(found).positions, wanted, atol=1e-4)
