"""Templates of images that are deformations of one known object."""

import json
import shutil

from dipy.align.metrics import CCMetric as DIPYMetric
import nibabel as nib
import numpy as np
import pytest
from template_images import (
    DIRECTIONS,
    displacement,
    grid2world,
    image,
    points,
    subjects,
    truth,
)

from dipy_dl_reg import build_template
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise import template_jobs, template_stages
from dipy_dl_reg.groupwise.template_average import average_images, sharpen
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_subjects import read_subject

#: Fast registrations; rigid, because all images have the same pose and size.
OPTIONS = {
    "transform": "rigid",
    "iterations": 2,
    "affine_iterations": 1,
    "level_iters": [40, 20],
    "metric": "CC",
    "sharpening": 0,
    "device": "cpu",
}
NAMES = ["a", "b", "c", "d"]
#: For tests that compare files byte by byte.
FEW = OPTIONS | {"iterations": 1, "affine_iterations": 0, "level_iters": [20, 10]}
VISITS = ["v1", "v2"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    return build_template(subjects(), folder, names=NAMES, **OPTIONS), folder


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """A template of two visits."""
    folder = tmp_path_factory.mktemp("visits")
    return build_template(subjects()[:2], folder, names=VISITS, **FEW), folder


def world(template):
    """World coordinates of the template's voxels."""
    voxels = np.moveaxis(np.indices(template.grid.shape), 0, -1)
    affine = template.grid.affine
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_recovers_the_object(built):
    """The template is the object itself, nearer to it than each of the subjects is."""
    template, _ = built
    wanted = truth(world(template))
    found = correlation(template.values[..., 0], wanted)
    own = truth(
        np.moveaxis(np.indices(image((0, 0, 0)).shape), 0, -1) * 3.0
        + grid2world()[:3, 3]
    )
    each = [correlation(s.get_fdata(), own) for s in subjects()]
    assert found > 0.995
    assert 1 - found < 0.25 * (1 - max(each))


def test_maps_are_the_known_fields(built):
    """Each map leads from a point of the object to where the subject has it."""
    template, _ = built
    places = world(template).reshape(-1, 3)
    inside = truth(places) > 0.5
    for name, direction in zip(NAMES, DIRECTIONS):
        known = displacement(places, direction)
        clear = inside & (np.linalg.norm(known, axis=-1) > 1.5)
        mapped = template.load_mapping(name).transform_points(places[clear])
        error = np.linalg.norm(mapped - places[clear] - known[clear], axis=-1)
        assert error.mean() < 0.4 * np.linalg.norm(known[clear], axis=-1).mean()


def test_mean_displacement_vanishes(built):
    template, _ = built
    fields = [template.load_mapping(name).backward for name in NAMES]
    inside = template.values[..., 0] > 0.2
    mean = np.linalg.norm(np.mean(fields, axis=0)[inside], axis=-1) / 3.0
    assert mean.mean() < 0.02
    assert mean.max() < 0.1
    last = template.history[-1]
    np.testing.assert_allclose(last.mean_displacement, mean.mean(), atol=0.005)


def test_affines_have_no_mean(built):
    from scipy.linalg import logm

    template, _ = built
    logarithms = [logm(affine).real for affine in template.affines]
    np.testing.assert_allclose(np.mean(logarithms, axis=0), 0, atol=1e-7)


def test_subjects_become_similar(built):
    template, _ = built
    first, *_, last = template.history
    assert last.spread < 0.7 * first.spread
    assert last.sharpness > first.sharpness


def test_sharpness_and_sharpening():
    """Edges that do not lie at one place give a blurred average."""
    edges = (
        np.arange(24)[None, :, None, None] > np.array([11, 11, 14])[:, None, None, None]
    )
    edges = np.repeat(edges, 8, axis=2).astype(np.float32)
    grid = Grid((24, 8), np.eye(3))
    same = average_images(edges[[0, 0, 1]], grid)
    apart = average_images(edges, grid)
    assert same.spread == 0 < apart.spread
    assert apart.sharpness < same.sharpness
    np.testing.assert_allclose(apart.values[13, :, 0], 2 / 3, rtol=1e-6)
    assert average_images(edges, grid, average="median").values[13, 0, 0] == 1
    sharpened = sharpen(apart.values[..., 0], 0.5)
    steps = [
        np.abs(np.diff(each[:, 4])).max() for each in (sharpened, apart.values[..., 0])
    ]
    assert steps[0] > steps[1]


def test_warped_subjects_average_to_the_template(built):
    """The template is the mean of the subjects through the maps that are returned."""
    template, _ = built
    warped = []
    for name, subject in zip(NAMES, subjects()):
        values = subject.get_fdata(dtype=np.float32)
        warped.append(template.load_mapping(name).transform(values))
    found, wanted = template.values[..., 0], np.mean(warped, axis=0)
    inside = found > 0.2
    scale = np.median(wanted[inside] / found[inside])
    assert np.abs(wanted / scale - found)[inside].max() < 0.02


def assert_same_files(folder, other):
    for name in ("template.nii.gz", "v1_mapping.npz", "v2_affine.txt"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_scaling_of_intensities(rng):
    """Background 0 and foreground 1, whatever the scanner's scale, offset and noise."""
    found, noise = [], rng.normal(0, 2, image((0, 0, 0)).shape)
    for scale, offset in ((1.0, 0.0), (40.0, 0.0), (5.0, -300.0)):
        data = scale * (image((0, 0, 0)).get_fdata() + noise) + offset
        found.append(read_subject(nib.Nifti1Image(data, grid2world()), None, "s"))
        assert found[-1].complete
        inside = truth(points()) > 0.3
        assert (found[-1].foreground == inside).mean() > 0.95
    for subject in found[1:]:
        np.testing.assert_allclose(subject.values, found[0].values, atol=0.01)
    assert abs(np.median(found[0].values[~inside])) < 0.02
    assert abs(np.median(found[0].values[inside]) - 1) < 0.1


def test_order_makes_no_difference(visits, tmp_path):
    images = subjects()[1::-1]
    other = build_template(images, tmp_path, names=VISITS[::-1], **FEW)
    assert other.names == VISITS[::-1]
    assert_same_files(tmp_path, visits[1])


def test_two_visits_are_symmetric(visits):
    """The halfway space of two visits: their maps are mirror images of each other."""
    template, _ = visits
    first, second = (template.load_mapping(n).backward for n in VISITS)
    np.testing.assert_allclose(first, -second, atol=0.05 * 3 * 2)
    assert np.abs(first).max() > 1
    product = template.affines[0] @ template.affines[1]
    np.testing.assert_allclose(product, np.eye(4), atol=1e-6)


@pytest.mark.parametrize(
    "module, function, again",
    [
        (template_jobs, "find_prealign", 2),
        (template_jobs, "make_registration", 1),
        (template_stages, "average_images", 0),
    ],
)
def test_goes_on_after_an_interruption(
    visits, tmp_path, monkeypatch, module, function, again
):
    """What is done is not done again, and the result is the same, byte by byte."""
    calls, register = [], template_jobs.make_registration
    original = getattr(module, function)

    def stop(*given, **options):
        calls.append(1)
        if len(calls) == (1 if function == "find_prealign" else 2):
            raise KeyboardInterrupt
        return original(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, stop)
        with pytest.raises(KeyboardInterrupt):
            build_template(subjects()[:2], tmp_path, names=VISITS, **FEW)
    assert not (tmp_path / "template.nii.gz").exists()
    done = []
    monkeypatch.setattr(
        template_jobs,
        "make_registration",
        lambda *given, **options: done.append(1) or register(*given, **options),
    )
    build_template(subjects()[:2], tmp_path, names=VISITS, **FEW)
    assert len(done) == again
    assert_same_files(tmp_path, visits[1])
    assert not (tmp_path / ".template_work").exists()


def test_provenance(built):
    _, folder = built
    content = json.loads((folder / "template.json").read_text())
    assert content["Options"]["transform"] == "rigid"
    assert set(content["SubjectDigests"]) == set(NAMES)
    assert len(content["Iterations"]) == 3


def test_several_channels_and_masks(tmp_path):
    """Each channel has its own template; what a mask excludes does not count."""
    images = [image(direction) for direction in DIRECTIONS[:2]]
    pairs = [[i, nib.Nifti1Image(100 - i.get_fdata() / 2, i.affine)] for i in images]
    lesion = images[0].get_fdata().copy()
    lesion[10:13, 11:14, 9:12] = 900
    pairs[0][0] = nib.Nifti1Image(lesion, images[0].affine)
    mask = nib.Nifti1Image((lesion < 900).astype(np.uint8), images[0].affine)
    template = build_template(
        pairs, tmp_path, names=["a", "b"], masks=[mask, None], **FEW
    )
    assert template.values.shape[-1] == 2
    assert (tmp_path / "template_channel-2.nii.gz").is_file()
    assert template.values[..., 0].max() < 4
    first, second = np.moveaxis(template.values, -1, 0)
    inside = first > 0.5
    assert np.corrcoef(first[inside], second[inside])[0, 1] < -0.8


def test_slices(tmp_path):
    """2D images give a 2D template; a subject may have the template's name."""
    images = [
        nib.Nifti1Image(np.asarray(i.dataobj)[:, :, 10], np.diag([3.0, 3, 3, 1]))
        for i in subjects()[:2]
    ]
    names = ["template", "other"]
    template = build_template(images, tmp_path, names=names, **FEW)
    assert template.grid.dim == 2
    assert nib.load(tmp_path / "template.nii.gz").shape == template.grid.shape


def two():
    return subjects()[:2]


@pytest.mark.parametrize(
    "images, options, message",
    [
        (lambda: two()[:1], {}, "at least 2"),
        (two, {"names": ["a", "a"]}, "name 'a'"),
        (two, {"names": ["a"]}, "one entry for each"),
        (two, {"names": ["a", "../b"]}, "parts of file names"),
        (two, {"masks": [None]}, "masks must have one entry"),
        (lambda: [two(), two()[0]], {}, "numbers of axes and channels"),
        (lambda: [two()[0], np.ones((8, 8, 8))], {}, "must be a file"),
        (two, {"average": "mode"}, "average must be"),
        (two, {"transform": "shear"}, "transform must be"),
        (two, {"iterations": -1}, "iterations must be"),
        (two, {"voxel_size": 0}, "voxel_size must be"),
        (two, {"engine": "threads"}, "engine must be"),
    ],
)
def test_bad_input(tmp_path, images, options, message):
    with pytest.raises(ValueError, match=message):
        build_template(images(), tmp_path / "out", **OPTIONS | options)
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_other_state_and_existing_results(built, tmp_path):
    _, folder = built
    with pytest.raises(FileExistsError, match="overwrite"):
        build_template(subjects(), folder, names=NAMES, **OPTIONS)
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        path.unlink()
    (tmp_path / "copy" / ".template_work").mkdir()
    settings = tmp_path / "copy" / ".template_work" / "settings.json"
    settings.write_text(json.dumps({"subjects": {}, "options": {}}))
    with pytest.raises(ValueError, match="unfinished computation of other images"):
        build_template(subjects(), tmp_path / "copy", names=NAMES, **OPTIONS)


def test_files_of_the_user_are_kept(tmp_path):
    """Neither a folder nor an image that the user has there is lost."""
    (tmp_path / "work").mkdir()
    (tmp_path / "template.nii.gz").write_text("mine")
    with pytest.raises(FileExistsError, match="template.nii.gz"):
        build_template(two(), tmp_path, names=VISITS, **FEW)
    (tmp_path / "template.nii.gz").unlink()
    (tmp_path / ".template_work").mkdir()
    (tmp_path / ".template_work" / "mine").touch()
    with pytest.raises(ValueError, match="is no state"):
        build_template(two(), tmp_path, names=VISITS, **FEW)
    assert (tmp_path / "work").is_dir()


def test_options_have_an_identity():
    """A metric of DIPY is described without its address in memory."""
    first, second = (TemplateOptions(metric=DIPYMetric(3, radius=r)) for r in (2, 2))
    assert first.describe() == second.describe()
    assert first.describe() != TemplateOptions(metric=DIPYMetric(3)).describe()
