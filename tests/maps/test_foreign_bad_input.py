"""Files of FSL, SPM and FreeSurfer that cannot be the map: one clear error for each."""

from foreign_fields import nifti
import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np
import pytest
from test_formats import GRIDS, map_on

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.exchange import read_mapping, write_mapping
from dipy_dl_reg.maps.formats import spm
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points, map_grids


@pytest.fixture(params=["LAS", "oblique"])
def pair(request):
    """A map and the images of its grids."""
    mapping = map_on(request.param, 3, prealign=True)
    static, moving = map(nifti, map_grids(mapping))
    return mapping, static, moving


def change(path, function):
    """Change the vectors of a NIfTI file."""
    image = nib.load(path)
    vectors = function(image.get_fdata()).astype(np.float32)
    nib.save(nib.Nifti1Image(vectors, None, image.header), path)


FILES = {"fsl": ".nii.gz", "spm": ".nii", "freesurfer": ".nii.gz", "m3z": ".m3z"}


@pytest.fixture(params=FILES)
def written(request, pair, tmp_path):
    """Both directions in files of a format."""
    mapping, static, moving = pair
    paths = [tmp_path / f"{n}{FILES[request.param]}" for n in ("there", "back")]
    write_mapping(mapping, paths[0], inverse=paths[1], like=request.param)
    return *paths, static, moving


def test_another_static_is_an_error(written):
    there, back, static, moving = written
    smaller = nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), static.affine)
    shifted = nib.Nifti1Image(static.get_fdata(), static.affine + np.eye(4, k=3))
    for wrong, words in ((smaller, "voxels"), (shifted, "another grid")):
        with pytest.raises(ValueError, match=words):
            read_mapping(there, inverse=back, static=wrong, moving=moving)


def test_exchanged_directions_are_an_error(written):
    there, back, static, moving = written
    with pytest.raises(ValueError, match="path: "):
        read_mapping(back, inverse=there, static=static, moving=moving)


def test_directions_of_two_maps_are_an_error(written):
    there, _, static, moving = written
    with pytest.raises(ValueError, match="inverse must hold the other direction"):
        read_mapping(there, inverse=there, static=static, moving=moving)


def test_another_moving_of_fsl_is_an_error(pair, tmp_path):
    """FSL counts from a corner of moving, which lies elsewhere in another image."""
    mapping, _, moving = pair
    paths = tmp_path / "warp.nii.gz", tmp_path / "inverse.nii.gz"
    write_mapping(mapping, paths[0], inverse=paths[1], like="fsl")
    with pytest.raises(ValueError, match="moving must be given"):
        read_mapping(paths[0])
    shifted = moving.affine.copy()
    shifted[:3, 3] += 30
    away = nib.Nifti1Image(moving.get_fdata(), shifted)
    with pytest.raises(ValueError, match="inverse must hold the other direction"):
        read_mapping(paths[0], inverse=paths[1], moving=away)


@pytest.mark.parametrize("kind", GRIDS)
def test_voxels_of_spm_are_an_error(kind, tmp_path):
    """Of images of heads, whose middle is the origin of the world."""
    mapping = map_on(kind, 3, prealign=True)
    static, moving = map_grids(mapping)
    for grid in (static, moving):
        grid.affine[:3, 3] = -grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    voxels = apply_affine(moving.inverse, grid_points(static))
    path = tmp_path / "y_map.nii"
    spm.write(DenseField(voxels, static), path)
    with pytest.raises(ValueError, match="voxels"):
        read_mapping(path, static=nifti(static), moving=nifti(moving))
    spm.write(DenseField(grid_points(static), static), path)
    read_mapping(path, static=nifti(static), moving=nifti(moving))


def test_lps_of_spm_is_an_error(pair, tmp_path):
    mapping, static, moving = pair
    path = tmp_path / "y_map.nii"
    write_mapping(mapping, path, like="spm")
    change(path, lambda y: y * [-1, -1, 1])
    with pytest.raises(ValueError, match="LPS"):
        read_mapping(path, static=static, moving=moving)


def test_displacement_instead_of_position_is_an_error(pair, tmp_path):
    mapping, static, moving = pair
    write_mapping(mapping, tmp_path / "itk.nii.gz", like="itk")
    with pytest.raises(ValueError, match="displacement"):
        read_mapping(tmp_path / "itk.nii.gz", like="spm", static=static, moving=moving)


def test_no_file_is_written_for_a_sheared_grid(pair, tmp_path):
    mapping, static, _ = pair
    mapping.domain_grid2world = mapping.domain_grid2world.copy()
    mapping.domain_grid2world[0, 1] += 0.2
    for like, suffix in (("freesurfer", ".nii.gz"), ("m3z", ".m3z")):
        with pytest.raises(ValueError, match="perpendicular axes"):
            write_mapping(mapping, tmp_path / f"map{suffix}", like=like)
    assert not list(tmp_path.iterdir())
    moving = Grid(mapping.domain_shape, mapping.domain_grid2world)
    path = tmp_path / "fsl.nii.gz"
    write_mapping(mapping, path, inverse=tmp_path / "inverse.nii.gz", like="fsl")
    found = read_mapping(
        path, inverse=tmp_path / "inverse.nii.gz", static=static, moving=moving
    )
    points = apply_affine(static.affine, np.argwhere(static.get_fdata() == 0)[::7])
    error = found.transform_points(points) - mapping.transform_points(points)
    assert np.abs(error).max() < 1e-3
