"""Outputs that exist, and commands that are interrupted."""

import signal
import subprocess
import sys

from workflow_files import fails, finer, names, save

from dipy_dl_reg.workflows.align import align_deep
from dipy_dl_reg.workflows.apply import apply_deep


def test_many_existing_outputs_are_not_all_named(swift, pair, tmp_path, command):
    folder = tmp_path / "subjects"
    folder.mkdir()
    for k in range(10):
        (folder / f"s{k}.nii.gz").write_bytes(pair["moving"].read_bytes())
    arguments = (align_deep, pair["static"], folder / "*.nii.gz", "--mix_names")
    arguments += ("--out_dir", pair["out"])
    command(*arguments)
    said = fails(command, *arguments)
    assert "and 27 more; add --force" in said and said.count("static_s") == 3


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
