"""Correction of echo-planar distortion: error of the field where it is known.

    DIPY_DL_REG_DATA=FOLDER python -m tools.experiments.epi --output FILE.txt

FOLDER contains diffusion/subject_a, subject_b and subject_d. Each b0 image is distorted
by a known field: a smooth random part, and sharp parts above the frontal sinus and both
ears. The signal is displaced without loss, so that its density changes by the Jacobian
determinant, and Rician noise of 2 % of the brain's intensity is added. The distorted
image is then corrected by four kinds of methods:

- contrast b0: registered to the image without distortion, which separates the effect of
  the constraint from that of the contrast;
- contrast T1: registered to the T1 image of the same subject;
- pair: with a second image of the opposite encoding, distorted by the negative field
  with its own noise;
- pair, motion estimated: the same, but the head may have moved;
- pair, moved: the head of the second image is turned by 3 degrees and displaced by
  2 mm, and its field turns with it.

"error" is the mean distance (and its 95th percentile) within the brain between the
displacement found along the axis and the true one, in mm. "off axis" is the mean
length of the displacement on the other axes, in mm. With the T1 image, the b0 image
without artificial distortion is corrected, too: real images are distorted already, and
that part is not an error; "error" is then the distance from the true field composed
with that correction, without its mean, which cannot be distinguished from the rigid
alignment. "gap" is the root of the mean squared difference of the two images of a pair,
in percent of the brain's mean intensity, before and after the correction; "noise" is
the gap that noise alone causes before interpolation averages it.

The images of a pair are simulated: no pair of real acquisitions with opposite encodings
comes with DIPY or the data named above. The weights of `deep_epi_correction` were
chosen on other fields (seeds 0 and 7) of subject_a and subject_d. SyN's metric cannot
register the slab of subject_b on three levels.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from importlib.metadata import version
from pathlib import Path
import platform
import time
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

#: Subject, axis of phase encoding, and seed of the field.
CASES = [("subject_a", 1), ("subject_b", 2), ("subject_d", 1)]
#: Standard deviation of noise, in parts of the brain's 95th percentile.
NOISE = 0.02
#: DIPY's metric needs more than 9 voxels along each axis of the coarsest level.
_LEAST_SIZE = 37
#: Turn in degrees about x, y and z, and displacement in mm, of the moved pair.
MOTION = (2.0, -2.0, 1.0), (1.5, 0.0, 1.3)


class Case(NamedTuple):
    """An image, its true shift in voxels, and the images distorted by it."""

    name: str
    axis: int
    affine: np.ndarray
    image: np.ndarray
    brain: np.ndarray
    shift: np.ndarray
    first: np.ndarray
    second: np.ndarray
    moved: np.ndarray
    noise: float
    t1: object
    t1_mask: np.ndarray | None

    @property
    def letter(self):
        """Axis of phase encoding."""
        return "ijk"[self.axis]

    @property
    def size(self):
        """Voxel size along it, mm."""
        return np.linalg.norm(self.affine[:3, self.axis])


def distort(image, shift, axis):
    """Displace the signal of each voxel along an axis, without loss."""
    lines, moves = np.moveaxis(image, axis, -1), np.moveaxis(shift, axis, -1)
    faces = np.arange(lines.shape[-1] + 1) - 0.5
    inner = (moves[..., 1:] + moves[..., :-1]) / 2
    moves = np.concatenate([moves[..., :1], inner, moves[..., -1:]], -1)
    totals = np.cumsum(lines, -1, dtype=np.float64)
    totals = np.concatenate([np.zeros_like(totals[..., :1]), totals], -1)
    out = np.empty(lines.shape)
    for place in np.ndindex(lines.shape[:-1]):
        out[place] = np.diff(np.interp(faces, faces + moves[place], totals[place]))
    return np.moveaxis(out, -1, axis)


def make_shift(brain, affine, axis, seed, *, smooth=4.0, sharp=9.0):
    """A field in voxels: a smooth random part and three sharp peaks, in mm at most."""
    rng, size = np.random.default_rng(seed), np.linalg.norm(affine[:3, :3], axis=0)
    slow = gaussian_filter(rng.normal(size=brain.shape), 25 / size)
    slow *= smooth / abs(slow[brain]).max()
    voxels = np.moveaxis(np.indices(brain.shape), 0, -1)
    world = (voxels - voxels[brain].mean(0)) @ affine[:3, :3].T
    reach = np.percentile(abs(world[brain]), 99, axis=0)
    peaks = [((0, 0.75, -0.45), 14, 1), ((0.75, -0.1, -0.6), 10, -0.7)]
    peaks.append(((-0.75, -0.1, -0.6), 10, -0.7))
    fast = np.zeros(brain.shape)
    for place, width, height in peaks:
        away = ((world - np.array(place) * reach) ** 2).sum(-1)
        fast += height * np.exp(-away / (2 * width**2))
    return (slow + sharp * fast) / size[axis]


def move_head(image, shift, affine):
    """The image and the shift after a motion of the head about the middle."""
    centre = (affine @ [*((np.array(image.shape) - 1) / 2), 1])[:3]
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", MOTION[0], degrees=True).as_matrix()
    motion[:3, 3] = centre - motion[:3, :3] @ centre + MOTION[1]
    back = np.linalg.inv(affine) @ np.linalg.inv(motion) @ affine
    places = np.einsum("ij,j...->i...", back[:3, :3], np.indices(image.shape))
    places += back[:3, 3].reshape(3, 1, 1, 1)
    moved = map_coordinates(image, places, order=3, mode="nearest").clip(0)
    return moved, map_coordinates(shift, places, order=1, mode="nearest")


def read_case(folder, name, axis, seed):
    """Read a subject, and distort its b0 image."""
    place = Path(folder) / "diffusion" / name
    b0 = place / "b0.nii.gz"
    source = nib.load(b0 if b0.exists() else place / "dwi.nii.gz")
    image = np.asarray(source.dataobj, dtype=np.float32)
    image = np.nan_to_num(image if image.ndim == 3 else image[..., 0]).clip(0)
    blurred = gaussian_filter(image, 2)
    brain = blurred > 0.25 * np.percentile(blurred, 98)
    if (place / "mask.nii.gz").exists():
        brain = np.asarray(nib.load(place / "mask.nii.gz").dataobj) > 0
    affine, rng = source.affine, np.random.default_rng(seed + 100)
    shift = make_shift(brain, affine, axis, seed)
    noise = NOISE * np.percentile(image[brain], 95)

    def acquire(image, shift):
        shown = distort(image, shift, axis)
        real, imaginary = noise * rng.normal(size=(2, *image.shape))
        return np.hypot(shown + real, imaginary).astype(np.float32)

    moved, turned = move_head(image, shift, affine)
    t1, mask = place / "t1.nii.gz", None
    if (place / "tissues.nii.gz").exists():
        mask = np.asarray(nib.load(place / "tissues.nii.gz").dataobj) > 0
    return Case(
        *(name, axis, affine, image, brain, shift),
        acquire(image, shift),
        acquire(image, -shift),
        acquire(moved, -turned),
        noise,
        nib.load(t1) if t1.exists() else None,
        mask,
    )


def show_error(case, along, off, truth, *, centred=False):
    """Two columns: the error along the axis in mm, and the part off it."""
    error = (along - truth)[case.brain] * case.size
    error = abs(error - error.mean() if centred else error)
    text = f"{error.mean():7.3f} {np.percentile(error, 95):7.2f}"
    return text + ("" if off is None else f" {off[case.brain].mean():9.1e}")


def split(case, mapping, linear):
    """Displacement along the axis in voxels, and the length of the rest in mm."""
    unit = linear / np.linalg.norm(linear)
    field = np.asarray(mapping.backward, dtype=float)
    along = field @ unit
    off = np.linalg.norm(field - along[..., None] * unit, axis=-1)
    return along / case.size, off


def measure_registrations(case, threads):
    """Register the distorted image to that without distortion."""
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric

    from dipy_dl_reg import DeepRegistration

    own = {"progress": False}
    methods = {
        "b0: axis, modulated": DeepRegistration(
            phase_encoding=case.letter, modulate=True, **own
        ),
        "b0: axis": DeepRegistration(phase_encoding=case.letter, **own),
        "b0: free": DeepRegistration(**own),
    }
    if min(case.image.shape) >= _LEAST_SIZE:
        methods["b0: DIPY SyN"] = SymmetricDiffeomorphicRegistration(CCMetric(3))
    grids = dict.fromkeys(["static_grid2world", "moving_grid2world"], case.affine)
    for name, method in methods.items():
        start = time.process_time()
        mapping = method.optimize(case.image, case.first, **grids)
        seconds = time.process_time() - start
        along, off = split(case, mapping, case.affine[:3, case.axis])
        yield name, show_error(case, along, off, case.shift), seconds


def measure_t1(case, threads):
    """Correct with the T1 image, beside unconstrained registration to it."""
    from dipy_dl_reg import DeepRegistration, deep_epi_to_t1

    if case.t1 is None:
        return
    mask = None
    if case.t1_mask is not None:
        mask = nib.Nifti1Image(case.t1_mask.astype(np.uint8), case.t1.affine)
    for iterations in (1, 2):
        options = {"affine": case.affine, "phase_encoding": case.letter}
        options |= {"t1_mask": mask, "iterations": iterations}
        real = deep_epi_to_t1(case.image, case.t1, **options)
        start = time.process_time()
        found = deep_epi_to_t1(case.first, case.t1, **options)
        seconds = time.process_time() - start
        truth = real.field + sample_along(case, real.field)
        off = split(case, found.mapping, case.affine[:3, case.axis])[1]
        text = show_error(case, found.field, off, truth, centred=True)
        yield f"T1: {iterations} iterations", text, seconds
    grids = dict.fromkeys(["static_grid2world", "moving_grid2world"], case.affine)
    fields = []
    for image, result in ((case.image, real), (case.first, found)):
        start = time.process_time()
        mapping = DeepRegistration(progress=False).optimize(result.t1, image, **grids)
        seconds = time.process_time() - start
        fields.append(split(case, mapping, case.affine[:3, case.axis]))
    truth = fields[0][0] + sample_along(case, fields[0][0])
    text = show_error(case, *fields[1], truth, centred=True)
    yield "T1: free", text, seconds


def sample_along(case, move):
    """The true shift at points that were displaced along the axis."""
    places = np.indices(move.shape).astype(float)
    places[case.axis] += move
    return map_coordinates(case.shift, places, order=1, mode="nearest")


def measure_pairs(case, threads):
    """Correct pairs of opposite encodings; the gap of the two images as well."""
    from dipy_dl_reg import deep_epi_correction

    mean = case.image[case.brain].mean()
    noise = 100 * np.sqrt(2) * case.noise / mean

    def gap(one, other):
        return 100 * np.sqrt(np.square(one - other)[case.brain].mean()) / mean

    runs = [
        ("still", case.second, False),
        ("still, motion estimated", case.second, True),
    ]
    runs.append(("moved", case.moved, True))
    for name, second, motion in runs:
        start = time.process_time()
        found = deep_epi_correction(
            case.first,
            second,
            affine=case.affine,
            phase_encoding=case.letter,
            motion=motion,
            num_threads=threads,
        )
        seconds = time.process_time() - start
        column = case.affine[:3, case.axis]
        along, off = split(case, found.first_mapping, column)
        turned = np.linalg.inv(found.motion[:3, :3]) @ column
        off = np.maximum(off, split(case, found.second_mapping, turned)[1])
        text = show_error(case, along, off, case.shift)
        text += f"   gap {gap(case.first, second):5.1f} -> "
        text += f"{gap(found.first, found.second):4.1f} % (noise {noise:.1f} %)"
        yield f"pair: {name}", text, seconds


def describe_run(arguments):
    """Lines about the machine and the settings."""
    names = ("dipy_dl_reg", "dipy", "torch", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    yield f"{platform.machine()}, {os.cpu_count()} processors; {versions}"
    yield f"seeds {arguments.seeds}; seconds are processor time of the correction alone"


def measure_case(case, threads):
    """Yield the lines of a case."""
    inside = abs(case.shift[case.brain]) * case.size
    slope = abs(np.diff(case.shift, axis=case.axis)).max()
    yield (
        f"{case.name}, axis {case.letter}, {case.image.shape}: field mean "
        f"{inside.mean():.2f} mm, at most {inside.max():.1f} mm, slope at most "
        f"{slope:.2f}"
    )
    yield f"{'':26}{'error':>7} {'95 %':>7} {'off axis':>9} {'s':>6}"
    nothing = show_error(case, 0 * case.shift, None, case.shift)
    yield f"{'uncorrected':26}{nothing}"
    for measure in (measure_registrations, measure_t1, measure_pairs):
        for name, text, seconds in measure(case, threads):
            head, _, tail = text.partition("   ")
            yield f"{name:26}{text[:25]} {seconds:6.1f}{text[25:]}"


def main():
    """Run the experiment from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("DIPY_DL_REG_DATA"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21])
    parser.add_argument("--subjects", nargs="+", default=[name for name, _ in CASES])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data, or set DIPY_DL_REG_DATA")
    import torch

    torch.set_num_threads(arguments.threads)
    lines = list(describe_run(arguments))
    for name, axis in CASES:
        for seed in arguments.seeds if name in arguments.subjects else ():
            case = read_case(arguments.data, name, axis, seed)
            lines.append(f"\nseed {seed}")
            for line in measure_case(case, arguments.threads):
                print(line, flush=True)
                lines.append(line)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
