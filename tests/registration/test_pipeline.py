"""From raw images to a map in one call, and diffusion data to a template."""

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.core.gradients import gradient_table
import nibabel as nib
import numpy as np
import phantom
import pytest

from dipy_dl_reg import (
    DeepRegistration,
    deep_affine_registration,
    deep_registration,
    register_dwi_to_template,
)

WHOLE = ["center_of_mass", "rigid", "deform"]
SHORT = {"level_iters": [3, 2]}
TRUTH = phantom.rigid(phantom.rotation((1, 2, 3), 50), [30.0, -20, 10])


@pytest.fixture(scope="module")
def pair():
    """An object, and the same turned and far away, on other voxels."""
    static_affine = phantom.grid((34, 40, 30), 5.0)
    moving_affine = phantom.grid((36, 38, 36), 5.0, centre=np.array([30.0, -20, 10]))
    return {
        "static": phantom.image((34, 40, 30), static_affine),
        "moving": phantom.image((36, 38, 36), moving_affine, TRUTH),
        "static_affine": static_affine,
        "moving_affine": moving_affine,
    }


def test_whole_pipeline_is_its_steps_in_turn(pair):
    warped, mapping = deep_registration(**pair, pipeline=WHOLE, **SHORT)
    _, prealign = deep_affine_registration(**pair, pipeline=WHOLE[:-1])
    assert phantom.misplacement(prealign, TRUTH) < 2
    by_hand = DeepRegistration(**SHORT).optimize(
        pair["static"],
        pair["moving"],
        static_grid2world=pair["static_affine"],
        moving_grid2world=pair["moving_affine"],
        prealign=prealign,
    )
    assert np.array_equal(mapping.backward, by_hand.backward)
    np.testing.assert_allclose(warped, by_hand.transform(pair["moving"]), atol=1e-5)
    # It was turned by 50 degrees, and shifted by half its length.
    assert np.abs(warped - pair["static"]).mean() < 0.1 * pair["static"].mean()


def test_without_deform_nothing_is_deformed(pair):
    warped, mapping = deep_registration(**pair, pipeline=WHOLE[:-1])
    wanted, affine = deep_affine_registration(**pair, pipeline=WHOLE[:-1])
    assert isinstance(mapping, DiffeomorphicMap)
    assert not mapping.forward.any() and not mapping.backward.any()
    np.testing.assert_allclose(mapping.prealign, np.linalg.inv(affine), atol=1e-6)
    np.testing.assert_allclose(warped, wanted, atol=1e-4)


def test_a_prealign_is_where_the_steps_begin(pair):
    near = AffineMap(phantom.rigid(phantom.rotation((1, 2, 3), 45), [28.0, -18, 8]))
    _, mapping = deep_registration(**pair, prealign=near, pipeline=["rigid"])
    assert phantom.misplacement(np.linalg.inv(mapping.prealign), TRUTH) < 2


def test_slices_without_affines():
    """2D arrays have the identity for an affine, as SyN takes them."""
    static = phantom.image((80, 90), phantom.grid((80, 90), 2.0))
    moving = phantom.image(
        (80, 90),
        phantom.grid((80, 90), 2.0),
        phantom.rigid(phantom.rotation((0, 0, 1), 20)[:2, :2], [6.0, -8]),
    )
    warped, _ = deep_registration(moving, static, pipeline=WHOLE, **SHORT)
    before = np.abs(moving - static).mean()
    assert np.abs(warped - static).mean() < 0.25 * before


def test_affine_options_are_passed_on(pair):
    with pytest.raises(ValueError, match="starts"):
        deep_registration(**pair, pipeline=WHOLE, affine_options={"starts": "many"})


@pytest.mark.parametrize(
    "option",
    [
        {"landmarks": (np.eye(4)[:, :3], np.eye(4)[:, :3])},
        {"initialization": "discrete"},
        {"level_iters": [2]},
        {"model": "voxelmorph-t1"},
    ],
)
def test_options_that_need_deform(pair, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} requires 'deform'"):
        deep_registration(**pair, pipeline=["rigid"], **option)


@pytest.mark.parametrize(
    "options, steps",
    [({"starts": "all"}, ["deform"]), ({"pipeline": ["rigid"]}, WHOLE), ("all", WHOLE)],
)
def test_affine_options_that_do_not_go(pair, options, steps):
    with pytest.raises(ValueError, match="affine_options"):
        deep_registration(**pair, pipeline=steps, affine_options=options)


@pytest.mark.parametrize(
    "pipeline, message",
    [
        (["deform", "affine"], "as the last"),
        (["deform", "deform"], "as the last"),
        (["afine", "deform"], "'afine'; the last step may be 'deform'"),
        ([], "must have at least one step"),
    ],
)
def test_pipelines_that_are_none(pair, pipeline, message):
    with pytest.raises(ValueError, match=message):
        deep_registration(**pair, pipeline=pipeline)


@pytest.fixture(scope="module")
def series(pair, tmp_path_factory):
    """A series of a b0, two weighted volumes and a second b0; and its table."""
    b0 = pair["moving"]
    data = np.stack([b0 + 0.01, 0.3 * b0, 0.2 * b0, b0 - 0.01], axis=-1)
    bvals = np.array([0, 1000, 1000, 0])
    bvecs = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.0]])
    folder = tmp_path_factory.mktemp("series")
    path = folder / "dwi.nii.gz"
    nib.save(nib.Nifti1Image(data, pair["moving_affine"]), path)
    for name, values in (("bval", bvals[None]), ("bvec", bvecs.T)):
        np.savetxt(folder / f"dwi.{name}", values)
    files = [str(folder / f"dwi.{name}") for name in ("bval", "bvec")]
    return data, gradient_table(bvals, bvecs=bvecs), path, files


def test_dwi_to_template(pair, series):
    data, gtab, path, files = series
    template = nib.Nifti1Image(pair["static"], pair["static_affine"])
    options = {"pipeline": WHOLE, **SHORT}
    warped, mapping = register_dwi_to_template(
        data, gtab, dwi_affine=pair["moving_affine"], template=template, **options
    )
    assert isinstance(mapping, DiffeomorphicMap) and warped.shape == template.shape
    assert np.abs(warped - pair["static"]).mean() < 0.15 * pair["static"].mean()
    again, _ = register_dwi_to_template(path, files, template=template, **options)
    np.testing.assert_allclose(again, warped, atol=1e-4)
    b0, _ = register_dwi_to_template(
        pair["moving"],
        None,
        dwi_affine=pair["moving_affine"],
        template=template,
        **options,
    )
    np.testing.assert_allclose(b0, warped, atol=0.05)


def test_dwi_to_template_affinely(pair, series):
    data, gtab, _, _ = series
    affines = {
        "dwi_affine": pair["moving_affine"],
        "template": pair["static"],
        "template_affine": pair["static_affine"],
    }
    warped, matrix = register_dwi_to_template(data, gtab, reg_method="aff", **affines)
    assert matrix.shape == (4, 4) and warped.shape == pair["static"].shape
    assert phantom.misplacement(matrix, TRUTH) < 6  # its freedom of scale included


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reg_method": "syn"}, "reg_method"),
        ({"gtab": "bvals"}, "gtab must be"),
        ({"gtab": None}, "must be 3D"),
        ({"dwi": np.zeros((5, 6, 7, 3))}, "must be 4D"),
        ({"template_affine": None}, "template_affine is required"),
    ],
)
def test_unfit_series(pair, series, change, message):
    given = {
        "dwi": series[0],
        "gtab": series[1],
        "dwi_affine": pair["moving_affine"],
        "template": pair["static"],
        "template_affine": pair["static_affine"],
    } | change
    with pytest.raises(ValueError, match=message):
        register_dwi_to_template(given.pop("dwi"), given.pop("gtab"), **given)


# Masks on grids of their own


def reoriented(mask, affine):
    """A mask's image with its voxels stored from the other end of two axes."""
    flip = np.diag([-1.0, 1, -1, 1])
    flip[[0, 2], 3] = mask.shape[0] - 1, mask.shape[2] - 1
    return nib.Nifti1Image(mask[::-1, :, ::-1].astype(np.uint8), affine @ flip)


def half(image):
    """A mask of one side: that it is read from the wrong end shows."""
    return np.indices(image.shape)[0] < 0.55 * image.shape[0]


def registered(given, masks, call):
    """The map found with masks, as an array."""
    if call == "affine":
        options = {"pipeline": ["rigid"], "starting_affine": TRUTH}
        return deep_affine_registration(**given, **masks, **options)[1]
    near = TRUTH @ phantom.rigid(np.eye(3), [6.0, -4, 5])
    options = {"prealign": near, "level_iters": [4, 4], "model": None}
    return deep_registration(**given, **masks, **options)[1].backward


@pytest.mark.parametrize("call", ["affine", "deform"])
@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_masks_own_affine_counts(pair, tmp_path, role, call):
    """Stored in whatever order, a mask masks the same part of the world."""
    mask, affine = half(pair[role]), pair[f"{role}_affine"]
    name = f"{role}_mask"
    wanted = registered(pair, {name: mask}, call)
    assert not np.array_equal(wanted, registered(pair, {name: mask[::-1]}, call))
    stored = reoriented(mask, affine)
    path = tmp_path / "mask.nii.gz"
    nib.save(stored, path)
    wide = np.pad(mask, 3, mode="edge")
    shift = np.eye(4)
    shift[:3, 3] = -3
    for given in (
        stored,
        path,
        nib.Nifti1Image(mask.astype(np.int16), affine),
        nib.Nifti1Image(mask.astype(np.float32)[..., None], affine),
        nib.Nifti1Image(wide.astype(np.uint8), affine @ shift),
    ):
        assert np.array_equal(registered(pair, {name: given}, call), wanted)


def test_a_mask_of_finer_voxels(pair):
    """Each voxel of the image takes the nearest of the mask."""
    mask, affine = half(pair["static"]), pair["static_affine"]
    finer = np.repeat(np.repeat(mask, 2, 0), 2, 2).astype(np.uint8)
    step = np.diag([0.5, 1, 0.5, 1])
    step[[0, 2], 3] = -0.25
    # Midway between two voxels of the mask, which are alike.
    stored = nib.Nifti1Image(finer, affine @ step)
    found = registered(pair, {"static_mask": stored}, "deform")
    assert np.array_equal(found, registered(pair, {"static_mask": mask}, "deform"))


def test_a_mask_in_2d():
    affine = phantom.grid((40, 44), 2.0)
    image = phantom.image((40, 44), affine)
    pair = {"static": image, "moving": np.roll(image, 1, axis=1)}
    affines = {"static_affine": affine, "moving_affine": affine}
    mask, options = half(image), {"level_iters": [4], "model": None}
    _, wanted = deep_registration(**pair, **affines, static_mask=mask, **options)
    whole = np.eye(4)
    whole[np.ix_([0, 1, 3], [0, 1, 3])] = affine @ [[-1, 0, 39], [0, 1, 0], [0, 0, 1]]
    stored = nib.Nifti1Image(mask[::-1].astype(np.uint8), whole)
    for given in (stored, nib.Nifti1Image(stored.dataobj[..., None], whole)):
        _, found = deep_registration(**pair, **affines, static_mask=given, **options)
        assert np.array_equal(found.backward, wanted.backward)


@pytest.mark.parametrize("plane", [[0, 1], [0, 2], [1, 2]])
def test_a_mask_of_a_slice_of_any_orientation(plane):
    affine = phantom.grid((40, 44), 2.0)
    image, whole = phantom.image((40, 44), affine), np.zeros((4, 4))
    whole[np.ix_([*plane, 3], [0, 1, 3])] = affine
    whole[({0, 1, 2} - set(plane)).pop(), 2] = 2.0
    pair = {
        "static": nib.Nifti1Image(image, whole),
        "moving": nib.Nifti1Image(np.roll(image, 1, axis=1), whole),
    }
    mask, options = half(image), {"level_iters": [4], "model": None}
    _, wanted = deep_registration(**pair, static_mask=mask, **options)
    turned = whole @ np.array(
        [[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    stored = nib.Nifti1Image(mask[::-1, :, None].astype(np.uint8), turned)
    _, found = deep_registration(**pair, static_mask=stored, **options)
    assert np.array_equal(found.backward, wanted.backward)


def test_a_mask_on_the_grid_of_a_file_whose_affine_is_overruled(pair, tmp_path):
    """Its voxels are the image's, whatever both headers say of the world."""
    other = nib.Nifti1Image(pair["static"], np.diag([3.0, 3, 3, 1]))
    mask = half(pair["static"])
    stored = nib.Nifti1Image(mask.astype(np.uint8), other.affine)
    path = tmp_path / "static.nii.gz"
    nib.save(other, path)
    wanted = registered(pair, {"static_mask": mask}, "deform")
    for static in (other, path):
        given = pair | {"static": static}
        found = registered(given, {"static_mask": stored}, "deform")
        assert np.array_equal(found, wanted)


def test_a_mask_of_the_series(pair, series):
    data, gtab, _, _ = series
    mask = half(pair["moving"])
    options = {
        "dwi_affine": pair["moving_affine"],
        "template": nib.Nifti1Image(pair["static"], pair["static_affine"]),
        "pipeline": ["rigid"],
        "prealign": TRUTH,
    }
    _, wanted = register_dwi_to_template(data, gtab, moving_mask=mask, **options)
    stored = reoriented(mask, pair["moving_affine"])
    _, found = register_dwi_to_template(data, gtab, moving_mask=stored, **options)
    assert np.array_equal(found.prealign, wanted.prealign)


# Masked arrays and extreme values


@pytest.mark.parametrize("call", ["affine", "deform"])
@pytest.mark.parametrize("role", ["static", "moving"])
def test_masked_arrays_are_missing_data(pair, role, call, rng):
    """What is masked has no say, whatever numbers lie there."""
    image, mask = pair[role], half(pair[role])
    holed = pair | {role: np.where(mask, image, np.nan)}
    wanted = registered(holed, {}, call)
    junk = np.where(mask, image, 5 * rng.random(image.shape).astype(np.float32))
    masked = pair | {role: np.ma.MaskedArray(junk, ~mask)}
    assert np.array_equal(registered(masked, {}, call), wanted)
    assert not np.array_equal(registered(pair | {role: junk}, {}, call), wanted)
    # A mask beside it: both hold.
    side = np.indices(image.shape)[1] > 0.3 * image.shape[1]
    wanted = registered(pair, {f"{role}_mask": mask & side}, call)
    found = registered(masked, {f"{role}_mask": side}, call)
    both = registered(pair, {f"{role}_mask": np.ma.MaskedArray(side, ~mask)}, call)
    assert np.array_equal(both, wanted)
    scale = 0.2 if call == "affine" else 0.5
    assert np.abs(found - wanted).mean() < scale


def test_a_masked_array_is_warped_as_one_with_nan(pair):
    """Integers too; and the array itself stays as it is."""
    image = (1000 * pair["moving"]).astype(np.int16)
    hole = image > 900
    masked = np.ma.MaskedArray(image, hole)
    options = {"prealign": TRUTH, "level_iters": [2], "model": None}
    wanted = np.where(hole, np.nan, image)
    expected, _ = deep_registration(**pair | {"moving": wanted}, **options)
    found, _ = deep_registration(**pair | {"moving": masked}, **options)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(found, expected)
    assert masked.dtype == np.int16 and masked.mask.sum() == hole.sum()


@pytest.mark.parametrize("value", [1e6, 1e10, 1e60, -1e8])
@pytest.mark.parametrize("role", ["static", "moving"])
@pytest.mark.parametrize("call", ["affine", "deform"])
def test_extreme_voxels_change_little(pair, call, role, value):
    """As a ratio or T2* may have: the map is that of the image without them."""
    image = pair[role].astype(np.float64)
    image[7, 8, 9] = image[20, 25, 16] = value
    found = registered(pair | {role: image}, {}, call)
    wanted = registered(pair, {}, call)
    if call == "affine":
        assert phantom.misplacement(found, wanted) < 1
        return
    away = np.linalg.norm(found - wanted, axis=-1)
    assert away.mean() < 0.1 * np.linalg.norm(wanted, axis=-1).mean()


@pytest.mark.parametrize("role", ["static", "moving"])
def test_an_extreme_voxel_is_not_the_centre_of_mass(pair, role):
    image = pair[role].copy()
    image[1, 2, 3] = 1e6
    steps = {"pipeline": ["center_of_mass"]}
    _, wanted = deep_affine_registration(**pair, **steps)
    _, found = deep_affine_registration(**pair | {role: image}, **steps)
    assert np.abs(found - wanted).max() < 0.5


def test_two_files_of_one_slice_are_registered_in_2d():
    """With affine steps, too: in 3D nothing held the slice in its plane."""
    shape, matrix = (56, 60), phantom.grid((56, 60), 3.0)
    pose = phantom.rigid(
        np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]), [5.0, -4]
    )
    whole = np.eye(4)
    whole[np.ix_([0, 1, 3], [0, 1, 3])] = matrix
    static, moving = (phantom.image(shape, matrix, p) for p in (None, pose))
    steps = ["center_of_mass", "rigid", "deform"]
    flat, _ = deep_registration(
        moving=moving,
        static=static,
        moving_affine=matrix,
        static_affine=matrix,
        pipeline=steps,
    )
    files = (nib.Nifti1Image(x[..., None], whole) for x in (moving, static))
    moving, static = files
    warped, mapping = deep_registration(moving=moving, static=static, pipeline=steps)
    assert mapping.dim == 2 and warped.shape == (*shape, 1)
    np.testing.assert_array_equal(warped[..., 0], flat)
    solid = np.eye(4)
    solid[:2, 3] = 3.0, -2
    warped, mapping = deep_registration(moving=moving, static=static, prealign=solid)
    assert mapping.dim == 2 and warped.shape == (*shape, 1)
    np.testing.assert_allclose(np.linalg.inv(mapping.prealign)[:2, 2], [3.0, -2])
