"""`dipy_align_deep` with several images a side."""

import re

import nibabel as nib
import numpy as np
from numpy.testing import assert_array_equal
import pytest
from workflow_files import OUTPUTS, fails, names, save

from dipy_dl_reg import DeepRegistration, deep_registration, load_mapping
from dipy_dl_reg.workflows.align import align_deep

OPTIONS = ("--metric", "ssd", "--model", "None", "--level_iters", 3, 2)


@pytest.fixture
def further(pair, tmp_path):
    """A further image of each side: the logarithm, of static on a finer grid."""
    paths = []
    for side in ("static", "moving"):
        image = nib.load(pair[side])
        data, grid = np.log1p(np.nan_to_num(image.get_fdata())), image.affine.copy()
        if side == "static":
            data = data.repeat(2, axis=0)
            grid[:3, 3] -= grid[:3, 0] / 4
            grid[:3, 0] /= 2
        paths.append(save(tmp_path / f"{side}_2.nii.gz", data, grid))
    return paths


def test_channels_are_registered_together(pair, further, command):
    command(
        align_deep,
        *(pair["static"], pair["moving"], "--prealign", pair["prealign"], *OPTIONS),
        *("--static_channels", further[0], "--moving_channels", further[1]),
        *("--channel_metrics", "ssd", "cc", "--channel_weights", 1, 3),
        *("--out_dir", pair["out"]),
    )
    assert names(pair["out"]) == OUTPUTS
    found = load_mapping(pair["out"] / "mapping.npz")
    _, wanted = deep_registration(
        [pair["moving"], further[1]],
        [pair["static"], further[0]],
        prealign=np.loadtxt(pair["prealign"]),
        metric=["SSD", "CC"],
        channel_weights=[1, 3],
        model=None,
        level_iters=[3, 2],
    )
    np.testing.assert_allclose(found.backward, wanted.backward, atol=1e-3)
    assert nib.load(pair["out"] / "warped_moved.nii.gz").ndim == 3


def test_one_metric_and_estimated_weights(pair, further, command, monkeypatch, capsys):
    made = []
    init = DeepRegistration.__init__

    def noted(self, *arguments, **options):
        made.append((arguments, options))
        init(self, *arguments, **options)

    monkeypatch.setattr(DeepRegistration, "__init__", noted)
    command(
        align_deep,
        *(pair["static"], pair["moving"], "--prealign", pair["prealign"], *OPTIONS),
        *("--static_channels", further[0], "--moving_channels", further[1]),
        *("--out_dir", pair["out"]),
    )
    ((arguments, options),) = made
    assert arguments == (["ssd", "ssd"],) and options["channel_weights"] is None
    files = (pair["moving"], pair["static"]), (further[1], further[0])
    labels = [f"{moving.name} to {static.name} 0\\.\\d+" for moving, static in files]
    said = capsys.readouterr().out
    assert re.search(f"Weights of the channels: {', '.join(labels)}", said), said


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--static_channels", "{static}"], "as many images, got 1 and 0"),
        (["--channel_weights", "1", "2"], "requires static_channels"),
        (["--channel_metrics", "cc", "cc"], "requires static_channels"),
        (
            ["--static_channels", "{static}", "--moving_channels", "{moving}"]
            + ["--channel_weights", "1", "2", "3"],
            "channel_weights must be 2.*got 3",
        ),
        (
            ["--static_channels", "{static}", "--moving_channels", "missing.nii.gz"],
            "moving_channels: no such file",
        ),
    ],
)
def test_bad_channels(pair, further, command, arguments, words):
    given = [a.format(static=further[0], moving=further[1]) for a in arguments]
    message = fails(
        command,
        align_deep,
        *(pair["static"], pair["moving"], "--out_dir", pair["out"], *given),
    )
    assert re.search(words, message)
    assert not pair["out"].exists() or not names(pair["out"])


def test_constant_channel(pair, command, tmp_path):
    image = nib.load(pair["static"])
    constant = save(tmp_path / "constant.nii.gz", np.ones(image.shape), image.affine)
    arguments = ["--static_channels", constant, "--moving_channels", pair["moving"]]
    message = fails(command, align_deep, pair["static"], pair["moving"], *arguments)
    assert "constant.nii.gz is constant" in message


def test_inputs_are_unchanged(pair, further, command):
    before = nib.load(further[0]).get_fdata()
    options = ["--static_channels", further[0], "--moving_channels", further[1]]
    command(
        align_deep,
        *(pair["static"], pair["moving"], *OPTIONS, *options, "--out_dir", pair["out"]),
    )
    assert_array_equal(nib.load(further[0]).get_fdata(), before)
