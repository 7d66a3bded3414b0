"""Prediction of anatomy maps: the fractions of coarse structures in each voxel.

The network has no information about the affine.  Therefore the image is sampled on a
grid in the form of the training: voxels of 2 mm, axes to the right, to the front and
upwards.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.anatomy.classes import MIRRORED
from dipy_dl_reg.anatomy.intensities import prepare_intensities, scale_intensities
from dipy_dl_reg.anatomy.tiles import crop, predict_classes
from dipy_dl_reg.geometry.pair import inside_mask
from dipy_dl_reg.geometry.resampling import sample_on_grid
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.networks.anatomy_network import AnatomyNetwork
from dipy_dl_reg.networks.pretrained import load_anatomy
from dipy_dl_reg.validation import wrong_value

#: Voxel size of the network, mm.
SPACING = 2.0
#: Smoothing before sampling on larger voxels: standard deviation in voxels of the
#: image, for each voxel by which the new ones are larger.
_SIGMA_FACTOR = 0.4
#: Grids that are rotated by more than this against the world (degrees) are replaced by
#: one along the axes of the world.  In training, heads were rotated by 9 on average.
_OBLIQUE = 15.0


class AnatomyMaps(NamedTuple):
    """Probabilities of the classes in each voxel.

    Attributes
    ----------
    probabilities : Tensor, shape (K, *shape)
        float32, in the order of `dipy_dl_reg.anatomy.classes.CLASSES`; their sum is 1.
    grid : Grid
        Voxels of 2 mm; in an upright head, axes to the right, to the front and upwards
        as nearly as the axes of the image allow.
    """

    probabilities: torch.Tensor
    grid: Grid


def predict_anatomy(
    image: np.ndarray,
    grid: Grid,
    *,
    device: torch.device | str = "cpu",
    mask: np.ndarray | None = None,
    mirror: bool = False,
    pose: np.ndarray | None = None,
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
    mirror : bool, optional
        Also predict the mirrored image, and average both, in twice the time.
    pose : ndarray, shape (4, 4), optional
        From the world of the image to a world in which the head is upright, such as the
        inverse of the prealign for the moving image of a registration to an upright
        one.  Its rotation is used.  By default the head is upright in its own world.

    Returns
    -------
    maps : AnatomyMaps
        On a grid of the field of view of the image, in the world of the image; of an
        image of more than 2.5 million voxels of 2 mm, the part around the brain.  An
        image that is constant is air.

    Raises
    ------
    ValueError
        If the image is not 3D.
    """
    if np.ndim(image) != 3:
        raise wrong_value("image", "3D", f"shape {np.shape(image)}")
    prepared = torch.from_numpy(prepare_intensities(image, mask))[None, None]
    target = find_prediction_grid(grid, pose)
    sampled = scale_intensities(_sample(prepared.to(device), grid, target))
    network = load_once(str(device))
    found, box = predict_classes(network, sampled)
    if mirror:
        flipped = crop(sampled, box).flip(2)
        mirrored = predict_classes(network, flipped)[0].flip(1)
        found = (found + mirrored[list(MIRRORED)]) / 2
    affine = target.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return AnatomyMaps(found, Grid(tuple(found.shape[1:]), affine))


def find_prediction_grid(grid: Grid, pose: np.ndarray | None = None) -> Grid:
    """Find the grid on which the network sees an image.

    Parameters
    ----------
    grid : Grid
        Grid of the image.
    pose : ndarray, shape (4, 4), optional
        From the world of the image to a world in which the head is upright, see
        `predict_anatomy`.

    Returns
    -------
    target : Grid
        Voxels of 2 mm over the same field of view, its axes those of the image, in the
        order and direction of the world's; those of the world if the image is oblique
        by more than 15 degrees.
    """
    if pose is not None:
        turn = np.eye(4)
        left, _, right = np.linalg.svd(np.asarray(pose, dtype=float)[:3, :3])
        turn[:3, :3] = left @ right
        turned = find_prediction_grid(Grid(grid.shape, turn @ grid.affine))
        return Grid(turned.shape, turn.T @ turned.affine)
    standard = grid.to_standard(SPACING)
    if rotation_angle(standard.affine[:3, :3]) <= _OBLIQUE:
        return standard
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in grid.shape))))
    world = corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    low, high = world.min(0), world.max(0)
    shape = np.ceil((high - low) / SPACING).astype(int)
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = (low + high) / 2 - SPACING * (shape - 1) / 2
    return Grid(tuple(int(n) for n in shape), affine)


def _sample(image: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """The image on the network's grid, 0 outside its field of view."""
    matrix = target.to(grid)
    ratio = np.linalg.norm(matrix[:3, :3], axis=1)
    sigma = _SIGMA_FACTOR * np.maximum(ratio - 1, 0)
    image = smooth(image, list(sigma)) if sigma.any() else image
    inside = inside_mask(target.shape, grid.shape, matrix, device=image.device)
    return sample_on_grid(image, target.shape, matrix) * inside


@lru_cache(maxsize=2)
def load_once(device: str) -> AnatomyNetwork:
    """Load the network `anatomy`, once for each device.

    Parameters
    ----------
    device : str
        Device of the network.

    Returns
    -------
    network : AnatomyNetwork
        The same object in every call.
    """
    return load_anatomy(device=device)
