"""Pairs of different contrasts for contrasts.py, and how the maps are judged.

A case has the form described in tools/benchmarks/cases.py.
"""

from functools import lru_cache, partial
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.linalg import expm
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from tools.benchmarks.cases import Case, labelled_case, warp_labels
from tools.benchmarks.measures import dice, to_world

# DIPY and torch are imported in functions, after contrasts.py has set the number of
# threads.

#: Intensities of cerebrospinal fluid, grey matter and white matter.
LOOKS = {"b0": (0.95, 0.52, 0.36), "FA": (0.06, 0.16, 0.60)}
#: Labels of these tissues; labels of the cortex are 100 and above.
VENTRICLES, WHITE, CORTEX = (51, 52), (44, 45), 100
#: Standard deviations of the blur (voxels of 2 mm) and of the noise.
BLUR, NOISE = 0.4, 0.03
#: Axial slices of 2 mm, and the fields that deform them, in voxels.
SLICES = (35, 45, 55)
FIELD = {"bending": 3.0, "bending_scale": 16}
#: Real images: the factor that their values are multiplied by.
REAL = {"b0": 1.0, "FA": 1.0, "MD": 1e3}
#: Motions of real images. Standard deviations of the angles (degrees), of the relative
#: stretch and of the shift (mm); the longest displacement of the smooth field within
#: the brain (mm), and the standard deviation of the Gaussian that smooths it (mm).
ANGLE, STRETCH, SHIFT = 2.0, 0.02, 2.0
PEAK, WIDTH = 10.0, 15.0


def simulate_contrast(kind, image, labels, from_image):
    """Map the intensities of a T1 image to those of another contrast; 0 stays 0.

    `from_image` is the matrix from voxels of the image to voxels of the labels.
    """
    if kind == "T1":
        return image
    near = affine_transform(labels, from_image, output_shape=image.shape, order=0)
    parts = np.isin(near, VENTRICLES), near >= CORTEX, np.isin(near, WHITE)
    peaks = [float(np.median(image[part & (image > 0)])) for part in parts]
    outer = [0.0, *peaks, float(image.max())]
    seen = (LOOKS[kind][0], *LOOKS[kind], LOOKS[kind][2])
    mapped = gaussian_filter(np.interp(image, outer, seen), BLUR)
    noise = np.random.default_rng(0).normal(0, NOISE, image.shape)
    return np.where(image > 0, np.abs(mapped + noise), 0).astype(np.float32)


def contrast_case(folder, pair, kind):
    """Two T1 brains at 2 mm, the moving one with intensities of another contrast."""
    case = labelled_case(folder, 2.0, pair)
    to_labels = np.linalg.inv(case.labels["moving_grid2world"])
    matrix = to_labels @ case.images["moving_grid2world"]
    moving = simulate_contrast(
        kind, case.images["moving"], case.labels["moving"], matrix
    )
    images = case.images | {"moving": moving}
    return case._replace(images=images, judge=partial(mean_dice, case.labels))


def swap_images(images):
    """Exchange static and moving, and invert the prealign."""
    static, moving = ("static", "static_grid2world"), ("moving", "moving_grid2world")
    given = {to: images[of] for to, of in zip(static + moving, moving + static)}
    return given | {"prealign": np.linalg.inv(images["prealign"])}


def mean_dice(labels, mapping, warped=None):
    """Mean Dice of the common labels; `warped` may be moving's labels, warped."""
    if warped is None:
        warped = warp_labels(labels, mapping)
    common = np.intersect1d(labels["static"], labels["moving"])
    common = common[common > 0]
    return {"Dice": float(dice(labels["static"], np.asarray(warped), common).mean())}


def slice_cases(folder, pair, kind):
    """Yield slices of the moving subject, with the deformed T1 slices as static."""
    import torch

    from dipy_dl_reg.geometry.fields import warp
    from dipy_dl_reg.training.examples.deformation import Bending

    looks, plain = (
        contrast_case(folder, pair, k).images["moving"] for k in (kind, "T1")
    )
    for number in SLICES:
        moving, whole = looks[:, :, number], torch.from_numpy(plain[:, :, number])
        generator = torch.Generator().manual_seed(number)
        u = Bending(**FIELD)(whole.shape, generator)
        static = warp(whole[None, None], u)[0, 0].numpy()
        affine = np.diag([2.0, 2.0, 1.0])
        images = {"static": static, "moving": np.ascontiguousarray(moving)}
        images |= {"static_grid2world": affine, "moving_grid2world": affine}
        truth = 2 * np.moveaxis(u[0].numpy(), 0, -1)
        inside = static > 0.05 * static.max()
        yield Case(images, np.argwhere(inside), partial(field_error, truth, inside))


def field_error(truth, inside, mapping, warped=None):
    """Mean distance from the true field, mm."""
    left = np.linalg.norm(mapping.backward - truth, axis=-1)
    return {"mm off": float(left[inside].mean())}


def real_case(folder, kind, seed):
    """A diffusion image after a random motion, and the T1 image of the same subject.

    With seed None it is not moved.  The correct map, followed by the motion, is the
    affine that this package finds for the unmoved b0; all methods start from it.  The
    labels are resampled to voxels of half the size, to lose little detail.
    """
    folder = Path(folder)
    image, matrix = read_real_image(folder, kind)
    t1, t1_matrix = read_image(folder / "t1.nii.gz")
    labels, label_matrix = read_image(folder / "parcellation.nii.gz")
    at = Motion(image > 0, matrix, seed)
    halved = np.diag([0.5, 0.5, 0.5, 1])
    halved[:3, 3] = -0.25  # centre of the first half voxel
    fine = np.indices(2 * np.array(image.shape)) / 2 - 0.25
    labels = {
        "moving": map_coordinates(labels.astype(np.int32), at(fine), order=0),
        "moving_grid2world": matrix @ halved,
    }
    static, static_matrix = read_image(folder / "parcellation_t1.nii.gz")
    labels |= {"static": static.astype(np.int32), "static_grid2world": static_matrix}
    images = {
        "static": t1,
        "moving": map_coordinates(image, at(np.indices(image.shape)), order=1),
        "static_grid2world": t1_matrix,
        "moving_grid2world": matrix,
        "prealign": find_affine_of_unmoved(folder),
    }
    points = to_world(np.argwhere(t1 > 0)[::97], t1_matrix)
    goal = to_world(points, images["prealign"])
    judge = partial(judge_motion, labels, at, matrix, points, goal)
    return Case(images, points, judge, labels)


def read_image(path):
    """Voxels and matrix of a file."""
    image = nib.load(path)
    with np.errstate(invalid="ignore"):  # files may contain signalling NaN
        return np.asarray(image.dataobj).astype(np.float32), image.affine


def read_real_image(folder, kind):
    """Read a diffusion image, scaled, with 0 outside the brain and for NaN."""
    image, matrix = read_image(folder / f"{kind.lower()}.nii.gz")
    brain = read_image(folder / "mask.nii.gz")[0] > 0
    good = brain & np.isfinite(image)
    return np.where(good, REAL[kind] * np.clip(image, 0, None), 0), matrix


@lru_cache
def find_affine_of_unmoved(folder):
    """Affine from T1's world to the world of the diffusion images, from unmoved b0."""
    from dipy_dl_reg import deep_affine_registration

    (b0, matrix), (t1, t1_matrix) = (
        read_real_image(folder, "b0"),
        read_image(folder / "t1.nii.gz"),
    )
    affines = {"static_affine": t1_matrix, "moving_affine": matrix}
    return deep_affine_registration(b0, t1, **affines)[1]


class Motion:
    """A motion of an image: a smooth deformation followed by an affine map."""

    def __init__(self, inside, matrix, seed):
        self.flow, self.affine = None, np.eye(4)
        if seed is None:
            return
        import torch

        from tools.experiments.large_deformations import large_field

        spacing = np.cbrt(abs(np.linalg.det(matrix[:3, :3])))
        with torch.no_grad():
            u, _ = large_field(inside, seed, PEAK / spacing, WIDTH / spacing)
        self.flow = u[0].numpy()
        rng = np.random.default_rng(seed)
        skew, stretch = rng.normal(size=(2, 3, 3))
        skew = (skew - skew.T) / 2**0.5 * np.deg2rad(ANGLE)
        linear = expm(skew + (stretch + stretch.T) / 2 * STRETCH)
        middle = np.argwhere(inside).mean(0)
        self.affine[:3, :3] = linear
        self.affine[:3, 3] = middle - linear @ middle
        self.affine[:3, 3] += rng.normal(size=3) * SHIFT / spacing

    def __call__(self, voxels):
        """Map voxels (3, ...) of the moved image to voxels of the original image."""
        if self.flow is None:
            return voxels
        moved = voxels + np.stack(
            [map_coordinates(u, voxels, order=1, mode="nearest") for u in self.flow]
        )
        linear, shift = self.affine[:3, :3], self.affine[:3, 3]
        return np.tensordot(linear, moved, 1) + shift.reshape(
            3, *[1] * (moved.ndim - 1)
        )


def judge_motion(labels, motion, grid2world, points, goal, mapping, warped=None):
    """Mean Dice, and mean distance (mm) of points from `goal` after map and motion."""
    found = to_world(mapping.transform_points(points), np.linalg.inv(grid2world))
    away = np.linalg.norm(to_world(motion(found.T).T, grid2world) - goal, axis=1)
    return mean_dice(labels, mapping, warped) | {"mm off": float(away.mean())}
