"""Pairs for verdicts.py: correct registrations, and failures made from them.

A case contains two images and how they are registered. Failures with a reference are
also registered correctly, to find out whether the result of the failure is wrong.
"""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from tools.benchmarks.poses import simulate_b0

#: Shift, as a part of static's length, after which moving shows background alone.
AWAY = 0.9
#: Linear parts of wrong affines.
LINEAR = (
    1.35 * np.eye(3),
    0.72 * np.eye(3),
    1.5 * np.eye(3),
    np.diag([1, 1.4, 0.9]),
    np.diag([0.7, 1, 1.1]),
    np.array([[1, 0.45, 0], [0, 1, 0], [0, 0, 1.0]]),
)
TURNS, SHIFTS, OFFSETS = (
    (45, 60, 90, 90, 120, 150, 180, 180),
    (25, 35, 45, 60),
    (25, 35),
)


class Image(NamedTuple):
    """Voxels and their matrix to world coordinates."""

    data: np.ndarray
    grid2world: np.ndarray

    @property
    def centre(self):
        """Centre of mass of the object, mm."""
        inside = np.argwhere(self.data > 0.1 * np.quantile(self.data, 0.999))
        return self.grid2world[:3, :3] @ inside.mean(0) + self.grid2world[:3, 3]


class Case(NamedTuple):
    """Two images, and how they are registered.

    The prealign that is found is multiplied by ``change``, or replaced by ``prealign``.
    With ``everywhere`` a mask of ones is passed, so that no brain mask is made.  A
    failure without ``reference`` is always counted as wrong.
    """

    kind: str
    right: bool
    static: Image
    moving: Image
    change: np.ndarray | None = None
    prealign: np.ndarray | None = None
    everywhere: bool = False
    reference: bool = False
    options: dict | None = None


def read_image(path, *, canonical=False):
    """Read an image, with axes to the right, front and top if ``canonical``.

    Values that are not finite become 0.
    """
    image = nib.load(path)
    image = nib.as_closest_canonical(image) if canonical else image
    data = np.asarray(image.dataobj).astype(np.float64)
    return Image(np.nan_to_num(data).astype(np.float32), image.affine)


def coarsen(image, voxel):
    """Resample an image to voxels of this size (mm), unless it is as coarse already."""
    spacing = np.linalg.norm(image.grid2world[:3, :3], axis=0)
    factors = np.minimum(spacing / voxel, 1)
    if factors.min() > 0.8:
        return image
    smooth = gaussian_filter(image.data, 0.4 * (1 / factors - 1))
    old = np.array(image.data.shape)
    new = np.maximum(np.round(old * factors), 1).astype(int)
    data = zoom(smooth, new / old, order=1, grid_mode=True, mode="nearest")
    matrix = image.grid2world.copy()
    matrix[:3, :3] *= old / new
    matrix[:3, 3] += image.grid2world[:3, :3] @ ((old / new - 1) / 2)
    return Image(np.ascontiguousarray(data), matrix)


def matrix_about(centre, linear, shift=(0, 0, 0)):
    """Matrix of a linear map about a point, followed by a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre + shift
    return matrix


def random_rotation(rng, degrees):
    """Rotation about a random axis."""
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def flip(image, axis):
    """Reverse the voxels along an axis without changing the matrix."""
    return Image(np.ascontiguousarray(np.flip(image.data, axis)), image.grid2world)


def take_slab(image, low=0.35, thickness=20):
    """Take some axial slices of an image."""
    first = int(low * image.data.shape[2])
    matrix = image.grid2world.copy()
    matrix[:3, 3] += matrix[:3, 2] * first
    part = image.data[:, :, first : first + thickness]
    return Image(np.ascontiguousarray(part), matrix)


def add_background(image, value, margin=60):
    """Add a wide margin, and a constant to all values."""
    matrix = image.grid2world.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.full(3, margin)
    return Image(np.pad(image.data, margin) + np.float32(value), matrix)


def make_blob(rng):
    """Make a round object with a random texture, of the size of a brain."""
    shape, matrix = (90, 100, 90), np.diag([2.0, 2, 2, 1])
    texture = gaussian_filter(rng.normal(size=shape), 4)
    bumps = gaussian_filter(rng.normal(size=shape), 14)
    away = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2
    edge = 38 + 12 * bumps / np.abs(bumps).max()
    value = 0.2 + (texture - texture.min()) / np.ptp(texture)
    inside = np.sqrt((away**2).sum(0)) < edge
    return Image(np.where(inside, value, 0).astype(np.float32), matrix)


def make_noise(rng):
    """Make an image of noise alone."""
    data = rng.normal(1, 0.2, (80, 90, 80)).astype(np.float32)
    return Image(data, np.diag([2.0, 2, 2, 1]))


def load_template():
    """The MNI152 T1 template, without skull, at 2 mm, as nilearn bundles it."""
    from nilearn.datasets import load_mni152_template

    found = load_mni152_template(resolution=2)
    return Image(found.get_fdata(dtype=np.float32), found.affine)


def make_cases(brains, heads, subjects, part, fa=()):
    """Yield the cases of one part of the images.

    Parameters
    ----------
    brains : list of Path
        T1 images without skull.
    heads : list of list of Path
        T1 images with skull, by where they come from.
    subjects : list of Path
        Folders with t1, b0, fa and md of one subject each, roughly aligned.
    part : {"choose", "report"}
        The first half of each list, or the second.
    fa : list of Path, optional
        FA images of several people.

    Yields
    ------
    case : Case
        The next case.
    """
    rng = np.random.default_rng(["choose", "report"].index(part))
    brains, subjects = take_half(brains, part), take_half(subjects, part)
    brains = [read_image(path) for path in brains[:24]]
    heads = [read_image(path) for group in heads for path in take_half(group, part)[:3]]
    standard = load_template()
    yield from right_pairs(brains, heads, standard, rng)
    for folder in subjects:
        yield from pairs_of_one_subject(folder)
    yield from wrong_affines(brains, heads, rng)
    yield from wrong_images(brains, heads, standard, rng)
    rng = np.random.default_rng(["choose", "report"].index(part))
    for folder in subjects:
        yield from wrong_pairs_of_one_subject(folder, rng)
    fa = [read_image(path, canonical=True) for path in take_half(fa, part)]
    yield from fa_pairs(fa, brains, rng)


def take_half(paths, part):
    """First half of a list, or second half in reverse; a single item is in both."""
    middle = (len(paths) + 1) // 2
    return paths[:middle] if part == "choose" else paths[len(paths) // 2 :][::-1]


def right_pairs(brains, heads, standard, rng):
    """Yield pairs that are assumed to be registered correctly."""
    count, several = len(brains), len(heads)
    for k in range(12):
        yield Case("brain to brain", True, brains[k], brains[(k + 7) % count])
    for k in range(6):
        yield Case("brain to template", True, standard, brains[-1 - k])
        yield Case("template to brain", True, brains[k], standard)
    for k in range(several):
        yield Case("head to head", True, heads[k], heads[(k + 2) % several])
        yield Case("head to template", True, standard, heads[k])
        yield Case("template to head", True, heads[k], standard)
        yield Case("head to brain", True, brains[k], heads[k])
    for k in range(10):
        image = brains[(3 * k) % count]
        moving = Image(simulate_b0(image.data, rng), image.grid2world)
        yield Case("b0-like to brain", True, brains[(3 * k + 5) % count], moving)
    for k in range(6):
        moving = brains[(k + 3) % count]
        turn = matrix_about(moving.centre, random_rotation(rng, rng.uniform(70, 180)))
        moving = Image(moving.data, turn @ moving.grid2world)
        yield Case("turned brain", True, brains[k], moving)
    for k in range(4):
        yield Case("slab to brain", True, brains[k], take_slab(brains[k + 4]))
    others = ({"level_iters": 0}, {"metric": "SSD"}, {"metric": "MI"})
    for options in (*others, {"model": None, "level_iters": 0}):
        for k in range(2):
            yield Case(f"brains, {options}", True, *brains[k : k + 2], options=options)


def pairs_of_one_subject(folder):
    """Yield diffusion images and T1 of one subject, in both directions."""
    t1 = read_image(Path(folder) / "t1.nii.gz")
    for name in ("b0", "fa", "md"):
        path = Path(folder) / f"{name}.nii.gz"
        if path.exists():
            image = read_image(path)
            yield Case(f"{name} to T1, one subject", True, t1, image)
            yield Case(f"T1 to {name}, one subject", True, image, t1)


def wrong_pairs_of_one_subject(folder, rng):
    """Yield diffusion images and T1 of one subject in wrong poses."""
    t1 = read_image(Path(folder) / "t1.nii.gz")
    for name in ("b0", "fa", "md"):
        path = Path(folder) / f"{name}.nii.gz"
        if path.exists():
            image = read_image(path)
            for static, moving in ((t1, image), (image, t1)):
                turn = random_rotation(rng, rng.uniform(60, 180))
                yield failure(f"wrong pose, {name} and T1", static, moving, turn)


def fa_pairs(images, brains, rng):
    """Yield all pairs of FA images, in both directions, right and wrong.

    With T1 images of other people, too: these contrasts differ, and so do the people.
    """
    for i, static in enumerate(images):
        for j, moving in enumerate(images):
            if i != j:
                yield Case("fa to fa", True, static, moving)
                wrong = list(wrong_fa_pairs(static, moving, rng))
                yield from wrong[::2] if (i + j) % 2 else wrong[1::2]
        brain = brains[i % len(brains)]
        for pair in ((static, brain), (brain, static)):
            yield Case("fa and T1, two people", True, *pair)
            turn = random_rotation(rng, rng.uniform(60, 180))
            yield failure("wrong pose, fa and T1, two people", *pair, turn)


def wrong_fa_pairs(static, moving, rng):
    """Yield a pair of FA images in a wrong pose, shifted, scaled, and mirrored."""
    turn = random_rotation(rng, rng.uniform(45, 180))
    yield failure("wrong pose, fa", static, moving, turn)
    shift = random_rotation(rng, 90) @ np.array([rng.uniform(25, 60), 0, 0])
    yield failure("shifted, fa", static, moving, np.eye(3), shift)
    linear = LINEAR[rng.integers(len(LINEAR))]
    yield failure("wrong scale or shear, fa", static, moving, linear)
    mirrored = flip(moving, 1 + rng.integers(2))
    start = np.eye(4)
    start[:3, 3] = mirrored.centre - static.centre
    kind = "front is back, up is down, fa"
    yield Case(kind, False, static, mirrored, prealign=start)


def failure(kind, static, moving, linear, shift=(0, 0, 0)):
    """Make a case with a wrong prealign, which may recover."""
    change = matrix_about(static.centre, linear, shift)
    return Case(kind, False, static, moving, change=change, reference=True)


def wrong_affines(brains, heads, rng):
    """Yield correct pairs with a wrong prealign."""
    count = len(brains)
    for k, angle in enumerate(TURNS):
        turn, static = random_rotation(rng, angle), brains[k]
        yield failure("wrong pose", static, brains[(k + 9) % count], turn)
        if k % 2:
            moving = Image(simulate_b0(static.data, rng), static.grid2world)
            yield failure("wrong pose, b0-like", brains[k + 1], moving, turn)
        if k < len(heads):
            moving = heads[(k + 1) % len(heads)]
            yield failure("wrong pose, heads", heads[k], moving, turn)
    for k, length in enumerate(SHIFTS):
        shift = random_rotation(rng, 90) @ np.array([length, 0, 0])
        yield failure("shifted", brains[k], brains[k + 11], np.eye(3), shift)
    for k, linear in enumerate(LINEAR):
        yield failure("wrong scale or shear", brains[k], brains[k + 8], linear)
    for k in range(4):
        offset = (0, 0, OFFSETS[k % 2] * (-1) ** (k // 2))
        part = take_slab(brains[k + 5])
        yield failure("slab in a wrong place", brains[k], part, np.eye(3), offset)
    for k in range(3):
        mirror = np.diag([-1.0, 1, 1])
        yield failure("prealign mirrors", brains[k], brains[k + 6], mirror)


def wrong_images(brains, heads, standard, rng):
    """Yield images of different objects, and images with wrong headers."""
    for k in range(8):
        moving = flip(brains[k + 3], 0)
        yield Case("left is right, two people", False, brains[k], moving)
    for k in range(4):
        yield Case("left is right, one person", False, brains[k], flip(brains[k], 0))
        image, moving = brains[k], flip(brains[k + 2], 1 + k % 2)
        shift = np.eye(4)
        shift[:3, 3] = moving.centre - image.centre
        kind = "front is back, up is down"
        yield Case(kind, False, image, moving, prealign=shift)
    for k, head in enumerate(heads):
        options = {"everywhere": True, "reference": True}
        yield Case("head to template, no mask", False, standard, head, **options)
        yield Case("template to head, no mask", False, head, standard, **options)
        yield Case("head to brain, no mask", False, brains[k], head, **options)
    for k in range(3):
        yield Case("unrelated object", False, brains[k], make_blob(rng))
        yield Case("unrelated object", False, make_blob(rng), heads[k])
        yield Case("noise", False, brains[k], make_noise(rng))
    for k, value in enumerate((0, 100, 0, 400)):
        image = brains[k]
        extent = image.data.shape[0] * np.linalg.norm(image.grid2world[:3, 0])
        moving = add_background(brains[k + 4], value)
        shift = np.eye(4)
        shift[:3, 3] = brains[k + 4].centre - image.centre
        shift[0, 3] += AWAY * extent
        yield Case("constant background", False, image, moving, prealign=shift)
