"""Functions shared by the adapters in this folder: input, timing and output.

An adapter is a plain script. It is run by the Python of the environment where the rival
is installed, which must also contain numpy and nibabel:

    python tools/benchmarks/rivals/run_NAME.py JOB        registers the images in JOB
    python tools/benchmarks/rivals/run_NAME.py --version  prints the name and version

The folder JOB contains job.json ("threads", the rival's "options", and "prealign", the
matrix from static world to moving world in mm), static.nii and moving.nii. If labels
are to be warped, it also contains static_labels.nii (the grid to warp to) and
moving_labels.nii. The adapter writes into the same folder

- field.npy, shape (*static shape, 3): u(x) in mm, where x + u(x) maps static to moving
  before the prealign, so that moving(prealign(x + u(x))) resembles static(x);
- inverse.npy: the displacement of the inverse of x + u(x), if the rival computes it;
- warped_labels.nii: the moving labels on the static labels' grid, warped by the rival's
  own tool in one nearest-neighbour interpolation;
- result.json: "seconds" and "peak_mib" of the registration alone, with images in memory
  where the rival allows it; "call"; and other results of the adapter.

World coordinates are those of NIfTI (RAS, mm). ITK and programs that use it have the
opposite sign for x and y (LPS); `convert_matrix` and `convert_vectors` convert in both
directions.
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
    """Increase of the peak resident memory; Linux only, None on other systems."""

    def __init__(self):
        gc.collect()
        try:
            # Memory freed earlier would otherwise be reused and not counted.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
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
    """A folder with images to register, and options."""

    def __init__(self, folder):
        self.folder = Path(folder)
        words = json.loads((self.folder / "job.json").read_text())
        self.threads, self.options = words["threads"], words["options"]
        self.prealign = np.array(words["prealign"])
        self.has_labels = (self.folder / "moving_labels.nii").exists()

    def path(self, name):
        """Path of an image in the folder, as a string."""
        return str(self.folder / f"{name}.nii")

    def grid2world(self):
        """The static image's voxel-to-world matrix, RAS."""
        import nibabel as nib

        return nib.load(self.path("static")).affine

    def save_array(self, name, array):
        """Save an array in the folder."""
        np.save(self.folder / f"{name}.npy", np.asarray(array, dtype=np.float32))


def convert_matrix(matrix):
    """Convert a world-to-world matrix from RAS to LPS, or back."""
    return LPS @ matrix @ LPS


def convert_vectors(vectors):
    """Convert displacements (..., 3) from RAS to LPS, or back."""
    return np.asarray(vectors) * LPS.diagonal()[:3]


def read_vectors(path):
    """Read the displacements of an ITK field in RAS, shape (*shape, 3)."""
    import nibabel as nib

    field = np.asarray(nib.load(path).dataobj)
    return convert_vectors(field.reshape(*field.shape[:3], 3))


def remove_prealign(total, grid2world, prealign):
    """Displacement u (mm) with prealign(x + u(x)) = x + total(x)."""
    voxels = np.moveaxis(np.indices(total.shape[:-1]), 0, -1)
    world = voxels @ grid2world[:3, :3].T + grid2world[:3, 3]
    back = np.linalg.inv(prealign)
    return (world + total) @ back[:3, :3].T + back[:3, 3] - world


def measure_call(call, *words, **options):
    """Call a function; return its result, and its seconds and peak memory."""
    memory = Memory()
    start = time.perf_counter()
    result = call(*words, **options)
    seconds = time.perf_counter() - start
    return result, {"seconds": seconds, "peak_mib": memory.peak_mib()}


def main(register, version):
    """Run an adapter; `register(job)` returns the content of result.json."""
    if sys.argv[1:] == ["--version"]:
        print(json.dumps(version()))
        return
    job = Job(sys.argv[1])
    result = register(job) | {"version": version()}
    (job.folder / "result.json").write_text(json.dumps(result))
