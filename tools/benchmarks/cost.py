"""Seconds, memory and disk of registrations, by size of the images and by device.

    python -m tools.benchmarks.cost --output FILE.json
    python -m tools.benchmarks.cost --output FILE.json --sizes "2 mm" --tasks default
    python -m tools.benchmarks.cost --output FILE.json --quiet_machine --minutes 10

The images are the MNI152 template that comes with nilearn, a skull-stripped brain,
resampled to each size, and the same image deformed by a known smooth field of 12 mm at
most; in 2D, its middle axial slice. `default, b0` registers images of different
contrast: moving has inverted intensities. Each task runs in a process of its own, after
a call on tiny images that loads libraries:

- seconds, and CPU seconds of all threads, of the call, with images in memory;
- peak memory: the largest resident memory of the process, Python, torch and images
  included ("total"), and the part above what was in use before the call ("call").

Every row is stored at once, and a row that FILE.json holds is not measured again: the
same command continues an interrupted run. FILE.txt, beside FILE.json, is the table.
Seconds are upper bounds if other programs use the processors; CPU seconds and memory
hardly change. With `--quiet_machine`, which says that no other program runs, rows that
were measured on a busy machine are measured again. `--minutes` stops before a task that
would end later. Rows of a GPU come from doc/benchmark/gpu.txt (tools/gpu_check.py).

`disk` measures the package as installed, and the files that a registration writes.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from datetime import date
import json
from pathlib import Path
import re
import subprocess
import sys
from tempfile import TemporaryDirectory
import time

import numpy as np

from tools.benchmarks.record import ROOT, describe, write_json

GPU_TABLE = ROOT / "doc" / "benchmark" / "gpu.txt"
#: Commit and date of that table, whose file does not name them.
GPU_COMMIT, GPU_DATE = "2a59de5", "2026-11-26"
#: Name of a size: shape, and voxel size in mm.
SIZES = {
    "2 mm": ((80, 104, 88), 2.0),
    "1.5 mm": ((107, 139, 117), 1.5),
    "1 mm": ((160, 208, 176), 1.0),
    "256^3": ((256, 256, 256), 0.75),
    "2D 512^2": ((512, 512), 0.4),
}
#: Options of DeepRegistration.
REGISTRATIONS = {
    "default": {},
    "default, b0": {},
    "refinement": {"model": None, "anatomy": False},
    "network": {"level_iters": 0},
}
#: Tasks of a size; only the default is measured at 256^3.
TASKS = (*REGISTRATIONS, "affine", "segmentation", "uncertainty")
PLANE = ("default", "refinement", "network", "affine")
NAMES = {"2D 512^2": PLANE, "256^3": ("default",)}
KEY = ("size", "task", "device")
COLUMNS = {
    "seconds": ("seconds", ".1f"),
    "cpu_seconds": ("CPU s", ".1f"),
    "peak_call_mib": ("call MiB", ".0f"),
    "peak_total_mib": ("total MiB", ".0f"),
}


def make_images(size):
    """Static, moving, and their matrix: a template and the same template deformed."""
    from nilearn.datasets import load_mni152_template
    from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

    shape, spacing = SIZES[size]
    template = load_mni152_template(resolution=1)
    image = template.get_fdata(dtype=np.float32)
    image /= image.max()
    if len(shape) == 2:
        image = image[:, :, image.shape[2] // 2]
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - spacing * (np.array(shape) - 1) / 2
    step = np.full(len(shape), spacing)
    moving = affine_transform(image, step, offset, output_shape=shape, order=1)
    rng = np.random.default_rng(0)
    sigma = 20 / spacing
    field = [gaussian_filter(rng.normal(size=shape), sigma) for _ in shape]
    field = np.array(field) / np.abs(field).max() * 12 / spacing
    static = map_coordinates(moving, np.indices(shape) + field, order=1)
    return static.astype(np.float32), moving, np.diag([*step, 1])


def make_task(task, size, threads):
    """Function without arguments that does the task; prepared outside its time."""
    import nibabel as nib

    import dipy_dl_reg as package

    static, moving, matrix = make_images(size)
    if task == "segmentation":
        return lambda: package.segment_anatomy(
            static, grid2world=matrix, num_threads=threads
        )
    if task == "affine":
        return lambda: package.deep_affine_registration(
            moving, static, moving_affine=matrix, static_affine=matrix,
            num_threads=threads,
        )  # fmt: skip
    if task == "default, b0":
        moving = np.where(moving > 0.02, 1.1 - moving, 0).astype(np.float32)

    def register(options):
        return package.DeepRegistration(progress=False, **options).optimize(
            static=static, moving=moving, static_grid2world=matrix,
            moving_grid2world=matrix, num_threads=threads,
        )  # fmt: skip

    if task == "uncertainty":
        mapping = register({})
        images = [nib.Nifti1Image(x, matrix) for x in (static, moving)]
        return lambda: package.mapping_uncertainty(
            mapping, *images, num_threads=threads
        )
    return lambda: register(REGISTRATIONS[task])


def warm_up(size, threads):
    """Load libraries by a registration of tiny images."""
    from dipy_dl_reg import DeepRegistration

    dim = len(SIZES[size][0])
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, 32)] * dim))
    image = np.exp(-6 * np.square(x).sum(0)).astype(np.float32)
    DeepRegistration(progress=False).optimize(
        image, np.roll(image, 1, axis=0), num_threads=threads
    )


def read_peak_mib():
    """Largest resident memory since it was reset by `Memory`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024


def measure_task(task, size, threads):
    """Seconds and memory of a task, in this process."""
    from tools.benchmarks.rivals.job import Memory

    warm_up(size, threads)
    run = make_task(task, size, threads)
    memory = Memory()
    start, cpu_start = time.perf_counter(), time.process_time()
    kept = run()  # noqa: F841  (in memory until it is measured)
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu_start, 3),
        "peak_call_mib": memory.peak_mib(),
        "peak_total_mib": memory.before and read_peak_mib(),
    }


def measure_in_process(task, size, threads):
    """Measure a task in a process of its own."""
    words = ["-m", "tools.benchmarks.cost", "--one", task, "--sizes", size]
    done = subprocess.run(
        [sys.executable, *words, "--threads", str(threads)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        raise RuntimeError(f"{size} {task}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def folder_mib(folder):
    """Size of a folder, without byte code."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return sum(path.stat().st_size for path in files) / 2**20


def measure_disk(sizes=("2 mm", "1 mm")):
    """Rows of the installed size, and of the files that a registration writes."""
    from importlib.util import find_spec

    import nibabel as nib

    from dipy_dl_reg import DeepRegistration, save_mapping

    rows = []
    for name in ("dipy_dl_reg", "torch", "dipy", "numpy", "scipy", "nibabel"):
        folder = Path(find_spec(name).origin).parent
        rows.append({"what": f"{name}, installed", "mib": folder_mib(folder)})
        networks = folder / "networks" / "trained"
        if networks.is_dir():
            text = "of it, trained networks"
            rows.append({"what": text, "mib": folder_mib(networks)})
    for size in sizes:
        static, moving, matrix = make_images(size)
        # Few iterations: the size of the files depends little on them.
        mapping = DeepRegistration(
            model=None, level_iters=[10, 10, 2], progress=False
        ).optimize(static, moving, static_grid2world=matrix, moving_grid2world=matrix)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "mapping.npz"
            save_mapping(mapping, path)
            rows.append({"what": f"mapping.npz, {size}", "mib": path.stat().st_size})
            path = Path(folder) / "warped.nii.gz"
            warped = np.asarray(mapping.transform(moving), np.float32)
            nib.save(nib.Nifti1Image(warped, matrix), path)
            rows.append({"what": f"warped.nii.gz, {size}", "mib": path.stat().st_size})
        for row in rows[-2:]:
            row["mib"] /= 2**20
    return rows


def read_gpu_rows(path=GPU_TABLE):
    """Rows of the run on a GPU: median seconds, and MB of its memory at most."""
    if not path.is_file():
        return []
    text = path.read_text()
    memory = {}
    for line in re.findall(r"^  (\d+x\d+x\d+) +(default .*);", text, re.M):
        for cell in line[1].split(", "):
            memory[line[0], cell.split()[0]] = float(cell.split()[1]) * 1e6 / 2**20
    rows = []
    pattern = r"^(\S+ mm) \S+ +\S+ +cuda +(\w+) +([\d.]+)"
    for size, task, seconds in re.findall(pattern, text, re.M):
        shape = "x".join(map(str, SIZES[size][0]))
        row = {"size": size, "task": task, "device": "cuda"}
        row |= {"seconds": float(seconds), "gpu_mib": memory.get((shape, task))}
        rows.append(row | {"commit": GPU_COMMIT, "measured": GPU_DATE})
    for (shape, task), mib in memory.items():
        if shape == "256x256x256":  # its duration was not measured
            row = {"size": "256^3", "task": task, "device": "cuda", "gpu_mib": mib}
            rows.append(row | {"commit": GPU_COMMIT, "measured": GPU_DATE})
    return rows


def format_table(results):
    """Lines of the table: the tasks by size, then the disk, then the GPU."""
    machine, versions = results["machine"], results["versions"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    yield ", ".join(f"{name} {value}" for name, value in versions.items())
    yield f"Commits: {', '.join(sorted({r['commit'] for r in cpu_rows(results)}))}"
    yield "Seconds are upper bounds unless the machine was quiet: no other program."
    yield ""
    heads = "".join(f"{head:>11}" for head, _ in COLUMNS.values())
    yield f"{'size':10}{'task':14}{'device':15}{heads}  quiet"
    for row in cpu_rows(results):
        cells = (
            format(row[name], form) if row.get(name) is not None else "-"
            for name, (_, form) in COLUMNS.items()
        )
        words = "".join(f"{cell:>11}" for cell in cells)
        quiet = "yes" if row["quiet"] else "no"
        yield f"{row['size']:10}{row['task']:14}{row['device']:15}{words}  {quiet}"
    yield from ("", "Disk, MiB")
    yield from (f"  {row['what']:28}{row['mib']:9.1f}" for row in results["disk"])
    yield from ("", f"NVIDIA H100, commit {GPU_COMMIT} of {GPU_DATE}, before the")
    yield "similarity became symmetric: seconds, MiB of the GPU's memory"
    for row in (r for r in results["rows"] if r["device"] == "cuda"):
        seconds = format(row["seconds"], ".2f") if "seconds" in row else "-"
        memory = format(row["gpu_mib"], ".0f") if row["gpu_mib"] else "-"
        yield f"  {row['size']:8}{row['task']:14}{seconds:>9}{memory:>9}"


def cpu_rows(results):
    """Rows of the CPU in the order of sizes and tasks."""
    order = [(size, task) for size in SIZES for task in TASKS]
    rows = [row for row in results["rows"] if row["device"] != "cuda"]
    place = {key: n for n, key in enumerate(order)}
    return sorted(rows, key=lambda r: (place[r["size"], r["task"]], r["device"]))


def read_earlier(path, results):
    """Rows and disk sizes of an earlier call that are still of this machine."""
    if not path.is_file():
        return
    earlier = json.loads(path.read_text())
    if earlier["machine"]["cpu"] == results["machine"]["cpu"]:
        results["rows"] = [r for r in earlier["rows"] if r["device"] != "cuda"]
        results["disk"] = earlier["disk"]


def measure_all(arguments, results, save):
    """Measure the tasks that are missing, until the time is over."""
    end = time.monotonic() + 60 * arguments.minutes
    done = {tuple(row[k] for k in KEY): row for row in results["rows"]}
    device = name_device(arguments.threads)
    for size in arguments.sizes:
        for task in (t for t in NAMES.get(size, TASKS) if t in arguments.tasks):
            earlier = done.get((size, task, device), {})
            if earlier and (earlier["quiet"] or not arguments.quiet_machine):
                continue
            guess = 15 + 2 * earlier.get("cpu_seconds", 0)
            if time.monotonic() + guess > end:
                return print(f"stopped before {size}, {task}: the time is over")
            row = dict(zip(KEY, (size, task, device)))
            row |= measure_in_process(task, size, arguments.threads)
            row |= {"quiet": arguments.quiet_machine}
            row |= {"commit": results["code"]["commit"]}
            row |= {"measured": date.today().isoformat()}
            results["rows"] = [r for r in results["rows"] if r is not earlier] + [row]
            print(size, task, row["seconds"], row["cpu_seconds"], flush=True)
            save()
    return print("all tasks are measured")


def name_device(threads):
    """Name of the CPU with a number of threads: "cpu" is one thread."""
    return "cpu" if threads == 1 else f"cpu, {threads} threads"


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, help="FILE.json; FILE.txt is written beside it")
    add("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--threads", type=int, default=1)
    add("--minutes", type=float, default=1e6, help="stop after this time")
    add("--quiet_machine", action="store_true",
        help="no other program runs: measure rows of a busy machine again")  # fmt: skip
    add("--one", choices=TASKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if not arguments.one and not arguments.output:
        parser.error("--output is needed")
    return arguments


def main(words=None):
    arguments = parse_arguments(words)
    if arguments.one:
        from dipy.utils.logging import logger

        logger.setLevel("ERROR")
        task = measure_task(arguments.one, arguments.sizes[0], arguments.threads)
        return print(json.dumps(task))
    results = describe(arguments.threads)
    results = {k: results[k] for k in ("machine", "versions", "code")}
    results |= {
        "keys": ["task", "device", "size"],
        "groups": {},
        "disk": [],
        "rows": [],
    }
    read_earlier(arguments.output, results)
    gpu = read_gpu_rows()

    def save():
        shown = results | {"rows": results["rows"] + gpu}
        write_json(arguments.output, shown)
        text = "\n".join(format_table(shown))
        arguments.output.with_suffix(".txt").write_text(text + "\n")

    if not results["disk"]:
        results["disk"] = measure_disk()
    save()
    return measure_all(arguments, results, save)


if __name__ == "__main__":
    main()
