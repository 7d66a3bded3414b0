"""Pairs with known errors for uncertainty.py.

Kinds of pairs, and what is known of the error of their maps:

- ``labels``: T1 images of two people with manual labels. At points of static between
  two tissues, the distance from the mapped point to the boundary of the same label in
  moving: the part of the error along the normal, and a lower bound of the error. The
  distance to the boundary of the same tissue (all cortical areas are one) does not
  count a wrong gyrus, nor the arbitrary borders between areas.
- ``heads``: the same for whole heads of another scanner, with automatic labels.
- ``t1``: one T1 image, and the same deformed by a known field. What a registration of
  two other people left unexplained, a part from 0.3 to 1 of it, is added to static, so
  that the two differ as two people do. The error is known at every voxel.
- ``drawn``, ``drawn-b0``: images drawn from a label map, each with its own intensities,
  texture, noise and bias: the static one with T1 contrast and deformed by a known
  field, the moving one with T1 or b0 contrast.
- ``slice``: an axial slice of a T1 image, and the same deformed by a known field.
- ``motion``: real b0, FA and MD images of one person after a known motion, to T1.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import (
    affine_transform,
    distance_transform_edt,
    gaussian_filter,
    map_coordinates,
)

from tools.benchmarks.cases import labelled_case, resample, subject_files
from tools.benchmarks.measures import to_world

#: Random fields: standard deviation of the Gaussian that smooths them, and root mean
#: square of their displacement, mm.
FIELDS = ((24.0, 3.0), (10.0, 1.2), (6.0, 0.5))
#: Standard deviation of the noise, and of the logarithm of the bias field.
NOISE, BIAS = 0.02, 0.1
#: Labels of the MICCAI challenge: cortex is 100 and above, white matter 44 and 45.
WHITE, CORTEX = (44, 45), 100
#: Positions of slices, as parts of the brain's height.
SLICES = (0.4, 0.5, 0.6, 0.7)
#: Distance beyond which a boundary is not searched, mm.
FARTHEST = 12


class KnownCase(NamedTuple):
    """Two images, and what is known of the correct map.

    `images` are the arguments of optimize, `inside` the voxels of static that are
    judged. `truth` holds the points of moving that correspond to all voxels of static.
    Without it, `boundary` takes a function that maps points of static, and returns
    points of static between tissues, and the distances (mm) of the mapped points from
    the boundary of the same label, and from that of the same tissue.
    """

    images: dict
    inside: np.ndarray
    truth: np.ndarray | None = None
    boundary: Any = None


def voxel_points(shape, grid2world):
    """World coordinates of all voxels."""
    return to_world(np.moveaxis(np.indices(shape, dtype=float), 0, -1), grid2world)


def smooth_noise(shape, spacing, width, size, random):
    """Draw a field (D, *shape) in mm with a Gaussian correlation."""
    field = np.stack(
        [gaussian_filter(random.normal(size=shape), width / spacing) for _ in shape]
    )
    return field * size / np.sqrt(np.square(field).sum(0).mean())


def draw_field(shape, spacing, random):
    """Draw a smooth displacement (3, *shape) in mm, along array axes."""
    coarse = tuple(max(4, int(np.ceil(n * spacing / 3)) + 1) for n in shape)
    total = sum(smooth_noise(coarse, 3.0, *field, random) for field in FIELDS)
    at = np.indices(shape, dtype=np.float32) * (spacing / 3)
    return np.stack([map_coordinates(u, at, order=1, mode="nearest") for u in total])


def add_defects(image, random):
    """Add noise and a bias field; 0 stays 0."""
    bias = gaussian_filter(random.normal(size=image.shape), 12)
    bias *= BIAS / bias.std()
    top = np.quantile(image[image > 0], 0.98)
    noisy = image * np.exp(bias) + random.normal(0, NOISE * top, image.shape)
    return np.where(image > 0.02 * top, np.abs(noisy), 0).astype(np.float32)


def crop(values, others=(), margin=6):
    """Cut arrays to the voxels of the first that are not 0; return the start."""
    found = np.argwhere(values)
    low = np.maximum(found.min(0) - margin, 0)
    cut = tuple(slice(a, b) for a, b in zip(low, found.max(0) + margin + 1))
    return [x[cut] for x in (values, *others)], low


def shifted(grid2world, low):
    """Matrix of an array that was cut at `low`."""
    matrix = grid2world.copy()
    matrix[:3, 3] = to_world(low.astype(float), grid2world)
    return matrix


# Labelled pairs


def label_case(folder, pair, spacing):
    """Two labelled T1 images."""
    case = labelled_case(folder, spacing, pair)
    labels = case.labels
    images = dict(case.images)
    near = affine_transform(
        labels["static"],
        np.linalg.inv(labels["static_grid2world"]) @ images["static_grid2world"],
        output_shape=images["static"].shape,
        order=0,
    )
    points, names = visible_boundary(labels["static"], labels["static_grid2world"])

    def boundary(transform):
        mapped, moving = transform(points), labels["moving"]
        tissues = np.where(moving >= CORTEX, CORTEX, moving)
        matrix = labels["moving_grid2world"]
        return {
            "points": points,
            "distances": boundary_distances(moving, matrix, mapped, names),
            "tissue distances": boundary_distances(
                tissues, matrix, mapped, np.where(names >= CORTEX, CORTEX, names)
            ),
        }

    return KnownCase(images, near > 0, boundary=boundary)


def visible_boundary(labels, grid2world, count=20000):
    """Points between tissues, half-way between two voxels, and the label on one side.

    The borders of cortical areas with each other cannot be seen in an image, and are
    left out.
    """
    tissue = np.where(labels >= CORTEX, CORTEX, labels)
    points, names = [], []
    for axis in range(3):
        first = [slice(None)] * 3
        second = list(first)
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        a, b = tissue[tuple(first)], tissue[tuple(second)]
        found = np.argwhere(a != b).astype(float)
        pairs = np.stack([labels[tuple(s)][a != b] for s in (first, second)], -1)
        found[:, axis] += 0.5
        points.append(found)
        names.append(pairs)
    points, names = np.concatenate(points), np.concatenate(names)
    # Of the two labels the cortical one, else the larger number: never background.
    chosen = names.max(1)
    picked = np.random.default_rng(0).permutation(len(points))[:count]
    return to_world(points[picked], grid2world), chosen[picked]


def boundary_distances(labels, grid2world, points, names):
    """Distance of each point from the boundary of its label, mm; NaN without it."""
    spacing = np.linalg.norm(grid2world[:3, :3], axis=0)
    voxels = to_world(points, np.linalg.inv(grid2world))
    distances = np.full(len(points), np.nan)
    for name in np.unique(names):
        inside = labels == name
        if not inside.any():
            continue
        margin = int(np.ceil(FARTHEST / spacing.min()))
        (inside,), low = crop(inside, margin=margin)
        # Distances between centres are half a voxel too long on each side.
        signed = distance_transform_edt(inside, sampling=spacing)
        signed -= distance_transform_edt(~inside, sampling=spacing)
        signed -= np.sign(signed) * spacing.mean() / 2
        own = names == name
        at = (voxels[own] - low).T
        distances[own] = np.abs(map_coordinates(signed, at, order=1, mode="nearest"))
    return distances


# A T1 image and the same deformed


@lru_cache(maxsize=4)
def fine_t1(folder, subject):
    """T1 image at its own resolution."""
    nifti = nib.load(subject_files(folder, subject)[0])
    return nifti.get_fdata(dtype=np.float32), nifti.affine


def deformed_case(folder, subject, spacing, seed, residual=None):
    """A T1 image, deformed and changed by what another registration left, and itself.

    `residual` is an image on the grid of `resample` at `spacing`, and its matrix.
    """
    random = np.random.default_rng(seed)
    image, matrix = fine_t1(folder, subject)
    (image,), low = crop(image, margin=8)
    matrix = shifted(matrix, low)
    fine = float(np.linalg.norm(matrix[:3, 0]))
    u = draw_field(image.shape, fine, random)
    at = np.indices(image.shape, dtype=np.float32) + u.astype(np.float32) / fine
    deformed = map_coordinates(image, at, order=1)
    if residual is not None:
        values, own = residual
        to_own = np.linalg.inv(own) @ matrix
        there = np.tensordot(to_own[:3, :3], at, 1) + to_own[:3, 3].reshape(3, 1, 1, 1)
        part = random.uniform(0.3, 1.0)
        extra = part * map_coordinates(values, there, order=1)
        deformed = np.where(deformed > 0, np.maximum(deformed + extra, 0), 0)
    return finish_known(deformed, image, u, matrix, spacing, random)


def finish_known(static, moving, u, matrix, spacing, random, inside=None):
    """Sample both images at `spacing`, add defects, and evaluate the known field."""
    (static, small), (moving, _) = (
        resample(x, matrix, spacing) for x in (static, moving)
    )
    at = to_world(
        np.moveaxis(np.indices(static.shape, dtype=float), 0, -1),
        np.linalg.inv(matrix) @ small,
    )
    at = np.moveaxis(at, -1, 0)
    fine = np.linalg.norm(matrix[:3, :3], axis=0)
    moved = [
        at[k] + map_coordinates(u[k], at, order=1, mode="nearest") / fine[k]
        for k in range(3)
    ]
    truth = to_world(np.stack(moved, -1), matrix)
    shown = static > 0.05 * np.quantile(static[static > 0], 0.98)
    if inside is not None:
        shown = resample(inside.astype(np.float32), matrix, spacing)[0] > 0.5
    images = {
        "static": add_defects(static, random),
        "moving": add_defects(moving, random),
        "static_grid2world": small,
        "moving_grid2world": small,
        "prealign": None,
    }
    return KnownCase(images, shown, truth=truth)


# Slices


def slice_case(folder, subject, number, seed, spacing=2.0):
    """A slice of a T1 image, deformed by a known field, and itself.

    `number` is the part of the image's third axis, from 0 to 1.
    """
    random = np.random.default_rng(seed)
    image, matrix = fine_t1(folder, subject)
    (image,), _ = crop(image, margin=8)
    fine = float(np.linalg.norm(matrix[:3, 0]))
    image = np.ascontiguousarray(image[:, :, round(number * (image.shape[2] - 1))])
    u = draw_field(image.shape, fine, random)
    at = np.indices(image.shape) + u / fine
    deformed = map_coordinates(image, at, order=1)
    u, step = u[:, ::2, ::2], spacing / fine
    static, moving = (
        gaussian_filter(x, 0.4 * step)[::2, ::2] for x in (deformed, image)
    )
    top = np.quantile(static[static > 0], 0.98)
    affine = np.diag([spacing, spacing, 1.0])
    points = to_world(np.moveaxis(np.indices(static.shape, float), 0, -1), affine)
    images = {
        "static": add_defects(static, random),
        "moving": add_defects(moving, random),
        "static_grid2world": affine,
        "moving_grid2world": affine,
        "prealign": None,
    }
    truth = points + np.moveaxis(u, 0, -1)
    return KnownCase(images, static > 0.05 * top, truth=truth)


# Images drawn from label maps


def drawn_case(path, spacing, seed, other="T1"):
    """Two images drawn from one label map, the static one deformed."""
    from tools.recipes.brain_maps import DIFFUSION, TISSUES

    random = np.random.default_rng(seed)
    nifti = nib.load(path)
    labels, matrix = np.asarray(nifti.dataobj).astype(int), nifti.affine
    labels = np.where(labels < 200, labels, 0)
    (labels,), low = crop(labels, margin=8)
    matrix = shifted(matrix, low)
    u = draw_field(labels.shape, 1.0, random)
    tables = {"T1": {k: v[0] for k, v in TISSUES.items()}}
    tables["b0"] = {k: v[0] for k, v in DIFFUSION.items()}
    at = np.indices(labels.shape, dtype=np.float32) + u
    deformed = map_coordinates(labels, at, order=0)
    static, moving = (
        paint(x, tables[look], random)
        for x, look in ((deformed, "T1"), (labels, other))
    )
    inside = deformed > 0
    return finish_known(static, moving, u, matrix, spacing, random, inside)


def paint(labels, table, random):
    """Give each tissue an intensity, and a texture of 3 % correlated over 1.5 mm."""
    values = np.zeros(labels.max() + 1)
    for names, mean in table.items():
        drawn = max(0.02, mean + 0.04 * random.normal())
        values[[k for k in names if k < len(values)]] = drawn
    texture = gaussian_filter(random.normal(size=labels.shape), 1.5)
    image = values[labels] * (1 + 0.03 * texture / texture.std())
    return gaussian_filter(image, 0.6).astype(np.float32)


# Real images of one person after a known motion


def motion_case(folder, kind, seed):
    """A diffusion image after a known motion, and T1."""
    from tools.experiments.contrast_cases import Motion, read_real_image, real_case

    case = real_case(folder, kind, seed)
    image, matrix = read_real_image(folder, kind)
    motion = Motion(image > 0, matrix, seed)
    static = case.images["static"]
    points = voxel_points(static.shape, case.images["static_grid2world"])
    goal = to_world(points, case.images["prealign"])
    # The motion maps voxels of the moved image to the original: invert it by iteration.
    wanted = to_world(goal, np.linalg.inv(matrix))
    found = wanted.copy()
    for _ in range(30):
        there = np.moveaxis(motion(np.moveaxis(found, -1, 0)), 0, -1)
        found += wanted - there
    return KnownCase(case.images, static > 0, truth=to_world(found, matrix))


def list_cases(data: Path):
    """Names of all cases: by kind, those to calibrate on and those to report."""
    tuning = ["1000", "1001", "1006", "1012"]
    pairs = ["1000:1001", "1006:1012", "1001:1000", "1012:1006"]
    maps = sorted((data / "label_maps").glob("anatomy_*.nii.gz"))
    numbers = [p.name.split("_")[1].split(".")[0] for p in maps]
    heads = ["012", "013", "014", "015", "033", "034"]
    return {
        "labels": (pairs, ["1107:1122", "1122:1107"]),
        "heads": ([], [f"ixi{a}:ixi{b}" for a, b in zip(heads, heads[1:] + heads[:1])]),
        "t1": (tuning, ["1107", "1122"]),
        "drawn": (numbers[:6], numbers[10:14]),
        "drawn-b0": (numbers[6:10], numbers[14:17]),
        "slice": (
            [f"{n}:{part}" for n in tuning for part in SLICES],
            [f"{n}:{part}" for n in ("1107", "1122") for part in SLICES],
        ),
        "motion": (
            ["b0:10", "FA:10", "MD:10", "b0:11", "FA:11", "MD:11"],
            ["b0:0", "FA:0", "MD:0", "b0:1", "FA:1", "MD:1"],
        ),
    }
