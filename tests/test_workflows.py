"""The two commands: what they write, and that they stop where they should."""

import inspect
import logging
import os
from pathlib import Path
import subprocess
import sys
from types import ModuleType
import warnings

from dipy.align import affine_registration, read_mapping, write_mapping
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from dipy.workflows import flow_runner
from dipy.workflows.base import IntrospectiveArgumentParser
from maps import affine, blob, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg import deep_affine_registration
from dipy_dl_reg.files import write_together
from dipy_dl_reg.mapping import apply_mapping, load_mapping, save_mapping
from dipy_dl_reg.workflows import (
    AlignDeepFlow,
    ApplyDeepFlow,
    align_deep,
    apply_deep,
)

GRIDS = {
    "static": ((18, 17, 16), affine([2.0, -2, 2.5], (0.1,), [3.0, 5, -9])),
    "moving": ((16, 19, 15), affine([-2.2, 2, 2.2], (-0.1,), [34.0, -30, -7])),
}
PREALIGN = affine([1.05, 1, 0.95], (0.05,), [1.0, -1, 0.5])
OUTPUTS = {
    "warped_moved.nii.gz",
    "warped_static.nii.gz",
    "displacement_field.nii.gz",
    "mapping.npz",
    "prealign.txt",
}


class Swift:
    """Stands in for DeepRegistration: DIPY's own, a few steps, and a record."""

    calls = []
    affine_only = False

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
    module = ModuleType("dipy_dl_reg.registration")
    module.DeepRegistration = Swift
    monkeypatch.setitem(sys.modules, "dipy_dl_reg.registration", module)
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
    arguments = ["--prealign", pair["prealign"], "--out_dir", pair["out"]]
    command(align_deep, pair["static"], pair["moving"], *arguments)
    assert names(pair["out"]) == OUTPUTS
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

    back = nib.load(pair["out"] / "warped_static.nii.gz")
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
        str(pair["out"] / "displacement_field.nii.gz"),
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
    flat = save(folder / "flat.nii", infinite, grid)
    data = bytearray(flat.read_bytes())
    data[252:254] = bytes(2)  # no qform
    data[312:328] = bytes(16)  # the sform's last row
    flat.write_bytes(data)
    return [
        (empty, "is empty"),
        (text, "is not an image file"),
        (cut, "is damaged"),
        (folder / "none.nii.gz", "File not found"),
        (save(folder / "4d.nii", np.ones((5, 5, 5, 2))), "must be one 3D volume"),
        (save(folder / "2d.nii", np.ones((5, 5))), "must be one 3D volume"),
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
            assert message in said and path.name in said, said
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


def test_network_alone_that_is_not_used_is_an_error(pair, command, monkeypatch):
    """Not an affine map that looks like a success."""
    monkeypatch.setattr(
        "dipy_dl_reg.registration.better_than_none", lambda *args, **options: False
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
    logging.getLogger("dipy").propagate = True
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
        ((flat, image), "2D"),
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


@pytest.mark.parametrize("flow", [AlignDeepFlow, ApplyDeepFlow])
def test_run_makes_a_parser(flow):
    parser = IntrospectiveArgumentParser()
    parser.add_workflow(flow())
    for parameter in inspect.signature(flow().run).parameters.values():
        # a default of True would be lost: DIPY makes switches of them
        assert parameter.default is not True
        assert parameter.name in parser.format_help()


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


# Files together ---------------------------------------------------------------------


def test_files_come_together_or_not_at_all(tmp_path):
    paths = [tmp_path / "a" / "b" / "1.txt", tmp_path / "2.txt"]
    with pytest.raises(RuntimeError), write_together(paths) as made:
        made[0].write_text("1")
        raise RuntimeError
    assert not names(tmp_path)
    with write_together(paths) as made:
        for path in made:
            path.write_text("1")
        assert names(tmp_path / "a" / "b") == {made[0].name} != {"1.txt"}
    assert [path.read_text() for path in paths] == ["1", "1"]
    assert names(tmp_path) == {"a", "2.txt"}
    mode = paths[0].stat().st_mode & 0o777
    plain = tmp_path / "plain"
    plain.touch()
    assert mode == plain.stat().st_mode & 0o777
