"""NIfTI images of one anatomy on several grids, and the same by SciPy."""

from dipy.align.imaffine import AffineMap
from maps import affine
import nibabel as nib
import numpy as np
from pairs import anatomy, centred, move, voxels

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.training.pairing import open_training_images, read_pairs
from dipy_dl_reg.training.prealigns import find_prealigns

CENTRE = np.array([11.0, -7.0, 5.0])

# All voxels 2 to 2.5 mm: nothing is smoothed on the way to 2 mm.
GRIDS = {
    "ras": ((22, 20, 21), np.diag([2.0, 2.0, 2.0])),
    "lps": ((20, 21, 19), np.diag([-2.2, -2.0, 2.1])),
    "turned": ((19, 20, 22), np.diag([2.1, 2.0, 2.2])[:, [2, 0, 1]]),
    "oblique": ((24, 23, 22), affine([2.0, -2.2, 2.1], (0.2, -0.15, 0.1))[:3, :3]),
}

QUANTILES = (0.001, 0.999)


def picture(name, prealign=None, *, textured=False):
    """A NIfTI image of the anatomy on one of the grids; the prealign moves it.

    With a texture mutual information knows its scale: on plateaus alone it prefers a
    wrong one by some percent, DIPY's too.
    """
    shape, linear = GRIDS[name]
    prealign = np.eye(4) if prealign is None else prealign
    grid = centred(linear, shape, move(prealign, CENTRE))
    world = move(np.linalg.inv(prealign) @ grid, voxels(shape))
    values = anatomy(world, CENTRE)
    if textured:
        values = values * (1 + 0.25 * np.prod(np.sin(world / [5.0, 6.0, 4.5]), -1))
    return nib.Nifti1Image(values.astype(np.float32), grid)


def scaled(image):
    """Quantiles .001 and .999 to 0 and 1."""
    low, high = np.nanquantile(image, QUANTILES)
    return np.nan_to_num((image - low) / (high - low), nan=0.0)


def grid_of(image, spacing):
    """An isotropic grid over an image, turned to RAS by nibabel."""
    image = nib.as_closest_canonical(image)
    linear, size = image.affine[:3, :3], np.array(image.header.get_zooms())
    shape = np.rint((np.array(image.shape) - 1) * size / spacing).astype(int) + 1
    middle = move(image.affine, (np.array(image.shape) - 1) / 2)
    return tuple(shape), centred(linear / size * spacing, shape, middle)


def resampled(image, shape, grid, prealign=None, *, nearest=False):
    """DIPY's resampling, which fades to 0 outside."""
    prealign = np.eye(4) if prealign is None else prealign
    mapping = AffineMap(
        prealign,
        domain_grid_shape=shape,
        domain_grid2world=grid,
        codomain_grid_shape=image.shape,
        codomain_grid2world=image.affine,
    )
    data = np.asarray(image.dataobj).astype(np.float64)
    return mapping.transform(data, interpolation="nearest" if nearest else "linear")


def read(images, **options):
    """Pairs of images, and those for validation."""
    return read_pairs(find_prealigns(open_training_images(images, **options)))


def inner(image):
    """Without the margin, where images end."""
    return image[(slice(4, -4),) * image.ndim]


PLACE = affine([1.5, 1.5, 1.5], (), [-20.0, 7, 3])


def ring(rng, size=32):
    """An ellipse with a darker middle, somewhere, somehow turned."""
    x = voxels((size, size)) * 2 / (size - 1) - 1 - rng.uniform(-0.15, 0.15, 2)
    turn, width = rng.uniform(-0.4, 0.4), rng.uniform(0.35, 0.5, 2)
    x = x @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    radius = np.linalg.norm(x / width, axis=-1)
    outer, middle = (1 / (1 + np.exp(12 * (radius - r))) for r in (1, 0.5))
    return (300 * (outer - 0.6 * middle)).astype(np.float32)


def likeness(network, images):
    """Mean correlation with the next image before, and after registration."""
    before, after = [], []
    for static, moving in zip(images, images[1:]):
        registration = DeepRegistration(
            "SSD", model=network, level_iters=0, device="cpu"
        )
        mapping = registration.optimize(
            static,
            moving,
            static_grid2world=PLACE[np.ix_([0, 1, 3], [0, 1, 3])],
            moving_grid2world=PLACE[np.ix_([0, 1, 3], [0, 1, 3])],
        )
        before.append(np.corrcoef(static.ravel(), moving.ravel())[0, 1])
        warped = mapping.transform(moving)
        after.append(np.corrcoef(static.ravel(), warped.ravel())[0, 1])
    return np.mean(before), np.mean(after)


OPTIONS = {
    "batch_size": 4,
    "learning_rate": 2e-3,
    "metric": "SSD",
    "weight": 0.01,
    "validate_every": 40,
    "device": "cpu",
    "num_threads": 1,
    "progress": False,
}
