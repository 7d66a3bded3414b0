"""Tensors of real subjects, streamlines through them and maps between them.

For `tools.experiments.reorientation`: it registers the FA of the subjects, tracks their
tensors with DIPY, and compares directions in voxels.
"""

from typing import NamedTuple

from dipy.align import syn_registration
from dipy.core.gradients import gradient_table
from dipy.core.sphere import Sphere, fibonacci_sphere
from dipy.direction.peaks import PeaksAndMetrics
from dipy.io.gradients import read_bvals_bvecs
from dipy.reconst.dti import TensorModel
from dipy.segment.mask import median_otsu
from dipy.tracking.local_tracking import LocalTracking
from dipy.tracking.stopping_criterion import ThresholdStoppingCriterion
from dipy.tracking.streamline import Streamlines
from dipy.tracking.utils import seeds_from_mask
import nibabel as nib
import numpy as np

from dipy_dl_reg import deep_registration

STEPS = ["center_of_mass", "translation", "rigid", "affine"]
#: Tracking stops below this FA; directions are compared above the second.
LEAST_FA, WHITE_MATTER = 0.2, 0.3
#: Pieces of streamlines that a voxel must hold, and their coherence (1: all parallel).
LEAST_PIECES, COHERENT = 5, 0.95
#: Seeds are taken at regular intervals if there are about twice as many.
MOST_SEEDS = 12_000
#: Directions of the tracking are rounded to these many, some 2 degrees apart.
VERTICES = 4000
#: A mean diffusivity where a subject has none, mm^2/s.
DIFFUSIVITY = 0.8e-3


class Subject(NamedTuple):
    """Tensors (X, Y, Z, 3, 3) in voxel axes, FA, first eigenvectors and affine."""

    name: str
    tensors: np.ndarray
    fa: np.ndarray
    v1: np.ndarray
    affine: np.ndarray


def first_eigenvectors(tensors):
    """Eigenvectors of the largest eigenvalues; zero where a tensor is."""
    present = (tensors != 0).any((-2, -1))
    vectors = np.zeros(tensors.shape[:-1])
    vectors[present] = np.linalg.eigh(tensors[present].astype(float))[1][..., -1]
    return vectors


def read_fitted(folder, name):
    """A raw series, fitted by DIPY inside DIPY's mask."""
    image = nib.load(folder / name / "dwi.nii.gz")
    data = image.get_fdata(dtype=np.float32)
    bvals, bvecs = read_bvals_bvecs(
        str(folder / name / "dwi.bval"), str(folder / name / "dwi.bvec")
    )
    bvecs /= np.maximum(np.linalg.norm(bvecs, axis=1, keepdims=True), 1e-6)
    bvecs[bvals < 50] = 0
    gtab = gradient_table(bvals, bvecs=bvecs)
    _, mask = median_otsu(data, vol_idx=[0], median_radius=2, numpass=1)
    fit = TensorModel(gtab).fit(data, mask=mask)
    tensors = np.where(mask[..., None, None], fit.quadratic_form, 0)
    fa = np.where(mask, np.clip(np.nan_to_num(fit.fa), 0, 1), 0)
    return Subject(name, tensors, fa, first_eigenvectors(tensors), image.affine)


def read_maps(folder, name):
    """Axially symmetric tensors of the FA, the MD and the first eigenvector."""
    image = nib.load(folder / name / "v1.nii.gz")
    v1 = np.nan_to_num(image.get_fdata(dtype=np.float32))
    fa = nib.load(folder / name / "fa.nii.gz").get_fdata(dtype=np.float32)
    fa = np.clip(np.nan_to_num(fa), 0, 0.99)
    md = np.full(fa.shape, DIFFUSIVITY)
    if (folder / name / "md.nii.gz").exists():
        md = np.nan_to_num(nib.load(folder / name / "md.nii.gz").get_fdata())
        md = np.where(md > 0, md, DIFFUSIVITY * np.median(md[fa > WHITE_MATTER]))
    ratio = fa / np.sqrt(3 - 2 * fa**2)
    along, across = md * (1 + 2 * ratio), md * (1 - ratio)
    tensors = (along - across)[..., None, None] * v1[..., :, None] * v1[..., None, :]
    tensors += across[..., None, None] * np.eye(3)
    tensors[fa == 0] = 0
    return Subject(name, tensors, fa, v1, image.affine)


def coherence(subject, signs):
    """Mean angle between a first eigenvector and the next along it, in degrees.

    The components are multiplied by `signs`: those of the frame in which the vectors
    are given fit the anatomy best.
    """
    voxels = np.argwhere(subject.fa > WHITE_MATTER)
    vectors = subject.v1 * signs
    here = vectors[tuple(voxels.T)]
    found = []
    for step in (1.5, -1.5):
        there = np.rint(voxels + step * here).astype(int)
        there = np.clip(there, 0, np.array(subject.fa.shape) - 1)
        inside = subject.fa[tuple(there.T)] > WHITE_MATTER
        found.append(angles(vectors[tuple(there.T)], here)[inside])
    return float(np.concatenate(found).mean())


def angles(first, second):
    """Angles between axes in degrees."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosines = np.abs((first * second).sum(-1)) / np.where(lengths > 0, lengths, 1)
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


def register(moving, static, program):
    """The map of the FA of two subjects, by this package or by DIPY's SyN."""
    images = {
        "moving": moving.fa.astype(np.float32),
        "static": static.fa.astype(np.float32),
        "moving_affine": moving.affine,
        "static_affine": static.affine,
    }
    if program == "this package":
        return deep_registration(**images, pipeline=[*STEPS, "deform"])[1]
    _, affine = deep_registration(**images, pipeline=STEPS)
    prealign = np.linalg.inv(affine.prealign)
    return syn_registration(**images, prealign=prealign, level_iters=[10, 10, 5])[1]


def track(subject, seeds):
    """Streamlines in world coordinates from a mask of seeds, by DIPY's EuDX."""
    sphere = Sphere(xyz=fibonacci_sphere(VERTICES, randomize=False))
    pam = PeaksAndMetrics()
    pam.sphere = sphere
    pam.peak_dirs = subject.v1[..., None, :].astype(float)
    pam.peak_values = subject.fa[..., None].astype(float)
    pam.peak_indices = np.full((*subject.fa.shape, 1), -1, dtype=np.int32)
    tracked = subject.fa > LEAST_FA / 2
    vertices = [
        np.abs(part @ sphere.vertices.T).argmax(1)
        for part in np.array_split(subject.v1[tracked], 50)
    ]
    pam.peak_indices[tracked, 0] = np.concatenate(vertices)
    stop = ThresholdStoppingCriterion(subject.fa.astype(float), LEAST_FA)
    places = seeds_from_mask(seeds, subject.affine)
    places = places[:: max(1, len(places) // MOST_SEEDS)]
    lines = LocalTracking(pam, stop, places, subject.affine, 0.5)
    return Streamlines(line for line in lines if len(line) > 20)


def callosal_seeds(subject):
    """White matter near the middle plane with left-right direction."""
    seeds = (subject.fa > 0.4) & (np.abs(subject.v1[..., 0]) > 0.9)
    voxels = np.argwhere(subject.fa > WHITE_MATTER)
    middle = int(round(np.median(voxels[:, 0])))
    near = np.zeros(seeds.shape, bool)
    near[middle - 1 : middle + 2] = True
    return seeds & near


class Tangents(NamedTuple):
    """Directions (N, 3) of pieces of streamlines in N voxels, and the voxels' masks."""

    before: np.ndarray
    after: np.ndarray
    inside: np.ndarray


def mean_tangents(lines, moved, fa, affine):
    """Mean direction of streamlines in each voxel, before and after a map.

    Voxels are those of the moved streamlines, in the white matter of an image of FA,
    with at least `LEAST_PIECES` pieces of one direction: their dyadic coherence is at
    least `COHERENT`.
    """
    shape = fa.shape
    pieces = [np.concatenate([np.diff(x, axis=0) for x in y]) for y in (lines, moved)]
    middles = np.concatenate([(x[1:] + x[:-1]) / 2 for x in moved])
    inverse = np.linalg.inv(affine)
    voxels = np.rint(middles @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    held = ((voxels >= 0) & (voxels < shape)).all(1)
    for piece in pieces:
        held &= np.linalg.norm(piece, axis=1) > 1e-3
    flat = np.ravel_multi_index(tuple(voxels[held].T), shape)
    count = np.bincount(flat, minlength=int(np.prod(shape)))
    enough = np.flatnonzero(count * (fa.ravel() > WHITE_MATTER) >= LEAST_PIECES)
    coherence_is_high = np.ones(len(enough), bool)
    directions = []
    for piece in pieces:
        unit = piece[held] / np.linalg.norm(piece[held], axis=1, keepdims=True)
        dyads = (unit[:, :, None] * unit[:, None, :]).reshape(-1, 9)
        sums = [np.bincount(flat, d, len(count))[enough] for d in dyads.T]
        evals, evecs = np.linalg.eigh(np.stack(sums, -1).reshape(-1, 3, 3))
        coherence_is_high &= evals[:, -1] >= COHERENT * count[enough]
        directions.append(evecs[..., -1])
    inside = np.zeros(count.shape, bool)
    inside[enough[coherence_is_high]] = True
    before, after = (d[coherence_is_high] for d in directions)
    return Tangents(before, after, inside.reshape(shape))
