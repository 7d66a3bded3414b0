"""Images of one object, deformed by fields that are known and cancel each other."""

import nibabel as nib
import numpy as np

#: Grid of all images, 3 mm voxels.
SHAPE, SPACING = (22, 24, 20), 3.0
#: Of the object's texture, mm for a radian.
WAVES = (4.5, 5.5, 4.0)
#: Largest displacement, mm.
AMPLITUDE = 5.0


def grid2world():
    """Voxels to world, with the middle of the grid at 0."""
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = -SPACING * (np.array(SHAPE) - 1) / 2
    return affine


def points():
    """World coordinates of all voxels, (*shape, 3)."""
    affine = grid2world()
    voxels = np.moveaxis(np.indices(SHAPE), 0, -1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def truth(places):
    """Intensity of an object of several ellipsoids at points (..., 3)."""
    parts = (
        ((0, 0, 0), (24, 27, 21), 1.0),
        ((4, 10, 3), (9, 8, 8), 0.6),
        ((-10, -6, 2), (7, 9, 8), -0.5),
        ((8, -10, -6), (8, 7, 7), 0.5),
    )
    total = 0.0
    for centre, radii, value in parts:
        distance = np.linalg.norm(
            (places - np.array(centre)) / np.array(radii), axis=-1
        )
        total = total + value / (1 + np.exp((distance - 1) / 0.08))
    # A texture, so that displacements can be found everywhere.
    return total * (1 + 0.4 * np.prod(np.sin(places / np.array(WAVES) + 1), -1))


def displacement(places, direction):
    """A smooth displacement in mm, 0 outside a ball; `direction` is a vector."""
    size = np.exp(-np.square(places / 20).sum(-1))
    wave = np.sin(places[..., :1] / 11 + places[..., 1:2] / 13)
    return AMPLITUDE * size[..., None] * wave * np.array(direction)


def image(direction, affine=None):
    """The object deformed by a displacement, as an image.

    Its intensity at y is that of the object at the point x with ``x + d(x) = y``.
    """
    target = points()
    if affine is not None:
        target = target @ affine[:3, :3].T + affine[:3, 3]
    places = target.copy()
    for _ in range(30):
        places = target - displacement(places, direction)
    values = 100 * truth(places).astype(np.float32)
    return nib.Nifti1Image(values, grid2world())


#: Displacements of four subjects: their mean is 0 at every point.
DIRECTIONS = ((1, 0, 0), (-1, 0, 0), (0, 0.8, 0.6), (0, -0.8, -0.6))


def subjects():
    """Four images whose mean displacement from the object is 0."""
    return [image(direction) for direction in DIRECTIONS]
