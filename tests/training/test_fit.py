"""Training on one's own images: what is read, where it comes to lie, what it gives."""

from functools import wraps
import json

from image_files import OPTIONS, grid_of, likeness, picture, ring
from maps import affine
import nibabel as nib
import numpy as np
import pytest
import torch

from dipy_dl_reg import DeepRegistration, fit, load_network, make_network
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.pairing import open_training_images, read_pairs
from dipy_dl_reg.training.prealigns import find_prealigns


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
        (write(folder / "nan.nii", ones * np.nan), ValueError, "only NaN"),
        (write(folder / "inf.nii", infinite), ValueError, "infinite"),
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
        (ValueError, "labels must have a map for each", files, {"labels": maps[:-1]}),
        (ValueError, "together", files, {"labels": maps, "atlas": files[0]}),
        (ValueError, "with an atlas", files, {"atlas_labels": files[0]}),
        (ValueError, "atlas cannot be given", [files[:2]], {"atlas": files[0]}),
        (ValueError, "no labels", files, {"dice_weight": 1}),
        (ValueError, "whole numbers", files, {"labels": files}),
        (ValueError, "have affines", [files[0], np.eye(9)], {}),
        (ValueError, "the same shape|one shape", [np.eye(8), np.eye(9)], {}),
        (ValueError, "'affine' \\(for 3D", files, {"prealign": "affine"}),
        (ValueError, "each of 12", files, {"prealign": [np.eye(3)]}),
        (ValueError, "prealign\\[0\\]", files, {"prealign": [np.eye(4)] * 12}),
        (ValueError, "spacing must be", files, {"spacing": 0}),
        (ValueError, "below 1", files, {"validation": 1.0}),
        (ValueError, "validation_labels", files, {"validation": files, "labels": maps}),
        (ValueError, "must both be pairs", files, {"validation": [files[:2]]}),
        (FileNotFoundError, "validation", files, {"validation": tmp_path / "none/a"}),
        (FileExistsError, "there.npz", files, {"save": tmp_path / "there.npz"}),
        (TypeError, "no option 'stepz'", files, {"stepz": 1}),
        (ValueError, "patience requires", files[:1], {"patience": 2}),
        (ValueError, "metric must be", files[:1], {"metric": "best"}),
        (FileExistsError, "there.npz", files, {"checkpoint": tmp_path / "there.npz"}),
        (ValueError, "must not contain dim", files, {"network_arguments": {"dim": 3}}),
        (ValueError, "cannot be used", files, {"device": "abacus"}),
    ):
        with pytest.raises(kind, match=message):
            fit("unet", images, steps=1, **options)
    for network, message in (
        ("resnet", "must be one of"),
        (make_network("unet", 3), "3D images, but images are 2D"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(network, files, steps=1)
