"""Checks and measures the package on a GPU, in a few minutes.

    python -m tools.gpu_check --output FILE.txt
    python -m tools.gpu_check --data FOLDER --pairs 1000:1001 --output FILE.txt
    python -m tools.gpu_check --device cpu --parts parity    (rehearsal without a GPU)

The parts are: `parity`, every function of tools/gpu_parity.py on the CPU and on the
GPU; `registration`, the duration of registrations and their Dice, for which FOLDER has
the form described in tools/benchmarks/deformable.py (without it, drawn images of the
same size are registered, and no Dice is given); `memory`, the highest memory in use for
images of several sizes, beside the estimate; and `profile`, where the time of an
iteration goes. The program ends with an error if a function differs by more than its
tolerance.

The whole run is planned for less than ten minutes: what would begin after `--minutes`
is left out, and the report says what.
"""

import argparse
from datetime import date
import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
import platform
import statistics
import time

import numpy as np
import torch

from tools.benchmarks.record import git_commit
from tools.gpu_parity import compare, list_cases, make_images, make_pair

PARTS = ("parity", "registration", "memory", "profile")
#: The default, refinement alone, and the network alone.
METHODS = {"default": {}, "refinement": {"model": None}, "network": {"level_iters": 0}}
#: Other calls on the same images, whose memory is measured too.
OTHERS = ("segmentation", "affine")
#: Shape of a brain at 2 mm, and of drawn images by voxel size, mm.
BRAIN = (80, 104, 88)
#: Shapes of the images whose memory is measured.
SHAPES = ((80, 104, 88), (160, 208, 176), (256, 256, 256))
ITERATIONS = 10


class Report:
    """Prints lines, and writes them to a file at the end; knows when to end."""

    def __init__(self, minutes=float("inf")):
        self.lines = []
        self.end = time.monotonic() + 60 * minutes

    def is_late(self, what):
        """Whether the time is over; then report what is left out."""
        late = time.monotonic() > self.end
        if late:
            self.add(f"Left out, the time is over: {what}")
        return late

    def add(self, *lines):
        """Print lines."""
        self.lines += lines
        print(*lines, sep="\n", flush=True)


def find_version(name):
    """Version of a package; "source" if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "source"


def describe_machine(report, device):
    """Report the device, the processor and the versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [x.split(": ")[1] for x in lines if x.startswith("model name")]
    gpu = torch.cuda.get_device_name() if device == "cuda" else "none"
    names = names or [platform.processor()]
    report.add(
        f"GPU: {gpu}; processor: {names[0]}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads",
        ", ".join(
            f"{name} {find_version(name)}"
            for name in ("dipy_dl_reg", "torch", "dipy", "numpy", "scipy")
        )
        + f", CUDA {torch.version.cuda}, Python {platform.python_version()}",
        f"commit {git_commit()}, {date.today().isoformat()}",
    )


def check_parity(report, device, shapes):
    """Compare every function with the CPU; return the names of those that differ."""
    report.add("", "Parity with the CPU: error, tolerance, and same bits in two runs")
    failed = []
    for shape in shapes:
        report.add(f"{len(shape)}D, {'x'.join(map(str, shape))}")
        for name, case in list_cases(shape).items():
            if report.is_late(name):
                break
            try:
                error, same = compare(case, device)
            except (RuntimeError, TypeError, ValueError) as problem:
                report.add(f"  {name:34} FAILED: {str(problem).splitlines()[0]}")
                failed.append(name)
                continue
            good = error <= case.tolerance
            failed += [] if good else [name]
            unit = "voxels" if case.mean else ""
            report.add(
                f"  {name:34} {error:9.1e} {case.tolerance:8.0e} "
                f"{'same' if same else 'differ':7}{'' if good else 'TOO LARGE '}{unit}"
            )
    return failed


def synchronize(device):
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def list_images(arguments, spacing):
    """Names and images to register at a voxel size, and how the map is judged."""
    if arguments.data is None:
        shape = [round(2 / spacing * n) for n in BRAIN]
        static, moving = (x[0, 0].numpy() for x in make_images(shape))
        matrix = np.diag([spacing] * 3 + [1])
        images = {"static": static, "moving": moving}
        images |= {"static_grid2world": matrix, "moving_grid2world": matrix}
        return {"drawn": (images, lambda mapping: {})}
    from tools.benchmarks.cases import labelled_case
    from tools.experiments.contrast_cases import mean_dice

    found = {}
    for pair in arguments.pairs:
        case = labelled_case(arguments.data, spacing, pair)
        found[pair] = (case.images, lambda m, case=case: mean_dice(case.labels, m))
    return found


def measure_registrations(report, arguments, spacing, device, repeats):
    """Duration of the first call and median of the others, and Dice."""
    from dipy_dl_reg import DeepRegistration

    for pair, (images, judge) in list_images(arguments, spacing).items():
        for method, options in METHODS.items():
            if report.is_late(f"{spacing:g} mm {method}"):
                return
            seconds = []
            for _ in range(1 + repeats):
                registration = DeepRegistration(
                    device=device, progress=False, **options
                )
                begin = time.perf_counter()
                mapping = registration.optimize(**images)
                seconds.append(time.perf_counter() - begin)
            judged = " ".join(f"{k} {v:.4f}" for k, v in judge(mapping).items())
            shape = "x".join(map(str, images["static"].shape))
            report.add(
                f"{spacing:g} mm {shape:12} {pair:10} {device:5} {method:11} "
                f"{statistics.median(seconds[1:]):7.2f} {seconds[0]:7.2f}  {judged}"
            )


def measure_memory(report, device):
    """Highest memory in use of every method, beside the estimate for refinement."""
    from dipy_dl_reg import DeepRegistration
    from dipy_dl_reg.metrics.objective import Objective
    from dipy_dl_reg.metrics.registry import metric_by_name
    from dipy_dl_reg.optimization.memory import estimate_memory

    report.add(
        "", "Memory of the GPU in use, at most, MB; estimate for refinement alone"
    )
    for shape in SHAPES:
        if report.is_late(f"memory {shape}"):
            return
        static, moving = (x[0, 0].numpy() for x in make_images(shape))
        cells = []
        for method, options in METHODS.items():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            DeepRegistration(device=device, progress=False, **options).optimize(
                static, moving
            )
            cells.append(f"{method} {torch.cuda.max_memory_allocated() / 1e6:.0f}")
        for name in OTHERS:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            run_other(name, static, moving, device)
            cells.append(f"{name} {torch.cuda.max_memory_allocated() / 1e6:.0f}")
        objective = Objective(metric_by_name("CC"))
        wanted = estimate_memory([1], static.size, 3, objective) / 1e6
        name = "x".join(map(str, shape))
        report.add(f"  {name:12} {', '.join(cells)}; estimate {wanted:.0f}")


def run_other(name, static, moving, device):
    """Segment an image, or register two affinely."""
    from dipy_dl_reg import deep_affine_registration, segment_anatomy

    spacing = 2 * BRAIN[0] / static.shape[0]
    matrix = np.diag([spacing] * 3 + [1])
    if name == "segmentation":
        return segment_anatomy(static, grid2world=matrix, device=device)
    affines = {"static_affine": matrix, "moving_affine": matrix}
    return deep_affine_registration(moving, static, device=device, **affines)


def profile_iterations(report, device, shape, rows=14):
    """Where the time of iterations goes: launches, waiting, and kernels."""
    from torch.profiler import ProfilerActivity, profile

    from dipy_dl_reg.metrics.objective import Objective
    from dipy_dl_reg.metrics.registry import metric_by_name
    from dipy_dl_reg.optimization.deformable import refine

    pair, objective = make_pair(shape, device), Objective(metric_by_name("CC"))

    def run(count):
        synchronize(device)
        begin = time.perf_counter()
        refine(pair, objective, level_iters=[count])
        synchronize(device)
        return time.perf_counter() - begin

    run(ITERATIONS)
    wall = (run(5 * ITERATIONS) - run(ITERATIONS)) / (4 * ITERATIONS)
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device == "cuda" else []
    with profile(activities=activities) as recorded:
        run(ITERATIONS)
    events = recorded.key_averages()
    kernels = [e for e in events if getattr(e, "device_type", None) is not None
               and "CUDA" in str(e.device_type)]  # fmt: skip
    busy = sum(e.self_device_time_total for e in kernels) / 1e3 / ITERATIONS
    count = sum(e.count for e in kernels) / ITERATIONS
    copies = sum(e.count for e in kernels if "Memcpy" in e.key) / ITERATIONS
    report.add(
        f"  {'x'.join(map(str, shape))}: {1e3 * wall:.2f} ms an iteration; the "
        f"GPU works {busy:.2f} ms; {count:.0f} kernels and copies, {copies:.0f} copies"
    )
    for event in sorted(kernels, key=lambda e: -e.self_device_time_total)[:rows]:
        spent = event.self_device_time_total / 1e3 / ITERATIONS
        report.add(
            f"    {spent:7.3f} ms {event.count / ITERATIONS:6.1f}x {event.key[:90]}"
        )
    waiting = ("aten::item", "aten::_local_scalar_dense", "aten::to", "aten::copy_")
    for event in events:
        if event.key in waiting:
            spent = event.self_cpu_time_total / 1e3 / ITERATIONS
            report.add(
                f"    CPU {spent:7.3f} ms {event.count / ITERATIONS:6.1f}x {event.key}"
            )


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda")
    add("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    add("--data", type=Path, help="folder of labelled T1 brains")
    add("--pairs", nargs="+", default=["1000:1001"], metavar="STATIC:MOVING")
    add("--shape", type=int, nargs=3, default=[48, 56, 44], help="for parity")
    add("--spacings", type=float, nargs="+", default=[2.0, 1.0], help="mm")
    add("--repeats", type=int, default=3, help="registrations after the first")
    add("--cpu", action="store_true", help="also time the registrations on the CPU")
    add("--minutes", type=float, default=9, help="nothing begins after this time")
    add("--output", type=Path)
    return parser.parse_args()


def main():
    """Run the parts and write the report."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    arguments, failed = parse_arguments(), []
    report = Report(arguments.minutes)
    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no GPU; --device cpu rehearses the parts.")
    describe_machine(report, device)
    if "parity" in arguments.parts:
        shapes = tuple(arguments.shape), tuple(arguments.shape[:2])
        failed = check_parity(report, device, shapes)
        report.add(f"Differ: {', '.join(failed) or 'none'}")
    if "registration" in arguments.parts:
        report.add("", "Registration: median seconds, and those of the first call")
        for spacing in arguments.spacings:
            measure_registrations(report, arguments, spacing, device, arguments.repeats)
            if arguments.cpu:
                measure_registrations(report, arguments, spacing, "cpu", 1)
    with torch.no_grad():
        if "memory" in arguments.parts and device == "cuda":
            measure_memory(report, device)
        if "profile" in arguments.parts:
            report.add("", "An iteration of refinement with local correlation")
            for shape in SHAPES[:2]:
                if report.is_late(f"profile {shape}"):
                    break
                profile_iterations(report, device, shape)
    if arguments.output:
        arguments.output.write_text("\n".join(report.lines) + "\n")
    if failed:
        raise SystemExit("Some functions differ from the CPU by more than allowed.")


if __name__ == "__main__":
    main()
