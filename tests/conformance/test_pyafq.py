"""How pyAFQ stores and applies a map, reproduced step by step.

`SynMap` simplifies the map, so that it maps voxels to voxels, and saves forward and
backward as two NIfTI files on the grids of the two images. Later runs make a map from
these two files.  The steps are those of pyAFQ 3.4, `AFQ/definitions/mapping.py` and
`read_syn_mapping` in `AFQ/registration.py`.
"""

from dipy.align.imwarp import DiffeomorphicMap
from dipy.tracking.streamline import Streamlines
from maps import affine
import nibabel as nib
import numpy as np
from pairs import make_pair, move
import pytest

from dipy_dl_reg import deep_registration, transform_streamlines


def prealign():
    shear = np.eye(4)
    shear[1, 2] = 0.06
    return affine([1.06, 0.94, 1.03], (0.15, -0.1, 0.08), [12.0, -30.0, 8.0]) @ shear


@pytest.fixture(scope="module", params=["prealign", "no prealign"])
def pair(request):
    """Template (static) and subject (moving), on different oblique grids."""
    grids = affine([-2, 2, 2.2], (0.2, 0.3, 0.1)), affine([2, -2, 2], (0, 0.2, -0.1))
    shapes = (22, 25, 20), (24, 20, 23)
    linear = [g[:3, :3] for g in grids]
    return make_pair(*linear, *shapes, prealign() if " " not in request.param else None)


@pytest.fixture(scope="module")
def mapping(pair):
    subject, template = pair.moving, pair.static
    _, mapping = deep_registration(  # as SynMap calls syn_registration
        subject,
        template,
        moving_affine=pair.moving_grid2world,
        static_affine=pair.static_grid2world,
        prealign=pair.prealign,
        level_iters=[15, 15],
    )
    return mapping


def read_syn_mapping(disp, codisp):
    disp, codisp = nib.load(disp), nib.load(codisp)
    mapping = DiffeomorphicMap(
        dim=3,
        disp_shape=codisp.get_fdata().shape[:3],
        disp_grid2world=None,
        domain_shape=disp.get_fdata().shape[:3],
        domain_grid2world=None,
        codomain_shape=codisp.get_fdata().shape[:3],
        codomain_grid2world=None,
    )
    mapping.forward = disp.get_fdata().astype(np.float32)
    mapping.backward = codisp.get_fdata().astype(np.float32)
    return mapping


@pytest.fixture(scope="module", params=["nii", "nii.gz"])
def mapping_from_files(request, mapping, pair, tmp_path_factory):
    """The map made from the files: subject voxels to template voxels and back."""
    folder = tmp_path_factory.mktemp("mapping")
    forward, backward = (str(folder / f"{k}.{request.param}") for k in "fb")
    simplified = mapping.get_simplified_transform()
    nib.save(nib.Nifti1Image(simplified.forward, pair.moving_grid2world), forward)
    nib.save(nib.Nifti1Image(simplified.backward, pair.static_grid2world), backward)
    return read_syn_mapping(forward, backward)


def test_fields_have_the_shapes_of_both_images(mapping_from_files, pair):
    assert mapping_from_files.is_inverse is False
    assert mapping_from_files.forward.shape == (*pair.moving.shape, 3)
    assert mapping_from_files.backward.shape == (*pair.static.shape, 3)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_images(mapping_from_files, mapping, pair, interpolation):
    """pyAFQ's `transform` maps template to subject, `transform_inverse` the reverse."""
    wanted = mapping.transform(pair.moving, interpolation=interpolation)
    found = mapping_from_files.transform_inverse(
        pair.moving, interpolation=interpolation
    )
    assert np.ptp(wanted) > 0.5
    close = np.abs(found - wanted) <= 1e-5 * np.ptp(wanted)
    # a point halfway between two voxels may be rounded up or down
    assert close.all() if interpolation == "linear" else close.mean() > 0.999

    wanted = mapping.transform_inverse(pair.static, interpolation=interpolation)
    found = mapping_from_files.transform(pair.static, interpolation=interpolation)
    assert np.ptp(wanted) > 0.5
    close = np.abs(found - wanted) <= 1e-5 * np.ptp(wanted)
    assert close.all() if interpolation == "linear" else close.mean() > 0.999


def test_direction_of_the_map(mapping_from_files, pair):
    """The subject is aligned with the template: the direction is correct."""
    warped = mapping_from_files.transform_inverse(pair.moving)
    still = DiffeomorphicMap(
        3,
        pair.static.shape,
        disp_grid2world=pair.static_grid2world,
        domain_shape=pair.moving.shape,
        domain_grid2world=pair.moving_grid2world,
        codomain_shape=pair.static.shape,
        codomain_grid2world=pair.static_grid2world,
        prealign=None if pair.prealign is None else np.linalg.inv(pair.prealign),
    )
    still.allocate()
    still.is_inverse = True
    before = np.square(still.transform(pair.moving) - pair.static).sum()
    assert np.square(warped - pair.static).sum() < 0.3 * before


def test_points(mapping_from_files, mapping, pair):
    """Map voxels of the subject to the template and back, as an ArraySequence.

    Equal at voxels; between voxels, the subject's file contains a resampled field.
    """
    A, B = pair.static_grid2world, pair.moving_grid2world
    generator = np.random.default_rng(4)
    for whole, close in ((True, 2e-4), (False, 0.15)):
        at = generator.uniform(7, 14, (40, 3))
        at = np.rint(at) if whole else at
        lines = Streamlines([at[:15], at[15:]])

        found = np.concatenate(list(mapping_from_files.transform_points(lines)))
        world = mapping.transform_points_inverse(move(B, at))
        wanted = move(np.linalg.inv(A), world)
        assert np.linalg.norm(found - wanted, axis=-1).max() < close

        found = np.concatenate(list(mapping_from_files.transform_points_inverse(lines)))
        wanted = move(np.linalg.inv(B), mapping.transform_points(move(A, at)))
        assert np.linalg.norm(found - wanted, axis=-1).max() < 2e-4


def test_streamlines_equal_transform_streamlines(mapping_from_files, mapping, pair):
    """pyAFQ and `transform_streamlines` map a bundle to the same place."""
    A, B = pair.static_grid2world, pair.moving_grid2world
    at = np.random.default_rng(4).uniform(7, 14, (40, 3))
    world = Streamlines([move(B, at[:15]), move(B, at[15:])])
    own = np.concatenate(list(transform_streamlines(mapping, world)))
    theirs = mapping_from_files.transform_points(Streamlines([at[:15], at[15:]]))
    theirs = move(A, np.concatenate(list(theirs)))
    assert np.linalg.norm(own - theirs, axis=-1).max() < 0.3
    assert np.linalg.norm(own - move(B, at), axis=-1).max() > 1
