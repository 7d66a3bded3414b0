"""Pairs of images with two channels for channels.py: b0 and FA to T1 and FA.

The folder of the subjects holds subject_a (b0, fa, mask and parcellation on one grid,
t1 on another one) and subject_b (t1, b0, fa and tissues on one grid, a slab), all
.nii.gz.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np
from scipy.ndimage import map_coordinates
import torch

from dipy_dl_reg import DeepRegistration, apply_mapping, deep_affine_registration
from dipy_dl_reg.geometry.fields import warp
from tools.benchmarks.measures import dice
from tools.experiments.contrast_cases import contrast_case, mean_dice
from tools.experiments.large_deformations import large_field

#: Known fields: longest displacement and standard deviation of the Gaussian, mm.
PEAK, WIDTH = 8.0, 15.0
#: Standard deviations of the noise that is added to moving b0 (as a part of its 95th
#: percentile) and to both FA images, which come from one acquisition.
NOISE_B0, NOISE_FA = 0.03, 0.05
#: Affine of the real pair: a slab does not determine a scale across it.
AFFINE = ("center_of_mass", "translation", "rigid", "rigid_isoscaling")
#: FreeSurfer's labels of the tissues of subject_b: CSF, cortex, white matter and deep
#: grey matter are 1 to 4.
TISSUES = {
    1: (4, 5, 14, 15, 24, 43, 44),
    3: (2, 41, 77, 251, 252, 253, 254, 255),
    4: (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58),
}


class Case(NamedTuple):
    """Two images with channels (b0 or T1; FA), and how their map is judged.

    Attributes
    ----------
    channels : dict
        "static" and "moving": lists of two arrays.
    options : dict
        Affines, prealign and masks, as `DeepRegistration.optimize` takes them.
    judge : callable
        ``judge(mapping)`` returns the measure.
    start : float
        The measure before the deformation.
    """

    channels: dict[str, list[np.ndarray]]
    options: dict[str, Any]
    judge: Any
    start: float


def read(path):
    """Voxels, with 0 for NaN, and matrix of a file."""
    image = nib.load(path)
    with np.errstate(invalid="ignore"):  # files may contain signalling NaN
        return np.nan_to_num(np.asarray(image.dataobj).astype(np.float32)), image.affine


def add_noise_to_fa(image, rng):
    """FA with noise where it is not 0."""
    noisy = np.clip(image + rng.normal(0, NOISE_FA, image.shape), 0, 1.3)
    return np.where(image > 1e-3, noisy, 0).astype(np.float32)


def move(b0, fa, inside, spacing, seed):
    """B0 and FA moved by a known field, with noise, and the field and its inverse."""
    rng = np.random.default_rng(7000 + seed)
    with torch.no_grad():
        u, v = large_field(inside, seed, PEAK / spacing, WIDTH / spacing)
        b0, fa = (
            warp(torch.from_numpy(np.ascontiguousarray(x))[None, None], v)[0, 0].numpy()
            for x in (b0, fa)
        )
    level = NOISE_B0 * np.percentile(b0[fa > 0], 95)
    b0 = np.abs(b0 + rng.normal(0, level, b0.shape)).astype(np.float32)
    return [b0, add_noise_to_fa(fa, rng)], u[0].numpy(), v[0].numpy()


@lru_cache
def template_of_subject_a(folder):
    """T1 and FA of subject_a on T1's grid, and the map that brings FA there."""
    folder = folder / "subject_a"
    t1, t1_matrix = read(folder / "t1.nii.gz")
    b0, matrix = read(folder / "b0.nii.gz")
    fa = read(folder / "fa.nii.gz")[0] * (read(folder / "mask.nii.gz")[0] > 0)
    affines = {"static_affine": t1_matrix, "moving_affine": matrix}
    prealign = deep_affine_registration(b0, t1, **affines)[1]
    mapping = DeepRegistration(progress=False).optimize(
        t1,
        b0,
        static_grid2world=t1_matrix,
        moving_grid2world=matrix,
        prealign=prealign,
    )
    template_fa = apply_mapping(mapping, fa, interpolation="linear")
    return (t1, template_fa, t1_matrix), (b0, fa, matrix), prealign, mapping


def known_field_a(folder, seed):
    """Known field in subject_a: the template's map of b0 to T1, then the field."""
    (t1, template_fa, t1_matrix), (b0, fa, matrix), prealign, mapping = (
        template_of_subject_a(folder)
    )
    spacing = float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]))))
    moving, u, _ = move(b0, fa, fa > 0, spacing, seed)
    static = [t1, add_noise_to_fa(template_fa, np.random.default_rng(8000 + seed))]
    points = apply_affine(t1_matrix, np.argwhere(template_fa > 0)[::13])
    goal = apply_affine(
        np.linalg.inv(matrix), np.asarray(mapping.transform_points(points))
    )
    goal = goal + np.stack(
        [map_coordinates(part, goal.T, order=1, mode="nearest") for part in u], -1
    )

    def rms(points_found):
        off = apply_affine(np.linalg.inv(matrix), points_found) - goal
        return float(spacing * np.sqrt(np.square(off).sum(1).mean()))

    options = {
        "static_grid2world": t1_matrix,
        "moving_grid2world": matrix,
        "prealign": prealign,
    }
    return Case(
        {"static": static, "moving": moving},
        options,
        lambda found: rms(np.asarray(found.transform_points(points))),
        rms(apply_affine(prealign, points)),
    )


def known_field_b(folder, seed):
    """Known field in subject_b, whose T1, b0 and FA are on one grid."""
    folder = folder / "subject_b"
    (t1, matrix), (b0, _), (fa, _) = (
        read(folder / f"{name}.nii.gz") for name in ("t1", "b0", "fa")
    )
    inside = fa > 0
    moving, u, _ = move(b0, fa, inside, 1.0, seed)
    static = [t1, add_noise_to_fa(fa, np.random.default_rng(8000 + seed))]
    points = np.argwhere(inside)[::13]
    goal = points + u[:, inside].T[::13]

    def rms(places):
        return float(np.sqrt(np.square(places - goal).sum(1).mean()))

    world = apply_affine(matrix, points)
    options = {
        "static_grid2world": matrix,
        "moving_grid2world": matrix,
        "static_mask": inside,
        "moving_mask": moving[1] > 0,
    }

    def judge(mapping):
        found = np.asarray(mapping.transform_points(world))
        return rms(apply_affine(np.linalg.inv(matrix), found))

    return Case({"static": static, "moving": moving}, options, judge, rms(points))


def real_pair(folder, name):
    """Two people: subject_a to subject_b ("a to b") or the reverse, by tissues."""
    subjects = {"a": read_subject_a(folder), "b": read_subject_b(folder)}
    moving, static = subjects[name[0]], subjects[name[-1]]
    prealign = deep_affine_registration(
        moving["fa"],
        static["fa"],
        static_affine=static["matrix"],
        moving_affine=moving["matrix"],
        static_mask=static["mask"],
        moving_mask=moving["mask"],
        pipeline=list(AFFINE),
    )[1]
    options = {
        "static_grid2world": static["matrix"],
        "moving_grid2world": moving["matrix"],
        "prealign": prealign,
        "static_mask": static["mask"],
        "moving_mask": moving["mask"],
    }
    channels = {
        "static": [static["t1"], static["fa"]],
        "moving": [moving["b0"], moving["fa"]],
    }

    def judge(mapping):
        warped = apply_mapping(mapping, moving["tissues"], interpolation="nearest")
        fixed = static["tissues"].copy()
        covered = apply_mapping(
            mapping, np.ones(moving["tissues"].shape), interpolation="nearest"
        )
        fixed[covered == 0] = 0
        return float(dice(fixed, warped, np.arange(1, 5)).mean())

    case = Case(channels, options, judge, 0.0)
    return case._replace(start=judge(register_affinely(case)))


def register_affinely(case):
    """The map of a case without displacement."""
    registration = DeepRegistration("CC", model=None, level_iters=0, progress=False)
    images = {side: pair[1] for side, pair in case.channels.items()}
    return registration.optimize(**images, **case.options)


def read_subject_b(folder):
    """T1, b0, FA, tissues and mask of subject_b."""
    folder = folder / "subject_b"
    images = {
        name: read(folder / f"{name}.nii.gz") for name in ("t1", "b0", "fa", "tissues")
    }
    found = {name: image for name, (image, _) in images.items()}
    found["tissues"] = found["tissues"].astype(np.int32)
    return found | {"matrix": images["t1"][1], "mask": found["fa"] > 0}


def read_subject_a(folder):
    """T1, b0, FA, tissues and mask of subject_a, all on the grid of b0."""
    (t1, _, t1_matrix), (b0, fa, matrix), prealign, mapping = template_of_subject_a(
        folder
    )
    labels = read(folder / "subject_a" / "parcellation.nii.gz")[0].astype(np.int32)
    tissues = np.where((labels >= 1000) | np.isin(labels, (3, 42)), 2, 0)
    for tissue, numbers in TISSUES.items():
        tissues[np.isin(labels, numbers)] = tissue
    t1 = apply_mapping(mapping, t1, interpolation="linear", inverse=True)
    return {
        "t1": t1,
        "b0": b0,
        "fa": fa,
        "tissues": tissues.astype(np.int32),
        "matrix": matrix,
        "mask": fa > 0,
    }


def simulated_pair(folder, pair):
    """Two T1 brains with labels; b0 and FA are simulated from T1."""
    cases = [contrast_case(folder, pair, kind) for kind in ("b0", "FA")]
    swapped = ":".join(reversed(pair.split(":")))
    static_fa = contrast_case(folder, swapped, "FA").images["moving"]
    rng = np.random.default_rng(5)
    noise = rng.normal(0, NOISE_FA / 2, static_fa.shape)
    static_fa = np.where(static_fa > 0, np.abs(static_fa + noise), 0)
    images = dict(cases[0].images)
    channels = {
        "static": [images.pop("static"), static_fa.astype(np.float32)],
        "moving": [images.pop("moving"), cases[1].images["moving"]],
    }

    def judge(mapping):
        return mean_dice(cases[0].labels, mapping)["Dice"]

    case = Case(channels, images, judge, 0.0)
    return case._replace(start=judge(register_affinely(case)))
