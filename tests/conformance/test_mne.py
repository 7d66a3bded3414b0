"""MNE-Python's own functions, with DeepRegistration in place of SyN.

MNE registers volumes with `dipy.align.imwarp`, applies the map to images and to
electrodes, and stores its `__dict__` in HDF5 files.
"""

from dipy.align import imwarp
from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from maps import affine
import nibabel as nib
import numpy as np
from pairs import interpolate, interpolate_field, make_pair, move, voxels
import pytest

from dipy_dl_reg import DeepRegistration

mne = pytest.importorskip("mne")
# Not all versions of MNE load it with the package.
transforms = pytest.importorskip("mne.transforms")


@pytest.fixture(scope="module")
def pair():
    turn = affine([1.05, 0.95, 1.02], (0.1, -0.06, 0.05), [8.0, -12.0, 4.0])
    grids = affine([2, 2, 2.2], (0.1, 0, 0.1)), affine([-2, 2, 2])
    linear = (g[:3, :3] for g in grids)
    return make_pair(*linear, (22, 24, 20), (23, 21, 24), turn)


@pytest.fixture(scope="module")
def images(pair):
    """NIfTI images for MNE: moving, static."""
    return [
        nib.Nifti1Image(getattr(pair, k), getattr(pair, f"{k}_grid2world"))
        for k in ("moving", "static")
    ]


@pytest.fixture(scope="module")
def registered(pair, images):
    """Affine and map from compute_volume_registration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imwarp, "SymmetricDiffeomorphicRegistration", DeepRegistration)
        return transforms.compute_volume_registration(
            *images,
            pipeline=("sdr",),
            niter={"sdr": [15, 15]},
            starting_affine=pair.prealign,
        )


def error(image, pair):
    return np.square(np.asarray(image.dataobj) - pair.static).sum()


def test_registration_of_volumes(registered, images, pair):
    """MNE applies the affine first, then the map on static's grid."""
    matrix, mapping = registered
    assert type(mapping) is DiffeomorphicMap
    apply = transforms.apply_volume_registration
    warped = apply(*images, matrix, mapping)
    assert np.array_equal(warped.affine, images[1].affine)
    assert error(warped, pair) < 0.2 * error(apply(*images, matrix), pair)

    A, B = pair.static_grid2world, pair.moving_grid2world
    world = move(A, voxels(pair.static.shape))
    resampled = interpolate(pair.moving, move(np.linalg.inv(B) @ matrix, world))
    place = move(np.linalg.inv(A), world + mapping.backward)
    by_hand = interpolate(resampled, place)
    assert np.abs(warped.dataobj - by_hand).max() < 1e-5 * np.ptp(pair.moving)


def test_whole_pipeline(pair, images, monkeypatch):
    """All steps of MNE's pipeline, with DIPY's affine steps before the map."""
    monkeypatch.setattr(imwarp, "SymmetricDiffeomorphicRegistration", DeepRegistration)
    niter = dict.fromkeys(("translation", "rigid", "affine", "sdr"), [8, 8, 4])
    registered = transforms.compute_volume_registration(*images, niter=niter)
    warped = transforms.apply_volume_registration(*images, *registered)
    before = transforms.apply_volume_registration(*images, np.eye(4))
    assert error(warped, pair) < 0.2 * error(before, pair)


def test_nearest_interpolation_and_cval(registered, images):
    """Labels keep their values, and `cval` is the value outside the image."""
    matrix, mapping = registered
    labels = nib.Nifti1Image(
        np.digitize(images[0].dataobj, [0.2, 0.4, 0.6]).astype(np.int16) + 3,
        images[0].affine,
    )
    warped = transforms.apply_volume_registration(
        labels, images[1], matrix, mapping, interpolation="nearest", cval=3
    )
    values = np.asarray(warped.dataobj)
    assert set(np.unique(values)) == {3, 4, 5, 6}


def test_electrodes(registered, images, pair):
    """warp_montage uses transform_points and the matrices of the map."""
    matrix, mapping = registered
    generator = np.random.default_rng(2)
    moving, static = (
        nib.MGHImage(np.asarray(i.dataobj, dtype=np.float32), i.affine).header
        for i in images
    )
    # coordinates that are valid both in mm and as voxels, see below
    inside = generator.uniform(7, 13, (9, 3))
    at = move(np.linalg.inv(moving.get_vox2ras()) @ matrix, inside)
    surface = move(moving.get_vox2ras_tkr(), at) / 1000
    montage = mne.channels.make_dig_montage(
        {str(k): p for k, p in enumerate(surface)}, coord_frame="mri"
    )
    warped = mne.preprocessing.ieeg.warp_montage(montage, *images, matrix, mapping)
    places = np.stack(list(warped.get_positions()["ch_pos"].values())) * 1000

    # MNE inverts the affine and passes world coordinates as voxels of `domain`: they
    # are mapped by its matrix, displaced, and mapped back by the inverse matrix.
    A = mapping.domain_grid2world
    assert np.array_equal(A, pair.static_grid2world)
    world = move(A, inside)
    step = interpolate_field(mapping.backward, move(np.linalg.inv(A), world))
    assert np.linalg.norm(step, axis=-1).max() > 0.5
    by_hand = move(np.linalg.inv(A), world + step)
    to_surface = static.get_vox2ras_tkr() @ np.linalg.inv(static.get_vox2ras())
    assert np.allclose(places, move(to_surface, by_hand), atol=1e-3)


def assert_equal_transforms(mapping, again, pair):
    for image, method in (
        (pair.static, "transform"),
        (pair.static, "transform_inverse"),
    ):
        wanted = getattr(mapping, method)(image)
        assert np.ptp(wanted) > 0
        assert np.array_equal(getattr(again, method)(image), wanted)
    points = move(
        pair.static_grid2world, np.random.default_rng(0).uniform(3, 15, (50, 3))
    )
    for method in ("transform_points", "transform_points_inverse"):
        wanted = getattr(mapping, method)(points)
        assert np.array_equal(getattr(again, method)(points), wanted)


def test_state_through_hdf5(registered, pair, tmp_path):
    """Each entry of `__dict__` is a number, an array or None, and can be stored."""
    h5py = pytest.importorskip("h5py")
    _, mapping = registered
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        for name, value in vars(mapping).items():
            assert value is None or isinstance(value, (bool, int, np.ndarray)), name
            if value is not None:
                file[name] = value
            else:
                file.attrs[name] = "None"
    with h5py.File(path) as file:
        state = {name: file[name][()] for name in file} | dict.fromkeys(file.attrs)
    again = DiffeomorphicMap(None, [])
    again.__dict__ = state
    assert_equal_transforms(mapping, again, pair)


def test_source_morph(registered, pair, tmp_path):
    """SourceMorph.save and read_source_morph store the map with h5io."""
    pytest.importorskip("h5io")
    matrix, mapping = registered
    pre_affine = AffineMap(
        matrix,
        domain_grid_shape=pair.static.shape,
        domain_grid2world=pair.static_grid2world,
        codomain_grid_shape=pair.moving.shape,
        codomain_grid2world=pair.moving_grid2world,
    )
    nothing = dict.fromkeys(
        "spacing smooth xhemi morph_mat niter_affine niter_sdr vol_morph_mat".split()
    )
    morph = mne.SourceMorph(
        subject_from="one",
        subject_to="other",
        kind="volume",
        zooms=(2.0, 2.0, 2.2),
        vertices_to=[np.arange(5)],
        shape=pair.static.shape,
        affine=pair.static_grid2world,
        pre_affine=pre_affine,
        sdr_morph=mapping,
        src_data={"to_vox_map": None, "inuse": [np.ones(5, dtype=int)]},
        **nothing,
    )
    morph.save(tmp_path / "one-morph.h5")
    again = mne.read_source_morph(tmp_path / "one-morph.h5").sdr_morph
    assert type(again) is DiffeomorphicMap
    assert set(vars(again)) == set(vars(mapping))
    assert_equal_transforms(mapping, again, pair)
