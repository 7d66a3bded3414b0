"""Image pairs that the benchmarks register, and how the maps are judged.

A case is either a pair of labelled brains from a folder, or a bundled image and the
same image deformed by a known field. It contains the arguments of `optimize`, points at
which the inversion error is measured, and a function that measures the accuracy of a
map.
"""

from collections.abc import Callable
from functools import partial
import json
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from tools.benchmarks.measures import dice, hausdorff95, to_world

# DIPY is imported in functions, because it reads the number of threads when it is
# imported, and the benchmarks set this number first.

#: File of affines in a folder of brains: for each subject, MNI world to its world.
AFFINES = "affines_mni.json"


class Case(NamedTuple):
    """Two images to register, and how the map is measured.

    `points` are world coordinates. `judge` takes the map and optionally the moving
    labels warped by another program, and returns the measures as a dict. `labels`
    contains "static", "moving" and the matrices "static_grid2world" and
    "moving_grid2world".
    """

    images: dict  # the arguments of optimize
    points: np.ndarray
    judge: Callable
    labels: dict | None = None


def resample(image, grid2world, spacing):
    """Resample an image to voxels of `spacing` mm; return it and its matrix."""
    scale = spacing / np.linalg.norm(grid2world[:3, :3], axis=0)
    image = np.asarray(image, dtype=np.float32)
    if np.allclose(scale, 1):
        return image, grid2world
    shape = tuple(np.ceil(np.divide(image.shape, scale)).astype(int))
    smooth = gaussian_filter(image, 0.4 * scale)
    coarse = affine_transform(smooth, scale, output_shape=shape, order=1)
    return coarse, grid2world @ np.diag([*scale, 1])


def subject_files(folder, subject):
    """Paths of the T1 image and the labels of a subject."""
    return [folder / f"subject_{subject}_{kind}.nii.gz" for kind in ("t1", "labels")]


def labelled_case(folder, spacing, pair):
    """Load two subjects of a folder of labelled brains; pair is ``static:moving``."""
    images, labels = {}, {}
    for role, name in zip(("static", "moving"), pair.split(":")):
        t1, label_map = map(nib.load, subject_files(folder, name))
        images[role], images[f"{role}_grid2world"] = resample(
            t1.get_fdata(dtype=np.float32), t1.affine, spacing
        )
        labels[role] = np.asarray(label_map.dataobj).astype(np.int32)
        labels[f"{role}_grid2world"] = label_map.affine
    images["prealign"] = find_prealign(folder, pair, images)
    # 997 is a prime number, so the voxels are in all rows and slices.
    voxels = np.argwhere(labels["static"] > 0)[::997]
    points = to_world(voxels, labels["static_grid2world"])
    return Case(images, points, partial(judge_by_labels, labels), labels)


def find_prealign(folder, pair, images):
    """Affine from static world to moving world: from the file, or by registration."""
    if not (folder / AFFINES).is_file():
        from dipy_dl_reg import deep_affine_registration

        affines = {
            f"{r}_affine": images[f"{r}_grid2world"] for r in ("static", "moving")
        }
        return deep_affine_registration(images["moving"], images["static"], **affines)[
            1
        ]
    problem = find_affines_problem(folder, [pair])
    if problem:
        raise ValueError(problem)
    affines = json.loads((folder / AFFINES).read_text())
    first, second = (np.array(affines[f"subject_{n}"]) for n in pair.split(":"))
    return second @ np.linalg.inv(first)


def find_affines_problem(folder, pairs):
    """Describe what is wrong with the file of affines, or return None."""
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


def list_pairs(folder):
    """List pairs of subjects: the first and second, and so on, in both directions."""
    found = (path.name for path in sorted(folder.glob("subject_*_t1.nii.gz")))
    names = [name.removeprefix("subject_").removesuffix("_t1.nii.gz") for name in found]
    names = [
        name for name in names if all(f.is_file() for f in subject_files(folder, name))
    ]
    forth = [f"{a}:{b}" for a, b in zip(names[::2], names[1::2])]
    return forth + [":".join(reversed(pair.split(":"))) for pair in forth]


def known_field_case(image, grid2world, field, coarser=1):
    """An image and the same image deformed: static(x) = image(x + field(x)), mm.

    Both images are downsampled by `coarser` after the deformation. Otherwise only one
    of the two images would be smoothed by interpolation, and registration could use
    this difference.
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
    """DIPY's coronal slice deformed by DIPY's harmonic field, in voxels."""
    from dipy.align.vector_fields import create_harmonic_fields_2d
    from dipy.data import get_fnames

    image = np.load(get_fnames(name="t1_coronal_slice"))
    field, _ = create_harmonic_fields_2d(*image.shape, 0.1, 4)
    return known_field_case(image, np.eye(3), np.asarray(field))


def bundled_template():
    """The MNI152 template at 4 mm, deformed by smooth noise of 16 mm at most."""
    from nilearn.datasets import load_mni152_template

    nifti = load_mni152_template(resolution=2)
    noise = np.random.default_rng(0).normal(size=(*nifti.shape, 3))
    field = gaussian_filter(noise, (12, 12, 12, 0))
    field *= 16 / np.linalg.norm(field, axis=-1).max()
    return known_field_case(nifti.get_fdata(), nifti.affine, field, coarser=2)


def judge_by_labels(labels, mapping, warped=None):
    """Mean Dice and HD95 over the common labels, and the values of each label."""
    static, matrix = labels["static"], labels["static_grid2world"]
    if warped is None:
        warped = warp_labels(labels, mapping)
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


def warp_labels(labels, mapping):
    """Warp moving's labels to the grid of static's labels, by nearest neighbour."""
    return mapping.transform(
        labels["moving"],
        interpolation="nearest",
        image_world2grid=np.linalg.inv(labels["moving_grid2world"]),
        out_shape=labels["static"].shape,
        out_grid2world=labels["static_grid2world"],
    )


def judge_by_field(static, moving, field, inside, mapping, warped=None):
    """Error of the field (mm) and remaining squared difference (%) in the object."""
    error = np.linalg.norm(np.asarray(mapping.backward) - field, axis=-1)[inside]
    left = np.square(static - mapping.transform(moving)).sum()
    before = np.linalg.norm(field, axis=-1)[inside]
    return {
        "field_before": float(np.sqrt(np.square(before).mean())),
        "field_rms": float(np.sqrt(np.square(error).mean())),
        "field_max": float(error.max()),
        "squared_difference": float(100 * left / np.square(static - moving).sum()),
    }
