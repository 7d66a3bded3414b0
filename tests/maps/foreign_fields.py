"""Both directions of a map as fields, and the images that they must give."""

from typing import NamedTuple

import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np

from dipy_dl_reg.maps.formats.dense_field import (
    DenseField,
    forward_field,
    inverse_field,
)


class Direction(NamedTuple):
    """One direction of a map, an image, and this image warped by the map."""

    field: DenseField
    image: np.ndarray
    warped: np.ndarray


def both_directions(mapping, rng):
    """Random images for both directions, and how the map transforms them."""
    directions = []
    for field, transform in (
        (forward_field(mapping), mapping.transform),
        (inverse_field(mapping), mapping.transform_inverse),
    ):
        image = rng.random(field.input_grid.shape).astype(np.float32)
        directions.append(Direction(field, image, transform(image)))
    return directions


def largest_difference(direction, resampled):
    """Largest difference to the map, where the input image has values.

    Programs continue an image beyond its outermost voxels in different ways.
    """
    grid = direction.field.input_grid
    voxels = apply_affine(grid.inverse, direction.field.positions)
    inside = ((voxels >= 0) & (voxels <= np.array(grid.shape) - 1)).all(axis=-1)
    assert inside.mean() > 0.2  # the images overlap
    intensity_range = np.ptp(direction.image)
    return np.abs(resampled - direction.warped)[inside].max() / intensity_range


def nifti(grid, data=None):
    """A NIfTI image on a grid."""
    data = np.zeros(grid.shape, np.float32) if data is None else data
    return nib.Nifti1Image(data, grid.affine)
