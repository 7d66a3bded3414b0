"""Invalid input gives a clear error that names the argument, before computation."""

import gzip
import logging
import re

import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg import (
    DeepRegistration,
    deep_affine_registration,
    deep_registration,
)

SHAPE = (12, 13, 11)
MATRICES = ("static_grid2world", "moving_grid2world", "prealign")


def picture(shape=SHAPE):
    return np.random.default_rng(5).uniform(size=shape)


def with_value(value, *, everywhere=False):
    image = picture()
    image[...] = np.where(everywhere | (np.indices(SHAPE).sum(0) == 9), value, image)
    return image


def with_entry(value, where=(0, 0)):
    matrix = np.eye(4)
    matrix[where] = value
    return matrix


def images(role):
    """Images that cannot be used; what the error has to say."""
    return {
        "infinity": ({role: with_value(np.inf)}, "infinite values"),
        "minus infinity": ({role: with_value(-np.inf)}, "infinite values"),
        "all NaN": ({role: with_value(np.nan, everywhere=True)}, "NaN"),
        "constant": ({role: np.full(SHAPE, 7.0)}, "constant"),
        "zero": ({role: np.zeros(SHAPE, dtype=np.uint8)}, "constant"),
        "constant but for NaN": (
            {role: np.where(picture() < 0.3, np.nan, 3.0)},
            "constant",
        ),
        "2D against 3D": ({role: picture(SHAPE[:2])}, "dimension"),
        "1D": ({role: picture(SHAPE[:1])}, r"2D or 3D.*\(12,\)"),
        "4D": ({role: picture((*SHAPE, 2))}, r"2D or 3D.*\(12, 13, 11, 2\)"),
        "a number": ({role: 3.0}, r"2D or 3D.*\(\)"),
        "too small": ({role: picture((3, 3, 3))}, r"small.*\(3, 3, 3\)"),
        "one voxel": ({role: picture((1, 1, 1))}, r"small.*\(1, 1, 1\)"),
        "no voxel": ({role: picture((12, 0, 11))}, r"small.*\(12, 0, 11\)"),
        "complex": ({role: picture() * 1j}, "real.*complex"),
        "text": ({role: np.full(SHAPE, "a")}, "real"),
        "objects": ({role: picture().astype(object)}, "real.*object"),
        "colours": (
            {role: np.zeros(SHAPE, dtype=[(c, "u1") for c in "RGB"])},
            "real numbers, not colours",
        ),
        "a colour picture": (
            {role: np.zeros((20, 24, 3), dtype=[(c, "u1") for c in "RGB"])},
            "colours",
        ),
        "None": ({role: None}, "2D or 3D|real|array"),
    }


def masks(role):
    mask = f"{role}_mask"
    image = picture()
    holed = np.where(np.indices(SHAPE)[0] < 6, np.nan, image)
    return {
        "empty mask": ({mask: np.zeros(SHAPE)}, "empty"),
        "mask of NaN": ({mask: np.full(SHAPE, np.nan)}, "empty"),
        "mask of what is missing": (
            {role: holed, mask: np.isnan(holed)},
            "empty",
        ),
        "mask of another shape": (
            {mask: np.ones((11, 13, 12))},
            r"shape.*\(12, 13, 11\).*\(11, 13, 12\)",
        ),
        "mask of another dimension": ({mask: np.ones(SHAPE[:2])}, "shape"),
        "mask where all is alike": (
            {
                role: np.where(np.indices(SHAPE)[0] < 6, 2.0, image),
                mask: holed != holed,
            },
            "constant",
        ),
    }


def matrices(name):
    return {
        "3 x 3": ({name: np.eye(3)}, r"shape.*\(4, 4\).*\(3, 3\)"),
        "3 x 4": ({name: np.eye(4)[:3]}, r"shape.*\(4, 4\).*\(3, 4\)"),
        "a vector": ({name: np.ones(4)}, r"shape.*\(4, 4\).*\(4,\)"),
        "a name": ({name: "affine.txt"}, "matrix"),
        "singular": ({name: np.diag([1.0, 0, 1, 1])}, "singular|invertible"),
        "two axes alike": ({name: np.eye(4)[:, [0, 0, 2, 3]]}, "singular|invertible"),
        "zero": ({name: np.zeros((4, 4))}, "row|singular|invertible"),
        "NaN": ({name: with_entry(np.nan)}, "finite"),
        "infinite": ({name: with_entry(np.inf, (0, 3))}, "finite"),
        "projective": ({name: with_entry(0.1, (3, 0))}, "row"),
    }


BAD = {
    f"{name}: {what}": (name, *case)
    for make, names in (
        (images, ("static", "moving")),
        (masks, ("static", "moving")),
        (matrices, MATRICES),
    )
    for name in names
    for what, case in make(name).items()
}


@pytest.fixture
def log(caplog):
    """DIPY's messages of all levels."""
    caplog.set_level(logging.DEBUG, logger="dipy")
    return lambda: [record.getMessage() for record in caplog.records]


def never(registration, stage):
    raise AssertionError(f"work began: stage {stage}")


@pytest.mark.parametrize("case", BAD)
def test_optimize(case):
    name, changes, wanted = BAD[case]
    given = {"static": picture(), "moving": picture() ** 2, **changes}
    registration = DeepRegistration("SSD", level_iters=[2], callback=never)
    with pytest.raises(ValueError) as caught:
        registration.optimize(given.pop("static"), given.pop("moving"), **given)
    message = str(caught.value)
    assert name in message
    assert re.search(wanted, message)
    assert "\n" not in message and len(message) < 250
    with pytest.raises(ValueError, match="optimize"):
        registration.get_map()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(
    "where", ["static_grid2world", "moving_grid2world", "prealign"]
)
def test_images_that_do_not_overlap(dim, where):
    shape = SHAPE[:dim]
    far = np.eye(dim + 1)
    far[0, dim] = 100
    registration = DeepRegistration("SSD", level_iters=[2], callback=never)
    with pytest.raises(ValueError, match="static and moving do not overlap"):
        registration.optimize(picture(shape), picture(shape) ** 2, **{where: far})


@pytest.mark.parametrize("metric", ["SSD", "CC", "NCC", "MI"])
def test_masks_that_do_not_overlap(metric):
    """Each mask holds voxels, but none that lies in the other."""
    x = np.indices(SHAPE)[0]
    masks = {"static_mask": x < 3, "moving_mask": x > 8}
    registration = DeepRegistration(metric, level_iters=[2], callback=never)
    with pytest.raises(ValueError, match="mask.*overlap|overlap.*mask"):
        registration.optimize(picture(), picture() ** 2, **masks)


@pytest.mark.parametrize("matrix", [np.eye(4), np.eye(2)])
def test_matrices_of_the_wrong_dimension_in_2d(matrix):
    image = picture(SHAPE[:2])
    registration = DeepRegistration(level_iters=[2], callback=never)
    with pytest.raises(ValueError, match=r"prealign.*\(3, 3\)"):
        registration.optimize(image, image**2, prealign=matrix)


@pytest.mark.parametrize("count", [0, 1.5, "all"])
def test_threads(count):
    registration = DeepRegistration(level_iters=[2], callback=never)
    with pytest.raises(ValueError, match="num_threads"):
        registration.optimize(picture(), picture() ** 2, num_threads=count)


def test_a_failed_run_leaves_nothing_of_the_last_pair():
    registration = DeepRegistration("SSD", level_iters=[2])
    mapping = registration.optimize(picture(), picture() ** 2)
    assert registration.get_map() is mapping and registration.full_energy_profile
    with pytest.raises(ValueError, match="moving is constant"):
        registration.optimize(picture(), np.ones(SHAPE))
    for ask in (registration.get_map, registration.get_intermediate_maps):
        with pytest.raises(ValueError, match="optimize"):
            ask()
    results = ("quality", "static_to_moving", "network_used", "landmark_distances")
    assert not any(hasattr(registration, name) for name in results)
    assert registration.full_energy_profile == registration.energy_list == []
    again = registration.optimize(picture(), picture() ** 2)
    assert np.array_equal(again.forward, mapping.forward)


@pytest.mark.parametrize("colours", [3, 4])
def test_pictures_in_colour(colours, log):
    """Bytes are an error; other numbers may be a thin slab, and that is said."""
    image = (255 * picture((24, 26, colours))).astype(np.uint8)
    registration = DeepRegistration("SSD", level_iters=[2], model=None)
    with pytest.raises(ValueError, match=rf"24, 26, {colours}\).*colour images"):
        registration.optimize(image, image[::-1])
    assert not [m for m in log() if "colour" in m]
    slab = image.astype(np.float32)
    assert registration.optimize(slab, slab[::-1]).dim == 3
    assert len([m for m in log() if "registered as volumes of few slices" in m]) == 1


def test_few_slices_of_bytes_beside_a_volume(log):
    """A slab and a volume, or a small stack: no picture in colour."""
    volume = (255 * picture((24, 26, 20))).astype(np.uint8)
    registration = DeepRegistration("SSD", level_iters=[2], model=None)
    for static, moving in (
        (volume[..., :3], volume),
        (volume[:9, :8, :3], volume[1:10, :8, :3]),
    ):
        assert registration.optimize(static, moving).dim == 3
    assert not [m for m in log() if "colour" in m]


# Files


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.nii.gz"
    nib.save(nib.Nifti1Image(picture().astype(np.float32), np.eye(4)), path)
    return path


def missing(path, good):
    pass


def empty(path, good):
    path.touch()


def text(path, good):
    path.write_text("subject\tage\nA\t30\n")


def not_gzip(path, good):
    path.write_bytes(b"not compressed at all" * 20)


def gzipped_text(path, good):
    path.write_bytes(gzip.compress(b"hello" * 200))


def cut_off(path, good):
    path.write_bytes(good.read_bytes()[:2000])


def folder(path, good):
    path.mkdir()


FILES = {
    missing: (FileNotFoundError, "no such file"),
    empty: (ValueError, "empty"),
    text: (ValueError, "not an image"),
    not_gzip: (ValueError, "not an image"),
    gzipped_text: (ValueError, "not an image"),
    cut_off: (ValueError, "damaged"),
    folder: (ValueError, "not a file"),
}


@pytest.mark.parametrize("role", ["static", "moving", "static_mask", "moving_mask"])
@pytest.mark.parametrize("spoil", FILES, ids=lambda f: f.__name__)
def test_files(tmp_path, good, spoil, role):
    path = tmp_path / "bad.nii.gz"
    spoil(path, good)
    kind, wanted = FILES[spoil]
    given = {"static": good, "moving": good, role: path}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind, match=wanted) as caught:
        deep_registration(
            given.pop("moving"),
            given.pop("static"),
            level_iters=[2],
            callback=never,
            **given,
        )
    assert str(caught.value).startswith(f"{role}:")
    assert path.name in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_series_in_a_file(tmp_path, good, role):
    path = tmp_path / "series.nii.gz"
    image = picture((*SHAPE, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)
    given = {"static": good, "moving": good, role: path}
    with pytest.raises(ValueError, match=rf"{role}.*2D or 3D.*11, 2\)"):
        deep_registration(given["moving"], given["static"], callback=never)


@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_file_with_a_singular_affine(tmp_path, good, role):
    path = tmp_path / "flat.nii"
    image = nib.Nifti1Image(picture().astype(np.float32), None)
    image.header.set_sform(np.diag([1, 0, 1, 1]), 1)
    image.header["qform_code"] = 0
    nib.save(image, path)
    given = {"static": good, "moving": good, role: path}
    with pytest.raises(ValueError, match=rf"{role}.*(singular|invertible)"):
        deep_registration(given["moving"], given["static"], callback=never)


def test_an_option_that_does_not_exist(good):
    with pytest.raises(ValueError, match="levels is not an option of metric 'CC'"):
        deep_registration(good, good, levels=3)


@pytest.mark.parametrize("role", ["static", "moving"])
def test_one_image_without_an_affine(good, role):
    """Where an array lies in a file's world nobody knows; of two arrays, both agree."""
    given = {"static": good, "moving": good, role: picture()}
    with pytest.raises(ValueError, match=f"{role}_affine is required"):
        deep_registration(**given, level_iters=[2], callback=never)
    _, mapping = deep_registration(
        **given, **{f"{role}_affine": np.eye(4)}, level_iters=[2]
    )
    assert np.array_equal(mapping.domain_grid2world, np.eye(4))
    arrays = {"static": picture(), "moving": picture() ** 2}
    other = {"static": "moving", "moving": "static"}[role]
    with pytest.raises(ValueError, match=f"{role}_affine is required"):
        deep_registration(**arrays, **{f"{other}_affine": np.eye(4)}, callback=never)
    _, mapping = deep_registration(**arrays, level_iters=[2])
    assert mapping.domain_grid2world is None and mapping.codomain_grid2world is None


@pytest.mark.parametrize("call", [deep_registration, deep_affine_registration])
@pytest.mark.parametrize("role", ["static", "moving"])
def test_a_mask_that_lies_elsewhere(good, call, role):
    far = np.eye(4)
    far[:3, 3] = 500
    mask = nib.Nifti1Image(np.ones(SHAPE, np.uint8), far)
    with pytest.raises(ValueError, match=f"{role}_mask does not cover the image"):
        call(moving=good, static=good, **{f"{role}_mask": mask})
    singular = nib.MGHImage(np.ones(SHAPE, np.uint8), np.eye(4))
    singular._affine = np.diag([1.0, 0, 1, 1])
    with pytest.raises(ValueError, match=f"{role}_mask: its affine must be invertible"):
        call(moving=good, static=good, **{f"{role}_mask": singular})
