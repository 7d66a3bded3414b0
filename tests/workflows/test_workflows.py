"""The two commands: what they write, and that they stop where they should."""

import inspect
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tomllib
from types import ModuleType
import warnings

from dipy.align import affine_registration, read_mapping, write_mapping
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from dipy.utils.logging import logger
from dipy.workflows import flow_runner
from dipy.workflows.base import IntrospectiveArgumentParser
from good_measures import GOOD
from maps import affine, blob, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg import DeepRegistration, deep_affine_registration, workflows
from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.maps.storage import load_mapping, save_mapping
from dipy_dl_reg.maps.verdict import judge
from dipy_dl_reg.metrics.registry import describe_metrics
from dipy_dl_reg.options import option_texts
from dipy_dl_reg.registration.deformable_options import DeformableOptions
from dipy_dl_reg.workflows.align import AlignDeepFlow, align_deep
from dipy_dl_reg.workflows.apply import apply_deep
from dipy_dl_reg.workflows.commands import COMMANDS
from dipy_dl_reg.workflows.image_pair import distinct_names, open_pair, read_pair

GRIDS = {
    "static": ((18, 17, 16), affine([2.0, -2, 2.5], (0.1,), [3.0, 5, -9])),
    "moving": ((16, 19, 15), affine([-2.2, 2, 2.2], (-0.1,), [34.0, -30, -7])),
}
PREALIGN = affine([1.05, 1, 0.95], (0.05,), [1.0, -1, 0.5])
OUTPUTS = {"warped_moved.nii.gz", "mapping.npz", "prealign.txt"}
LARGE = ("--out_inv_static", "static.nii.gz", "--out_field", "field.nii.gz")


class Swift:
    """Stands in for DeepRegistration: DIPY's own, a few steps, and a record."""

    calls = []
    affine_only = False
    verdict = judge(GOOD)

    def __init__(
        self,
        metric=None,
        *,
        model="auto",
        level_iters=None,
        device="auto",
        landmarks=None,
        landmark_weight=None,
        initialization=None,
        max_memory=None,
    ):
        if metric.lower() not in ("auto", "cc", "ssd", "ncc", "mi"):
            raise ValueError(f"metric must be CC, SSD, NCC or MI, got {metric!r}")
        self.options = {"metric": metric, "model": model, "device": device}
        self.options["level_iters"] = level_iters
        self.options |= {"landmarks": landmarks, "landmark_weight": landmark_weight}
        self.options |= {"initialization": initialization, "max_memory": max_memory}

    def optimize(
        self, static, moving, *, static_mask, moving_mask, num_threads, **grids
    ):
        self.calls.append(
            {
                **self.options,
                "static_mask": static_mask,
                "moving_mask": moving_mask,
                "num_threads": num_threads,
                "prealign": grids["prealign"],
            }
        )
        syn = SymmetricDiffeomorphicRegistration(SSDMetric(3), level_iters=[4])
        return syn.optimize(np.nan_to_num(static), np.nan_to_num(moving), **grids)


@pytest.fixture
def swift(monkeypatch):
    """Registration that takes no time; its calls."""
    module = ModuleType("dipy_dl_reg.registration.deformable")
    module.DeepRegistration = Swift
    monkeypatch.setitem(sys.modules, "dipy_dl_reg.registration.deformable", module)
    monkeypatch.setattr(Swift, "calls", [])
    return Swift.calls


@pytest.fixture
def pair(tmp_path):
    """Files of two blobs on unlike grids, a hole of NaN, and an output folder."""
    paths = {"out": tmp_path / "out"}
    for name, (shape, grid) in GRIDS.items():
        middle = (grid @ [*(np.array(shape) - 1) / 2, 1])[:3]
        image = blob(shape, grid, middle, 8 if name == "static" else 7)
        image[5:7, 5:7, 5:7] = np.nan
        nifti = nib.Nifti1Image(image, grid)
        nifti.set_sform(grid, 4 if name == "static" else 1)
        nifti.header.set_xyzt_units("mm")
        paths[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nifti, paths[name])
    paths["prealign"] = tmp_path / "affine.txt"
    np.savetxt(paths["prealign"], matrix_between(PREALIGN))
    return paths


def matrix_between(linear):
    """Static world to moving world: the middles onto each other, turned a little."""
    ends = [g @ np.append((np.array(s) - 1) / 2, 1) for s, g in GRIDS.values()]
    matrix = linear.copy()
    matrix[:3, 3] += ends[1][:3] - linear[:3, :3] @ ends[0][:3]
    return matrix


@pytest.fixture
def command(monkeypatch):
    """Run a command's entry point in this process."""

    def run(entry, *arguments):
        monkeypatch.setattr(sys, "argv", [entry.__name__, *map(str, arguments)])
        monkeypatch.setattr(flow_runner, "configure_logger", lambda **options: None)
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        monkeypatch.setattr(logger, "propagate", True)
        entry()

    return run


def fails(command, *arguments):
    """Run a command that must fail; what it says."""
    with pytest.raises(SystemExit) as end:
        command(*arguments)
    assert isinstance(end.value.code, str), end.value.code
    assert "\n" not in end.value.code
    return end.value.code


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


# dipy_align_deep --------------------------------------------------------------------


def test_align_writes_what_it_says(swift, pair, command):
    arguments = ["--prealign", pair["prealign"], "--out_dir", pair["out"], *LARGE]
    command(align_deep, pair["static"], pair["moving"], *arguments)
    assert names(pair["out"]) == OUTPUTS | {"static.nii.gz", "field.nii.gz"}
    static, moving = (nib.load(pair[k]) for k in ("static", "moving"))
    mapping = load_mapping(pair["out"] / "mapping.npz")
    prealign = np.loadtxt(pair["out"] / "prealign.txt")
    assert_array_equal(prealign, np.loadtxt(pair["prealign"]))
    assert_allclose(mapping.prealign_inv, prealign)

    warped = nib.load(pair["out"] / "warped_moved.nii.gz")
    assert_allclose(warped.affine, static.affine)
    assert warped.shape == static.shape and warped.get_data_dtype() == np.float32
    assert warped.header.get_xyzt_units()[0] == "mm"
    assert int(warped.header["sform_code"]) == 4
    wanted = apply_mapping(mapping, moving.get_fdata())
    assert_array_equal(warped.get_fdata(), wanted)
    assert 0 < np.isnan(wanted).sum() < 30

    back = nib.load(pair["out"] / "static.nii.gz")
    assert_allclose(back.affine, moving.affine)
    assert back.shape == moving.shape
    assert int(back.header["sform_code"]) == 1
    wanted = apply_mapping(mapping, static.get_fdata(), inverse=True)
    assert_array_equal(back.get_fdata(), wanted)
    # it is the inverse, not the map once more
    assert np.nanstd(back.get_fdata()) > 0.1
    peak = np.unravel_index(np.nanargmax(back.get_fdata()), back.shape)
    own = np.unravel_index(np.nanargmax(moving.get_fdata()), moving.shape)
    assert np.abs(np.subtract(peak, own)).max() <= 2

    theirs = read_mapping(
        str(pair["out"] / "field.nii.gz"),
        moving,
        static,
        prealign=np.linalg.inv(prealign),
    )
    image = np.nan_to_num(moving.get_fdata(dtype=np.float32))
    assert_allclose(theirs.transform(image), mapping.transform(image), atol=1e-4)


def test_align_reads_landmarks(swift, pair, command, tmp_path):
    points = np.array([[1.0, 2, 3], [9, 2, 3], [4, 8, 3], [4, 5, 9]])
    np.savetxt(tmp_path / "static.csv", points, delimiter=",", header="x, y, z")
    np.savetxt(tmp_path / "moving.txt", points + 1)
    images = pair["static"], pair["moving"]
    static = "--static_landmarks", tmp_path / "static.csv"
    moving = "--moving_landmarks", tmp_path / "moving.txt"
    out = "--out_dir", pair["out"]
    command(align_deep, *images, *static, *moving, *out, "--landmark_weight", 0.5)
    (call,) = swift
    assert_allclose(call["landmarks"], [points, points + 1])
    assert call["landmark_weight"] == 0.5

    out = "--out_dir", tmp_path / "other"
    said = fails(command, align_deep, *images, *static, *out)
    assert "moving_landmarks is missing" in said
    np.savetxt(tmp_path / "moving.txt", points[:3])
    said = fails(command, align_deep, *images, *static, *moving, *out)
    assert "as many points" in said
    said = fails(
        command, align_deep, *images, *static, "--moving_landmarks", "no.csv", *out
    )
    assert "moving_landmarks: no such file: no.csv" in said
    np.savetxt(tmp_path / "moving.txt", points)
    several = pair["static"], pair["moving"], pair["static"]
    said = fails(command, align_deep, *several, *static, *moving, *out, "--mix_names")
    assert "of one pair" in said
    assert not (tmp_path / "other").exists()


def test_align_hands_on_its_options(swift, pair, command, tmp_path):
    for name in ("static", "moving"):
        image = nib.load(pair[name])
        mask = np.zeros(image.shape, np.uint8)
        mask[3:-3, 3:-3, 3:-3] = 2
        nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / f"{name}_mask.nii")
    command(
        align_deep,
        pair["static"],
        pair["moving"],
        *("--metric", "SSD", "--level_iters", 7, 5, "--model", "None"),
        *("--static_mask", tmp_path / "static_mask.nii", "--device", "cpu"),
        *("--moving_mask", tmp_path / "moving_mask.nii", "--num_threads", 1),
        *("--initialization", "auto", "--max_memory", "2GB"),
        *("--out_dir", pair["out"], "--out_warped", "a.nii", "--report"),
    )
    (call,) = swift
    assert call["metric"] == "SSD" and call["level_iters"] == [7, 5]
    assert call["model"] is None and call["device"] == "cpu"
    assert call["num_threads"] == 1 and call["prealign"] is None
    assert call["initialization"] == "auto" and call["max_memory"] == "2GB"
    for name in ("static", "moving"):
        mask = call[f"{name}_mask"]
        assert mask.dtype == bool and mask.sum() == np.prod(np.array(mask.shape) - 6)
    wanted = OUTPUTS - {"warped_moved.nii.gz"} | {"a.nii", "report.png"}
    assert names(pair["out"]) == wanted
    assert_array_equal(np.loadtxt(pair["out"] / "prealign.txt"), np.eye(4))


def test_defaults_are_the_registrations_own(swift, pair):
    AlignDeepFlow().run(pair["static"], pair["moving"], out_dir=pair["out"])
    (call,) = swift
    assert call["metric"] == call["model"] == call["device"] == "auto"
    assert call["level_iters"] is call["num_threads"] is None
    assert call["static_mask"] is call["moving_mask"] is None


def test_affine_goes_first(swift, pair, command):
    command(
        align_deep,
        pair["static"],
        pair["moving"],
        "--affine",
        "--out_dir",
        pair["out"],
    )
    (call,) = swift
    static, moving = (nib.load(pair[k]) for k in ("static", "moving"))
    _, wanted = affine_registration(
        np.nan_to_num(moving.get_fdata()),
        np.nan_to_num(static.get_fdata()),
        moving_affine=moving.affine,
        static_affine=static.affine,
        level_iters=[1000, 500, 100],
    )
    middle = static.affine @ [8.5, 8, 7.5, 1]
    assert_allclose((call["prealign"] @ middle)[:3], (wanted @ middle)[:3], atol=0.5)
    written = np.loadtxt(pair["out"] / "prealign.txt")
    assert_array_equal(written, call["prealign"])


def test_pipeline_in_steps(swift, pair, command):
    """The same steps from Python; without deform there is no displacement."""
    steps = ["center_of_mass", "rigid"]
    command(
        align_deep,
        *(pair["static"], pair["moving"], "--pipeline", *steps, "deform"),
        *("--out_dir", pair["out"]),
    )
    (call,) = swift
    static, moving = (nib.load(pair[k]) for k in ("static", "moving"))
    _, wanted = deep_affine_registration(
        np.nan_to_num(moving.get_fdata()),
        np.nan_to_num(static.get_fdata()),
        moving_affine=moving.affine,
        static_affine=static.affine,
        pipeline=steps,
    )
    middle = static.affine @ [8.5, 8, 7.5, 1]
    assert_allclose(call["prealign"] @ middle, wanted @ middle, atol=0.3)
    assert call["level_iters"] is None
    command(
        align_deep,
        *(pair["static"], pair["moving"], "--pipeline", *steps, "--force"),
        *("--out_dir", pair["out"]),
    )
    assert swift[1]["level_iters"] == 0 and swift[1]["model"] is None


def test_several_movings_need_names_of_their_own(swift, pair, tmp_path, command):
    second = tmp_path / "second.nii.gz"
    second.write_bytes(pair["moving"].read_bytes())
    arguments = (align_deep, pair["static"], pair["moving"], second)
    message = fails(command, *arguments, "--out_dir", pair["out"])
    assert "--mix_names" in message
    assert not pair["out"].exists() and not swift
    command(*arguments, "--out_dir", pair["out"], "--mix_names")
    assert len(swift) == 2
    wanted = {f"static_{n}__{o}" for n in ("moving", "second") for o in OUTPUTS}
    assert names(pair["out"]) == wanted


def test_patterns_pair_up(swift, pair, tmp_path):
    folder = tmp_path / "subjects"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.nii.gz").write_bytes(pair["moving"].read_bytes())
    flow = AlignDeepFlow(mix_names=True)
    flow.run(str(pair["static"]), str(folder / "[ab].nii.gz"), out_dir=pair["out"])
    assert len(swift) == 2
    assert flow.last_generated_outputs.keys() >= {"out_warped", "out_mapping"}
    with pytest.raises(ValueError, match="as many on each side"):
        AlignDeepFlow(mix_names=True).run(
            str(folder / "[ab].nii.gz"), str(folder / "*.nii.gz"), out_dir=pair["out"]
        )


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


def save(path, data, grid=None):
    nib.save(nib.Nifti1Image(data, np.eye(4) if grid is None else grid), path)
    return path


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
        (save(folder / "nan.nii", infinite * np.nan, grid), "nothing but NaN"),
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


def test_singleton_last_axis_is_a_volume(swift, pair, tmp_path):
    image = nib.load(pair["static"])
    again = save(tmp_path / "4d.nii", image.get_fdata()[..., None], image.affine)
    AlignDeepFlow().run(again, pair["moving"], out_dir=pair["out"])
    assert nib.load(pair["out"] / "warped_moved.nii.gz").shape == image.shape


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
        (["--pipeline", "deform", "rigid"], "as its last"),
        (["--pipeline", "rigid", "--level_iters", "2"], "needs 'deform'"),
        (["--pipeline", "rigid", "--initialization", "auto"], "needs 'deform'"),
        (["--pipeline", "center_of_mass", "--prealign", matrix], "not both"),
        (["--prealign", words], "no matrix"),
        (["--prealign", small], "must have the shape (4, 4)"),
        (["--prealign", flat], "singular"),
        (["--prealign", none], "must have the shape"),
        (["--prealign", tmp_path / "e.txt"], "no such file"),
        (["--metric", "best"], "metric must be"),
        (["--static_mask", other], "not on the grid"),
        (["--static_mask", nothing], "is empty"),
        (["--moving_mask", tmp_path / "e.nii"], "no such file"),
        (["--out_warped", "a.txt"], "out_warped must end in .nii"),
        (["--out_mapping", "a.nii"], "out_mapping must end in .npz"),
        (["--report", "--out_report", "a.doc"], "out_report must end in"),
        (["--out_field", "warped_moved.nii.gz"], "share names"),
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


def test_align_and_apply_with_the_registration_itself(pair, command):
    """Nothing above depends on what stands in for DeepRegistration."""
    command(
        align_deep,
        pair["static"],
        pair["moving"],
        *("--prealign", pair["prealign"], "--metric", "ssd", "--model", "None"),
        *("--level_iters", 5, 5, "--device", "cpu", "--out_dir", pair["out"]),
    )
    assert names(pair["out"]) == OUTPUTS
    again = ["--out_dir", pair["out"], "--out_file", "again.nii.gz"]
    command(apply_deep, pair["out"] / "mapping.npz", pair["moving"], *again)
    first = nib.load(pair["out"] / "warped_moved.nii.gz")
    second = nib.load(pair["out"] / "again.nii.gz")
    assert_allclose(second.affine, first.affine, atol=1e-5)
    assert_array_equal(second.get_fdata(), first.get_fdata())


# The log ----------------------------------------------------------------------------


def logged(text):
    """Levels and messages of a log, without times."""
    return re.findall(r"^\[[-\d: ]+\]\[dipy\] (\w+: .*)$", text, re.MULTILINE)


def test_log_level_and_log_file(swift, pair, command, tmp_path, capsys):
    log = tmp_path / "log.txt"
    arguments = (align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    before = logger.handlers[:], logger.level, warnings.showwarning
    command(*arguments, "--log_file", log)
    shown = logged(capsys.readouterr().out)
    assert logged(log.read_text()) == shown
    written = [line for line in shown if line.startswith("INFO: Writing ")]
    assert written == [f"INFO: Writing {pair['out'] / n}" for n in sorted_outputs()]
    last = r"INFO: Registered moving.* to static.* in .* s; saved in {}; verdict: good"
    assert re.fullmatch(last.format(pair["out"]), shown[-1])
    command(*arguments, "--log_file", log, "--log_level", "warning", "--force")
    assert not logged(capsys.readouterr().out)
    assert logged(log.read_text()) == shown
    assert (logger.handlers, logger.level, warnings.showwarning) == before


def sorted_outputs():
    return ["warped_moved.nii.gz", "mapping.npz", "prealign.txt"]


def test_quiet_is_warnings_and_the_last_line(
    swift, pair, command, tmp_path, capsys, monkeypatch
):
    def warned(*arguments, **options):
        warnings.warn("something\n is odd", UserWarning, stacklevel=2)
        return optimize(*arguments, **options)

    optimize = Swift.optimize
    monkeypatch.setattr(Swift, "optimize", warned)
    log = tmp_path / "log.txt"
    arguments = ["--out_dir", pair["out"], "--quiet", "--log_file", log]
    command(align_deep, pair["static"], pair["moving"], *arguments)
    shown = capsys.readouterr()
    first, last = logged(shown.out)
    assert first == "WARNING: something is odd" and last.startswith("INFO: Registered")
    assert not shown.err
    assert len(logged(log.read_text())) > 5


def test_verbose_tells_every_iteration(pair, command, capsys):
    options = ("--metric", "ssd", "--model", "None", "--level_iters", 3, "--force")
    arguments = (align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    for more, count in (((), 0), (("--verbose",), 3), (("--log_level", "DEBUG"), 3)):
        command(*arguments, *options, *more)
        shown = logged(capsys.readouterr().out)
        assert sum(bool(re.match(r"INFO: \d+:\t", x)) for x in shown) == count


def test_files_are_announced_before_they_are_written(
    swift, pair, command, caplog, monkeypatch
):
    save_image, seen = nib.save, []

    def save_and_look(image, path):
        seen.append((caplog.messages[-1], Path(path).name.partition("-")[2]))
        save_image(image, path)

    monkeypatch.setattr(nib, "save", save_and_look)
    arguments = ["--out_dir", pair["out"], *LARGE]
    command(align_deep, pair["static"], pair["moving"], *arguments)
    assert len(seen) == 3
    for message, name in seen:
        assert message == f"Writing {pair['out'] / name}"


def test_errors_of_the_log_and_in_it(swift, pair, command, tmp_path):
    images = pair["static"], pair["moving"]
    out, log = ("--out_dir", pair["out"]), tmp_path / "log.txt"
    for options, message in (
        (["--log_level", "LOUD"], "log_level must be one of CRITICAL"),
        (["--quiet", "--verbose"], "not both"),
        (["--log_file", pair["static"]], "log_file"),
        (["--log_file", tmp_path], "log_file"),
        (["--log_file", tmp_path / "none" / "log.txt"], "log_file: the folder"),
    ):
        size = pair["static"].stat().st_size
        assert message in fails(command, align_deep, *images, *out, *options)
        assert not pair["out"].exists() and pair["static"].stat().st_size == size
    said = fails(
        command, align_deep, *images, *out, "--metric", "best", "--log_file", log
    )
    (line,) = logged(log.read_text())
    assert line.startswith("ERROR: metric must be") and said.endswith(line[7:])
    assert not swift


# What is there already --------------------------------------------------------------


def test_many_existing_outputs_are_not_all_named(swift, pair, tmp_path, command):
    folder = tmp_path / "subjects"
    folder.mkdir()
    for k in range(10):
        (folder / f"s{k}.nii.gz").write_bytes(pair["moving"].read_bytes())
    arguments = (align_deep, pair["static"], folder / "*.nii.gz", "--mix_names")
    arguments += ("--out_dir", pair["out"])
    command(*arguments)
    said = fails(command, *arguments)
    assert "and 27 more already there" in said and said.count("static_s") == 3


def test_skip_existing(swift, pair, tmp_path, command, caplog):
    folder = tmp_path / "subjects"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.nii.gz").write_bytes(pair["moving"].read_bytes())
    out = "--mix_names", "--out_dir", pair["out"]
    command(align_deep, pair["static"], folder / "a.nii.gz", folder / "b.nii.gz", *out)
    kept = pair["out"] / "static_a__mapping.npz"
    before = kept.stat().st_mtime_ns
    arguments = (align_deep, pair["static"], folder / "*.nii.gz", *out)
    arguments += ("--skip_existing",)
    (pair["out"] / "static_b__prealign.txt").unlink()
    said = fails(command, *arguments)
    assert "static_b__warped_moved.nii.gz" in said and "static_a" not in said
    assert len(swift) == 2
    command(*arguments, "--force")
    assert len(swift) == 4 and kept.stat().st_mtime_ns == before
    skipped = [m for m in caplog.messages if m.startswith("Skipped")]
    assert len(skipped) == 2 and all("a.nii.gz" in m for m in skipped)
    caplog.clear()
    command(*arguments)
    assert len(swift) == 4
    assert caplog.messages[-1] == "Nothing to do: all outputs exist"


def test_apply_skips_what_exists(saved, tmp_path, rng, command):
    mapping, path = saved
    images = [
        save(tmp_path / f"{n}.nii", rng.random((8, 8, 8)), finer(mapping)) for n in "ab"
    ]
    arguments = ("--out_dir", tmp_path / "out", "--mix_names", "--skip_existing")
    command(apply_deep, path, images[0], *arguments[:2])
    kept = tmp_path / "out" / "transformed.nii.gz"
    kept = kept.rename(kept.with_name("mapping_a__transformed.nii.gz"))
    before = kept.stat().st_mtime_ns
    command(apply_deep, path, *images, *arguments)
    assert len(names(tmp_path / "out")) == 2 and kept.stat().st_mtime_ns == before


def test_termination_leaves_nothing(pair):
    """A signal that ends the process while a registration runs."""
    code = """
import os, signal, sys, time
from dipy_dl_reg.registration.deformable import DeepRegistration
from dipy_dl_reg.workflows.align import align_deep

def optimize(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

DeepRegistration.optimize = optimize
align_deep()
"""
    arguments = [pair["static"], pair["moving"], "--out_dir", pair["out"]]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in done.stderr
    assert not pair["out"].exists()


def test_signals_are_as_before_afterwards(swift, pair, command):
    before = signal.getsignal(signal.SIGTERM)
    command(align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    assert signal.getsignal(signal.SIGTERM) == before


# Kinds of images --------------------------------------------------------------------


def slices(folder, *, axis=2, form="(X, Y, 1)"):
    """Files of two slices across a world axis, 12 mm apart in the plane."""
    shape, paths = (40, 36), []
    kept = [a for a in range(3) if a != axis]
    grid = np.eye(4)
    grid[:3, :3] = 0
    grid[kept[0], 0], grid[kept[1], 1], grid[axis, 2] = 1.5, -2.0, 3.0
    grid[:3, 3] = np.array([10.0, -20, 30])
    for name, shift in (("static", 0), ("moving", 4)):
        image = blob(shape, np.eye(3), [18 + shift, 17 - shift], 4 + shift / 4)
        image += 0.5 * blob(shape, np.eye(3), [24 + shift, 22], 3)
        data = image if form == "(X, Y)" else image[..., None]
        paths.append(save(folder / f"{name}.nii.gz", data, grid))
    return paths, grid[np.ix_([*kept, 3], [0, 1, 3])]


@pytest.mark.parametrize("form", ["(X, Y)", "(X, Y, 1)"])
@pytest.mark.parametrize("axis", [2, 1])
def test_slices_are_registered_in_2d(tmp_path, command, axis, form):
    (static, moving), grid = slices(tmp_path, axis=axis, form=form)
    out = tmp_path / "out"
    options = ("--metric", "ssd", "--model", "None", "--level_iters", 20, 10)
    more = ("--out_inv_static", "back.nii.gz", "--report")
    command(align_deep, static, moving, *options, *more, "--out_dir", out)
    images = [nib.load(path) for path in (static, moving)]
    data = [i.get_fdata(dtype=np.float32).reshape(40, 36) for i in images]
    registration = DeepRegistration("ssd", model=None, level_iters=[20, 10])
    wanted = registration.optimize(
        *data, static_grid2world=grid, moving_grid2world=grid
    )
    mapping = load_mapping(out / "mapping.npz")
    assert mapping.dim == 2
    assert_allclose(mapping.backward, wanted.backward, atol=1e-4)
    assert np.abs(wanted.backward).max() > 2
    assert_array_equal(np.loadtxt(out / "prealign.txt"), np.eye(3))
    for name, image, result in (
        ("warped_moved.nii.gz", images[0], wanted.transform(data[1])),
        ("back.nii.gz", images[1], wanted.transform_inverse(data[0])),
    ):
        written = nib.load(out / name)
        assert written.shape == image.shape
        assert_allclose(written.affine, image.affine)
        assert_allclose(written.get_fdata().reshape(40, 36), result, atol=1e-4)
    command(apply_deep, out / "mapping.npz", moving, "--out_dir", out)
    again = nib.load(out / "transformed.nii.gz")
    first = nib.load(out / "warped_moved.nii.gz")
    assert again.shape == first.shape
    assert_allclose(again.affine, first.affine, atol=1e-5)
    assert_array_equal(again.get_fdata(), first.get_fdata())
    again = "--out_dir", out, "--force", "--inverse", "--reference", moving
    command(apply_deep, out / "mapping.npz", static, *again)
    assert_array_equal(
        nib.load(out / "transformed.nii.gz").get_fdata(),
        nib.load(out / "back.nii.gz").get_fdata(),
    )


def test_slices_with_masks_prealign_and_affine(swift, tmp_path, command):
    (static, moving), grid = slices(tmp_path)
    mask = np.zeros((40, 36), np.uint8)
    mask[5:-5, 5:-5] = 1
    mask = save(tmp_path / "mask.nii", mask, nib.load(static).affine)
    matrix = tmp_path / "matrix.txt"
    np.savetxt(matrix, affine([1.0, 1], origin=[3.0, -4]))
    calls = []

    class Flat(Swift):
        def optimize(self, static, moving, **options):
            calls.append({"shapes": (static.shape, moving.shape), **options})
            syn = SymmetricDiffeomorphicRegistration(SSDMetric(2), level_iters=[2])
            known = "static_grid2world", "moving_grid2world", "prealign"
            return syn.optimize(static, moving, **{k: options[k] for k in known})

    sys.modules["dipy_dl_reg.registration.deformable"].DeepRegistration = Flat
    images = (align_deep, static, moving, "--out_dir", tmp_path / "out")
    command(*images, "--prealign", matrix, "--static_mask", mask)
    assert_array_equal(calls[0]["prealign"], np.loadtxt(matrix))
    assert calls[0]["static_mask"].shape == (40, 36)
    assert calls[0]["shapes"] == ((40, 36), (40, 36))
    assert_array_equal(calls[0]["static_grid2world"], grid)
    command(*images, "--pipeline", "translation", "deform", "--force")
    found = calls[1]["prealign"]
    assert found.shape == (3, 3) and np.linalg.norm(found[:2, 2]) > 3
    assert "3D maps only" in fails(command, *images, "--force", "--out_field", "f.nii")


def test_slices_with_landmarks(tmp_path, command, pair):
    shift = np.array([1.5 * 4, 2.0 * 4])  # of `slices`, in mm
    (static, moving), grid = slices(tmp_path)
    points = np.array([[18.0, 17], [24, 22], [10, 25], [28, 9]])
    points = points @ grid[:2, :2].T + grid[:2, 2]
    np.savetxt(tmp_path / "s.csv", points, delimiter=",")
    np.savetxt(tmp_path / "m.csv", points + shift, delimiter=",")
    options = ("--metric", "ssd", "--model", "None", "--level_iters", 2, 2)
    options += ("--static_landmarks", tmp_path / "s.csv")
    options += ("--moving_landmarks", tmp_path / "m.csv")
    out = tmp_path / "out"
    command(align_deep, static, moving, *options, "--out_dir", out)
    found = load_mapping(out / "mapping.npz").transform_points(points)
    assert np.abs(found - points - shift).max() < 1.5  # a voxel
    volume = save(tmp_path / "v.nii", np.random.default_rng(0).random((9, 8, 7)))
    out = "--out_dir", tmp_path / "other"
    said = fails(command, align_deep, volume, volume, *options, *out)
    assert "have 2 coordinates, and the images are 3D" in said
    assert not out[1].exists()


def test_slices_and_volumes_do_not_mix(swift, pair, tmp_path, command):
    (axial, _), _ = slices(tmp_path, form="(X, Y)")
    other = tmp_path / "other"
    other.mkdir()
    (coronal, _), _ = slices(other, axis=1)
    out = "--out_dir", pair["out"]
    moving = tmp_path / "moving.nii.gz"  # `slices` has written over the volume
    volume = save(tmp_path / "volume.nii", np.random.default_rng(0).random((9, 8, 7)))
    for images, message in (
        ((axial, volume), "both 2D or both 3D, got shapes (40, 36) and (9, 8, 7)"),
        ((volume, axial), "both 2D or both 3D, got shapes (9, 8, 7) and (40, 36)"),
        ((moving, coronal), "different orientations: static lies along the world's xy"),
    ):
        assert message in fails(command, align_deep, *images, *out)
        assert not pair["out"].exists()
    assert not swift


def test_slice_of_a_volume_stays_in_3d(swift, pair, command, tmp_path):
    """One thick slice against a whole volume is a registration in 3D."""
    image = nib.load(pair["static"])
    one = save(tmp_path / "one.nii", image.get_fdata()[..., 8:9], image.affine)
    opened = open_pair(one, pair["moving"])
    assert [len(i.shape) for i in opened] == [3, 3]
    assert read_pair(one, pair["moving"]).dim == 3
    assert read_pair(one, one).dim == 2


def test_picture_is_drawn_of_names_that_differ(swift, pair, command, tmp_path, caplog):
    for name in ("static", "moving"):
        folder = tmp_path / "study" / name / "dti"
        folder.mkdir(parents=True)
        (folder / "fa.nii.gz").write_bytes(pair[name].read_bytes())
    images = [
        tmp_path / "study" / n / "dti" / "fa.nii.gz" for n in ("static", "moving")
    ]
    command(align_deep, *images, "--out_dir", pair["out"])
    names_ = f"{Path('moving/dti/fa.nii.gz')} to {Path('static/dti/fa.nii.gz')}"
    assert f"Deformable registration of {names_}" in caplog.messages
    assert distinct_names("a/fa.nii", "b/md.nii") == ["fa.nii", "md.nii"]
    assert distinct_names("a/fa.nii", "a/../a/fa.nii") == ["fa.nii", "fa.nii"]
    here = Path.cwd().name
    assert distinct_names("fa.nii", "b/fa.nii") == [f"{here}/fa.nii", "b/fa.nii"]


def signalling(shape):
    """Values with NaN that signal, as some programs write them."""
    data = np.random.default_rng(3).random(shape)
    data[:2] = np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    return data


def test_signalling_nan_do_not_warn(swift, pair, command, tmp_path):
    image = nib.load(pair["moving"])
    odd = save(tmp_path / "fa.nii.gz", signalling(image.shape), image.affine)
    with np.errstate(invalid="warn"), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        command(align_deep, pair["static"], odd, "--report", "--out_dir", pair["out"])
        again = "--out_dir", pair["out"]
        command(apply_deep, pair["out"] / "mapping.npz", odd, *again)


def test_network_alone_that_is_not_used_is_an_error(pair, command, monkeypatch):
    """Not an affine map that looks like a success."""
    monkeypatch.setattr(
        "dipy_dl_reg.initialization.starts.improves_similarity",
        lambda *args, **options: False,
    )
    given = [align_deep, pair["static"], pair["moving"], "--device", "cpu"]
    given += ["--prealign", pair["prealign"], "--out_dir", pair["out"]]
    said = fails(command, *given, "--level_iters", 0)
    assert "no deformation" in said and "Leave out --level_iters 0" in said
    assert not pair["out"].exists()
    command(*given, "--level_iters", 0, "--model", "None")  # asked for nothing
    assert names(pair["out"]) == OUTPUTS


# dipy_apply_deep --------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A map with a prealign between unlike grids, in a file."""
    mapping = oblique_map()
    save_mapping(mapping, tmp_path / "mapping.npz")
    return mapping, tmp_path / "mapping.npz"


def finer(mapping, side="domain"):
    """A grid of another shape within that of one image."""
    return getattr(mapping, f"{side}_grid2world") @ affine([0.7] * 3, (), [1, 1, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int64, np.float64])
def test_labels_on_another_grid(saved, tmp_path, rng, command, dtype):
    mapping, path = saved
    labels = rng.integers(0, 120, (20, 18, 25)).astype(dtype)
    own = finer(mapping)
    image = nib.Nifti1Image(labels, own, dtype=labels.dtype)
    nib.save(image, tmp_path / "labels.nii.gz")
    command(
        apply_deep,
        path,
        tmp_path / "labels.nii.gz",
        *("--interpolation", "nearest", "--out_dir", tmp_path / "out"),
        *("--out_file", "warped.nii.gz"),
    )
    warped = nib.load(tmp_path / "out" / "warped.nii.gz")
    assert warped.get_data_dtype().newbyteorder("=") == np.dtype(dtype).newbyteorder(
        "="
    )
    assert_allclose(warped.affine, mapping.codomain_grid2world, atol=1e-5)
    own = nib.load(tmp_path / "labels.nii.gz").affine
    wanted = apply_mapping(
        mapping, labels, image_grid2world=own, interpolation="nearest"
    )
    assert_array_equal(np.asanyarray(warped.dataobj), wanted)
    assert len(np.unique(wanted)) > 50


def labels_of(shape):
    """Blocks of whole numbers."""
    return (np.indices(shape) // 4).sum(0)


def test_labels_are_recognised(saved, tmp_path, rng, command, capsys):
    """A warning, or nearest neighbour where the file says what it is."""
    mapping, path = saved
    labels = labels_of(mapping.domain_shape).astype(np.int16)
    image = nib.Nifti1Image(labels, mapping.domain_grid2world)
    nib.save(image, tmp_path / "plain.nii.gz")
    image.header.set_intent("label")
    nib.save(image, tmp_path / "declared.nii.gz")
    t1 = rng.integers(0, 1000, labels.shape).astype(np.int16)
    save(tmp_path / "t1.nii.gz", t1, mapping.domain_grid2world)
    out = tmp_path / "out" / "transformed.nii.gz"
    for name, more, warned, kind in (
        ("plain", (), True, np.float32),
        ("plain", ("--interpolation", "linear"), False, np.float32),
        ("plain", ("--interpolation", "nearest"), False, np.int16),
        ("declared", (), False, np.int16),
        ("t1", (), False, np.float32),
    ):
        file = tmp_path / f"{name}.nii.gz"
        command(apply_deep, path, file, "--out_dir", out.parent, "--force", *more)
        shown = capsys.readouterr().out
        assert ("--interpolation nearest" in shown) == warned, (name, more)
        assert nib.load(out).get_data_dtype() == kind


def test_series_of_directions_are_not_reoriented_and_it_is_said(
    saved, tmp_path, rng, command, capsys
):
    mapping, path = saved
    for name, many in (("dwi", 4), ("fmri", 4), ("v1", 3)):
        series = rng.random((*mapping.domain_shape, many)).astype(np.float32)
        save(tmp_path / f"{name}.nii.gz", series, mapping.domain_grid2world)
    (tmp_path / "dwi.bvec").touch()
    for name, level in (("dwi", "WARNING"), ("v1", "WARNING"), ("fmri", "INFO")):
        image = tmp_path / f"{name}.nii.gz"
        command(apply_deep, path, image, "--out_dir", tmp_path / "out", "--force")
        said = [x for x in logged(capsys.readouterr().out) if "not reoriented" in x]
        assert len(said) == 1 and said[0].startswith(level)


def test_series_goes_volume_by_volume(saved, tmp_path, rng, command):
    mapping, path = saved
    series = rng.random((*mapping.domain_shape, 3)).astype(np.float32)
    image = nib.Nifti1Image(series, mapping.domain_grid2world)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "dwi.nii")
    arguments = ["--out_dir", tmp_path / "out"]
    command(apply_deep, path, tmp_path / "dwi.nii", *arguments)
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert warped.shape == (*mapping.codomain_shape, 3)
    for k in range(3):
        wanted = mapping.transform(series[..., k])
        assert_allclose(warped.get_fdata()[..., k], wanted, atol=1e-4)
    assert warped.header.get_zooms()[3] == 2.5
    assert warped.header.get_xyzt_units() == ("mm", "sec")


def test_inverse_and_reference(saved, tmp_path, rng, command):
    mapping, path = saved
    grid = finer(mapping, "codomain")
    atlas = save(tmp_path / "atlas.nii", rng.random((15, 17, 12)), grid)
    target = save(tmp_path / "ref.nii", np.zeros((9, 8, 7, 2)), finer(mapping))
    arguments = ["--inverse", "--out_dir", tmp_path / "out"]
    command(apply_deep, path, atlas, *arguments)
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert_allclose(warped.affine, mapping.domain_grid2world, atol=1e-5)
    wanted = apply_mapping(mapping, nib.load(atlas), inverse=True)
    assert wanted.std() > 0.05
    assert_allclose(warped.get_fdata(), wanted, atol=1e-5)
    command(apply_deep, path, atlas, *arguments, "--reference", target, "--force")
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz")
    assert warped.shape == (9, 8, 7)
    wanted = apply_mapping(
        mapping,
        nib.load(atlas),
        out_shape=(9, 8, 7),
        out_grid2world=nib.load(target).affine,
        inverse=True,
    )
    assert_allclose(warped.get_fdata(), wanted, atol=1e-5)


def test_fields_in_dipys_format(saved, tmp_path, rng, command, caplog):
    mapping, _ = saved
    field, matrix = tmp_path / "field.nii.gz", tmp_path / "prealign.txt"
    write_mapping(mapping, str(field))
    np.savetxt(matrix, mapping.prealign_inv)
    data = rng.random(mapping.domain_shape).astype(np.float32)
    image = save(tmp_path / "fa.nii.gz", data, mapping.domain_grid2world)
    out = tmp_path / "out" / "transformed.nii.gz"
    command(apply_deep, field, image, "--prealign", matrix, "--out_dir", out.parent)
    assert_allclose(nib.load(out).get_fdata(), mapping.transform(data), atol=1e-4)
    assert_allclose(nib.load(out).affine, mapping.codomain_grid2world, atol=1e-4)
    again = ["--out_dir", out.parent, "--force"]
    message = fails(command, apply_deep, field, image, "--inverse", *again)
    assert "--reference" in message
    atlas_data = rng.random(mapping.codomain_shape).astype(np.float32)
    atlas = save(tmp_path / "atlas.nii.gz", atlas_data, mapping.codomain_grid2world)
    options = ["--inverse", "--reference", image, "--prealign", matrix, *again]
    command(apply_deep, field, atlas, *options)
    wanted = mapping.transform_inverse(atlas_data)
    assert_allclose(nib.load(out).get_fdata(), wanted, atol=1e-4)
    command(apply_deep, field, image, *again)
    assert "holds no prealign" in caplog.text
    assert np.abs(nib.load(out).get_fdata() - mapping.transform(data)).max() > 0.1


def test_several_images(saved, tmp_path, rng, command):
    mapping, path = saved
    images = [
        save(tmp_path / f"{n}.nii", rng.random((8, 8, 8)), finer(mapping)) for n in "ab"
    ]
    out = tmp_path / "out"
    assert "--mix_names" in fails(command, apply_deep, path, *images, "--out_dir", out)
    assert not out.exists()
    command(apply_deep, path, *images, "--out_dir", out, "--mix_names")
    wanted = {f"mapping_{n}__transformed.nii.gz" for n in "ab"}
    assert names(out) == wanted


def test_nan_does_not_spread_in_files(saved, tmp_path, rng, command):
    mapping, path = saved
    data = 1 + rng.random(mapping.domain_shape).astype(np.float32)
    data[8, 8, 8] = np.nan
    image = save(tmp_path / "fa.nii", data, mapping.domain_grid2world)
    command(apply_deep, path, image, "--out_dir", tmp_path / "out")
    warped = nib.load(tmp_path / "out" / "transformed.nii.gz").get_fdata()
    spread = np.isnan(mapping.transform(data)).sum()
    assert np.isnan(warped).sum() < spread / 2


def test_apply_says_what_is_wrong(saved, tmp_path, pair, command):
    mapping, path = saved
    image = save(tmp_path / "fa.nii", np.ones((8, 8, 8)), finer(mapping))
    slice_ = save(tmp_path / "slice.nii", np.ones((8, 8)))
    rgb = np.zeros((8, 8, 8), np.dtype([(c, "u1") for c in "RGB"]))
    colours = save(tmp_path / "colours.nii", rgb)
    flat, plain = tmp_path / "flat.npz", tmp_path / "plain.npz"
    save_mapping(oblique_map(2), flat)
    bare = oblique_map()
    bare.domain_grid2world = None
    save_mapping(bare, plain)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(path.read_bytes()[:5000])
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    many = save(tmp_path / "many.nii", np.ones((4, 4, 4, 1, 3)))
    for arguments, message in (
        ((broken, image), "damaged"),
        ((flat, image), "must be a slice"),
        ((flat, slice_, "--reference", image), "is 2D"),
        ((path, slice_), "a volume or a series"),
        ((path, image, "--reference", slice_), "is 3D"),
        ((path, colours), "colour image"),
        ((plain, image), "without affines"),
        ((text, image), "not an image file"),
        ((image, image), "(X, Y, Z, 3, 2)"),
        ((tmp_path / "none.npz", image), "File not found"),
        ((path, text), "not an image file"),
        ((path, tmp_path / "none.nii"), "File not found"),
        ((path, many), "a volume or a series"),
        ((path, image, "--interpolation", "cubic"), "interpolation must be"),
        ((path, image, "--prealign", pair["prealign"]), "holds its own"),
        ((path, image, "--reference", text), "not an image file"),
        ((path, image, "--out_file", "a.png"), "out_file must end in"),
        ((path, image, "--out_dir", tmp_path, "--out_file", "fa.nii"), "is an input"),
    ):
        before = names(tmp_path)
        out = () if "--out_dir" in arguments else ("--out_dir", tmp_path / "out")
        said = fails(command, apply_deep, *arguments, *out)
        assert message in said, said
        assert names(tmp_path) == before


# As commands ------------------------------------------------------------------------


OPTIONS = json.loads((Path(__file__).parent / "options.json").read_text())


@pytest.fixture(params=COMMANDS)
def flow(request):
    """A workflow of each command of the table."""
    return getattr(workflows, COMMANDS[request.param].workflow)()


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_their_defaults_are_those_listed(name):
    """Scripts rely on them: an option is added to the list and never changed."""
    flow = getattr(workflows, COMMANDS[name].workflow)
    parameters = inspect.signature(flow().run).parameters.values()
    found = {
        p.name: "required" if p.default is inspect.Parameter.empty else p.default
        for p in parameters
    }
    assert list(found.items()) == list(OPTIONS[name].items())


def test_entry_points_are_those_of_the_table():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    declared = tomllib.loads(text)["project"]["scripts"]
    assert declared == {name: c.entry_point for name, c in COMMANDS.items()}
    for name, entry in COMMANDS.items():
        assert entry.function in workflows.__all__
        assert getattr(workflows, entry.workflow).get_short_name() in name


def test_run_makes_a_parser(flow):
    parser = IntrospectiveArgumentParser()
    parser.add_workflow(flow)
    text = parser.format_help()
    for parameter in inspect.signature(flow.run).parameters.values():
        # a default of True would be lost: DIPY makes switches of them
        assert parameter.default is not True
        assert parameter.name in text
    assert "{" not in flow.run.__doc__


def test_help_describes_metrics_and_options_of_the_class():
    text = " ".join(AlignDeepFlow.run.__doc__.split())
    for name, meaning in describe_metrics().items():
        assert f"{name.lower()} ({meaning})" in text
    option = option_texts(DeformableOptions)["landmark_weight"]
    assert " ".join(option.text.split()) in text


def shell(entry, *arguments):
    code = f"from dipy_dl_reg.workflows import {entry}; {entry}()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_is_this_packages_own():
    from importlib.metadata import version

    done = shell("align_deep", "--version")
    assert done.returncode == 0
    assert done.stdout.strip() == f"dipy_dl_reg {version('dipy_dl_reg')}"


def test_failure_is_one_line_and_a_code(saved, tmp_path):
    done = shell("apply_deep", saved[1], tmp_path / "none.nii.gz")
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0 and "none.nii.gz" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
