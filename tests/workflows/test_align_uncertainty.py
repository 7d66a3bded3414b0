"""`dipy_align_deep --out_uncertainty`: the file, and what it is computed with."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from workflow_files import OUTPUTS, fails, names

from dipy_dl_reg.workflows import register_files
from dipy_dl_reg.workflows.align import align_deep


@pytest.fixture
def asked(monkeypatch):
    """Calls of a stand-in for `mapping_uncertainty`."""
    calls = []

    def estimate(mapping, static, moving, **options):
        calls.append(options)
        error = np.full(mapping.codomain_shape, 1.5, np.float32)
        return SimpleNamespace(expected_error=error)

    monkeypatch.setattr(register_files, "mapping_uncertainty", estimate)
    return calls


def test_expected_error_is_written_on_statics_grid(swift, asked, pair, command):
    command(
        align_deep,
        *(pair["static"], pair["moving"], "--out_uncertainty", "error.nii.gz"),
        *("--same_subject", "--device", "cpu", "--num_threads", 1),
        *("--out_dir", pair["out"]),
    )
    assert names(pair["out"]) == OUTPUTS | {"error.nii.gz"}
    written, static = nib.load(pair["out"] / "error.nii.gz"), nib.load(pair["static"])
    assert_allclose(written.affine, static.affine)
    assert_allclose(written.get_fdata(), np.full(static.shape, 1.5))
    (options,) = asked
    assert options["subjects"] == "same" and options["device"] == "cpu"
    assert options["num_threads"] == 1 and options["static_mask"] is None


def test_without_a_name_nothing_is_estimated(swift, asked, pair, command):
    command(align_deep, pair["static"], pair["moving"], "--out_dir", pair["out"])
    assert not asked


def test_channels_have_no_uncertainty(swift, asked, pair, command):
    said = fails(
        command,
        *(align_deep, pair["static"], pair["moving"]),
        *("--static_channels", pair["static"], "--moving_channels", pair["moving"]),
        *("--out_uncertainty", "error.nii.gz", "--out_dir", pair["out"]),
    )
    assert "out_uncertainty" in said and not pair["out"].exists()


def test_repetition_has_the_options_of_the_registration(swift, asked, pair, command):
    command(
        align_deep,
        *(pair["static"], pair["moving"], "--out_uncertainty", "error.nii.gz"),
        *("--metric", "ssd", "--model", "none", "--anatomy", "no"),
        *("--level_iters", 2, 1, "--out_dir", pair["out"]),
    )
    (options,) = asked
    assert options["metric"] == "ssd" and options["model"] is None
    assert options["anatomy"] is False and list(options["level_iters"]) == [2, 1]


def test_landmarks_have_no_uncertainty(asked, pair, command, tmp_path):
    points = tmp_path / "points.txt"
    np.savetxt(points, [[10, 10, 10], [30, 10, 10], [10, 30, 10], [10, 10, 30]])
    said = fails(
        command,
        *(align_deep, pair["static"], pair["moving"]),
        *("--static_landmarks", points, "--moving_landmarks", points),
        *("--out_uncertainty", "error.nii.gz", "--out_dir", pair["out"]),
    )
    assert "out_uncertainty" in said and "landmarks" in said
    assert not asked and not pair["out"].exists()
