"""Figures of the documentation come from the files of results (doc/measured.py)."""

import json
import os
from pathlib import Path
import subprocess
import sys

import measured
import measured_tables
import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]

ROWS = {
    ("T1", "a", "1:2"): 0.5,
    ("T1", "a", "2:1"): 0.7,
    ("T1", "a", "3:4"): 0.65,
    ("T1", "a", "5:6"): 0.9,
    ("T1", "b", "1:2"): 0.25,
    ("T1", "b", "3:4"): 0.6,
    ("T2", "a", "1:2"): 0.1,
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a table of JSON, and one of text."""
    from tools.experiments.saved_rows import describe_run, write_rows

    rows = {key: {"dice": value, "only_a": 1.0} for key, value in ROWS.items()}
    write_rows(
        tmp_path / "pairs.json",
        rows,
        keys=("kind", "setting", "pair"),
        chosen_on=["1:2", "2:1"],
        kept_out=["5:6"],
        about=describe_run(1),
    )
    text = "made by hand\n\nfirst\ncase x   -1.5  2e-3\ncase y 4 5\n\nlast\ncase x 7\n"
    (tmp_path / "lines.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pairs | T1 | a | all | dice | .4f", "0.6875"),
        ("pairs | T1 | a | chosen on | dice | .2f", "0.60"),
        ("pairs | T1 | a | kept out | dice | .1f", "0.9"),
        ("pairs | T1 | a | 2:1 | dice | .1f", "0.7"),
        ("pairs | T1 | a | all | median dice | .3f", "0.675"),
        ("pairs | T1 | a | all | least dice | .1f", "0.5"),
        ("pairs | T1 | a | all | most dice | .1f", "0.9"),
        ("pairs | T1 | a | all | n dice | d", "4"),
        ("pairs | T1 | a - b | all | dice | +.3f", "+0.150"),  # the two cases of both
        ("pairs | T1 | a / b | 1:2 | dice | .1f", "2.0"),
        ("pairs | T1 - T2 | b - a | all | dice | .2f", "0.15"),
        ("lines.txt | case y | 2 | .1f", "5.0"),
        ("lines.txt | first > case x | 1 | .1f", "-1.5"),
        ("lines.txt | first > case x | 2 | .3f", "0.002"),
        ("lines.txt | last > case x | 1 | .0f", "7"),
    ],
)
def test_figures(folder, name, expected):
    assert measured.figure(name, folder) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pears | T1 | a | all | dice | .3f", "no table 'pears'"),
        ("pairs | T3 | a | all | dice | .3f", "no kind 'T3'"),
        ("pairs | T1 | c | all | dice | .3f", "no setting 'c'; there are"),
        ("pairs | T1 | a | 9:9 | dice | .3f", "no pair '9:9'"),
        ("pairs | T1 | a | all | loss | .3f", "no 'loss' for 1:2"),
        ("pairs | a | all | dice | .3f", "has the keys kind, setting, pair"),
        ("pairs | T1 | a | all | dice | .3q", "[Ii]nvalid format|Unknown format"),
        ("lines.txt | case x | 1 | .1f", "2 lines begin with"),
        ("lines.txt | case y | 3 | .1f", "has no number 3"),
        ("nothing.txt | case y | 1 | .1f", "no file"),
        ("lines.txt | .1f", "at least four parts"),
    ],
)
def test_unknown_figures_are_errors(folder, name, message):
    with pytest.raises(ValueError, match=message):
        measured.figure(name, folder)


def test_interval_is_students_over_pairs_of_people(folder):
    """Both directions of the pair 1, 2 are one value."""
    values = [0.6, 0.65, 0.9]
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    for end in ("low", "high"):
        name = f"pairs | T1 | a | all | {end} dice | .12f"
        expected = getattr(found, end)
        assert float(measured.figure(name, folder)) == pytest.approx(expected)
    np.testing.assert_allclose(measured.interval([0.3, 0.1]), (0.1, 0.3))


def test_table_has_means_with_intervals_and_its_source(folder):
    table = measured.read_table("pairs", folder)
    lines = ["first = T1 | a", "difference = T1 | a - b"]
    columns = "Dice = dice .2f; apart = kept out: mean dice .1f"
    rows, cases = measured_tables.summarize(table, "Setting", columns, lines[:1])
    assert rows[0] == ["Setting", "Dice", "apart"]
    assert rows[1][0] == "first" and rows[1][2] == "0.9"
    assert rows[1][1].startswith("0.69 (") and rows[1][1].endswith(")")
    few = measured_tables.summarize(table, "", "gain = dice +.2f", lines[1:])
    assert few[0][1][1] == "+0.15 [+0.05 to +0.25]"  # of two pairs: least and most
    assert few[1] == ["1:2", "3:4"]
    note = measured_tables.describe(table, cases, folder)
    for words in (
        "6 people, 3 pairs, 4 registrations",
        "options were chosen on: 1, 2",
        "kept out: 5, 6",
        "1 thread;",
        "commit ",
        "torch ",
    ):
        assert words in note
    assert "not recorded" not in note
    plain = measured_tables.describe(table, cases, folder, intervals=False)
    assert "95 % interval" in note and "95 % interval" not in plain
    bare = measured_tables.describe(table._replace(about={}), few[1], folder)
    assert "4 people, 2 pairs, 2 registrations" in bare and "kept out" not in bare
    for words in (
        "Machine not recorded",
        "versions not recorded",
        "commit not recorded",
    ):
        assert words in bare


def test_columns_can_name_a_key(folder):
    table = measured.read_table("pairs", folder)
    columns = "a = [a] 1:2: dice .2f; b = [b] 1:2: dice .2f"
    rows, _ = measured_tables.summarize(table, "", columns, ["T1 = T1 | *"])
    assert rows == [["", "a", "b"], ["T1", "0.50", "0.25"]]


def test_tables_of_lines_of_a_text(folder):
    lines = ["x = first > case x", "y = case y"]
    columns = "one = 1 .1f; both = 1 .0f / 2 .3f"
    rows = measured_tables.summarize_lines("lines.txt", "a", columns, lines, folder)
    assert rows == [
        ["a", "one", "both"],
        ["x", "-1.5", "-2 / 0.002"],
        ["y", "4.0", "4 / 5.000"],
    ]


def test_texts_name_the_commit_they_were_stored_with(folder):
    text = "Stored with commit ab1 (1 May 2026). Not repeated with later code.\nrest\n"
    (folder / "old.txt").write_text(text)
    found = measured_tables.stored_with("old.txt", folder)
    assert found == "stored with commit ab1 (1 May 2026), not repeated with later code"
    (folder / "new.txt").write_text("a machine\nCode: commit ab2. One thread.\n")
    assert measured_tables.stored_with("new.txt", folder) == "measured with commit ab2"
    with pytest.raises(ValueError, match="does not begin with the commit"):
        measured_tables.stored_with("lines.txt", folder)
    table = measured.Table("old", {}, ("kind", "pair"), [], {})
    assert found in measured_tables.describe(table, [], folder)


def test_a_dirty_tree_is_named(folder):
    about = {"code": {"commit": "abc1234-dirty"}}
    table = measured.read_table("pairs", folder)._replace(about=about)
    assert "commit abc1234 with uncommitted changes" in measured_tables.describe(
        table, [], folder
    )


def test_marked_figures_of_markdown(folder):
    name = "pairs | T1 | a | all | dice | .3f"
    text = f"Dice **0.688**<!-- measured: {name} --> and 3 <!-- other -->."
    assert [*measured.marked_figures(text, folder)] == [(name, "0.688", "0.688")]
    wrong = text.replace("0.688", "0.9")
    assert [*measured.marked_figures(wrong, folder)] == [(name, "0.9", "0.688")]
    assert measured.write_figures(wrong, folder) == text


def test_figures_of_the_readme_are_those_of_the_files():
    text = (ROOT / "README.md").read_text()
    for name, printed, expected in measured.marked_figures(text):
        assert printed == expected, name


def test_all_tables_can_be_read():
    """Every file of rows and every text with described columns."""
    names = [path.stem for path in measured.FOLDER.glob("*.json")]
    for name in {*names, *measured.TEXT_TABLES} - {"digits", "digits_dirnet"}:
        table = measured.read_table(name)
        assert table.rows and table.keys
        for row in table.rows:
            assert set(table.keys) <= set(row)


def test_paths_of_a_computer_are_not_stored(tmp_path, monkeypatch):
    from tools.experiments import saved_rows

    script = ROOT / "tools" / "experiments" / "learning.py"
    words = [
        str(script),
        "--data",
        str(tmp_path),
        "--only",
        "T1 2 mm",
        "--rows",
        "/x/y",
    ]
    monkeypatch.setattr(sys, "argv", words)
    expected = 'learning --data FOLDER --only "T1 2 mm" --rows FILE'
    assert saved_rows.command_line() == f"python -m tools.experiments.{expected}"


# --- the role and the directive in a build

PAGE = """
Page
====

The Dice is :measured:`learning | T1 2 mm | default | all | dice | .3f`.

.. measured-table:: learning
   :caption: Overlap
   :first: Setting
   :columns: Dice = dice .3f; kept out = kept out: mean dice .3f

   Default = T1 2 mm | default
   Gain = T1 2 mm | default - network alone
"""


def build(folder, page):
    """Build one page; its HTML and the warnings."""
    pytest.importorskip("sphinx")
    (folder / "benchmark").mkdir()
    (folder / "benchmark" / "learning.txt").write_text("log")
    (folder / "conf.py").write_text('extensions = ["measured_pages"]\n')
    (folder / "index.rst").write_text(page)
    words = [sys.executable, "-m", "sphinx", "-q", ".", "html"]
    paths = [str(ROOT / "doc"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    return (folder / "html" / "index.html").read_text(), done.stderr


def test_pages_have_the_figures(tmp_path):
    html, warning = build(tmp_path, PAGE)
    assert not warning
    rows = json.loads((measured.FOLDER / "learning.json").read_text())["rows"]
    of = {"kind": "T1 2 mm", "setting": "default"}
    dice = np.mean([row["dice"] for row in rows if of.items() <= row.items()])
    assert f'<span class="measured">{dice:.3f}</span>' in html
    assert f"<p>{dice:.3f} (" in html and "learning.txt" in html


def test_unknown_figures_are_warnings_of_the_build(tmp_path):
    page = PAGE.replace("all | dice", "all | rice").replace("default -", "fault -")
    _, warning = build(tmp_path, page)
    assert "ERROR: measured: learning: no 'rice' for 1000:1001" in warning
    assert "ERROR: measured-table: learning: no setting 'fault'" in warning


# --- cards of networks


@pytest.mark.parametrize(
    "name", ["pyramid-brain", "pyramid-slices", "voxelmorph-t1", "anatomy"]
)
def test_cards_are_those_of_the_files(name):
    import card_pages

    from dipy_dl_reg.networks import pretrained

    rows = dict(card_pages.card_rows(name))
    network, weights = card_pages.load(name)
    count = sum(values.numel() for values in network.parameters())
    assert rows["Size"].startswith(f"{count:,} parameters")
    assert rows["Licence"] == network.card["licence"] == weights.licence
    assert any(heading.endswith("raining") for heading in rows)
    for text in rows.values():
        assert text and "None;" not in text
    assert name == "anatomy" or name in pretrained.WEIGHTS


def test_constants_are_those_of_the_code():
    import card_pages

    from dipy_dl_reg.geometry.fold_repair import LEAST_JACOBIAN
    from dipy_dl_reg.registration.deformable_options import DEFAULTS, LEVEL_ITERS

    options = "registration.deformable_options"
    for name, value in {
        "geometry.fold_repair.LEAST_JACOBIAN": LEAST_JACOBIAN,
        f"{options}.DEFAULTS[opt_tol]": DEFAULTS["opt_tol"],
    }.items():
        assert float(card_pages.constant(name)) == value
    found = card_pages.constant(f"{options}.LEVEL_ITERS[3]")
    assert found == str(LEVEL_ITERS[3])
    for name in ("geometry.fold_repair.MOST", f"{options}.DEFAULTS[none]"):
        with pytest.raises((AttributeError, KeyError)):
            card_pages.constant(name)


def test_diagram_is_that_of_its_script(monkeypatch):
    pictures = ROOT / "doc" / "pictures"
    monkeypatch.syspath_prepend(pictures)
    import draw_method

    assert (pictures / "how_it_works.svg").read_text() == draw_method.draw()


def test_pages_have_no_raw_logs():
    """Summaries stand in the text; whole logs are downloads."""
    for page in (ROOT / "doc").glob("*.rst"):
        assert "literalinclude:: benchmark" not in page.read_text(), page.name
