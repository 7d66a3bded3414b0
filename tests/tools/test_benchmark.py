"""The deformable benchmark: its cases, its table and its file of results."""

import json
import os
from pathlib import Path
import subprocess
import sys

from maps import affine, make_map, smooth_field
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tools.benchmarks import cases, deformable, measures, methods, plot, record, table

ROOT = Path(__file__).parents[2]

ROW = {
    "spacing": 2.0,
    "repeat": 0,
    "pair": "1<-2",
    "method": "deep",
    "seconds": 3.0,
    "dice": 0.7,
    "peak_mib": None,
}


@pytest.fixture
def brains(tmp_path, rng):
    """A folder of two subjects with two labels; one of them moved by a known affine."""
    folder = tmp_path / "brains"
    folder.mkdir()
    grid2world = affine([-1.0, 1.0, 1.0], origin=[20.0, -18.0, -19.0])
    noise = gaussian_filter(rng.random((40, 38, 41)), 2)
    image = (100 * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    labels = np.digitize(image, [40, 60]).astype(np.int16)
    move = affine([1.0, 1.0, 1.0], origin=[3.0, -2.0, 1.0])
    affines = {"subject_1": np.eye(4), "subject_2": move}
    for name, matrix in affines.items():
        for array, path in zip((image, labels), cases.subject_files(folder, name[8:])):
            nib.save(nib.Nifti1Image(array, matrix @ grid2world), path)
    text = json.dumps({name: matrix.tolist() for name, matrix in affines.items()})
    (folder / "affines_mni.json").write_text(text)
    return folder


def run_script(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tools.benchmarks.deformable", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


# --- cases


def test_resample_keeps_world_values():
    """A linear image keeps its world values; grids of that spacing are unchanged."""
    grid2world = affine([-1.0, 1.0, 1.2], (0.2, 0.1, 0.3), [30.0, -20, 7])
    world = measures.to_world(np.moveaxis(np.indices((31, 24, 27)), 0, -1), grid2world)
    weights = np.array([1.0, -2.0, 0.5])
    coarse, matrix = cases.resample(world @ weights, grid2world, 2.0)
    assert coarse.shape == (16, 12, 17)
    np.testing.assert_allclose(np.linalg.norm(matrix[:3, :3], axis=0), 2)
    there = measures.to_world(np.moveaxis(np.indices(coarse.shape), 0, -1), matrix)
    middle = (slice(4, -4),) * 3
    np.testing.assert_allclose(coarse[middle], (there @ weights)[middle], atol=1e-3)
    same, matrix = cases.resample(coarse, matrix, 2.0)
    np.testing.assert_array_equal(same, coarse)


def test_folder_without_affines(brains):
    """Without a file of affines they are computed; pairs are those of the subjects."""
    given = cases.labelled_case(brains, 2.0, "1:2").images["prealign"]
    (brains / "affines_mni.json").unlink()
    found = cases.labelled_case(brains, 2.0, "1:2").images["prealign"]
    corners = np.array([[-20, -18, -19, 1], [20, 18, 19, 1], [-20, 18, -19, 1]])
    assert np.abs((found - given) @ corners.T).max() < 1
    assert cases.list_pairs(brains) == ["1:2", "2:1"]
    cases.subject_files(brains, "2")[1].unlink()
    assert cases.list_pairs(brains) == []


def test_labelled_case_is_aligned_by_its_affines(brains):
    """Both subjects are the same image, moved in the world by the affines."""
    case = cases.labelled_case(brains, 2.0, "1:2")
    np.testing.assert_allclose(case.images["prealign"][:3, 3], [3, -2, 1])
    still = make_map(
        case.images["static"].shape,
        case.images["moving"].shape,
        static_grid2world=case.images["static_grid2world"],
        moving_grid2world=case.images["moving_grid2world"],
        prealign=case.images["prealign"],
        amplitude=0.0,
    )
    assert case.judge(still)["dice"] == pytest.approx(1)


def test_known_field_has_no_error():
    grid2world = affine([2.0, -2.0, 2.0], (0.1, 0.2, 0.3))
    image = gaussian_filter(np.random.default_rng(0).random((32, 36, 34)), 3)
    image = (image - image.min()) * smooth_field(image.shape, np.eye(4), 1.0)[0][..., 0]
    field, _ = smooth_field(image.shape, grid2world, 3.0)
    case = cases.known_field_case(abs(image), grid2world, field, coarser=2)
    shape, matrix = case.images["static"].shape, case.images["static_grid2world"]
    grids = {"static_grid2world": matrix, "moving_grid2world": matrix}
    mapping = make_map(shape, shape, **grids, amplitude=0.0)
    still = case.judge(mapping)
    assert still["squared_difference"] == pytest.approx(100)
    assert still["field_rms"] == pytest.approx(still["field_before"])
    mapping.backward[:] = field[::2, ::2, ::2]
    known = case.judge(mapping)
    assert known["field_max"] < 1e-5
    assert known["squared_difference"] < 10


def test_intensities_are_scaled_for_the_squared_difference(rng):
    """One image is brighter and has one extremely bright voxel."""
    image = rng.random((20, 20, 20)) * (rng.random((20, 20, 20)) > 0.3)
    images = {"static": image, "moving": 7 * image, "prealign": np.eye(4)}
    images["moving"][3, 4, 5] = 1000
    same = methods.prepare_images("syn-ssd", images)
    assert same["static"].min() == 0 and same["static"].max() == 1
    same["moving"][3, 4, 5] = same["static"][3, 4, 5]
    np.testing.assert_allclose(same["moving"], same["static"], atol=0.02)
    assert methods.prepare_images("syn", images) is images


# --- table and file


def test_ratio_and_medians():
    rows = [
        ROW | {"pair": pair, "method": method, "seconds": seconds, "dice": dice}
        for pair, method, seconds, dice in [
            ("1<-2", "syn", 10, 0.5),
            ("1<-2", "deep", 1, 0.6),
            ("2<-1", "syn", 20, 0.6),
            ("2<-1", "deep", 4, 0.65),
            ("3<-4", "deep", 9, 0.9),
        ]
    ]
    assert table.add_ratio(rows[3], rows, "syn")["ratio"] == 0.2
    assert table.add_ratio(rows[4], rows, "syn")["ratio"] is None
    syn, deep = table.median_rows(rows, "syn")
    assert (syn["seconds"], syn["ratio"]) == (15, 1)
    assert (deep["seconds"], deep["dice"]) == (4, 0.65)
    assert deep["ratio"] == pytest.approx(0.15)
    assert "peak_mib" not in deep
    rows = [row | {"cpu_seconds": 3 * row["seconds"] + 1} for row in rows]
    assert table.add_ratio(rows[3], rows, "syn")["ratio"] == 13 / 61
    line = table.compare_dice(rows, "deep", "syn")
    assert "+0.0750 on average" in line and "+0.0500 at least; pairs: 2" in line
    assert table.compare_dice(rows, "deep", "syn-short") is None


def test_table_lines_up():
    columns = ["pair", "method", "dice", "seconds", "peak_mib"]
    head, line = (table.table_line(row, columns) for row in (None, ROW))
    assert line.split() == ["1<-2", "deep", "0.7000", "3.0", "-"]
    assert len(head) == len(line)
    assert head.index("Dice") + 4 == line.index("0.7000") + 6


def test_gain_at_equal_regularity():
    """Dice is interpolated within the range of the curve, and not outside it."""

    def row(method, sd, dice, pair="a"):
        numbers = {"sd_log_jacobian": sd, "dice": dice}
        return {"spacing": 2, "repeat": 0, "pair": pair, "method": method} | numbers

    rows = [row("deep", 0.2, 0.6), row("deep-s1", 0.1, 0.5), row("syn", 0.15, 0.5)]
    rows += [row("ants", 0.3, 0.9), row("deep", 0.3, 0.9, "b")]
    line = table.compare_at_equal_regularity(rows, {"deep", "deep-s1"}, "syn")
    assert "deep less syn: +0.0500" in line and "pairs: 1" in line
    assert table.compare_at_equal_regularity(rows, {"deep", "deep-s1"}, "ants") is None
    assert table.compare_at_equal_regularity(rows, {"deep", "deep-s1"}, "deep") is None


def test_interrupted_run_is_continued(tmp_path, monkeypatch, capsys):
    """Saved rows are not measured again; the table has all rows."""
    path = tmp_path / "results.json"
    results = {"machine": {"threads": 1}, "versions": {}, "settings": {}}
    results |= {"code": {"checksum": "a", "commit": "b"}, "rows": []}
    measured = []

    def measure(method, case, setup):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append((case, method))
        return {"seconds": 2.0, "dice": 0.5}

    monkeypatch.setattr(deformable, "measure", measure)
    list_of_cases = [(2.0, name, name.upper) for name in ("1<-2a", "2<-1a")]
    arguments = list_of_cases, ["syn", "deep"], 1, results, path, methods.Setup(1)
    with pytest.raises(KeyboardInterrupt):
        deformable.measure_cases(*arguments)
    kept = json.loads(path.read_text())
    assert len(kept["rows"]) == 3

    now = results | {"code": {"checksum": "a", "commit": "another"}}
    now["rows"] = record.read_earlier_rows(path, now)
    capsys.readouterr()
    measured.clear()
    deformable.measure_cases(*arguments[:3], now, *arguments[4:])
    assert measured == [("2<-1A", "deep")]
    assert len(json.loads(path.read_text())["rows"]) == 4
    assert capsys.readouterr().out.count("0.5000") == 4 + 2  # and two medians
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_failed_rows_are_measured_again(tmp_path):
    path = tmp_path / "results.json"
    now = {"machine": {}, "versions": {}, "settings": {}, "code": {"checksum": "a"}}
    failed = {key: ROW[key] for key in table.KEY}
    failed |= {"method": "ants", "failed": "no memory"}
    then = now | {"rivals": {"ants": "1"}, "rows": [ROW, failed]}
    record.write_json(path, then)
    assert json.loads(path.read_text()) == then
    assert record.read_earlier_rows(path, now | {"rivals": {"greedy": "2"}}) == [ROW]
    with pytest.raises(ValueError, match="measured with 1, and this is 3"):
        record.read_earlier_rows(path, now | {"rivals": {"ants": "3"}})


def test_failed_rows_are_not_in_the_table(monkeypatch, capsys, tmp_path):
    answers = {"deep": {"seconds": 2.0, "dice": 0.5}, "ants": {"failed": "no memory"}}
    monkeypatch.setattr(deformable, "measure", lambda method, *_: answers[method])
    results = {"rows": []}
    path = tmp_path / "results.json"
    case = (2.0, "1<-2", lambda: "case")
    deformable.measure_cases([case], list(answers), 1, results, path, methods.Setup(1))
    words = capsys.readouterr().out
    assert "ants failed: no memory" in words and "median of 1" in words
    assert words.count("ants") == 1 and "Dice, deep less" not in words
    assert [row["method"] for row in json.loads(path.read_text())["rows"]] == [*answers]


def test_figures(tmp_path):
    rows = [
        ROW | {"method": name, "seconds": 1.0 + n, "sd_log_jacobian": 0.1 * n}
        for n, name in enumerate(["deep", "syn"])
    ]
    plot.draw_figures([*rows, {"method": "ants", "failed": "x"}], "2 mm", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"2_mm_time.png", "2_mm_regularity.png"}


def test_runs_with_other_settings_are_not_continued(tmp_path):
    path = tmp_path / "results.json"
    now = {"machine": {"cpu": "x"}, "versions": {}, "settings": {}, "rows": [ROW]}
    now["code"] = {"checksum": "a"}
    record.write_json(path, now)
    assert record.read_earlier_rows(path, now) == [ROW]
    with pytest.raises(ValueError, match="measured with .*'x'.* and this is .*'y'"):
        record.read_earlier_rows(path, now | {"machine": {"cpu": "y"}})
    path.write_text("[]")
    with pytest.raises(ValueError, match="no result of this script"):
        record.read_earlier_rows(path, now)


# --- command


def test_help():
    done = run_script("--help")
    assert done.returncode == 0
    assert "python -m tools.benchmarks.deformable --quick" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data and --output are needed"),
        (["--data", "nowhere", "--output", "new.json"], "there is no nowhere"),
        (["--quick", "--resume"], "--resume needs --output"),
        (["--quick", "--threads", "0"], "must be 1 or more"),
        (["--quick", "--output", "nowhere/x.json"], "there is no folder"),
        (["--quick", "--output", __file__], "exists; --resume"),
        (["--quick", "--python", f"nothing={__file__}"], "wanted NAME=PATH"),
        (["--quick", "--python", "greedy=nowhere"], "got greedy=nowhere"),
        (["--data", ".", "--output", "x.json", "--pairs", "1"], "STATIC:MOVING, got 1"),
    ],
)
def test_bad_arguments_are_one_message(words, message, capsys, monkeypatch):
    monkeypatch.delenv("DIPY_DL_REG_DATA", raising=False)
    with pytest.raises(SystemExit) as end:
        deformable.parse_arguments(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"subject_1": [[1]], "subject_2": 3}', "no 4x4 matrix for subject_1"),
        ("{}", "no 4x4 matrix for subject_1"),
        ("[1, 2]", "is no JSON object of matrices"),
        ("{", "is no JSON object of matrices"),
        (None, "no 4x4 matrix for subject_2"),
    ],
)
def test_missing_matrix_is_one_message(brains, tmp_path, capsys, text, message):
    """Only subjects that are registered need a matrix."""
    path = brains / "affines_mni.json"
    if text is None:
        text = json.dumps({"subject_1": np.eye(4).tolist()})
    path.write_text(text)
    words = ["--data", str(brains), "--output", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit) as end:
        deformable.parse_arguments(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_whole_run(brains, tmp_path):
    """Two subjects and two methods, in a separate process."""
    path = tmp_path / "results.json"
    options = ["--pairs", "1:2", "--spacing", 1, "--methods", "syn-short", "deep"]
    options += ["--output", path, "--threads", 1]
    done = run_script(*options, DIPY_DL_REG_DATA=str(brains))
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    assert results["machine"]["threads"] == 1
    assert str(brains) not in path.read_text()
    rows = {row["method"]: row for row in results["rows"]}
    assert list(rows) == ["syn-short", "deep"]
    # The affines alone align the two.
    assert rows["syn-short"]["dice"] == pytest.approx(1)
    assert rows["syn-short"]["hd95"] == 0
    assert rows["syn-short"]["dice_of"] == {"1": 1.0, "2": 1.0}
    assert 0 < rows["deep"]["dice"] <= 1 and rows["deep"]["minimum_jacobian"] > 0
    assert "1<-2" in done.stdout and "median of 1" in done.stdout
