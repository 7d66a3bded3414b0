"""Prediction of anatomy maps: the fractions of coarse structures in each voxel.

The network has no information about the affine.  Therefore the image is sampled on a
grid in the form of the training: voxels of 2 mm, axes to the right, to the front and
upwards.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.intensity import extreme_limits
from dipy_dl_reg.geometry.pair import inside_mask
from dipy_dl_reg.geometry.resampling import sample_on_grid
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.networks.anatomy_network import AnatomyNetwork
from dipy_dl_reg.networks.pretrained import load_anatomy
from dipy_dl_reg.validation import wrong_value

#: Voxel size of the network, mm.
SPACING = 2.0
#: Smoothing before sampling on larger voxels: standard deviation in voxels of the
#: image, for each voxel by which the new ones are larger.
_SIGMA_FACTOR = 0.4
#: Intensities are divided by this quantile of those above a fraction of the maximum,
#: as in training.
_QUANTILE, _FOREGROUND = 0.99, 0.02


class AnatomyMaps(NamedTuple):
    """Probabilities of the classes in each voxel.

    Attributes
    ----------
    probabilities : Tensor, shape (K, *shape)
        float32, in the order of `dipy_dl_reg.anatomy.classes.CLASSES`; their sum is 1.
    grid : Grid
        Voxels of 2 mm, axes to the right, to the front and upwards as nearly as the
        axes of the image allow.
    """

    probabilities: torch.Tensor
    grid: Grid


def predict_anatomy(
    image: np.ndarray,
    grid: Grid,
    *,
    device: torch.device | str = "cpu",
    mask: np.ndarray | None = None,
) -> AnatomyMaps:
    """Predict the anatomy maps of an image.

    Parameters
    ----------
    image : ndarray, 3D
        A head or a brain of any contrast; NaN is missing data.
    grid : Grid
        Its grid; the world is that of nibabel, axes to the right, to the front and
        upwards.
    device : torch.device or str, optional
        Device of the computation and of the maps.
    mask : ndarray, optional
        Of the shape of `image`; voxels that are 0 are treated as background.

    Returns
    -------
    maps : AnatomyMaps
        On a grid of the field of view of the image.

    Raises
    ------
    ValueError
        If the image is not 3D.
    """
    if np.ndim(image) != 3:
        raise wrong_value("image", "3D", f"shape {np.shape(image)}")
    target = grid.to_standard(SPACING)
    prepared = _prepare(image, mask, device)
    sampled = _sample(prepared, grid, target)
    return AnatomyMaps(_apply(_load(str(device)), _scale(sampled)), target)


@lru_cache(maxsize=2)
def _load(device: str) -> AnatomyNetwork:
    """The network on a device."""
    return load_anatomy(device=device)


def _prepare(
    image: np.ndarray, mask: np.ndarray | None, device: torch.device | str
) -> torch.Tensor:
    """The image (1, 1, *shape) with background 0 and without extreme values."""
    image = np.asarray(image, dtype=np.float32)
    known = np.isfinite(image)
    if mask is not None:
        known &= np.asarray(mask) != 0
    if not known.any():
        return torch.zeros(1, 1, *image.shape, device=device)
    low, high = extreme_limits(image[known])
    image = np.where(known, np.clip(image, max(low, 0), high), 0)
    return torch.from_numpy(image)[None, None].to(device)


def _sample(image: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """The image on the network's grid, 0 outside its field of view."""
    matrix = target.to(grid)
    ratio = np.linalg.norm(matrix[:3, :3], axis=1)
    sigma = _SIGMA_FACTOR * np.maximum(ratio - 1, 0)
    image = smooth(image, list(sigma)) if sigma.any() else image
    inside = inside_mask(target.shape, grid.shape, matrix, device=image.device)
    return sample_on_grid(image, target.shape, matrix) * inside


def _scale(image: torch.Tensor) -> torch.Tensor:
    """Divide an image by a quantile of its foreground."""
    values = image.flatten().sort().values
    positive = (values > _FOREGROUND * values[-1]).sum().clamp_min(1)
    place = len(values) - 1 - ((1 - _QUANTILE) * positive).long()
    return image / values[place].clamp_min(1e-6)


@torch.no_grad()
def _apply(network: AnatomyNetwork, image: torch.Tensor) -> torch.Tensor:
    """Probabilities (K, *shape), the image padded to what the network takes."""
    shape = image.shape[2:]
    added = [-size % network.multiple for size in shape]
    before = [n // 2 for n in added]
    pads = [n for a, b in zip(reversed(added), reversed(before)) for n in (b, a - b)]
    logits = network(torch.nn.functional.pad(image, pads))
    kept = tuple(slice(b, b + n) for b, n in zip(before, shape))
    return logits[0][(slice(None), *kept)].softmax(0)
