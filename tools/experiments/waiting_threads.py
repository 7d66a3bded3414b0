"""Time of a registration while other programs run, with and without spinning threads.

    python -m tools.experiments.waiting_threads
    python -m tools.experiments.waiting_threads --others 0 1 2 --repeats 5

The MNI152 T1 template is registered to a deformed copy of itself with default options,
in new processes, alone and together with processes that keep a processor busy.  Waiting
OpenMP threads spin if torch is imported before dipy_dl_reg, and sleep if dipy_dl_reg is
imported first.  The settings are measured in turn. The table gives medians of wall time
and processor time in seconds, without the time of imports.
"""

import argparse
from contextlib import contextmanager
import os
from statistics import median
import subprocess
import sys

REGISTRATION = """
import time
import nibabel as nib
from nilearn.datasets import load_mni152_template
import numpy as np
from scipy.ndimage import map_coordinates
from dipy_dl_reg import DeepRegistration

static = load_mni152_template(resolution={spacing}).get_fdata(dtype=np.float32)
places = np.indices(static.shape).astype(float)
waves = 6 / {spacing} * np.sin(places[[1, 2, 0]] * {spacing} / 20)
moving = map_coordinates(static, places + waves, order=1)
affine = np.diag([{spacing}] * 3 + [1])
registration = DeepRegistration(progress=False)
began = time.perf_counter(), time.process_time()
registration.optimize(
    static=static, moving=moving, static_grid2world=affine, moving_grid2world=affine
)
print("seconds", time.perf_counter() - began[0], time.process_time() - began[1])
"""
#: What is imported first, for each behaviour of waiting threads.
FIRST = {"spin": "import torch", "sleep": "import dipy_dl_reg"}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spacing", type=int, default=2, help="voxel size, mm")
    parser.add_argument("--others", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS")
    return parser.parse_args()


@contextmanager
def busy_processes(count):
    """Run processes, each of which keeps a processor busy."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure_seconds(first, spacing, threads):
    """Wall and processor time of one registration in a new process."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    code = f"{first}\n{REGISTRATION.format(spacing=spacing)}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(x) for x in done.stdout.split("seconds")[-1].split()]


def main():
    given = parse_arguments()
    taken = {(n, policy): [] for n in given.others for policy in FIRST}
    for _ in range(given.repeats):
        for n, policy in taken:
            with busy_processes(n):
                found = measure_seconds(FIRST[policy], given.spacing, given.threads)
            taken[n, policy].append(found)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}, ", end="")
    print(f"{given.spacing} mm, medians of {given.repeats}")
    print("other processes  idle threads  wall s  processor s")
    for (n, policy), found in taken.items():
        wall, processor = (median(column) for column in zip(*found))
        print(f"{n:15d}  {policy:12s}  {wall:6.1f}  {processor:11.1f}")


if __name__ == "__main__":
    main()
