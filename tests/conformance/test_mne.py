"""MNE-Python's own functions, with DeepRegistration in place of SyN.

MNE registers volumes through `dipy.align.imwarp`, applies the map to images and to
electrodes, and keeps its `__dict__` in HDF5.
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


@pytest.fixture(scope="module")
def pair():
    turn = affine([1.05, 0.95, 1.02], (0.1, -0.06, 0.05), [8.0, -12.0, 4.0])
    grids = affine([2, 2, 2.2], (0.1, 0, 0.1)), affine([-2, 2, 2])
    linear = (g[:3, :3] for g in grids)
    return make_pair(*linear, (22, 24, 20), (23, 21, 24), turn)


@pytest.fixture(scope="module")
def images(pair):
    """MNE wants NIfTI images: moving, static."""
    return [
        nib.Nifti1Image(getattr(pair, k), getattr(pair, f"{k}_grid2world"))
        for k in ("moving", "static")
    ]


@pytest.fixture(scope="module")
def found(pair, images):
    """What compute_volume_registration makes of the pair: affine and map."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imwarp, "SymmetricDiffeomorphicRegistration", DeepRegistration)
        return mne.transforms.compute_volume_registration(
            *images,
            pipeline=("sdr",),
            niter={"sdr": [15, 15]},
            starting_affine=pair.prealign,
        )


def error(image, pair):
    return np.square(np.asarray(image.dataobj) - pair.static).sum()


def test_registration_of_volumes(found, images, pair):
    """The affine first, then the map on the grid of static."""
    matrix, mapping = found
    assert type(mapping) is DiffeomorphicMap
    apply = mne.transforms.apply_volume_registration
    warped = apply(*images, matrix, mapping)
    assert np.array_equal(warped.affine, images[1].affine)
    assert error(warped, pair) < 0.2 * error(apply(*images, matrix), pair)

    A, B = pair.static_grid2world, pair.moving_grid2world
    world = move(A, voxels(pair.static.shape))
    resampled = interpolate(pair.moving, move(np.linalg.inv(B) @ matrix, world))
    place = move(np.linalg.inv(A), world + mapping.backward)
    by_hand = interpolate(resampled, place)
    assert np.abs(warped.dataobj - by_hand).max() < 1e-5 * np.ptp(pair.moving)


def test_the_whole_pipeline(pair, images, monkeypatch):
    """From centres of mass to the map, with DIPY's affine steps before it."""
    monkeypatch.setattr(imwarp, "SymmetricDiffeomorphicRegistration", DeepRegistration)
    niter = dict.fromkeys(("translation", "rigid", "affine", "sdr"), [8, 8, 4])
    found = mne.transforms.compute_volume_registration(*images, niter=niter)
    warped = mne.transforms.apply_volume_registration(*images, *found)
    before = mne.transforms.apply_volume_registration(*images, np.eye(4))
    assert error(warped, pair) < 0.2 * error(before, pair)


def test_nearest_and_a_lower_bound(found, images):
    """Labels keep their numbers, and `cval` fills what lies outside."""
    matrix, mapping = found
    labels = nib.Nifti1Image(
        np.digitize(images[0].dataobj, [0.2, 0.4, 0.6]).astype(np.int16) + 3,
        images[0].affine,
    )
    warped = mne.transforms.apply_volume_registration(
        labels, images[1], matrix, mapping, interpolation="nearest", cval=3
    )
    values = np.asarray(warped.dataobj)
    assert set(np.unique(values)) == {3, 4, 5, 6}


def test_electrodes(found, images, pair):
    """warp_montage goes through transform_points with the matrices of the map."""
    matrix, mapping = found
    generator = np.random.default_rng(2)
    moving, static = (
        nib.MGHImage(np.asarray(i.dataobj, dtype=np.float32), i.affine).header
        for i in images
    )
    # numbers that are places in the head and voxels of it alike, see below
    inside = generator.uniform(7, 13, (9, 3))
    at = move(np.linalg.inv(moving.get_vox2ras()) @ matrix, inside)
    surface = move(moving.get_vox2ras_tkr(), at) / 1000
    montage = mne.channels.make_dig_montage(
        {str(k): p for k, p in enumerate(surface)}, coord_frame="mri"
    )
    warped = mne.preprocessing.ieeg.warp_montage(montage, *images, matrix, mapping)
    places = np.stack(list(warped.get_positions()["ch_pos"].values())) * 1000

    # MNE takes the affine back and hands over the world's coordinates as voxels of
    # `domain`: through its matrix, displaced, and back through its inverse.
    A = mapping.domain_grid2world
    assert np.array_equal(A, pair.static_grid2world)
    world = move(A, inside)
    step = interpolate_field(mapping.backward, move(np.linalg.inv(A), world))
    assert np.linalg.norm(step, axis=-1).max() > 0.5
    by_hand = move(np.linalg.inv(A), world + step)
    to_surface = static.get_vox2ras_tkr() @ np.linalg.inv(static.get_vox2ras())
    assert np.allclose(places, move(to_surface, by_hand), atol=1e-3)


def behaves_alike(mapping, again, pair):
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


def test_state_through_hdf5(found, pair, tmp_path):
    """Each entry of `__dict__` is a number, an array or None, and comes back so."""
    h5py = pytest.importorskip("h5py")
    _, mapping = found
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
    behaves_alike(mapping, again, pair)


def test_source_morph(found, pair, tmp_path):
    """SourceMorph.save and read_source_morph, which do the same through h5io."""
    pytest.importorskip("h5io")
    matrix, mapping = found
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
    behaves_alike(mapping, again, pair)
