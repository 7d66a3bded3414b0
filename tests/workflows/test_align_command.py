"""`dipy_align_deep`: what it writes."""

from pathlib import Path
import warnings

from dipy.align import affine_registration, read_mapping
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest
from workflow_files import LARGE, OUTPUTS, fails, names, save

from dipy_dl_reg import deep_affine_registration
from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.maps.storage import load_mapping
from dipy_dl_reg.workflows.align import AlignDeepFlow, align_deep
from dipy_dl_reg.workflows.apply import apply_deep
from dipy_dl_reg.workflows.image_pair import distinct_names


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
    assert "equal numbers of points" in said
    said = fails(
        command, align_deep, *images, *static, "--moving_landmarks", "no.csv", *out
    )
    assert "moving_landmarks: no such file: no.csv" in said
    np.savetxt(tmp_path / "moving.txt", points)
    several = pair["static"], pair["moving"], pair["static"]
    said = fails(command, align_deep, *several, *static, *moving, *out, "--mix_names")
    assert "for one pair" in said
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
    wanted = OUTPUTS - {"warped_moved.nii.gz"} | {"a.nii", "report.html"}
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
    with pytest.raises(ValueError, match="numbers of inputs must be equal"):
        AlignDeepFlow(mix_names=True).run(
            str(folder / "[ab].nii.gz"), str(folder / "*.nii.gz"), out_dir=pair["out"]
        )


def test_singleton_last_axis_is_a_volume(swift, pair, tmp_path):
    image = nib.load(pair["static"])
    again = save(tmp_path / "4d.nii", image.get_fdata()[..., None], image.affine)
    AlignDeepFlow().run(again, pair["moving"], out_dir=pair["out"])
    assert nib.load(pair["out"] / "warped_moved.nii.gz").shape == image.shape


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
