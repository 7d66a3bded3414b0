"""What every adapter in this folder shares: its job, its clock, what it hands back.

An adapter is run by the Python that has the rival, with numpy and nibabel beside it:

    python tools/benchmarks/rivals/run_NAME.py JOB        registers what the folder JOB
    holds python tools/benchmarks/rivals/run_NAME.py --version  prints the rival's name
    and version

JOB holds job.json ("threads", the rival's "options" and "prealign": static world to
moving world, mm), static.nii, moving.nii and, where labels are to be warped,
static_labels.nii (their grid) and moving_labels.nii. The adapter leaves there

- field.npy, (*static shape, 3): u(x) in mm, x + u(x) from static to moving before the
  prealign, so that moving(prealign(x + u(x))) resembles static(x);
- inverse.npy, likewise, of the inverse of x + u(x), where the rival gives one;
- warped_labels.nii: the moving labels on the static labels' grid, nearest neighbour, by
  the rival's own tool, in one interpolation;
- result.json: "seconds" and "peak_mib" of the registration alone, images in memory, as
  far as the rival lets them be; "call"; and what else the adapter has to tell.

World coordinates are NIfTI's (RAS, mm). ITK and what is built on it count x and y the
other way (LPS): `turned` and `vectors_turned` go from one to the other and back.
"""

import ctypes
import gc
import json
from pathlib import Path
import sys
import time

import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Memory:
    """Peak resident memory over what was resident before; Linux only, else None."""

    def __init__(self):
        gc.collect()
        try:
            # What was freed before must not hide what is used now.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            self.before = self._kib("VmRSS")
        except (AttributeError, OSError):
            self.before = None

    def _kib(self, name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1])

    def peak_mib(self):
        """MiB since this object was made; ask before anything else is allocated."""
        return self.before and (self._kib("VmHWM") - self.before) / 1024


class Job:
    """A job folder: what to register and with what."""

    def __init__(self, folder):
        self.folder = Path(folder)
        words = json.loads((self.folder / "job.json").read_text())
        self.threads, self.options = words["threads"], words["options"]
        self.prealign = np.array(words["prealign"])
        self.has_labels = (self.folder / "moving_labels.nii").exists()

    def path(self, name):
        """Of one of the folder's files, as a word."""
        return str(self.folder / f"{name}.nii")

    def grid2world(self):
        """The static image's voxel-to-world matrix, RAS."""
        import nibabel as nib

        return nib.load(self.path("static")).affine

    def keep(self, name, array):
        """Leave an array in the folder."""
        np.save(self.folder / f"{name}.npy", np.asarray(array, dtype=np.float32))


def turned(matrix):
    """A world-to-world matrix for ITK's world from one for NIfTI's, or back."""
    return LPS @ matrix @ LPS


def vectors_turned(vectors):
    """Displacements (..., 3) for ITK's world from those for NIfTI's, or back."""
    return np.asarray(vectors) * LPS.diagonal()[:3]


def read_vectors(path):
    """Displacements of an ITK field in a file, RAS, on its voxels: (*shape, 3)."""
    import nibabel as nib

    field = np.asarray(nib.load(path).dataobj)
    return vectors_turned(field.reshape(*field.shape[:3], 3))


def before_prealign(total, grid2world, prealign):
    """The u, mm, of prealign(x + u(x)) = x + total(x): the whole less the affine."""
    voxels = np.moveaxis(np.indices(total.shape[:-1]), 0, -1)
    world = voxels @ grid2world[:3, :3].T + grid2world[:3, 3]
    back = np.linalg.inv(prealign)
    return (world + total) @ back[:3, :3].T + back[:3, 3] - world


def clocked(call, *words, **options):
    """What the call returns, and its seconds and peak memory."""
    memory = Memory()
    start = time.perf_counter()
    result = call(*words, **options)
    seconds = time.perf_counter() - start
    return result, {"seconds": seconds, "peak_mib": memory.peak_mib()}


def main(register, version):
    """Run an adapter: `register(job)` returns what goes into result.json."""
    if sys.argv[1:] == ["--version"]:
        print(json.dumps(version()))
        return
    job = Job(sys.argv[1])
    result = register(job) | {"version": version()}
    (job.folder / "result.json").write_text(json.dumps(result))
