"""Resampling by SimpleITK, for tests."""

import numpy as np
import pytest


def sitk_image(data, grid):
    """An image of ITK, from an array on a grid in RAS."""
    sitk = pytest.importorskip("SimpleITK")
    dim = grid.dim
    lps = np.array([-1.0, -1, 1])[:dim]
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin((grid.affine[:dim, dim] * lps).tolist())
    axes = grid.affine[:dim, :dim] * lps[:, None] / grid.spacing
    image.SetDirection(axes.ravel().tolist())
    return image


def resample(data, input_grid, grid, transform):
    """An array on `input_grid`, resampled on `grid` by a transform of ITK."""
    sitk = pytest.importorskip("SimpleITK")
    blank = sitk_image(np.zeros(grid.shape), grid)
    image = sitk_image(data, input_grid)
    warped = sitk.Resample(image, blank, transform, sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(warped).T


def read_field(path):
    """A transform from a file of a displacement field, in any pixel type."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(image)
