"""A cohort of 16 brains: killed and resumed, with each engine, on one and two workers.

    DIPY_DL_REG_DATA=FOLDER python -m tools.experiments.cohort --output FILE.txt

The brains are `t1_free_2mm/adult_01` to `adult_16`, stripped of their skulls, and one
file is cut off; the template is nilearn's MNI152 at 2 mm within its brain mask.  The
command `dipy_cohort_deep` runs with two workers, is killed with all its processes, and
is repeated.  Then the first brains are registered again with each engine, and the maps
are compared byte for byte with those of the first study.
"""

import argparse
from collections.abc import Sequence
import csv
import json
import os
from pathlib import Path
import platform
import signal
import subprocess
import sys
import tempfile
import time

import nibabel as nib
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
import numpy as np

from dipy_dl_reg.groupwise.provenance import compute_checksum
from dipy_dl_reg.maps.record import list_versions

COMMAND = (
    "from dipy_dl_reg.workflows.cohort import cohort_deep as run\n"
    "if __name__ == '__main__': run()\n"
)
BRAINS, DAMAGED = 16, "07"
#: Engines with their numbers of workers; those that are compared take turns.
RUNS = [("serial", 1), ("joblib", 2), ("serial", 1), ("joblib", 2), ("dask", 2)]
RUNS += [("ray", 2)]


def prepare(data: Path, work: Path, resolution: int) -> None:
    """Write the template, and a folder in BIDS form with one damaged file."""
    brain = load_mni152_template(resolution=resolution)
    mask = load_mni152_brain_mask(resolution=resolution)
    values = np.where(mask.get_fdata() > 0, brain.get_fdata(), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(values, brain.affine), work / "tpl-MNI152_T1w.nii.gz")
    for k in range(1, BRAINS + 1):
        source = data / "t1_free_2mm" / f"adult_{k:02d}_t1.nii.gz"
        target = work / "bids" / f"sub-{k:02d}" / "anat" / f"sub-{k:02d}_T1w.nii.gz"
        target.parent.mkdir(parents=True)
        content = source.read_bytes()
        target.write_bytes(content[: len(content) // 2] if DAMAGED in target.name
                           else content)  # fmt: skip


def start(work: Path, subjects: str, out: str, *options: str) -> subprocess.Popen:
    """Start the command in a process group of its own."""
    (work / "run.py").write_text(COMMAND)
    arguments = [str(work / subjects), str(work / "tpl-MNI152_T1w.nii.gz")]
    arguments += ["--num_threads", "1", "--out_dir", str(work / out), *options]
    log = open(work / f"{out}.txt", "a")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, str(work / "run.py"), *arguments],
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=environment,
    )


def find_records(folder: Path) -> dict[str, int]:
    """Time of the record of each subject that is done."""
    records = folder.glob("sub-*/*_measures.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in records}


def find_partial_subjects(folder: Path) -> list[str]:
    """Subjects with a file that is incomplete, or with outputs but no record."""
    partial = []
    for subject in sorted(folder.glob("sub-*")):
        record = next(subject.glob("*_measures.json"), None)
        files = [path for path in subject.rglob("*") if path.is_file()]
        sizes = json.loads(record.read_text())["Outputs"] if record else {}
        complete = all((folder / p).stat().st_size == n for p, n in sizes.items())
        if not complete or len(files) != len(sizes) + bool(record):
            partial.append(subject.name)
    return partial


def interrupt_and_resume(work: Path, after: int) -> list[str]:
    """Kill the study when some subjects are done, and run it again."""
    out = work / "study"
    options = ("--engine", "joblib", "--n_jobs", "2")
    process = start(work, "bids", "study", *options)
    while len(find_records(out)) < after and process.poll() is None:
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before, partial = find_records(out), find_partial_subjects(out)
    staged = list((out / ".cohort" / "staging").glob("*"))
    begin = time.perf_counter()
    code = start(work, "bids", "study", *options).wait()
    seconds = time.perf_counter() - begin
    after_kill = find_records(out)
    repeated = [name for name, moment in before.items() if after_kill[name] != moment]
    begin = time.perf_counter()
    last = start(work, "bids", "study", *options).wait()
    rows = read_rows(out)
    failed = [row for row in rows if row["status"] == "failed"]
    return [
        f"killed: {len(before)} subjects done, {len(staged)} begun; with half files or "
        f"without record: {partial or 'none'}",
        f"resumed: {sum(r['status'] == 'done' for r in rows)} done, exit code {code}, "
        f"{seconds:.0f} s; done twice: {repeated or 'none'}",
        *(f"failed: {r['participant_id']}: {Path(r['reason']).name}" for r in failed),
        f"third call: exit code {last}, {time.perf_counter() - begin:.1f} s, done "
        f"twice: {'none' if find_records(out) == after_kill else 'some'}",
        f"grades: {', '.join(sorted({r['grade'] for r in rows}))}; left in staging: "
        f"{len(list((out / '.cohort' / 'staging').glob('*')))}",
    ]


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a study's table."""
    with open(next(folder.glob("*_measures.tsv")), newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def compare_engines(work: Path, labels: Sequence[str]) -> list[str]:
    """Register some subjects with each engine; compare times and maps."""
    table = work / "some.tsv"
    images = [f"bids/sub-{k}/anat/sub-{k}_T1w.nii.gz" for k in labels]
    rows = [f"{label}\t{image}" for label, image in zip(labels, images)]
    table.write_text("\n".join(["subject\tT1w", *rows, ""]))
    lines = [f"{'engine':8}{'workers':>8}{'wall s':>8}{'CPU s':>7}  same files"]
    for engine, count in RUNS:
        options = ("--engine", engine, "--n_jobs", str(count), "--force")
        begin = time.perf_counter()
        code = start(work, "some.tsv", engine, *options).wait()
        seconds = time.perf_counter() - begin
        cpu = sum(float(row["cpu_seconds"]) for row in read_rows(work / engine))
        same, compared = compare_files(work / "study", work / engine)
        lines.append(
            f"{engine:8}{count:8}{seconds:8.0f}{cpu:7.0f}  {same} of {compared}"
            + f"; exit code {code}" * bool(code)
        )
    return lines


def compare_files(first: Path, second: Path) -> tuple[int, int]:
    """Count maps and images that are the same in two studies, byte for byte."""
    paths = [p for e in ("npz", "nii.gz", "txt") for p in second.glob(f"sub-*/*/*.{e}")]
    pairs = [(path, first / path.relative_to(second)) for path in paths]
    same = sum(compute_checksum(a) == compute_checksum(b) for a, b in pairs)
    return same, len(pairs)


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("DIPY_DL_REG_DATA"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--brains", type=int, default=6, help="for each engine")
    parser.add_argument("--resolution", type=int, default=2, help="of MNI152, mm")
    parser.add_argument("--kill_after", type=int, default=5)
    options = parser.parse_args()
    if not options.data:
        parser.error("give --data, or set DIPY_DL_REG_DATA")
    versions = ", ".join(f"{n} {v}" for n, v in list_versions().items())
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, shared with other programs "
        f"(load {os.getloadavg()[0]:.0f}); one thread each; {versions}",
        f"{BRAINS} brains to MNI152 at {options.resolution} mm by dipy_cohort_deep; "
        f"the file of sub-{DAMAGED} is cut off",
    ]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(Path(options.data), work, options.resolution)
        lines += ["", *interrupt_and_resume(work, options.kill_after)]
        print("\n".join(lines), flush=True)
        labels = [f"{k:02d}" for k in range(1, options.brains + 1)]
        engines = compare_engines(work, labels)
    lines += ["", f"the first {options.brains} brains with each engine", *engines]
    text = "\n".join(lines) + "\n"
    print("\n".join(engines))
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
