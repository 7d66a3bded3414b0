"""Subjects are found in folders, by patterns and in tables; wrong input is an error."""

import importlib.util
from pathlib import Path

from cohort_files import FAST, ellipsoid, save_cohort, save_image, save_template
import numpy as np
import pytest

from dipy_dl_reg import register_cohort
from dipy_dl_reg.groupwise import bids_folder, gpus, worker_memory
from dipy_dl_reg.groupwise.cohort_plan import make_plan
from dipy_dl_reg.groupwise.find_subjects import find_subjects
from dipy_dl_reg.groupwise.gpus import claim_device
from dipy_dl_reg.groupwise.worker_memory import limit_processes

IMAGE = ellipsoid((7, 7, 7), (4, 4, 4))


@pytest.fixture(params=["names", "pybids"])
def listing(request, monkeypatch):
    """Files are listed by their names, or by pybids."""
    if request.param == "pybids":
        pytest.importorskip("bids")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return request.param


def describe(subjects):
    """Names, images and further files of subjects."""
    return [
        (s.name, [f.path.name for f in s.images], [f.path.name for f in s.files])
        for s in subjects
    ]


def test_folder_in_bids_form(listing, tmp_path):
    folder = save_cohort(tmp_path / "bids", ("01", "02"))
    anat = folder / "sub-03" / "ses-a" / "anat"
    mask = save_image(anat / "sub-03_ses-a_desc-brain_mask.nii.gz", IMAGE)
    for run in ("1", "2"):
        save_image(anat / f"sub-03_ses-a_run-{run}_T1w.nii.gz", IMAGE)
    save_image(anat / "sub-03_ses-a_space-MNI_T1w.nii.gz", IMAGE)
    dwi = folder / "sub-03" / "ses-a" / "dwi" / "sub-03_ses-a_dwi.nii.gz"
    save_image(dwi, np.stack([IMAGE] * 2, -1))
    (folder / "dwi.bval").write_text("0 1")  # for all subjects, as BIDS allows
    dwi.with_name("sub-03_ses-a_dwi.bvec").write_text("0 1\n0 0\n0 0")
    save_image(folder / "sub-03" / "ses-b" / "func" / "sub-03_ses-b_bold.nii.gz", IMAGE)
    with pytest.raises(
        ValueError, match="sub-03 has 2 images T1w: .*choose by entities"
    ):
        find_subjects(folder)
    subjects = find_subjects(folder, entities={"run": "2"}, further=["dwi"])
    assert subjects[-1].mask == mask
    assert describe(subjects[2:]) == [
        ("sub-03_ses-a", ["sub-03_ses-a_run-2_T1w.nii.gz"], ["sub-03_ses-a_dwi.nii.gz"])
    ]
    options = dict(subjects[-1].files[0].options)
    assert options["bvals"].endswith("bids/dwi.bval")
    assert options["bvecs"].endswith("sub-03_ses-a_dwi.bvec")
    # Subjects without the image are kept, to be listed as failures.
    assert [bool(s.missing) for s in subjects] == [True, True, False]
    with pytest.raises(ValueError, match="no subject in .* has T2w; there are T1w"):
        find_subjects(folder, contrasts=["T2w"])


@pytest.mark.parametrize(
    "names, pattern, found",
    [
        (("a_1.nii", "b 2.nii.gz"), "*.nii*", ["sub-a1", "sub-b2"]),
        (("x/t1.nii", "y/t1.nii"), "*/t1.nii", ["sub-x", "sub-y"]),
        (("x/m/t1.nii", "y/m/t1.nii"), "*/m/t1.nii", ["sub-x", "sub-y"]),
        (
            ("sub-1/ses-2/a.nii", "sub-1/ses-3/a.nii"),
            "*/*/a.nii",
            ["sub-1_ses-2", "sub-1_ses-3"],
        ),
        (("sub-7_acq-a_T1w.nii",), "sub-*.nii", ["sub-7"]),
    ],
)
def test_pattern(tmp_path, names, pattern, found):
    for name in names:
        save_image(tmp_path / name, IMAGE)
    assert [s.name for s in find_subjects(str(tmp_path / pattern))] == found


@pytest.mark.parametrize(
    "text, message",
    [
        ("subject,T1w\n01,a.nii\n sub-01,b.nii\n", "two have the name sub-01: .*a.nii"),
        ("name,T1w\n01,a.nii\n", "no column 'subject'"),
        ("subject,mask\n01,a.nii\n", "no column of images"),
        ("subject,T1w\n01,a.nii,b\n", "line 2 of .* has 3 cells"),
        ("subject,T1w\n,a.nii\n", "a row has no subject"),
        ("subject,T1w,T1w\n", "must have column names, each once"),
        ("subject,T1w\n_,a.nii\n", "subject must contain letters or digits"),
        ("", "is empty"),
        ("subject,T1w\n", "has no rows"),
    ],
)
def test_wrong_table(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_subjects(tmp_path / "table.csv")


def test_table_with_a_column_that_is_missing(tmp_path):
    (tmp_path / "table.csv").write_text("subject,T1w\n01,a.nii\n")
    with pytest.raises(ValueError, match="no column 'FA', only"):
        find_subjects(tmp_path / "table.csv", contrasts=["T1w", "FA"])


def test_empty_cell_is_the_failure_of_its_subject():
    rows = [{"subject": "1", "T1w": "a.nii"}, {"subject": "2", "T1w": "n/a"}]
    first, second = find_subjects(rows)
    assert first.images[0].path == Path.cwd() / "a.nii"
    assert second.missing == "the table names no T1w"


@pytest.fixture
def inputs(tmp_path):
    """Arguments of `register_cohort` by name, all of them right."""
    return {
        "subjects": save_cohort(tmp_path / "bids"),
        "template": save_template(tmp_path),
        "out_dir": tmp_path / "out",
        **FAST,
    }


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"subjects": "{}/no*.nii"}, FileNotFoundError, "no file matches .*no\\*.nii"),
        ({"subjects": "{}/a.tsv"}, FileNotFoundError, "no such file: .*a.tsv"),
        ({"subjects": "{}"}, ValueError, "has no images in folders sub-"),
        (
            {"subjects": "{}/*.nii.gz", "template": "{}/text"},
            ValueError,
            "template: .*t",
        ),
        ({"template": "{}/none.nii"}, FileNotFoundError, "template: no such file"),
        ({"template": ["{}/tpl-Test_T1w.nii.gz"] * 2}, ValueError, "must be 1 images"),
        ({"out_dir": "{}/bids/out"}, ValueError, "out_dir must not lie in the folder"),
        ({"out_dir": "{}/bids"}, ValueError, "out_dir: the input .* lies in"),
        ({"engine": "slurm"}, ValueError, "engine must be one of"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be"),
        ({"memory": "much"}, ValueError, "max_memory must be a number of bytes"),
        ({"pipeline": ["wrong"]}, ValueError, "pipeline"),
        ({"metric": "wrong"}, ValueError, "metric"),
        ({"space": "--"}, ValueError, "space must contain letters"),
        ({"contrasts": ["T2w"]}, ValueError, "no subject in .* has T2w"),
    ],
)
def test_wrong_arguments(inputs, tmp_path, change, error, message):
    (tmp_path / "text").write_text("no image")

    def fill(value):
        if isinstance(value, list):
            return [fill(each) for each in value]
        return value.format(tmp_path) if isinstance(value, str) else value

    with pytest.raises(error, match=message):
        register_cohort(**inputs | {name: fill(v) for name, v in change.items()})
    assert not (tmp_path / "out").exists()


def test_derivatives_are_a_place_for_outputs(inputs, tmp_path):
    inputs["out_dir"] = tmp_path / "bids" / "derivatives" / "registered"
    result = register_cohort(**inputs)
    assert len(result.rows) == 3 and not result.failed
    assert len(find_subjects(tmp_path / "bids")) == 3


def test_each_process_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "_PAUSE", 0.01)
    claim = {"count": 2, "folder": tmp_path}
    with claim_device("cpu", **claim) as device:
        assert device == "cpu"
    with claim_device("auto", count=0, folder=tmp_path) as device:
        assert device == "auto"
    with (
        claim_device("auto", **claim) as first,
        claim_device("cuda", **claim) as second,
    ):
        assert {first, second} == {"cuda:0", "cuda:1"}
        monkeypatch.setattr(gpus.time, "sleep", lambda pause: 1 / 0)
        with pytest.raises(ZeroDivisionError), claim_device("auto", **claim):
            pass  # a third waits
    with claim_device("auto", **claim) as third:
        assert third == "cuda:0"


@pytest.mark.parametrize(
    "name, file", [("3", "3"), ("MIG-GPU-ab/1/0", "MIG-GPU-ab_1_0")]
)
def test_gpus_have_one_name_in_all_processes(name, file, tmp_path, monkeypatch):
    """Of a part of a GPU, too, whose name contains slashes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    with claim_device("auto", count=1, folder=tmp_path) as device:
        assert device == "cuda:0"
        assert (tmp_path / f"gpu-{file}.lock").exists()


@pytest.mark.parametrize(
    "count, free, gpus, limited", [(4, 10e9, 0, 4), (4, 5e9, 0, 2), (4, 1e9, 0, 1),
                                   (4, None, 0, 4), (4, 10e9, 2, 2)]
)  # fmt: skip
def test_processes_are_limited_by_memory_and_gpus(count, free, gpus, limited, caplog):
    assert limit_processes(count, 2e9, free=free, gpus=gpus) == limited
    warned = [r for r in caplog.records if r.levelname == "WARNING"]
    assert bool(warned) == (free is not None and free < 8e9)


def test_memory_grows_with_the_largest_series(tmp_path):
    template = save_template(tmp_path)
    series = save_image(tmp_path / "s.nii", np.zeros((16, 16, 16, 20), np.uint8))
    study = make_plan(
        [template], tmp_path, space=None, template_mask=None,
        pipeline=None, metric="auto", options={},
    )  # fmt: skip
    row = {"subject": "1", "T1w": template}
    sizes = [
        worker_memory.estimate_worker_memory(find_subjects([each]), study)
        for each in (row, {**row, "series": series})
    ]
    assert sizes[1] - sizes[0] == 16 * 16**3 * 20


def test_pybids_and_names_find_the_same(tmp_path):
    pytest.importorskip("bids")
    folder = save_cohort(tmp_path / "bids")
    by_pybids = bids_folder._list_by_pybids(folder)
    assert by_pybids == sorted(folder.glob("sub-*/**/sub-*"))
