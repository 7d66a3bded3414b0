"""The command dipy_train_deep: what it writes, and that it stops where it should."""

import csv
from functools import wraps
import inspect
from pathlib import Path
import sys
import warnings

from dipy.workflows.base import IntrospectiveArgumentParser
from maps import affine, blob
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
import torch

from dipy_dl_reg import load_mapping, load_network
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.loop.trainer import Training
from dipy_dl_reg.workflows.align import align_deep
from dipy_dl_reg.workflows.exit_codes import CommandExit
from dipy_dl_reg.workflows.train import TrainDeepFlow, train_deep

GRID = affine([3.0, -3, 3], (0.1,), [20.0, -4, 5])
SHAPE = (14, 12, 13)
QUICK = ["--device", "cpu", "--num_threads", 1]


@pytest.fixture
def folder(tmp_path):
    """Six blobs, their label maps, and one image more."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    generator = np.random.default_rng(5)
    middle = (GRID @ [*(np.array(SHAPE) - 1) / 2, 1])[:3]
    for i in range(6):
        centre = middle + generator.uniform(-3, 3, 3)
        image = blob(SHAPE, GRID, centre, generator.uniform(7, 9))
        nib.save(nib.Nifti1Image(image, GRID), tmp_path / f"images/s{i}.nii.gz")
        labels = (image > 0.5).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, GRID), tmp_path / f"labels/s{i}.nii.gz")
    return tmp_path / "images"


@pytest.fixture
def command(monkeypatch):
    """Run a command's entry point in this process."""

    def run(entry, *arguments):
        monkeypatch.setattr(sys, "argv", [entry.__name__, *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        entry()

    return run


@pytest.fixture
def calls(monkeypatch):
    """What `fit` is called with, instead of training."""
    made = []
    monkeypatch.setattr(
        "dipy_dl_reg.training.fit.fit",
        lambda *args, **options: made.append((args, options)),
    )
    return made


def fails(command, *arguments):
    """Run a command that must fail; what it says."""
    with pytest.raises(CommandExit) as end:
        command(*arguments)
    assert end.value.code in (1, 2)
    assert "\n" not in end.value.text
    assert end.value.text.startswith(f"{arguments[0].__name__}: error: ")
    return end.value.text


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


def test_folder_becomes_a_model_that_aligns(folder, tmp_path, command):
    out = tmp_path / "new" / "folder"
    log = tmp_path / "log.csv"
    options = ["--steps", 30, "--learning_rate", 0.002, "--metric", "ssd"]
    options += ["--validation", 0.4, "--batch_size", 2, "--weight", 0.01]
    options += ["--log", log, "--licence", "CC0-1.0", "--out_dir", out]
    command(train_deep, folder, *options, *QUICK)
    assert names(out) == {"model.npz"}
    network = load_network(out / "model.npz")
    assert network.name == "voxelmorph" and network.dim == 3
    assert network.spacing == pytest.approx(3)
    recipe = network.card["recipe"]
    assert network.card["licence"] == "CC0-1.0"
    assert (recipe["images"], recipe["validation"], recipe["steps"]) == (4, 2, 30)
    assert recipe["metric"] == "SSD" and recipe["batch_size"] == 2
    with open(log) as stream:
        (row,) = csv.DictReader(stream)
    assert row["step"] == "30" and float(row["validation"]) > 0
    images = sorted(folder.iterdir())[:2]
    aligned = ["--model", out / "model.npz", "--level_iters", 0, "--metric", "ssd"]
    command(align_deep, *images, *aligned, "--out_dir", out, *QUICK)
    mapping = load_mapping(out / "mapping.npz")
    assert np.abs(mapping.backward).max() > 0.1, "the network moved nothing"
    static, moving, warped = (
        nib.load(p).get_fdata() for p in (*images, out / "warped_moved.nii.gz")
    )
    after, before = (((static - x) ** 2).mean() for x in (warped, moving))
    assert after < 0.9 * before


def test_options_reach_fit(folder, calls, command, tmp_path):
    files = sorted(folder.iterdir())
    command(train_deep, *files, *QUICK, "--out_dir", tmp_path)
    (((network, images), options),) = calls
    assert network == "voxelmorph" and images == files
    assert options["steps"] == 10000 and options["metric"] == "NCC"
    assert options["dice_weight"] == 0 and options["prealign"] is None
    assert "weight" not in options and "augment" not in options
    assert options["save"] == tmp_path / "model.npz" and not options["overwrite"]
    assert options["network_arguments"] is options["schedule"] is None
    assert options["checkpoint_every"] == 500
    given = ["--network", "dirnet", "--labels", folder.with_name("labels")]
    given += ["--atlas", files[0], "--atlas_labels", files[1], "--reference", files[2]]
    given += ["--affine", "--spacing", 2.5, "--steps", 7, "--regularizer", "None"]
    given += ["--metric", "None", "--patience", 3, "--checkpoint", "c.npz", "--resume"]
    given += ["--validation", *files[4:], "--validation_labels", files[4], files[5]]
    given += ["--time_limit", 60, "--log", "runs", "--seed", 4, "--augment"]
    given += ["--schedule", "cosine", "--checkpoint_every", 20, "--output", "velocity"]
    given += ["--network_arguments", "grid_spacing=8", "bounded=true", "features=8,16"]
    command(train_deep, folder / "s[0-3].nii.gz", *given, "--out_dir", tmp_path)
    (network, images), options = calls[-1]
    assert network == "dirnet" and images == files[:4]
    assert options["labels"] == folder.with_name("labels")
    assert options["validation"] == options["validation_labels"] == files[4:]
    assert options["metric"] is options["regularizer"] is None
    assert options["dice_weight"] == 1 and options["prealign"] == "affine"
    assert options["spacing"] == 2.5 and options["steps"] == 7 and options["seed"] == 4
    assert options["patience"] == 3 and options["resume"] is True
    assert options["schedule"] == "cosine" and options["checkpoint_every"] == 20
    assert options["network_arguments"] == {
        "output": "velocity",
        "grid_spacing": 8,
        "bounded": True,
        "features": (8, 16),
    }
    assert 0 < options["time_limit"] <= 60 and options["log"] == "runs"
    assert type(options["augment"]).__name__ == "Augment"
    for name, path in zip(("atlas", "atlas_labels", "reference"), files):
        assert options[name] == str(path)


def test_training_is_interrupted_and_goes_on(folder, tmp_path, command):
    """In two goes, and from its own model: the same weights, and better ones."""
    state = tmp_path / "state.npz"
    both = [folder, *QUICK, "--network", "unet", "--out_dir", tmp_path]
    command(train_deep, *both, "--steps", 2, "--checkpoint", state)
    first = (tmp_path / "model.npz").read_bytes()
    go_on = ["--steps", 4, "--checkpoint", state]
    assert "model.npz; add --force" in fails(command, train_deep, *both, *go_on)
    nowhere = [*go_on[:3], tmp_path / "none.npz", "--resume"]
    assert "model.npz; add --force" in fails(command, train_deep, *both, *nowhere)
    other = [*go_on, "--out_model", "b.npz"]
    assert "resume" in fails(command, train_deep, *both, *other)
    assert (tmp_path / "model.npz").read_bytes() == first
    command(train_deep, *both, *go_on, "--resume")
    command(train_deep, *both, "--steps", 4, "--out_model", "c.npz")
    resumed, whole = (
        load_network(tmp_path / n).state_dict() for n in ("model.npz", "c.npz")
    )
    for name, weights in whole.items():
        assert_allclose(resumed[name], weights, atol=1e-6)
    for name, option in (("d.npz", "--network"), ("e.npz", "--init")):
        given = [folder, *QUICK, option, tmp_path / "c.npz", "--out_dir", tmp_path]
        command(train_deep, *given, "--steps", 1, "--out_model", name)
        before = load_network(tmp_path / name).card["recipe"]["before"]
        assert before["recipe"]["steps"] == 4
    one, other = (load_network(tmp_path / n).state_dict() for n in ("d.npz", "e.npz"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_network_is_made_as_asked(folder, tmp_path, command):
    given = [folder, *QUICK, "--steps", 1, "--out_dir", tmp_path]
    command(train_deep, *given, "--variant", "vm2", "--output", "displacement",
            "--network_arguments", "half_resolution=true")  # fmt: skip
    network = load_network(tmp_path / "model.npz")
    assert network.arguments["variant"] == "vm2" and network.output == "displacement"
    assert network.arguments["half_resolution"] is True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so, and one with each step."""
    clock, step = [0.0], Training._step

    def timed(*arguments, **options):
        clock[0] += 1
        return step(*arguments, **options)

    monkeypatch.setattr("dipy_dl_reg.training.loop.clock.monotonic", lambda: clock[0])
    monkeypatch.setattr("dipy_dl_reg.workflows.train.monotonic", lambda: clock[0])
    monkeypatch.setattr(Training, "_step", timed)
    return clock


def test_stopped_by_time_and_resumed(folder, tmp_path, command, clock, caplog):
    """The same command again and again: its model is replaced, and the stop is said."""
    again = [folder, *QUICK, "--network", "dirnet", "--out_dir", tmp_path, "--resume",
             "--checkpoint", tmp_path / "c.npz"]  # fmt: skip
    command(train_deep, *again, "--steps", 6, "--time_limit", 1.5)
    first = load_network(tmp_path / "model.npz").card["recipe"]
    assert (first["steps"], first["stopped"], first["time_limit"]) == (3, "time", 1.5)
    (said,) = [m for m in caplog.messages if "Stopped" in m]
    assert "by time_limit after 3 of 6 steps" in said and "resume" in said
    caplog.clear()
    command(train_deep, *again, "--steps", 6)
    last = load_network(tmp_path / "model.npz").card["recipe"]
    assert (last["steps"], last["stopped"]) == (6, "steps")
    assert "Stopped" not in caplog.text


def test_time_over_before_training_is_an_error(folder, tmp_path, command, monkeypatch):
    """The time for loading counts too; nothing is written."""
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(
        "dipy_dl_reg.training.loop.clock.monotonic", lambda: next(seconds)
    )
    given = [
        train_deep,
        folder,
        *QUICK,
        "--time_limit",
        15,
        "--out_dir",
        tmp_path / "o",
    ]
    assert "time_limit was reached before all images" in fails(command, *given)
    assert not (tmp_path / "o").exists()


def test_what_is_wrong_is_one_clear_line(folder, tmp_path, command):
    files = sorted(folder.iterdir())
    (tmp_path / "model.npz").write_text("mine")
    (tmp_path / "text.npz").write_text("none")
    for given, message in (
        ([tmp_path / "none"], "no such file or folder"),
        ([folder / "t*.nii"], "no such file or folder"),
        ([files[0]], "images must be 2 at least"),
        ([*files, "--out_dir", tmp_path], "add --force"),
        ([*files, "--out_model", "a.pt"], "must end in .npz"),
        ([*files, "--network", "resnet"], "must be one of"),
        ([*files, "--network", tmp_path / "text.npz"], "is not a network"),
        ([*files, "--init", "pyramid-brains"], "there is no file pyramid-brains"),
        ([*files, "--init", "pyramid"], "is a type of network"),
        ([*files, "--checkpoint", tmp_path / "out/model.npz"], "is an input"),
        ([*files, "--metric", "best"], "metric must be"),
        ([*files, "--validation", 2], "below 1"),
        ([*files, "--validation", tmp_path / "none"], "validation: no such file"),
        ([*files, "--labels", tmp_path / "none"], "labels: no such file"),
        ([*files, "--dice_weight", 1], "there are no labels"),
        ([*files, "--spacing", -1], "spacing must be"),
        ([*files, "--steps", 0], "steps must be"),
        ([*files, "--schedule", "step"], "schedule must be"),
        ([*files, "--variant", "vm3"], "variant must be"),
        ([*files, "--output", "field"], "output must be"),
        ([*files, "--network_arguments", "bounded"], "NAME=VALUE"),
        ([*files, "--network_arguments", "depth=3"], "depth"),
    ):
        out = [] if "--out_dir" in given else ["--out_dir", tmp_path / "out"]
        said = fails(command, train_deep, *given, *out, *QUICK)
        assert message in said, said
        assert names(tmp_path) == {"images", "labels", "model.npz", "text.npz"}
    assert (tmp_path / "model.npz").read_text() == "mine"


def test_interruption_leaves_nothing(folder, tmp_path, command, monkeypatch):
    @wraps(train_network)
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("dipy_dl_reg.training.fit.train_network", interrupt)
    with pytest.raises(SystemExit, match="interrupted"):
        command(train_deep, folder, "--out_dir", tmp_path / "out", *QUICK)
    assert not (tmp_path / "out").exists()


def test_run_makes_a_parser():
    parser = IntrospectiveArgumentParser()
    parser.add_workflow(TrainDeepFlow())
    for parameter in inspect.signature(TrainDeepFlow().run).parameters.values():
        assert parameter.default is not True
        assert parameter.name in parser.format_help()
