"""`dipy_align_deep` stops where it should, with one line, and leaves nothing."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from workflow_files import GRIDS, LARGE, OUTPUTS, Swift, fails, names, save

from dipy_dl_reg.workflows.align import align_deep


def test_existing_outputs_are_kept_unless_forced(swift, pair, command):
    arguments = (align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    pair["out"].mkdir()
    (pair["out"] / "prealign.txt").write_text("mine")
    message = fails(command, *arguments)
    assert "prealign.txt" in message and "--force" in message
    assert names(pair["out"]) == {"prealign.txt"} and not swift
    assert (pair["out"] / "prealign.txt").read_text() == "mine"
    command(*arguments, "--force")
    assert names(pair["out"]) == OUTPUTS
    assert np.loadtxt(pair["out"] / "prealign.txt").shape == (4, 4)


def test_failure_half_way_leaves_nothing(swift, pair, command, monkeypatch):
    def full(image, path):
        if "field" in str(path):
            raise OSError("No space left on device")
        Path(path).write_bytes(b"half")

    monkeypatch.setattr(nib, "save", full)
    arguments = (align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    arguments += LARGE
    assert "No space left" in fails(command, *arguments)
    assert not pair["out"].exists()
    pair["out"].mkdir()
    (pair["out"] / "mapping.npz").write_text("mine")
    assert "No space left" in fails(command, *arguments, "--force")
    assert names(pair["out"]) == {"mapping.npz"}
    assert (pair["out"] / "mapping.npz").read_text() == "mine"


def bad_images(folder, good):
    """Files that cannot be registered, and what is said of each."""
    shape, grid = GRIDS["static"]
    empty, text, cut = (folder / f"{n}.nii.gz" for n in ("empty", "text", "cut"))
    empty.touch()
    text.write_text("not an image")
    cut.write_bytes(good.read_bytes()[:2000])
    infinite = np.ones(shape, np.float32)
    infinite[3, 4, 5] = np.inf
    rgb = np.zeros(shape, np.dtype([(c, "u1") for c in "RGB"]))
    colours = save(folder / "colours.nii", rgb, grid)
    flat = save(folder / "flat.nii", infinite, grid)
    data = bytearray(flat.read_bytes())
    data[252:254] = bytes(2)  # no qform
    data[312:328] = bytes(16)  # the sform's last row
    flat.write_bytes(data)
    return [
        (empty, "is empty"),
        (text, "is not an image file that can be read: NIfTI"),
        (colours, "colour image (RGB)"),
        (cut, "is damaged"),
        (folder / "none.nii.gz", "File not found"),
        (save(folder / "4d.nii", np.ones((5, 5, 5, 2))), "must be one 3D volume"),
        (save(folder / "2d.nii", np.ones((5, 5))), "both 2D or both 3D"),
        (save(folder / "inf.nii", infinite, grid), "infinities"),
        (save(folder / "nan.nii", infinite * np.nan, grid), "only NaN"),
        (save(folder / "ones.nii", np.ones(shape), grid), "constant"),
        (save(folder / "c.nii", np.ones(shape, complex), grid), "real numbers"),
        (flat, "singular"),
    ]


def test_bad_images_are_one_clear_line(swift, pair, tmp_path, command):
    for path, message in bad_images(tmp_path, pair["static"]):
        for images in ((path, pair["moving"]), (pair["moving"], path)):
            said = fails(command, align_deep, *images, "--out_dir", pair["out"])
            assert message in said, said
            assert path.name in said or "both" in said
            assert said.startswith("align_deep: error: ")
            assert not pair["out"].exists()
    assert not swift


def test_bad_options_are_one_clear_line(swift, pair, tmp_path, command):
    matrix = pair["prealign"]
    shape, grid = GRIDS["static"]
    words, small, flat, none = (tmp_path / f"{n}.txt" for n in "abcd")
    words.write_text("one two")
    np.savetxt(small, np.eye(3))
    np.savetxt(flat, np.diag([1, 1, 0, 1]))
    none.touch()
    file = tmp_path / "file"
    file.touch()
    other = save(tmp_path / "m.nii", np.ones(shape, np.uint8))
    nothing = save(tmp_path / "n.nii", np.zeros(shape, np.uint8), grid)
    for options, message in (
        (["--prealign", matrix, "--affine"], "not both"),
        (["--affine", "--pipeline", "rigid", "deform"], "not both"),
        (["--pipeline", "deform", "rigid"], "as the last"),
        (["--pipeline", "rigid", "--level_iters", "2"], "requires 'deform'"),
        (["--pipeline", "rigid", "--initialization", "auto"], "requires 'deform'"),
        (["--pipeline", "center_of_mass", "--prealign", matrix], "not both"),
        (["--prealign", words], "no matrix"),
        (["--prealign", small], "must have the shape (4, 4)"),
        (["--prealign", flat], "singular"),
        (["--prealign", none], "must hold a matrix"),
        (["--prealign", tmp_path / "e.txt"], "no such file"),
        (["--metric", "best"], "metric must be"),
        (["--static_mask", other], "not on the grid"),
        (["--static_mask", nothing], "is empty"),
        (["--moving_mask", tmp_path / "e.nii"], "no such file"),
        (["--out_warped", "a.txt"], "out_warped must end in .nii"),
        (["--out_mapping", "a.nii"], "out_mapping must end in .npz"),
        (["--report", "--out_report", "a.doc"], "out_report must end in"),
        (["--out_field", "warped_moved.nii.gz"], "have the same name"),
        (["--out_strat", "elsewhere"], "out_strat must be"),
        (["--out_dir", file], "is not a folder"),
        (["--out_dir", file / "below"], "is not a folder"),
        (["--out_dir", tmp_path, "--out_warped", "moving.nii.gz"], "is an input"),
        (
            ["--out_dir", tmp_path, "--prealign", matrix, "--out_prealign", matrix.name]
            + ["--force"],
            "is an input",
        ),
    ):
        before = names(tmp_path)
        arguments = ["--out_dir", pair["out"], *options]
        said = fails(command, align_deep, pair["static"], pair["moving"], *arguments)
        assert message in said, said
        assert names(tmp_path) == before
    assert not swift


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_unwritable_folder_is_said_first(swift, pair, command):
    pair["out"].mkdir(mode=0o500)
    arguments = ["--out_dir", pair["out"]]
    said = fails(command, align_deep, pair["static"], pair["moving"], *arguments)
    assert "permission" in said.lower() and not swift


def test_place_that_cannot_hold_files_is_said_first(swift, pair, command):
    """A file system that takes no files, whatever the user may do."""
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    arguments = ["--out_dir", "/proc/self/out"]
    fails(command, align_deep, pair["static"], pair["moving"], *arguments)
    assert not swift


def test_interruption_leaves_nothing(swift, pair, command, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Swift, "optimize", interrupt)
    arguments = ["--out_dir", pair["out"]]
    said = fails(command, align_deep, pair["static"], pair["moving"], *arguments)
    assert "interrupted" in said and not pair["out"].exists()


def test_network_alone_that_is_not_used_is_an_error(pair, command, monkeypatch):
    """Not an affine map that looks like a success."""
    monkeypatch.setattr(
        "dipy_dl_reg.initialization.starts.improves_similarity",
        lambda *args, **options: False,
    )
    given = [align_deep, pair["static"], pair["moving"], "--device", "cpu"]
    given += ["--prealign", pair["prealign"], "--out_dir", pair["out"]]
    said = fails(command, *given, "--level_iters", 0)
    assert "no deformation" in said and "Omit --level_iters 0" in said
    assert not pair["out"].exists()
    command(*given, "--level_iters", 0, "--model", "None")  # asked for nothing
    assert names(pair["out"]) == OUTPUTS
