"""Training on one's own images: what is read, where it comes to lie, what it gives."""

from functools import wraps
import json
from pathlib import Path
from typing import NamedTuple

from dipy.align.imaffine import AffineMap
from maps import affine
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from pairs import anatomy, centred, move, voxels
import pytest
from scipy.ndimage import gaussian_filter
import torch

from dipy_dl_reg import DeepRegistration, fit, load_network, make_network
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.initialization.network import sample_pair_on_grid
from dipy_dl_reg.training.lazy_image import LazyImage
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.pairing import open_training_images, read_pairs
from dipy_dl_reg.training.prealigns import find_prealigns
from dipy_dl_reg.training.subjects import open_subjects

CENTRE = np.array([11.0, -7.0, 5.0])
# All voxels 2 to 2.5 mm: nothing is smoothed on the way to 2 mm.
GRIDS = {
    "ras": ((22, 20, 21), np.diag([2.0, 2.0, 2.0])),
    "lps": ((20, 21, 19), np.diag([-2.2, -2.0, 2.1])),
    "turned": ((19, 20, 22), np.diag([2.1, 2.0, 2.2])[:, [2, 0, 1]]),
    "oblique": ((24, 23, 22), affine([2.0, -2.2, 2.1], (0.2, -0.15, 0.1))[:3, :3]),
}
QUANTILES = (0.001, 0.999)


def picture(name, prealign=None, *, textured=False):
    """A NIfTI image of the anatomy on one of the grids; the prealign moves it.

    With a texture mutual information knows its scale: on plateaus alone it prefers a
    wrong one by some percent, DIPY's too.
    """
    shape, linear = GRIDS[name]
    prealign = np.eye(4) if prealign is None else prealign
    grid = centred(linear, shape, move(prealign, CENTRE))
    world = move(np.linalg.inv(prealign) @ grid, voxels(shape))
    values = anatomy(world, CENTRE)
    if textured:
        values = values * (1 + 0.25 * np.prod(np.sin(world / [5.0, 6.0, 4.5]), -1))
    return nib.Nifti1Image(values.astype(np.float32), grid)


def scaled(image):
    """Quantiles .001 and .999 to 0 and 1."""
    low, high = np.nanquantile(image, QUANTILES)
    return np.nan_to_num((image - low) / (high - low), nan=0.0)


def grid_of(image, spacing):
    """An isotropic grid over an image, turned to RAS by nibabel."""
    image = nib.as_closest_canonical(image)
    linear, size = image.affine[:3, :3], np.array(image.header.get_zooms())
    shape = np.rint((np.array(image.shape) - 1) * size / spacing).astype(int) + 1
    middle = move(image.affine, (np.array(image.shape) - 1) / 2)
    return tuple(shape), centred(linear / size * spacing, shape, middle)


def resampled(image, shape, grid, prealign=None, *, nearest=False):
    """DIPY's resampling, which fades to 0 outside."""
    prealign = np.eye(4) if prealign is None else prealign
    mapping = AffineMap(
        prealign,
        domain_grid_shape=shape,
        domain_grid2world=grid,
        codomain_grid_shape=image.shape,
        codomain_grid2world=image.affine,
    )
    data = np.asarray(image.dataobj).astype(np.float64)
    return mapping.transform(data, interpolation="nearest" if nearest else "linear")


def read(images, **options):
    """Pairs of images, and those for validation."""
    return read_pairs(find_prealigns(open_training_images(images, **options)))


def inner(image):
    """Without the margin, where images end."""
    return image[(slice(4, -4),) * image.ndim]


# Where images come to lie ------------------------------------------------------------


def test_images_of_any_grid_come_onto_the_first():
    images = [picture(name) for name in GRIDS]
    pairs, _ = read(images, spacing=2)
    shape, grid = grid_of(images[0], 2)
    wanted = anatomy(move(grid, voxels(shape)), CENTRE)
    for image, brought in zip(images, pairs.images):
        assert brought.shape == (1, *shape)
        theirs = scaled(resampled(image, shape, grid))
        assert_allclose(inner(brought[0].numpy()), inner(theirs), atol=0.02)
        assert_allclose(inner(brought[0].numpy()), inner(scaled(wanted)), atol=0.05)
    assert_allclose(pairs.images[0][0], scaled(images[0].get_fdata()), atol=1e-6)


@pytest.mark.parametrize("name", ["lps", "turned"])
def test_reference_gives_the_field_of_view_and_the_finest_voxel(name):
    images = [picture("ras"), picture("oblique")]
    opened = open_training_images(images, reference=picture(name))
    assert opened.spacing == pytest.approx(2)
    shape, grid = grid_of(picture(name), 2)
    assert opened.grids() == [shape]
    pairs, _ = read_pairs(find_prealigns(opened))
    wanted = scaled(anatomy(move(grid, voxels(shape)), CENTRE))
    for brought in pairs.images:
        assert_allclose(inner(brought[0].numpy()), inner(wanted), atol=0.06)


def test_atlas_is_the_reference_and_matrices_lead_to_images():
    matrices = [affine([1.05, 1, 0.95], (0.2, 0, 0.1), [9.0, 4, -6])]
    matrices.append(affine([0.9, 1, 1.1], (0, 0.3, 0), [-30.0, 4, 12]))
    images = [picture("ras", matrices[0]), picture("lps", matrices[1])]
    pairs, _ = read(images, atlas=picture("oblique"), prealign=matrices)
    shape, grid = grid_of(picture("oblique"), 2)
    wanted = scaled(anatomy(move(grid, voxels(shape)), CENTRE))
    assert_allclose(inner(pairs.atlas[0][0].numpy()), inner(wanted), atol=0.06)
    for image, matrix, brought in zip(images, matrices, pairs.images):
        assert_allclose(inner(brought[0].numpy()), inner(wanted), atol=0.07)
        theirs = scaled(resampled(image, shape, grid, matrix))
        assert_allclose(inner(brought[0].numpy()), inner(theirs), atol=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_holding_out_moves_no_image(seed):
    """The first image is the reference, held out or not; matrices start from it."""
    shifts = [affine([1, 1, 1.0], (), [30.0 * i, -8.0 * i, 0]) for i in range(4)]
    images = [picture("ras", shift) for shift in shifts]
    opened = open_training_images(images, prealign=shifts, validation=0.5, seed=seed)
    pairs, held = read_pairs(find_prealigns(opened))
    wanted = scaled(images[0].get_fdata())
    for brought in [*pairs.images, *held.static, *held.moving]:
        assert_allclose(brought[0], wanted, atol=0.01)


def test_each_pair_lies_on_its_static_image():
    matrix = affine([1, 1, 1.0], (0.3, 0, 0), [5.0, 0, 3])
    images = [(picture("lps"), picture("ras", matrix))]
    images.append((picture("oblique"), picture("turned")))
    opened = open_training_images(images, prealign=[matrix, np.eye(4)])
    pairs, _ = read_pairs(find_prealigns(opened))
    for (static, _), example in zip(images, (pairs[0], pairs[1])):
        shape, grid = grid_of(static, 2)
        assert example.static.shape == example.moving.shape == (1, *shape)
        wanted = scaled(anatomy(move(grid, voxels(shape)), CENTRE))
        assert_allclose(inner(example.moving[0].numpy()), inner(wanted), atol=0.07)
    with pytest.raises(ValueError, match="batch_size above 1 needs .* reference"):
        fit("unet", images, steps=1, batch_size=2)
    together = open_training_images(
        images, prealign=[matrix, np.eye(4)], reference=picture("ras")
    )
    assert len(together.grids()) == 1


@pytest.mark.parametrize("spacing", [2, 4])
def test_network_meets_in_training_what_it_meets_later(spacing):
    """The same images as DeepRegistration gives a network, but for interpolation."""
    static, moving = picture("turned"), picture("oblique")
    opened = open_training_images([(static, moving)], spacing=spacing)
    example = read_pairs(find_prealigns(opened))[0][0]
    data = [image.get_fdata(dtype=np.float32) for image in (static, moving)]
    tensors = [torch.from_numpy(d)[None, None] for d in data]
    volumes = [opened.cases[0].static.image, opened.cases[0].subject.image]
    pair = Pair(*tensors, *(volume.grid for volume in volumes), np.eye(4))
    later = sample_pair_on_grid(pair, volumes[0].grid.to_standard(spacing))
    for ours, theirs in zip(example, later):
        assert ours.shape == theirs.shape[1:]
        ours, theirs = ours[0].numpy(), scaled(theirs[0, 0].numpy())
        assert_allclose(ours, theirs, atol=0.1)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.998


def test_affine_registration_goes_first():
    matrix = affine([1.05, 1, 0.95], (0.25, 0.1, 0), [12.0, -9, 5])
    images = [picture("ras"), picture("oblique", matrix)]
    plain, _ = read(images)
    pairs, _ = read(images, prealign="affine")
    fixed, before = pairs.images[0].numpy(), plain.images[1].numpy()
    assert_array_equal(fixed, plain.images[0].numpy())
    after = pairs.images[1].numpy()
    assert np.abs(after - fixed).mean() < 0.25 * np.abs(before - fixed).mean()


def test_affine_registration_to_an_atlas_on_a_reference():
    """Where nobody's world is another's: all come to lie on the reference."""
    shifts = [affine([1, 1, 1.0], (), t) for t in ([6.0, -5, 4], [-7.0, 4, 6])]
    atlas = picture("lps", shifts[0], textured=True)
    image = picture("oblique", shifts[1], textured=True)
    reference = picture("ras", textured=True)
    opened = open_training_images(
        [image], atlas=atlas, reference=reference, prealign="affine"
    )
    pairs, _ = read_pairs(find_prealigns(opened))
    wanted = scaled(reference.get_fdata())
    atlas, image = pairs.atlas[0][0].numpy(), pairs.images[0][0].numpy()
    apart = [np.abs(inner(a - b)).mean() for a, b in
             ((atlas, image), (atlas, wanted), (image, wanted))]  # fmt: skip
    assert apart[0] < 0.03 and max(apart) < 0.06  # 0.25 and more before


def test_affines_are_found_once(tmp_path, monkeypatch):
    """A training that goes on takes those of the first time, to the last bit."""
    images = [picture("ras"), picture("lps", affine([1, 1, 1.0], (), [5.0, 3, 0]))]
    options = {**OPTIONS, "batch_size": 1, "spacing": 4, "prealign": "affine"}
    options |= {"checkpoint": tmp_path / "c.npz", "resume": True}
    fit("dirnet", images, steps=1, **options)
    kept = np.array(json.loads((tmp_path / "c.prealign.json").read_text())["matrices"])
    assert_array_equal(kept[0], np.eye(4))
    assert_allclose(kept[1][:3, 3], [5, 3, 0], atol=1)

    def never(*arguments):
        raise AssertionError("registered again")

    monkeypatch.setattr("dipy_dl_reg.training.prealigns.find_prealign", never)
    assert fit("dirnet", images, steps=2, **options).history.steps == 2
    with pytest.raises(AssertionError, match="again"):
        fit("dirnet", images[::-1], steps=2, **options)


def test_affines_are_shared_out():
    """Each process finds its part; both have all in the end."""

    class Two(NamedTuple):
        rank: int
        size = 2
        others: list

        def total(self, found):
            self.others.append(found)
            return sum(self.others)

    images = [picture("ras"), picture("lps"), picture("turned")]
    parts = []
    for rank in (0, 1):
        opened = open_training_images(images, prealign="affine")
        opened = find_prealigns(opened, group=Two(rank, parts))
    assert [[bool(m.any()) for m in part] for part in parts] == [
        [True, False, True],
        [False, True, False],
    ]
    for case, matrix in zip(opened.cases, sum(parts)):
        assert_array_equal(case.prealign, matrix)


class Clock:
    """Seconds that pass only where a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("dipy_dl_reg.training.loop.clock.monotonic", clock)
    return clock


@pytest.mark.parametrize("where", ["affine", "reading", "both"])
def test_time_limit_counts_from_the_call(where, clock, monkeypatch, tmp_path):
    """Ten seconds an image: the limit is passed by one image at most, and said."""
    calls, values_of = [], LazyImage.values_on

    def find_prealign(*images):
        calls.append("affine")
        clock.now += 0 if where == "reading" else 10
        return np.eye(4)

    def values_on(image, *arguments):
        calls.append("reading")
        clock.now += 0 if where == "affine" else 10
        return values_of(image, *arguments)

    monkeypatch.setattr("dipy_dl_reg.training.prealigns.find_prealign", find_prealign)
    monkeypatch.setattr(LazyImage, "values_on", values_on)
    images = [picture("ras") for _ in range(6)]
    limit = {"affine": 25, "reading": 25, "both": 75}[where]
    with pytest.raises(TimeoutError, match="before all .*nothing is saved"):
        fit(
            "voxelmorph",
            images,
            steps=1,
            prealign="affine",
            time_limit=limit,
            save=tmp_path / "model.npz",
            **OPTIONS,
        )
    # One image is the reference, and needs no affine registration.
    assert (
        calls
        == {
            "affine": ["affine"] * 3,
            "reading": ["affine"] * 5 + ["reading"] * 3,
            "both": ["affine"] * 5 + ["reading"] * 3,
        }[where]
    )
    assert limit < clock.now < limit + 10 and not list(tmp_path.iterdir())


def test_time_limit_of_one_process_ends_all(clock, monkeypatch):
    """It may be over in one process and not in the other, which waits for it."""

    class Two(NamedTuple):
        rank: int
        size = 2

        def total(self, found):
            return found * np.nan  # the other process's share

    monkeypatch.setattr(
        "dipy_dl_reg.training.prealigns.find_prealign", lambda *a: np.eye(4)
    )
    opened = open_training_images([picture("ras"), picture("lps")], prealign="affine")
    with pytest.raises(TimeoutError, match="affine registrations"):
        find_prealigns(opened, group=Two(0))


def test_coarser_grids_are_smoothed_for(rng):
    noise = nib.Nifti1Image(rng.random((31, 31, 31)).astype(np.float32), np.eye(4))
    pairs, _ = read([noise, noise], spacing=3)
    smooth = gaussian_filter(noise.get_fdata(dtype=np.float32), 1.0)
    assert_allclose(pairs.images[0][0], scaled(smooth[::3, ::3, ::3]), atol=1e-4)
    # sizes in the image's own world: one twice as large is smoothed as much
    double = nib.Nifti1Image(noise.get_fdata(), np.diag([2, 2, 2, 1]))
    matrices = [np.eye(4), np.diag([2, 2, 2, 1])]
    pairs, _ = read([noise, double], spacing=3, prealign=matrices)
    assert_allclose(pairs.images[0], pairs.images[1], atol=1e-5)


def test_images_go_on_beyond_their_edge(rng):
    """As they do where a network is applied, instead of breaking off."""
    small, wide = rng.random((6, 6, 6)), rng.random((10, 12, 9))
    place = affine([1.0, 1, 1], (), [2, 3, 1])
    images = [nib.Nifti1Image(wide, np.eye(4)), nib.Nifti1Image(small, place)]
    pairs, _ = read(images)
    wanted = np.pad(small, [(2, 2), (3, 3), (1, 2)], mode="edge")
    assert_allclose(pairs.images[1][0], scaled(wanted), atol=1e-5)


def test_missing_data_becomes_0():
    image = picture("oblique")
    data = image.get_fdata()
    data[8:14, 8:14, 8:14] = np.nan
    holed = nib.Nifti1Image(data, image.affine)
    pairs, _ = read([picture("ras"), holed])
    brought = pairs.images[1][0].numpy()
    shape, grid = grid_of(picture("ras"), 2)
    inside = nib.Nifti1Image(np.isnan(data).astype(float), image.affine)
    hole = resampled(inside, shape, grid)
    assert (brought[hole > 0.75] == 0).all() and (hole > 0.75).sum() > 50
    whole = scaled(resampled(nib.Nifti1Image(data, image.affine), shape, grid))
    clear = (hole == 0) & np.isfinite(whole)
    assert_allclose(inner(brought)[inner(clear)], inner(whole)[inner(clear)], atol=0.08)


def test_labels_go_along_by_nearest_neighbour(rng):
    images = [picture("ras"), picture("oblique")]
    labels = [
        nib.Nifti1Image(rng.integers(0, 9, i.shape).astype(np.uint8), i.affine)
        for i in images
    ]
    # and a map on a grid of its own
    finer = centred(np.eye(3) * 1.13, (33, 34, 35), CENTRE)
    labels.append(
        nib.Nifti1Image(rng.integers(0, 9, (33, 34, 35)).astype(float), finer)
    )
    pairs, _ = read([*images, picture("lps")], labels=labels)
    shape, grid = grid_of(images[0], 2)
    for given, brought in zip(labels, pairs.labels):
        theirs = resampled(given, shape, grid, nearest=True)
        same = brought[0].numpy() == theirs
        assert not brought.is_floating_point()
        assert inner(same).mean() > 0.999


def test_arrays_are_taken_as_they_lie(rng):
    stack = rng.random((4, 9, 12))
    for images in (stack, list(stack)):
        opened = open_training_images(images)
        assert not opened.has_affine and opened.dim == 2
        pairs, _ = read_pairs(find_prealigns(opened))
        assert_allclose(pairs.images[3][0], scaled(stack[3]), atol=1e-6)
    pairs, _ = read(rng.random((3, 9, 12, 7)))
    assert pairs.images[0].shape == (1, 9, 12, 7)


def test_tensors_are_arrays(rng):
    stack = rng.random((3, 9, 12), dtype=np.float32)
    tensors = torch.from_numpy(stack).requires_grad_()
    labels = torch.from_numpy((stack > 0.5).astype(np.uint8))
    wanted, _ = read(stack, labels=labels.numpy())
    for images in (tensors, list(tensors)):
        pairs, _ = read(images, labels=labels)
        for name in ("images", "labels"):
            for ours, theirs in zip(getattr(pairs, name), getattr(wanted, name)):
                assert torch.equal(ours, theirs)
    pairs, _ = read([(tensors[0], tensors[1])], atlas=None)
    assert torch.equal(pairs.moving[0], wanted.images[1])


def test_slices_in_files(rng, tmp_path):
    """2D NIfTI has affines too: a finer slice of the plane comes onto the first."""
    x = np.linspace(0, np.pi, 21)
    slice_ = np.sin(x)[:, None] * np.sin(x[:17])
    finer = np.sin(x / 2)[:, None] * np.sin(x / 2)
    place = affine([2, 2, 2.0], (), [10.0, 20, 30])
    nib.save(nib.Nifti1Image(slice_, place), tmp_path / "a.nii")
    nib.save(
        nib.Nifti1Image(finer, place @ np.diag([0.5, 0.5, 1, 1])), tmp_path / "b.nii"
    )
    opened = open_training_images(tmp_path)
    assert opened.dim == 2 and opened.spacing == 2
    pairs, _ = read_pairs(find_prealigns(opened))
    assert pairs.images[1].shape == (1, 21, 17)
    assert_allclose(pairs.images[1][0, 1:10, 1:10], slice_[1:10, 1:10], atol=0.02)


# What training gives -----------------------------------------------------------------

PLACE = affine([1.5, 1.5, 1.5], (), [-20.0, 7, 3])


def ring(rng, size=32):
    """An ellipse with a darker middle, somewhere, somehow turned."""
    x = voxels((size, size)) * 2 / (size - 1) - 1 - rng.uniform(-0.15, 0.15, 2)
    turn, width = rng.uniform(-0.4, 0.4), rng.uniform(0.35, 0.5, 2)
    x = x @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    radius = np.linalg.norm(x / width, axis=-1)
    outer, middle = (1 / (1 + np.exp(12 * (radius - r))) for r in (1, 0.5))
    return (300 * (outer - 0.6 * middle)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Files of twelve rings, and their label maps in another folder."""
    generator = np.random.default_rng(3)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for i in range(12):
        image = ring(generator)
        labels = (image > 50).astype(np.uint8) + (image > 200)
        nib.save(nib.Nifti1Image(image, PLACE), tmp_path / f"images/sub-{i:02}.nii.gz")
        path = tmp_path / f"labels/sub-{i:02}_labels.nii"
        nib.save(nib.Nifti1Image(labels, PLACE), path)
    return tmp_path / "images"


def likeness(network, images):
    """Mean correlation with the next image before, and after registration."""
    before, after = [], []
    for static, moving in zip(images, images[1:]):
        registration = DeepRegistration(
            "SSD", model=network, level_iters=0, device="cpu"
        )
        mapping = registration.optimize(
            static,
            moving,
            static_grid2world=PLACE[np.ix_([0, 1, 3], [0, 1, 3])],
            moving_grid2world=PLACE[np.ix_([0, 1, 3], [0, 1, 3])],
        )
        before.append(np.corrcoef(static.ravel(), moving.ravel())[0, 1])
        warped = mapping.transform(moving)
        after.append(np.corrcoef(static.ravel(), warped.ravel())[0, 1])
    return np.mean(before), np.mean(after)


OPTIONS = {
    "batch_size": 4,
    "learning_rate": 2e-3,
    "metric": "SSD",
    "weight": 0.01,
    "validate_every": 40,
    "device": "cpu",
    "num_threads": 1,
    "progress": False,
}


def test_folder_trains_a_network_that_registers_others(folder, tmp_path):
    path = tmp_path / "model.npz"
    network = fit(
        "voxelmorph",
        folder,
        steps=120,
        validation=0.25,
        save=path,
        licence="CC0-1.0",
        **OPTIONS,
    )
    rows = network.history.rows
    assert network.history.steps == 120 and len(rows) == 3
    assert rows[-1]["total"] < 0.3 * rows[0]["total"]
    assert network.history.best == min(row["validation"] for row in rows)
    generator = np.random.default_rng(100)
    others = [ring(generator) for _ in range(6)]
    before, after = likeness(path, others)
    assert before < 0.85 and after > 0.93
    text = json.dumps(load_network(path).card)
    assert "sub-" not in text and str(tmp_path) not in text
    card = json.loads(text)
    assert card["licence"] == "CC0-1.0"
    assert card["preprocessing"]["spacing"] == 1.5 == load_network(path).spacing
    recipe = card["recipe"]
    assert (recipe["images"], recipe["validation"]) == (9, 3)
    assert recipe["steps"] == 120 and recipe["learning_rate"] == 2e-3
    assert {"dipy_dl_reg", "torch", "dipy", "python"} == recipe["versions"].keys()
    assert card["scores"] == {"validation loss": network.history.best}


def test_one_pair_is_enough(folder):
    pair = sorted(folder.iterdir())[:2]
    network = make_network("selfsup-fcn", 2, seed=1)
    again = fit(network, [pair], steps=60, **OPTIONS)
    assert again is network
    images = [nib.load(path).get_fdata(dtype=np.float32) for path in pair]
    before, after = likeness(network, images)
    assert after > before + 0.5 * (1 - before)


def test_atlas_and_labels(folder):
    files = sorted(folder.iterdir())
    maps = sorted(folder.with_name("labels").iterdir())
    network = fit(
        "voxelmorph",
        files[1:9],
        atlas=files[0],
        atlas_labels=maps[0],
        labels=folder.with_name("labels"),
        validation=files[9:],
        validation_labels=maps[9:],
        dice_weight=1.0,
        steps=80,
        **{**OPTIONS, "metric": None},
    )
    overlaps = [row["overlap"] for row in network.history.rows]
    assert overlaps[-1] < 0.8 * overlaps[0]
    assert network.history.rows[-1]["similarity"] == 0


def test_same_seed_gives_the_same_network(folder):
    def trained(seed):
        torch.randn(seed)  # nor do Torch's own random numbers matter
        network = fit("unet", folder, steps=2, seed=seed, validation=0.3, **OPTIONS)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    first = trained(1)
    assert torch.equal(first, trained(1))
    assert not torch.equal(first, trained(2))


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_images_are_not_trained_on(folder, seed):
    opened = open_training_images(folder, validation=0.25, seed=seed)
    named = [[c.subject.image.name for c in g] for g in (opened.cases, opened.held_out)]
    assert [len(names) for names in named] == [9, 3]
    assert len({*named[0], *named[1]}) == 12
    pairs, validation = read_pairs(find_prealigns(opened))
    assert len(pairs) == 72 and len(validation) == 3
    for example in (validation[i] for i in range(3)):
        assert not torch.equal(example.static, example.moving)
        for image in example[:2]:
            assert not any(torch.equal(image, other) for other in pairs.images)


def test_volumes_with_an_affine_registration(tmp_path):
    """All of it once in 3D: files, prealign, training, saving."""
    matrix = affine([1.02, 1, 0.97], (0.2, 0, 0.05), [8.0, -5, 4])
    for name, prealign in (("ras", None), ("lps", matrix), ("oblique", None)):
        nib.save(picture(name, prealign), tmp_path / f"{name}.nii.gz")
    network = fit(
        "unet",
        tmp_path,
        prealign="affine",
        spacing=3,
        network_arguments={"features": [4, 8]},
        save=tmp_path / "model.npz",
        **{**OPTIONS, "batch_size": 1, "steps": 2},
    )
    assert network.dim == 3 and network.spacing == 3
    assert load_network(tmp_path / "model.npz").card["recipe"]["prealign"] == "affine"


def test_files_that_lie_elsewhere_are_other_images(folder, tmp_path):
    options = {**OPTIONS, "checkpoint": tmp_path / "c.npz", "resume": True}
    files = sorted(folder.iterdir())
    fit("dirnet", files, steps=1, spacing=2, **options)
    with pytest.raises(ValueError, match="other images"):
        fit("dirnet", files[::-1], steps=2, spacing=2, **options)
    with pytest.raises(ValueError, match="spacing.* 2.0"):
        fit("dirnet", files, steps=2, spacing=2.1, **options)
    image = nib.load(files[0])
    data, place = image.get_fdata(), image.affine.copy()
    image.uncache()
    place[0, 3] += 1
    nib.save(nib.Nifti1Image(data.astype(np.float32), place), files[3])
    with pytest.raises(ValueError, match="other images"):
        fit("dirnet", files, steps=2, spacing=2, **options)


def test_training_goes_on_from_a_saved_network(folder, tmp_path):
    options = {**OPTIONS, "steps": 1}
    fit("voxelmorph", folder, save=tmp_path / "a.npz", licence="CC-BY-4.0", **options)
    network = load_network(tmp_path / "a.npz")
    fit(network, folder, save=tmp_path / "b.npz", **options)
    before = load_network(tmp_path / "b.npz").card["recipe"]["before"]
    assert before["licence"] == "CC-BY-4.0" and before["recipe"]["images"] == 12
    # what was before stays the same, however often the training is resumed
    options |= {"checkpoint": tmp_path / "c.npz", "resume": True}
    for steps in (1, 2, 3):
        fit(network, folder, **{**options, "steps": steps})
        card = network.card
        assert card == load_network(tmp_path / "c.npz").card
        assert card["recipe"]["before"]["recipe"]["before"]["licence"] == "CC-BY-4.0"
        assert "before" not in card["recipe"]["before"]["recipe"]["before"]["recipe"]
    with pytest.raises(ValueError, match="network's is 1.5 mm"):
        fit(network, folder, spacing=2, **options)


@pytest.mark.parametrize("arrays", [False, True])
def test_network_takes_on_the_voxel_size_of_files(arrays, tmp_path):
    """It must be used at the size that it was trained at."""
    volumes = [picture("ras"), picture("lps")]
    images = [v.get_fdata()[:19, :19, :19] for v in volumes] if arrays else volumes
    network = make_network("unet", 3, features=(2, 4))
    options = {**OPTIONS, "batch_size": 1, "steps": 1, "spacing": 4}
    fit(network, images, save=tmp_path / "n.npz", **options)
    wanted = None if arrays else 4.0
    assert network.spacing == load_network(tmp_path / "n.npz").spacing == wanted
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    if not arrays:
        data = [v.get_fdata() for v in volumes]
        grids = dict(zip(("static_grid2world", "moving_grid2world"),
                         (v.affine for v in volumes)))  # fmt: skip
        registration = DeepRegistration(model=network, level_iters=0, device="cpu")
        registration.optimize(*data, **grids)
        shape = tuple(network.card["recipe"]["shapes"][0])
        assert seen[0][2:] == shape == grid_of(volumes[0], 4)[0]


# Labels by name ----------------------------------------------------------------------


def test_labels_of_a_folder_go_by_name(tmp_path):
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir(), maps.mkdir()
    pictures = ["b.nii.gz", "a.nii", "sub-1_T1w.nii.gz"]
    names = ["b.nii", "a_seg.nii.gz", "sub-1_T1w_dseg.nii.gz"]
    volume = nib.Nifti1Image(np.arange(64).reshape(4, 4, 4).astype(np.uint8), np.eye(4))
    for folder, files in ((images, pictures), (maps, names)):
        for file in files:
            nib.save(volume, folder / file)
    (images / "notes.txt").touch()
    (images / "._b.nii.gz").touch()
    subjects = open_subjects(images, maps)
    found = [(Path(i.name).name, Path(m.name).name) for i, m in subjects]
    assert found == [
        ("a.nii", "a_seg.nii.gz"),
        ("b.nii.gz", "b.nii"),
        ("sub-1_T1w.nii.gz", "sub-1_T1w_dseg.nii.gz"),
    ]
    nib.save(volume, maps / "a.nii")
    with pytest.raises(ValueError, match="are both for .*a.nii"):
        open_subjects(images, maps)
    (maps / "a.nii").unlink(), (maps / "b.nii").unlink()
    with pytest.raises(FileNotFoundError, match="none for .*b.nii.gz"):
        open_subjects(images, maps)


# Errors ------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    """Whatever is wrong must be said before training begins."""

    @wraps(train_network)
    def begin(*arguments, **options):
        raise AssertionError("training began")

    monkeypatch.setattr("dipy_dl_reg.training.fit.train_network", begin)


def write(path, data, grid=None):
    nib.save(nib.Nifti1Image(data, np.eye(4) if grid is None else grid), path)
    return path


def unfit_images(folder, good):
    """Files that no network can be trained on, and what is said of each."""
    ones = np.ones((8, 8, 8), np.float32)
    infinite, far = ones.copy(), np.eye(4)
    infinite[2, 3, 4] = np.inf
    far[:3, 3] = 1000
    text, cut, empty = (folder / f"{name}.nii.gz" for name in ("text", "cut", "empty"))
    text.write_text("no image")
    empty.touch()
    cut.write_bytes(good.read_bytes()[:1500])
    return [
        (folder / "none.nii", FileNotFoundError, "no such file"),
        (text, ValueError, "is not an image file"),
        (empty, ValueError, "is empty"),
        (cut, ValueError, "is damaged"),
        (write(folder / "4d.nii", np.ones((4, 4, 4, 2))), ValueError, "2D or 3D image"),
        (write(folder / "2d.nii", np.eye(8)), ValueError, "same number of axes"),
        (write(folder / "nan.nii", ones * np.nan), ValueError, "nothing but NaN"),
        (write(folder / "inf.nii", infinite), ValueError, "infinities"),
        (write(folder / "one.nii", ones), ValueError, "constant"),
        (write(folder / "c.nii", ones + 1j), ValueError, "real numbers"),
        (write(folder / "far.nii", infinite, far), ValueError, "does not overlap"),
    ]


def test_unfit_images_are_named_before_training(tmp_path, no_training):
    good = tmp_path / "good.nii.gz"
    nib.save(picture("ras"), good)
    for path, kind, message in unfit_images(tmp_path, good):
        for images in ([good, path], [(good, path)]):
            with pytest.raises(kind, match=message) as error:
                fit("unet", images, steps=1)
            assert path.name in str(error.value)
        with pytest.raises(kind, match=message):
            fit("unet", [good], atlas=path, reference=good, steps=1)


def test_unfit_arguments_are_said_before_training(folder, tmp_path, no_training):
    files = sorted(folder.iterdir())
    maps = sorted(folder.with_name("labels").iterdir())
    (tmp_path / "none").mkdir()
    (tmp_path / "there.npz").touch()
    volume = nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4))
    for kind, message, images, options in (
        (FileNotFoundError, "no such folder", tmp_path / "elsewhere", {}),
        (ValueError, "no NIfTI file", tmp_path / "none", {}),
        (ValueError, "is one file", files[0], {}),
        (ValueError, "at least one image", [], {}),
        (ValueError, "got one Nifti1Image", volume, {}),
        (ValueError, "got one ndarray", np.eye(9), {}),
        (ValueError, "images must be 2 at least", files[:1], {}),
        (ValueError, "besides those held out", files[:3], {"validation": 0.5}),
        (ValueError, "all pairs", [files[0], (files[0], files[1])], {}),
        (ValueError, "as many as the images", files, {"labels": maps[:-1]}),
        (ValueError, "together", files, {"labels": maps, "atlas": files[0]}),
        (ValueError, "with an atlas", files, {"atlas_labels": files[0]}),
        (ValueError, "images are pairs", [files[:2]], {"atlas": files[0]}),
        (ValueError, "no labels", files, {"dice_weight": 1}),
        (ValueError, "whole numbers", files, {"labels": files}),
        (ValueError, "have affines", [files[0], np.eye(9)], {}),
        (ValueError, "of one shape", [np.eye(8), np.eye(9)], {}),
        (ValueError, "'affine' \\(for 3D", files, {"prealign": "affine"}),
        (ValueError, "each of 12", files, {"prealign": [np.eye(3)]}),
        (ValueError, "prealign\\[0\\]", files, {"prealign": [np.eye(4)] * 12}),
        (ValueError, "spacing must be", files, {"spacing": 0}),
        (ValueError, "below 1", files, {"validation": 1.0}),
        (ValueError, "validation_labels", files, {"validation": files, "labels": maps}),
        (ValueError, "pairs as images are", files, {"validation": [files[:2]]}),
        (FileNotFoundError, "validation", files, {"validation": tmp_path / "none/a"}),
        (FileExistsError, "there.npz", files, {"save": tmp_path / "there.npz"}),
        (TypeError, "no option 'stepz'", files, {"stepz": 1}),
        (ValueError, "patience needs", files[:1], {"patience": 2}),
        (ValueError, "metric must be", files[:1], {"metric": "best"}),
        (FileExistsError, "there.npz", files, {"checkpoint": tmp_path / "there.npz"}),
        (ValueError, "must not hold dim", files, {"network_arguments": {"dim": 3}}),
        (ValueError, "cannot be used", files, {"device": "abacus"}),
    ):
        with pytest.raises(kind, match=message):
            fit("unet", images, steps=1, **options)
    for network, message in (
        ("resnet", "must be one of"),
        (make_network("unet", 3), "3D images, these are 2D"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(network, files, steps=1)
