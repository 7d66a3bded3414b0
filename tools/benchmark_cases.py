"""What tools/benchmark.py registers, and what it measures in the map.

A case is two images, the arguments of `optimize`, with points and a judge of its own:
labelled brains from a folder, or a bundled image deformed by a known field.
"""

from collections.abc import Callable
import ctypes
from functools import partial
import gc
import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

# DIPY is imported in functions: benchmark.py sets its number of threads before.


class Case(NamedTuple):
    """Two images to register and how to judge the map: world points, a function."""

    images: dict  # the arguments of optimize
    points: np.ndarray
    judge: Callable


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


def to_world(voxels, grid2world):
    dim = voxels.shape[-1]
    return voxels @ grid2world[:dim, :dim].T + grid2world[:dim, dim]


def files_of(folder, subject):
    return [folder / f"subject_{subject}_{kind}.nii.gz" for kind in ("t1", "labels")]


def labelled_case(folder, spacing, pair):
    """Two subjects of a folder of labelled brains; pair is ``static:moving``."""
    affines = json.loads((folder / "affines_mni.json").read_text())
    to_subject = [np.array(affines[f"subject_{name}"]) for name in pair.split(":")]
    images = {"prealign": to_subject[1] @ np.linalg.inv(to_subject[0])}
    labels, matrices = [], []
    for role, name in zip(("static", "moving"), pair.split(":")):
        t1, label_map = map(nib.load, files_of(folder, name))
        images[role], images[f"{role}_grid2world"] = resample(
            t1.get_fdata(dtype=np.float32), t1.affine, spacing
        )
        labels.append(np.asarray(label_map.dataobj).astype(np.int32))
        matrices.append(label_map.affine)
    # Every 997th voxel, a prime, meets all rows and slices.
    points = to_world(np.argwhere(labels[0] > 0)[::997], matrices[0])
    return Case(images, points, partial(judge_by_labels, *labels, *matrices))


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


def dice(a, b, labels):
    """Dice of each label, 0 where one of the two has none of it."""
    labels = np.asarray(labels)
    bins = labels.max() + 1
    counts = [np.bincount(x.ravel(), minlength=bins)[labels] for x in (a, b)]
    both = np.bincount(a[a == b].ravel(), minlength=bins)[labels]
    return 2 * both / np.maximum(sum(counts), 1)


def judge_by_labels(static, moving, static_grid2world, moving_grid2world, mapping):
    """Mean Dice over the labels of both subjects, moving's through the map."""
    warped = mapping.transform(
        moving,
        interpolation="nearest",
        image_world2grid=np.linalg.inv(moving_grid2world),
        out_shape=static.shape,
        out_grid2world=static_grid2world,
    )
    common = np.intersect1d(static, moving)
    return {"dice": float(dice(static, warped, common[common > 0]).mean())}


def judge_by_field(static, moving, field, inside, mapping):
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


def jacobian(field, grid2world):
    """Jacobian determinant of x + field(x), field in mm, by central differences."""
    dim = field.shape[-1]
    field = np.asarray(field, dtype=float)
    per_voxel = np.stack(np.gradient(field, axis=tuple(range(dim))), axis=-1)
    return np.linalg.det(
        per_voxel @ np.linalg.inv(grid2world[:dim, :dim]) + np.eye(dim)
    )


def round_trip(mapping, points):
    """How far points (world, mm) end from where they began, there and back."""
    back = mapping.transform_points_inverse(mapping.transform_points(points))
    return np.linalg.norm(back - points, axis=1)


def regularity(mapping, grid2world, points):
    """Jacobian determinants of both fields, and the round trip in mm."""
    to_moving = jacobian(mapping.backward, grid2world)
    to_static = jacobian(mapping.forward, grid2world)
    trip = round_trip(mapping, points)
    return {
        "minimum_jacobian": float(to_moving.min()),
        "minimum_jacobian_inverse": float(to_static.min()),
        "folds_percent": float(100 * (to_moving <= 0).mean()),
        "folds_inverse_percent": float(100 * (to_static <= 0).mean()),
        "sd_log_jacobian": float(np.log(to_moving.clip(1e-3)).std()),
        "round_trip_mean": float(trip.mean()),
        "round_trip_max": float(trip.max()),
    }


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
