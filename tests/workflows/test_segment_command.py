"""The command dipy_segment_deep: what it writes, and its errors."""

from brain_image import load_brain
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg.workflows.segment import segment_deep


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    template = load_brain(resolution=5)
    nib.save(template, "t1.nii.gz")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["dipy_segment_deep", *arguments])
        segment_deep()

    return call


def test_labels_and_mask(run, tmp_path):
    run("t1.nii.gz", "--out_dir", "out")
    image = nib.load("t1.nii.gz")
    labels, mask = (nib.load(f"out/{n}.nii.gz") for n in ("labels", "brain_mask"))
    for written in (labels, mask):
        np.testing.assert_allclose(written.affine, image.affine)
        assert written.shape == image.shape
    mask = np.asarray(mask.dataobj)
    assert set(np.unique(mask)) == {0, 1}
    volume = mask.sum() * 0.125  # millilitres
    assert 1500 < volume < 2200
    assert {2, 3, 41, 42} <= set(np.unique(labels.dataobj))


def test_one_of_both(run, tmp_path):
    run("t1.nii.gz", "--write", "mask", "--threshold", "0.9", "--no_fluid")
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "brain_mask.nii.gz",
        "t1.nii.gz",
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--write", "all"], "write must be labels, mask or both"),
        (["--threshold", "1.5"], "threshold must be above 0"),
        (["--out_mask", "mask.txt"], "out_mask must end in"),
    ],
)
def test_errors(run, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        run("t1.nii.gz", *arguments)
    assert end.value.code not in (0, None)
    assert message in str(end.value.code) + "".join(capsys.readouterr())
    assert [p.name for p in tmp_path.iterdir()] == ["t1.nii.gz"]
