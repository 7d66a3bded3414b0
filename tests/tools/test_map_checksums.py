"""tools/experiments/map_checksums.py on small images made here."""

from pathlib import Path
import sys

import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))

import checksum_cases  # noqa: E402
import map_checksums  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """Two brains: ellipsoids of two tissues."""
    for name, radius in (("a", 70), ("b", 64)):
        axes = np.ogrid[-80:80:41j, -80:80:41j, -80:80:41j]
        distance = sum((x / r) ** 2 for x, r in zip(axes, (radius, 60, 75)))
        image = np.where(distance < 1, 2 - distance, 0).astype(np.float32)
        affine = np.diag([4.0, 4, 4, 1])
        nib.save(nib.Nifti1Image(image, affine), tmp_path / f"subject_{name}_t1.nii.gz")
    return tmp_path


def test_checksum_tells_type_shape_and_values_apart():
    array = np.arange(6.0)
    others = [array + 1e-15, array.astype(np.float32), array.reshape(2, 3)]
    found = [map_checksums.checksum([a]) for a in (array, *others)]
    assert len(set(found)) == 4
    assert map_checksums.checksum([array[::-1][::-1]]) == found[0]


def test_quick_cases_exist(folder):
    assert set(checksum_cases.QUICK) <= checksum_cases.make_cases(folder).keys()


def test_lines_repeat(folder, capsys):
    words = ["--data", str(folder), "--only", "inputs", "2D SSD", "centre of mass"]
    printed = []
    for _ in range(2):
        assert not map_checksums.main(words)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    names = [line[:44].strip() for line in printed[0].splitlines()[1:]]
    assert names == ["inputs", "2D SSD", "affine call centre of mass"]


def test_failure_is_a_line_and_a_status(folder, capsys, monkeypatch):
    def fail():
        raise KeyError("gone")

    monkeypatch.setattr(map_checksums, "make_cases", lambda *_: {"one": fail})
    assert map_checksums.main(["--data", str(folder)])
    assert "failed: KeyError" in capsys.readouterr().out
