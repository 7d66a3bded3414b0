"""Images that tools/experiments/map_checksums.py registers.

They are made with NumPy, SciPy and nibabel alone, so that all versions of the package
get the same input. A pair is a dictionary of arguments of
`DeepRegistration.optimize`.
"""

from functools import cache
import json
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

#: Intensities of fluid, grey matter and white matter in other contrasts, and the
#: quantiles of a T1 image at which these tissues are assumed.
CONTRASTS = {"b0": (0.95, 0.52, 0.36), "FA": (0.06, 0.16, 0.60)}
TISSUE_QUANTILES = (0.05, 0.4, 0.85)


def read_image(path):
    """Array (float32, missing values 0) and matrix of an image file."""
    image = nib.load(path)
    with np.errstate(invalid="ignore"):  # FA maps may hold signalling NaN
        values = np.asarray(image.dataobj).astype(np.float32)
    return np.nan_to_num(values), image.affine


def resample(image, grid2world, shape, new_grid2world, order=1):
    """The image on another grid of the same world."""
    matrix = np.linalg.inv(grid2world) @ new_grid2world
    return affine_transform(image, matrix, output_shape=shape, order=order)


def to_spacing(image, grid2world, spacing):
    """The image, smoothed, on voxels of `spacing` mm, and the new matrix."""
    scale = spacing / np.linalg.norm(grid2world[:3, :3], axis=0)
    shape = tuple(np.ceil(np.divide(image.shape, scale)).astype(int))
    new = grid2world @ np.diag([*scale, 1])
    return resample(gaussian_filter(image, 0.4 * scale), grid2world, shape, new), new


@cache
def subjects(folder):
    """The first two subjects of a folder of labelled brains, and the prealign."""
    paths = sorted(Path(folder).glob("subject_*_t1.nii.gz"))[:2]
    if len(paths) < 2:
        raise SystemExit(f"--data: {folder} has no two files subject_*_t1.nii.gz.")
    static, moving = (read_image(path) for path in paths)
    affines = Path(folder) / "affines_mni.json"
    if affines.is_file():
        known = json.loads(affines.read_text())
        first, second = (np.array(known[p.name.split("_t1")[0]]) for p in paths)
        return static, moving, second @ np.linalg.inv(first)
    prealign = np.eye(4)
    prealign[:3, 3] = centre_of_mass(*moving) - centre_of_mass(*static)
    return static, moving, prealign


def centre_of_mass(image, grid2world):
    places = np.argwhere(image > 0)
    weights = image[image > 0].astype(float)
    return grid2world[:3, :3] @ np.average(places, 0, weights) + grid2world[:3, 3]


@cache
def brain_pair(folder, spacing):
    """Two T1 brains at that voxel size."""
    *both, prealign = subjects(folder)
    (static, static_matrix), (moving, moving_matrix) = (
        to_spacing(*image, spacing) for image in both
    )
    return {
        "static": static,
        "moving": moving,
        "static_grid2world": static_matrix,
        "moving_grid2world": moving_matrix,
        "prealign": prealign,
    }


def simulate_contrast(image, kind):
    """A T1 image with the intensities of b0 or FA, and noise; 0 stays 0."""
    inside = image > 0.05 * image.max()
    marks = np.quantile(image[inside], TISSUE_QUANTILES)
    fluid, _, white = CONTRASTS[kind]
    at = [0, *marks, image.max()]
    values = np.interp(image, at, [fluid, *CONTRASTS[kind], white])
    noise = np.random.default_rng(0).normal(0, 0.03, image.shape)
    return np.where(inside, np.abs(values + noise), 0).astype(np.float32)


def contrast_pair(folder, spacing, kind):
    """The same two brains, the moving one with the intensities of `kind`."""
    pair = brain_pair(folder, spacing)
    return pair | {"moving": simulate_contrast(pair["moving"], kind)}


def real_pair(diffusion, kind):
    """A real b0 or FA to the T1 image of the same subject, at 4 mm.

    The centres of mass of b0 and T1 are aligned.
    """
    names = {"static": "t1", "moving": kind.lower(), "b0": "b0", "mask": "mask"}
    files = {k: read_image(Path(diffusion) / f"{n}.nii.gz") for k, n in names.items()}
    mask, matrix = files.pop("mask")
    b0 = np.where(mask > 0, files.pop("b0")[0], 0)
    moving = np.where(mask > 0, files["moving"][0].clip(0), 0)
    images = files | {"moving": (moving, matrix)}
    prealign = np.eye(4)
    prealign[:3, 3] = centre_of_mass(b0, matrix) - centre_of_mass(*images["static"])
    pair = {"prealign": prealign}
    for role, image in images.items():
        pair[role], pair[f"{role}_grid2world"] = to_spacing(*image, 4.0)
    return pair


def add_masks(pair):
    """The pair with masks that cover a part of each brain."""
    pair = dict(pair)
    for role, part in (("static", 0.8), ("moving", 0.9)):
        mask = pair[role] > 0
        mask[int(part * len(mask)) :] = False
        pair[f"{role}_mask"] = mask
    return pair


def missing_pair(folder, spacing):
    """NaN in a box of static, and a masked array with masked slices as moving."""
    pair = dict(brain_pair(folder, spacing))
    static = pair["static"].copy()
    static[10:16, 20:28, 15:20] = np.nan
    mask = np.zeros(pair["moving"].shape, dtype=bool)
    mask[:, :, -12:] = True
    return pair | {
        "static": static,
        "moving": np.ma.MaskedArray(pair["moving"], mask=mask),
    }


def inverted_pair(folder, spacing):
    """Moving with light and dark exchanged inside the brain."""
    pair = brain_pair(folder, spacing)
    moving = pair["moving"]
    inverted = np.where(moving > 0.05 * moving.max(), 1.1 * moving.max() - moving, 0)
    return pair | {"moving": inverted.astype(np.float32)}


def same_pair(folder, spacing):
    """An image and itself: no displacement is better than a network's field."""
    pair = brain_pair(folder, spacing)
    roles = {"moving": "static", "moving_grid2world": "static_grid2world"}
    return drop_prealign(pair | {to: pair[of] for to, of in roles.items()})


def far_pair(pair, shift):
    """The pair with a prealign that is off by `shift` mm along the first axis."""
    prealign = np.array(pair.get("prealign", np.eye(pair["static"].ndim + 1)))
    prealign[0, -1] += shift
    return pair | {"prealign": prealign}


def oblique_pair(folder):
    """Static at 4 mm, moving on a rotated grid of anisotropic voxels."""
    pair = dict(brain_pair(folder, 4.0))
    moving, matrix = brain_pair(folder, 2.0)["moving"], pair["moving_grid2world"]
    new = np.eye(4)
    turn = Rotation.from_rotvec(np.deg2rad(20) * np.array([0.6, 0.8, 0])).as_matrix()
    new[:3, :3] = turn @ np.diag([3.5, 4.0, 4.5])
    shape = (56, 52, 46)
    middle = matrix[:3, :3] @ (np.array(pair["moving"].shape) / 2) + matrix[:3, 3]
    new[:3, 3] = middle - new[:3, :3] @ (np.array(shape) / 2)
    pair["moving"] = resample(
        moving, brain_pair(folder, 2.0)["moving_grid2world"], shape, new
    )
    return pair | {"moving_grid2world": new}


def unaligned_pair(folder):
    """The oblique pair, moving's world turned by 25 degrees and shifted."""
    pair = oblique_pair(folder)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("z", 25, degrees=True).as_matrix()
    motion[:3, 3] = 30, -20, 15
    del pair["prealign"]
    return pair | {"moving_grid2world": motion @ pair["moving_grid2world"]}


def drop_prealign(pair):
    return {name: value for name, value in pair.items() if name != "prealign"}


def slice_pair(folder, spacing, keep_axis=False, kind=None):
    """A slice of static, and the slice of moving on the same grid after prealign.

    With `kind` moving has the intensities of that contrast.
    """
    pair = brain_pair(folder, spacing)
    shape, matrix = pair["static"].shape, pair["static_grid2world"]
    moved = resample(
        pair["moving"], pair["moving_grid2world"], shape, pair["prealign"] @ matrix
    )
    moved = moved if kind is None else simulate_contrast(moved, kind)
    middle = shape[2] // 2
    at = slice(middle, middle + 1) if keep_axis else middle
    images = {"static": pair["static"][:, :, at], "moving": moved[:, :, at]}
    plane = np.diag([spacing] * (3 if keep_axis else 2) + [1.0])
    images |= {"static_grid2world": plane, "moving_grid2world": plane}
    return {k: np.ascontiguousarray(v) for k, v in images.items()}


def make_landmarks(pair, count=12, error=3.0):
    """Points of static's brain, and approximately corresponding points of moving."""
    rng = np.random.default_rng(1)
    voxels = rng.permutation(np.argwhere(pair["static"] > 0))[:count]
    dim = voxels.shape[1]
    matrix = pair["static_grid2world"]
    points = voxels @ matrix[:dim, :dim].T + matrix[:dim, dim]
    prealign = pair.get("prealign", np.eye(dim + 1))
    goals = points @ prealign[:dim, :dim].T + prealign[:dim, dim]
    return points, goals + rng.normal(0, error, points.shape)


def make_blobs(count=6, size=32):
    """2D images of two Gaussians each, and label maps of them."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    images, labels = [], []
    for _ in range(count):
        (a, b, c, d), (s, t) = rng.uniform(-0.4, 0.4, 4), rng.uniform(8, 20, 2)
        first = np.exp(-s * ((x - a) ** 2 + (y - b) ** 2))
        second = np.exp(-t * ((x - c) ** 2 + (y - d) ** 2))
        images.append((first + 0.6 * second).astype(np.float32))
        labels.append(((first > 0.5) + 2 * (second > 0.6)).clip(max=2))
    return images, labels


def make_dwi_series(folder):
    """A diffusion series of two b0 and two weighted volumes, 4D, and its gradients."""
    b0 = contrast_pair(folder, 4.0, "b0")["moving"]
    volumes = np.stack([b0, 0.95 * b0, 0.4 * b0, 0.5 * b0], axis=-1)
    vectors = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1.0, 0]])
    return volumes, (np.array([0.0, 0, 1000, 1000]), vectors)
