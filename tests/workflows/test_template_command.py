"""The command dipy_template_deep: what it writes, and its errors."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from workflow_files import fails

from dipy_dl_reg.workflows import template, template_deep

SHORT = ["--iterations", "1", "--affine_iterations", "0", "--level_iters", "4", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two subjects of two channels."""
    x, y, z = np.mgrid[-1:1:14j, -1:1:14j, -1:1:14j]
    affine = np.diag([3.0, 3, 3, 1])
    for k, width in enumerate((1.0, 1.4)):
        image = np.exp(-5 * (x**2 + width * y**2 + z**2)) + 0.3 * np.exp(
            -30 * ((x - 0.2) ** 2 + y**2 + z**2)
        )
        for name, values in (("t1", image), ("fa", image**2)):
            data = values.astype(np.float32)
            nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}_{k}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["dipy_template_deep", *arguments, *SHORT])
    template_deep()


def test_two_channels(folder, monkeypatch):
    arguments = ["t1_*.nii.gz", "--channels", "fa_*.nii.gz", "--out_dir", "out"]
    run(monkeypatch, *arguments)
    names = {path.name for path in (folder / "out").iterdir()}
    assert names >= {
        "template_channel-1.nii.gz",
        "template_channel-2.nii.gz",
        "template_mask.nii.gz",
        "t1_0_mapping.npz",
        "t1_1_affine.txt",
        "iterations.tsv",
    }
    content = json.loads((folder / "out" / "template.json").read_text())
    assert content["Call"].startswith("dipy_template_deep 't1_*.nii.gz'")
    assert len(content["SHA256"]) == 4
    assert "exists already" in fails(run, monkeypatch, *arguments)


def test_all_pairs(folder, monkeypatch):
    run(monkeypatch, "t1_0.nii.gz", "t1_1.nii.gz", "--all_pairs", "--out_dir", "out")
    assert (folder / "out" / "static-t1_1_moving-t1_0_mapping.npz").is_file()
    assert len((folder / "out" / "pairs.tsv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["t1_0.nii.gz"], "at least 2"),
        (["t1_0.nii.gz", "none.nii.gz"], "no such file"),
        (["t1_*.nii.gz", "--channels", "fa_0.nii.gz"], "matches 1 files"),
        (["t1_*.nii.gz", "--average", "mode"], "average must be"),
        (["t1_0.nii.gz", "t1_0.nii.gz"], "name 't1_0'"),
    ],
)
def test_errors(folder, monkeypatch, arguments, message):
    assert message in fails(run, monkeypatch, *arguments, "--out_dir", "out")
    assert not (folder / "out").exists()


def test_channels_are_assigned_by_name(tmp_path, monkeypatch):
    """sub-1 and sub-10: the sorted orders of the two patterns differ."""
    monkeypatch.chdir(tmp_path)
    for name in ("sub-1_T1w", "sub-10_T1w", "sub-1-FA", "sub-10-FA", "x-3", "x-4"):
        (tmp_path / f"{name}.nii.gz").touch()
    first = [Path("sub-10_T1w.nii.gz"), Path("sub-1_T1w.nii.gz")]
    found = template._find_images(first, "sub-*FA.nii.gz")
    assert [str(b) for _, b in found] == ["sub-10-FA.nii.gz", "sub-1-FA.nii.gz"]
    with pytest.raises(ValueError, match="not clear which"):
        template._find_images(first, "x-*.nii.gz")
