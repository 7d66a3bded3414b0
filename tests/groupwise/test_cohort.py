"""A cohort is registered completely, resumably, and whatever one subject does."""

from contextlib import nullcontext
import csv
from functools import partial
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

from cohort_files import FAST, save_cohort, save_template
import dipy.align.metrics as dipy_metrics
from dipy.io.streamline import load_tractogram
import nibabel as nib
import numpy as np
from numpy.testing import assert_array_equal
import pytest
from scipy.ndimage import map_coordinates
from tractogram_files import save_any

from dipy_dl_reg import MIMetric, apply_mapping, load_mapping, register_cohort
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise import cohort, study_progress, subject_registration
from dipy_dl_reg.groupwise.identity import describe_value
from dipy_dl_reg.groupwise.parallel import WorkerLostError
from dipy_dl_reg.groupwise.provenance import compute_checksum
from dipy_dl_reg.workflows.cohort import cohort_deep

MAP = "anat/sub-{0}_from-T1w_to-Test_mode-image_xfm.npz"


@pytest.fixture
def study(tmp_path):
    """A call of `register_cohort` on three tiny subjects; its folder is `folder`."""
    call = partial(
        register_cohort,
        save_cohort(tmp_path / "bids"),
        save_template(tmp_path),
        tmp_path / "out",
        **FAST,
    )
    return call


def checksums(folder):
    """Checksum and time of all outputs of the subjects."""
    return {
        path.relative_to(folder): (compute_checksum(path), path.stat().st_mtime_ns)
        for path in folder.glob("sub-*/**/*")
        if path.is_file()
    }


def statuses(result):
    """Subject and status of all rows, with what was done before."""
    return [(r["subject"], r["status"], r["was_done"]) for r in result.rows]


def test_outputs_of_a_subject(study, tmp_path):
    result = study()
    assert statuses(result) == [(f"sub-0{k}", "done", False) for k in (1, 2, 3)]
    out = tmp_path / "out" / "sub-01" / "anat"
    names = {path.name for path in out.iterdir()}
    stems = ("from-T1w_to-Test_mode-image_xfm", "space-Test_T1w", "space-Test_dseg")
    stems += ("from-T1w_to-Test_mode-image_desc-affine_xfm",)
    endings = (".npz", ".nii.gz", ".nii.gz", ".txt")
    assert names == {f"sub-01_{s}{e}" for s, e in zip(stems, endings)} | {
        f"sub-01_{s}.json" for s in stems
    }
    image = tmp_path / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    mapping = load_mapping(out / "sub-01_from-T1w_to-Test_mode-image_xfm.npz")
    warped = nib.load(out / "sub-01_space-Test_T1w.nii.gz")
    assert_array_equal(warped.get_fdata(), apply_mapping(mapping, image))
    template = nib.load(tmp_path / "tpl-Test_T1w.nii.gz")
    before = np.abs(nib.load(image).get_fdata() - template.get_fdata()).mean()
    after = np.abs(warped.get_fdata() - template.get_fdata()).mean()
    assert after < 0.5 * before
    labels = nib.load(out / "sub-01_space-Test_dseg.nii.gz")
    assert set(np.unique(labels.get_fdata())) == {0, 17}
    beside = json.loads((out / "sub-01_space-Test_dseg.json").read_text())
    assert beside["SHA256"][str(image)] == compute_checksum(image)
    assert "register_cohort" in beside["Call"] and "torch" in beside["Versions"]


def test_table_of_all_subjects(study, tmp_path):
    (tmp_path / "bids/sub-02/anat/sub-02_T1w.nii.gz").write_bytes(b"damaged")
    result = study()
    with open(result.table, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "sub-02_T1w.nii.gz is not an image file" in rows[1]["reason"]
    assert float(rows[0]["similarity_deformed"]) > 0 and rows[1]["seconds"] == "n/a"
    assert [row["subject"] for row in result.failed] == ["sub-02"]
    assert not list((tmp_path / "out").glob("sub-02/**/*.*"))
    log = (tmp_path / "out" / "logs" / "sub-02.log").read_text()
    assert "Traceback" in log


def test_what_is_done_is_not_done_again(study, tmp_path):
    study()
    before = checksums(tmp_path / "out")
    assert statuses(study()) == [(f"sub-0{k}", "done", True) for k in (1, 2, 3)]
    assert checksums(tmp_path / "out") == before
    # Another image, an output that is missing, or another option: done again.
    first = tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz"
    nib.save(nib.load(tmp_path / "bids/sub-02/anat/sub-02_T1w.nii.gz"), first)
    next((tmp_path / "out").glob("sub-03/anat/*T1w.nii.gz")).unlink()
    assert [was_done for *_, was_done in statuses(study())] == [False, True, False]
    assert not any(was for *_, was in statuses(study(level_iters=[2])))
    assert not any(was for *_, was in statuses(study(level_iters=[2], repeat=True)))


def test_a_study_that_was_moved_is_still_done(study, tmp_path):
    study()
    (tmp_path / "bids").rename(tmp_path / "other")
    (tmp_path / "out").rename(tmp_path / "results")
    template = tmp_path / "tpl-Test_T1w.nii.gz"
    result = register_cohort(tmp_path / "other", template, tmp_path / "results", **FAST)
    assert all(was_done for *_, was_done in statuses(result))


def test_another_role_of_a_file_is_another_input(study, tmp_path):
    folder = tmp_path / "bids" / "sub-01" / "anat"
    row = {"subject": "01", "T1w": folder / "sub-01_T1w.nii.gz"}
    rest = study.args[1:]
    for column, expected in (("labels", False), ("labels", True), ("image", False)):
        rows = [{**row, column: folder / "sub-01_dseg.nii.gz"}]
        assert register_cohort(rows, *rest, **FAST).rows[0]["was_done"] == expected


@pytest.mark.parametrize("size", [200, None])
def test_a_failure_removes_the_outputs_of_an_earlier_run(study, tmp_path, size):
    """Of an image that is damaged, or has become a link to nothing."""
    study()
    image = tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz"
    if size is None:
        image.unlink()
        image.symlink_to(tmp_path / "nothing")
    else:
        image.write_bytes(image.read_bytes()[:size])
    rows = [{"subject": k, "T1w": tmp_path / f"bids/sub-{k}/anat/sub-{k}_T1w.nii.gz"}
            for k in ("01", "02")]  # fmt: skip
    if size is None:
        register_cohort(rows, *study.args[1:], **FAST)
    else:
        assert statuses(study())[0] == ("sub-01", "failed", False)
    assert not [p for p in (tmp_path / "out" / "sub-01").rglob("*") if p.is_file()]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from dipy_dl_reg import register_cohort
from dipy_dl_reg.groupwise.subject_folder import SubjectFolder

publish = SubjectFolder.publish

def publish_or_kill(self, paths, record):
    paths = list(paths)
    if self.name == "sub-02":
        for path in paths[:2]:
            (self.out_dir / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.staging / path, self.out_dir / path)
        os.kill(os.getpid(), signal.SIGKILL)
    publish(self, paths, record)

SubjectFolder.publish = publish_or_kill
bids, template, out = sys.argv[1:]
register_cohort(bids, template, out, **{options})
"""


def test_a_kill_leaves_nothing_half_done(study, tmp_path):
    code = textwrap.dedent(KILLED).replace("{options}", repr(FAST))
    arguments = [tmp_path / "bids", tmp_path / "tpl-Test_T1w.nii.gz", tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code, *arguments], env=environment)
    assert run.returncode == -signal.SIGKILL
    assert list((tmp_path / "out" / ".cohort" / "staging").glob("sub-02*/**/*.*"))
    result = study()
    assert [was_done for *_, was_done in statuses(result)] == [True, False, False]
    fresh = study.func(*study.args[:2], tmp_path / "fresh", **FAST)
    assert len(fresh.rows) == 3
    ends = (".nii.gz", ".npz", ".txt")
    for folder in ("out", "fresh"):
        assert not list((tmp_path / folder / ".cohort" / "staging").iterdir())
    found, expected = (
        {p: c for p, (c, _) in checksums(tmp_path / f).items() if str(p).endswith(ends)}
        for f in ("out", "fresh")
    )
    assert found == expected


def test_two_calls_do_no_subject_twice(study, monkeypatch):
    calls, register = [], subject_registration._register

    def slow(subject, *arguments):
        calls.append(subject.name)
        time.sleep(0.2)
        return register(subject, *arguments)

    monkeypatch.setattr(subject_registration, "_register", slow)
    # Two threads stand for two processes; lock files keep them apart as well.
    monkeypatch.setattr("dipy_dl_reg.groupwise.parallel._LOCK", nullcontext())
    results = [None, None]

    def run(index):
        results[index] = study()

    other = threading.Thread(target=run, args=(1,))
    other.start()
    run(0)
    other.join()
    assert sorted(calls) == ["sub-01", "sub-02", "sub-03"]
    for result in results:
        assert [row["status"] for row in result.rows] == ["done"] * 3


def test_a_lost_process_is_the_failure_of_its_subject(study, monkeypatch):
    run = cohort.run_in_parallel

    def lose(function, items, **options):
        if any(subject.name == "sub-02" for subject in items):
            raise WorkerLostError("a worker process ended")
        return run(function, items, **options)

    monkeypatch.setattr(cohort, "run_in_parallel", lose)
    result = study()
    assert [r["status"] for r in result.rows] == ["done", "failed", "done"]


def test_two_processes_give_the_same_files(study, tmp_path):
    engine = "joblib"
    pytest.importorskip(engine)
    study()
    study.func(*study.args[:2], tmp_path / engine, engine=engine, n_jobs=2, **FAST)
    for label in ("01", "02", "03"):
        name = MAP.format(label)
        first, second = (
            load_mapping(tmp_path / folder / f"sub-{label}" / name)
            for folder in ("out", engine)
        )
        assert_array_equal(first.forward, second.forward)
        assert_array_equal(first.backward, second.backward)


def sample(image, points):
    """Values of an image at points in mm, by linear interpolation."""
    voxels = nib.affines.apply_affine(np.linalg.inv(image.affine), points)
    return map_coordinates(image.get_fdata(), voxels.T, order=1)


def test_files_of_all_kinds_in_a_table(study, tmp_path, rng):
    folder = tmp_path / "bids" / "sub-01" / "anat"
    image = nib.load(folder / "sub-01_T1w.nii.gz")
    grid = Grid(image.shape, image.affine)
    lines = [nib.affines.apply_affine(image.affine, [[2.2, 7, 8], [7, 7, 12.8]])]
    save_any(folder / "bundle.trk", lines, grid)
    series = nib.Nifti1Image(rng.random((*image.shape, 7)).astype("f4"), image.affine)
    nib.save(series, folder / "dwi.nii.gz")
    bvecs = rng.normal(size=(3, 7))
    bvecs /= np.linalg.norm(bvecs, axis=0)
    np.savetxt(folder / "a.bvals", [[0, *[1000] * 6]], fmt="%d")
    np.savetxt(folder / "a.bvecs", bvecs)
    nib.save(nib.Nifti1Image((image.get_fdata() > 9).astype("u1"), image.affine),
             folder / "mask.nii.gz")  # fmt: skip
    columns = ("subject", "T1w", "FA", "mask", "labels_a", "labels_b", "tractogram")
    columns += ("dwi", "bvals", "bvecs", "series")
    cells = [
        "01",
        *2 * ["sub-01_T1w.nii.gz"],
        "mask.nii.gz",
        *2 * ["sub-01_dseg.nii.gz"],
    ]
    cells += ["bundle.trk", "dwi.nii.gz", "a.bvals", "a.bvecs", "dwi.nii.gz"]
    table = folder / "subjects.tsv"
    table.write_text("\t".join(columns) + "\n" + "\t".join(cells) + "\n")
    result = register_cohort(table, 2 * [study.args[1]], tmp_path / "out", **FAST)
    assert statuses(result) == [("sub-01", "done", False)], result.rows
    names = {
        str(path.relative_to(tmp_path / "out" / "sub-01"))
        for path in (tmp_path / "out" / "sub-01").rglob("*.*")
        if path.suffix != ".json" and "xfm" not in path.name
    }
    assert names == {
        "anat/sub-01_space-Test_T1w.nii.gz",
        "anat/sub-01_space-Test_FA.nii.gz",
        "anat/sub-01_space-Test_desc-a_dseg.nii.gz",
        "anat/sub-01_space-Test_desc-b_dseg.nii.gz",
        "anat/sub-01_space-Test_desc-brain_mask.nii.gz",
        "dwi/sub-01_space-Test_tractogram.trk",
        *(f"dwi/sub-01_space-Test_dwi{e}" for e in (".nii.gz", ".bval", ".bvec")),
        "func/sub-01_space-Test_series.nii.gz",
    }
    moved = load_tractogram(
        str(tmp_path / "out/sub-01/dwi/sub-01_space-Test_tractogram.trk"),
        str(study.args[1]),
    )
    warped = nib.load(tmp_path / "out/sub-01/anat/sub-01_space-Test_T1w.nii.gz")
    # At the edge, where values change quickly, each point keeps its value.
    found = sample(warped, moved.streamlines[0])
    np.testing.assert_allclose(found, sample(image, lines[0]), atol=8)
    assert np.ptp(found) < 60 and abs(found.mean() - 50) < 25


def test_wrong_file_fails_before_the_registration(study, tmp_path, monkeypatch):
    monkeypatch.setattr(subject_registration, "_align_and_deform", None)
    path = tmp_path / "bids/sub-01/anat/sub-01_dseg.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2, 2), "u1"), np.eye(4)), path)
    assert "must be a volume" in study().rows[0]["reason"]


def test_all_grades_and_the_index_page(study, tmp_path):
    pytest.importorskip("jinja2")
    result = study(report=True)
    page = result.index_page.read_text()
    for row in result.rows:
        assert (tmp_path / "out" / row["report"]).is_file()
        assert row["report"] in page


def test_progress_counts_the_subjects_of_other_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(study_progress, "_PAUSE", 0.01)
    with study_progress.watch_progress(tmp_path, 2) as marks:
        for name in ("sub-01", "sub-02"):
            study_progress.mark_finished(marks, name)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_a_table(study, tmp_path, monkeypatch):
    register = subject_registration._register

    def interrupt(subject, *arguments):
        if subject.name == "sub-02":
            raise KeyboardInterrupt
        return register(subject, *arguments)

    monkeypatch.setattr(subject_registration, "_register", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study()
    with open(tmp_path / "out" / "space-Test_measures.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    assert rows[1]["reason"] == "the call was interrupted"


@pytest.mark.parametrize(
    "first, second, same",
    [
        (dipy_metrics.CCMetric(3), dipy_metrics.CCMetric(3), True),
        (dipy_metrics.CCMetric(3), dipy_metrics.CCMetric(3, radius=2), False),
        ([MIMetric(3)], [MIMetric(3)], True),
        (np.zeros(3), np.ones(3), False),
        ({"a": np.float32(1)}, {"a": 1.0}, True),
        (len, max, False),
    ],
)
def test_options_are_compared_by_their_values(first, second, same):
    assert (describe_value(first) == describe_value(second)) == same
    assert "0x" not in json.dumps(describe_value(first))


def test_a_network_in_a_file_is_compared_by_its_content(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"first")
    before = describe_value({"model": str(path)})
    path.write_bytes(b"second")
    assert describe_value({"model": str(path)}) != before


@pytest.mark.parametrize(
    "options, code",
    [
        (["bids", "--pipeline", "wrong"], 2),
        (["bids", "--metric", "wrong"], 2),
        (["bids", "--engine", "slurm"], 2),
        (["bids", "--entities", "run"], 2),
        (["none*.nii"], 1),
        (["damaged*.nii.gz"], 1),
        (["some.csv"], 3),
        (["bids"], 0),
    ],
)
def test_exit_codes_of_the_command(study, tmp_path, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged_1.nii.gz").write_bytes(b"no image")
    image = "bids/sub-01/anat/sub-01_T1w.nii.gz"
    (tmp_path / "some.csv").write_text(f"subject,T1w\n1,{image}\n2,damaged_1.nii.gz")
    template, more = "tpl-Test_T1w.nii.gz", "--no_report --level_iters 1 --out_dir out"
    first, *rest = options
    pipeline = "--pipeline translation deform --model None --device cpu".split()
    arguments = ["dipy_cohort_deep", first, template, *more.split(), *pipeline, *rest]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    if not code:
        return cohort_deep()
    with pytest.raises(SystemExit) as end:
        cohort_deep()
    assert end.value.code == code
