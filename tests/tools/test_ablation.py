"""tools/recipes/ablation.py: its variants, and trainings of a few steps."""

import json
import sys

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
import torch

from dipy_dl_reg.networks import NETWORKS, make_network
from tools.recipes import ablation, brain_maps, stages, train_pyramid

SHAPE = (17, 17, 17)
BENT = {"bending": 0.5, "bending_scale": 5}
SMALL = [
    train_pyramid.Stage(
        spacing, SHAPE, 9, 1, 0.3, 5e-4, None, BENT | {"coarse": 1.0}, BENT,
        {"size": 5, "classes": 5},
    )
    for spacing in (6.0, 3.0)
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Networks and the level of the log are the tool's while it runs."""
    for name, kind in ablation.OWN.items():
        monkeypatch.setitem(NETWORKS, name, kind)
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("name", list(ablation.VARIANTS))
def test_every_variant_is_a_network(name):
    """Of the class that it names, made anew from its arguments; symmetric but one."""
    variant = ablation.VARIANTS[name]
    network = make_network(variant.architecture, 3, seed=0, **variant.arguments)
    with torch.no_grad():
        for layer in network.flow:
            layer.weight *= 1e3  # they begin near zero
        a, b = torch.rand(2, 1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
        there, back = network(a, b).velocity, network(b, a).velocity
    assert there.abs().max() > 1e-3
    alike = torch.allclose(there, -back, atol=1e-4 * float(there.abs().max()))
    assert alike == network.symmetric == (name != "one-way")


def test_intensity_sees_no_self_similarity():
    base, bare = (make_network(k, 3) for k in ("pyramid", "pyramid-intensity"))
    first = [network.encoder[0][0].weight.shape for network in (base, bare)]
    assert first[0][1] == 13 and first[1][1] == 1


def test_what_is_drawn(maps):
    """Shapes and strong bending have their share, or none; T1 alone is T1 alone."""
    arguments = type("", (), {"dim": 3, "label_maps": None})

    def drawn(name):
        pairs = ablation.VARIANTS[name].pairs
        return train_pyramid.sources(arguments, SMALL[0], **pairs)[0]

    assert drawn("base").weights.min() > 0
    assert drawn("no-shapes").weights[2] == 0 < drawn("no-shapes").weights[1]
    assert drawn("no-far").weights[1] == 0 < drawn("no-far").weights[2]
    t1 = drawn("t1-only")
    assert t1.weights[2] == 0 and len(t1.sources[0].contrasts) == 1
    assert t1.sources[0].random_contrast == 0
    for name in ablation.VARIANTS:
        assert float(drawn(name).weights.sum()) == pytest.approx(1)


@pytest.fixture
def maps(rng, monkeypatch):
    """Five label maps that no file holds, each a few blobs."""
    found = []
    for _ in range(2 + stages.HELD_OUT):
        noise = rng.random((len(brain_maps.CLASSES), *SHAPE))
        blobs = np.exp(60 * gaussian_filter(noise, (0, 2, 2, 2)))
        found.append(torch.from_numpy(blobs / blobs.sum(0)).half())
    for tool in (ablation, train_pyramid):
        monkeypatch.setattr(tool, "read_maps", lambda folder, spacing, shape: found)


@pytest.fixture
def brains(tmp_path, rng):
    """A folder of two labelled brains of 30 mm."""
    folder = tmp_path / "brains"
    folder.mkdir()
    for name in ("a", "b"):
        noise = gaussian_filter(rng.random((30, 32, 28)), 4)
        labels = 1 + (noise > np.median(noise))
        image = (200 * labels + 100 * rng.random(noise.shape)).astype("f4")
        for kind, array in (("t1", image), ("labels", labels.astype(np.uint8))):
            nifti = nib.Nifti1Image(array, np.eye(4))
            nib.save(nifti, folder / f"subject_{name}_{kind}.nii.gz")
    affines = {f"subject_{name}": np.eye(4).tolist() for name in "ab"}
    (folder / "affines_mni.json").write_text(json.dumps(affines))
    return folder


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, words)])
    ablation.main()


def test_trained_and_measured(monkeypatch, tmp_path, maps, brains):
    """On what is drawn and on real brains."""
    monkeypatch.setitem(train_pyramid.STAGES, 3, SMALL)
    monkeypatch.setattr(ablation, "WHOLE", (16, 16, 16))
    monkeypatch.setattr(ablation, "KINDS", ("T1",))
    results = tmp_path / "results"
    words = ["--label_maps", "FOLDER", "--output", results, "--steps", 2, 1]
    words += ["--judged", 2, "--data", brains, "--pairs", "a:b"]
    run(monkeypatch, *words, "--variants", "one-way")
    row = json.loads((results / "one-way.json").read_text())
    assert row["steps"] == [2, 1] and row["parameters"] > 2e5 and row["MB"] > 0.8
    assert 0 < row["shapes"] < 1 and 0 < row["far"] < 1 and row["seconds"] > 0
    assert (
        0 <= row["T1"] <= 1
        and 0 <= row["swap"] < 0.5
        and row["inverse"] >= 0
        and row["used"] in (0, 0.5, 1)
    )


def test_what_is_there_is_not_done_again(monkeypatch, tmp_path, maps):
    """The table has all, in its own order, a dash for what was not measured."""
    monkeypatch.setitem(train_pyramid.STAGES, 3, SMALL)
    monkeypatch.setattr(ablation, "WHOLE", (16, 16, 16))
    words = ["--label_maps", "FOLDER", "--output", tmp_path, "--judged", 1]
    words += ["--steps", 1, 1, "--variants", "repeats-1", "narrow"]
    run(monkeypatch, *words)

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "train", refuse)
    run(monkeypatch, *words)
    (tmp_path / "narrow.json").unlink()
    run(monkeypatch, *words)  # measured anew, from the network's file
    before = json.loads((tmp_path / "narrow.json").read_text())
    run(monkeypatch, "--output", tmp_path, "--time")
    after = json.loads((tmp_path / "narrow.json").read_text())
    assert after.pop("seconds") != before.pop("seconds") and after == before
    lines = (tmp_path / "table.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["narrow", "repeats-1"]
    assert "Steps: [1, 1]" in lines[-1] and lines[1].split()[-1] == "-"


def test_swapped_images_are_the_other_way():
    images = {"static": 1, "moving": 2, "static_grid2world": 3, "moving_grid2world": 4}
    prealign = np.diag([2.0, 1, 1, 1])
    found = ablation.swap_images(images | {"prealign": prealign})
    np.testing.assert_array_equal(found.pop("prealign"), np.diag([0.5, 1, 1, 1]))
    assert found == {
        "static": 2, "moving": 1, "static_grid2world": 4, "moving_grid2world": 3,
    }  # fmt: skip
