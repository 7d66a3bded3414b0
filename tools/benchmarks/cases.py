"""Image pairs that the benchmarks register, and how the maps are judged.

A case is two images, the arguments of `optimize`, with points and a judge of its own:
labelled brains from a folder, or a bundled image deformed by a known field.
"""

from collections.abc import Callable
from functools import partial
import json
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from tools.benchmarks.measures import dice, hausdorff95, to_world

# DIPY is imported in functions: benchmark.py sets its number of threads before.

#: In a folder of brains: of each, MNI world to its world.
AFFINES = "affines_mni.json"


class Case(NamedTuple):
    """Two images to register and how to judge the map: world points, a function.

    `judge` takes the map and, from programs with maps of their own, the moving labels
    as they warped them. `labels` are "static", "moving", and their "..._grid2world".
    """

    images: dict  # the arguments of optimize
    points: np.ndarray
    judge: Callable
    labels: dict | None = None


def resample(image, grid2world, spacing):
    """Image on voxels of `spacing` mm over the same field of view, and its matrix."""
    scale = spacing / np.linalg.norm(grid2world[:3, :3], axis=0)
    image = np.asarray(image, dtype=np.float32)
    if np.allclose(scale, 1):
        return image, grid2world
    shape = tuple(np.ceil(np.divide(image.shape, scale)).astype(int))
    smooth = gaussian_filter(image, 0.4 * scale)
    coarse = affine_transform(smooth, scale, output_shape=shape, order=1)
    return coarse, grid2world @ np.diag([*scale, 1])


def files_of(folder, subject):
    return [folder / f"subject_{subject}_{kind}.nii.gz" for kind in ("t1", "labels")]


def labelled_case(folder, spacing, pair):
    """Two subjects of a folder of labelled brains; pair is ``static:moving``."""
    images, labels = {}, {}
    for role, name in zip(("static", "moving"), pair.split(":")):
        t1, label_map = map(nib.load, files_of(folder, name))
        images[role], images[f"{role}_grid2world"] = resample(
            t1.get_fdata(dtype=np.float32), t1.affine, spacing
        )
        labels[role] = np.asarray(label_map.dataobj).astype(np.int32)
        labels[f"{role}_grid2world"] = label_map.affine
    images["prealign"] = prealign_of(folder, pair, images)
    # Every 997th voxel, a prime, meets all rows and slices.
    voxels = np.argwhere(labels["static"] > 0)[::997]
    points = to_world(voxels, labels["static_grid2world"])
    return Case(images, points, partial(judge_by_labels, labels), labels)


def prealign_of(folder, pair, images):
    """Static world to moving world: by the folder's matrices, else by registration."""
    if not (folder / AFFINES).is_file():
        from dipy_dl_reg import deep_affine_registration

        affines = {
            f"{r}_affine": images[f"{r}_grid2world"] for r in ("static", "moving")
        }
        return deep_affine_registration(images["moving"], images["static"], **affines)[
            1
        ]
    problem = problem_of_affines(folder, [pair])
    if problem:
        raise ValueError(problem)
    affines = json.loads((folder / AFFINES).read_text())
    first, second = (np.array(affines[f"subject_{n}"]) for n in pair.split(":"))
    return second @ np.linalg.inv(first)


def problem_of_affines(folder, pairs):
    """What is wrong with a folder's matrices, in one sentence; None if nothing is."""
    path = folder / AFFINES
    if not path.is_file():
        return None
    try:
        affines = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        return f"--data: {path} is no JSON object of matrices: {error}"
    for name in dict.fromkeys(name for pair in pairs for name in pair.split(":")):
        try:
            matrix = np.array(affines.get(f"subject_{name}"), dtype=float)
        except (ValueError, TypeError):
            matrix = np.empty(0)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            return (
                f"--data: {path} holds no 4x4 matrix for subject_{name}; add it, or "
                "remove the file to have all affines found"
            )
    return None


def pairs_in(folder):
    """The pairs of a folder, both ways: those of its subjects, each with its next."""
    found = (path.name for path in sorted(folder.glob("subject_*_t1.nii.gz")))
    names = [name.removeprefix("subject_").removesuffix("_t1.nii.gz") for name in found]
    names = [name for name in names if all(f.is_file() for f in files_of(folder, name))]
    forth = [f"{a}:{b}" for a, b in zip(names[::2], names[1::2])]
    return forth + [":".join(reversed(pair.split(":"))) for pair in forth]


def known_case(image, grid2world, field, coarser=1):
    """An image against itself deformed: static(x) = image(x + field(x)), mm.

    Deformed as it is, then both are brought to voxels so many times `coarser`: what
    interpolation does to one of two images can give a deformation away.
    """
    dim = image.ndim
    image = image.astype(np.float32) / image.max()
    voxels = np.moveaxis(np.indices(image.shape), 0, -1)
    at = voxels + field @ np.linalg.inv(grid2world[:dim, :dim]).T
    static = map_coordinates(image, np.moveaxis(at, -1, 0), order=3)
    every = (slice(None, None, coarser),) * dim
    if coarser > 1:
        smooth = [gaussian_filter(x, 0.4 * coarser) for x in (static, image)]
        static, image = (np.ascontiguousarray(x[every]) for x in smooth)
        grid2world = grid2world @ np.diag([coarser] * dim + [1])
    images = {"static": static, "moving": image}
    images |= {"static_grid2world": grid2world, "moving_grid2world": grid2world}
    inside = static > 0.1
    points = to_world(np.argwhere(inside)[::97], grid2world)
    judge = partial(judge_by_field, static, image, field[every], inside)
    return Case(images, points, judge)


def bundled_slice():
    """DIPY's coronal slice under its own harmonic field, in voxels."""
    from dipy.align.vector_fields import create_harmonic_fields_2d
    from dipy.data import get_fnames

    image = np.load(get_fnames(name="t1_coronal_slice"))
    field, _ = create_harmonic_fields_2d(*image.shape, 0.1, 4)
    return known_case(image, np.eye(3), np.asarray(field))


def bundled_template():
    """The MNI152 template, to 4 mm, under smooth noise of 16 mm at most."""
    from nilearn.datasets import load_mni152_template

    nifti = load_mni152_template(resolution=2)
    noise = np.random.default_rng(0).normal(size=(*nifti.shape, 3))
    field = gaussian_filter(noise, (12, 12, 12, 0))
    field *= 16 / np.linalg.norm(field, axis=-1).max()
    return known_case(nifti.get_fdata(), nifti.affine, field, coarser=2)


def judge_by_labels(labels, mapping, warped=None):
    """Dice and surface distance over the labels of both, moving's through the map."""
    static, matrix = labels["static"], labels["static_grid2world"]
    if warped is None:
        warped = warped_labels(labels, mapping)
    common = np.intersect1d(static, labels["moving"])
    common = common[common > 0]
    row = {}
    for name, values in (
        ("dice", dice(static, warped, common)),
        ("hd95", hausdorff95(static, warped, common, matrix)),
    ):
        row[name] = float(values.mean())
        row[f"{name}_of"] = {int(k): round(float(v), 4) for k, v in zip(common, values)}
    return row


def warped_labels(labels, mapping):
    """Moving labels on the static labels' grid, nearest neighbour, through the map."""
    return mapping.transform(
        labels["moving"],
        interpolation="nearest",
        image_world2grid=np.linalg.inv(labels["moving_grid2world"]),
        out_shape=labels["static"].shape,
        out_grid2world=labels["static_grid2world"],
    )


def judge_by_field(static, moving, field, inside, mapping, warped=None):
    """Distance to the known field in mm inside the object; squares left in percent."""
    error = np.linalg.norm(np.asarray(mapping.backward) - field, axis=-1)[inside]
    left = np.square(static - mapping.transform(moving)).sum()
    before = np.linalg.norm(field, axis=-1)[inside]
    return {
        "field_before": float(np.sqrt(np.square(before).mean())),
        "field_rms": float(np.sqrt(np.square(error).mean())),
        "field_max": float(error.max()),
        "squared_difference": float(100 * left / np.square(static - moving).sum()),
    }
