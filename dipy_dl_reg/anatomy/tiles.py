"""Application of the network `anatomy` to an image of any size.

The network sees the image without its background.  If this part is larger than the
images of the training, as for a head with its neck, the network sees the part of the
image around the brain once more.  In very large images this part is found in tiles, and
only it is predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.anatomy.classes import brain_probability
from dipy_dl_reg.networks.anatomy_network import AnatomyNetwork

#: Values above this belong to the object, relative to its brightest tissue; the box
#: around it gets a margin of so many voxels.
_OBJECT, _MARGIN = 0.03, 2
#: Largest images of the training, voxels.
_TRAINED = (96, 112, 96)
#: In larger images the brain is found in tiles of `_TRAINED` that overlap by so many
#: voxels.
_LARGEST, _OVERLAP = 2_500_000, 32

Box = tuple[slice, ...]


def crop(x: torch.Tensor, box: Box) -> torch.Tensor:
    """Select a box of the last three axes of a tensor.

    Parameters
    ----------
    x : Tensor, shape (..., X, Y, Z)
        Values.
    box : tuple of slice
        One slice for each axis.

    Returns
    -------
    part : Tensor
        A view.
    """
    return x[..., box[0], box[1], box[2]]


@torch.no_grad()
def predict_classes(
    network: AnatomyNetwork, image: torch.Tensor
) -> tuple[torch.Tensor, Box]:
    """Predict the classes of an image on a grid of the network's form.

    Parameters
    ----------
    network : AnatomyNetwork
        In evaluation mode.
    image : Tensor, shape (1, 1, *shape)
        Background 0, the brightest tissue about 1.

    Returns
    -------
    probabilities : Tensor, shape (K, *part)
        Air where there is only background.
    box : tuple of slice
        The part of the image: all of it, or, if it has more than 2.5 million voxels,
        the part around the brain.
    """
    shape = image.shape[2:]
    whole = tuple(slice(0, n) for n in shape)
    if image.numel() > _LARGEST:
        whole = _find_part(network, image)
    part = crop(image, whole)
    return _predict_part(network, part), whole


def _find_part(network: AnatomyNetwork, image: torch.Tensor) -> Box:
    """The part of a large image that is predicted: the object, or around the brain."""
    box = find_box(image[0, 0] > _OBJECT, margin=_MARGIN)
    if box is None:
        return tuple(slice(0, min(n, m)) for n, m in zip(image.shape[2:], _TRAINED))
    part = crop(image, box)
    if part.numel() <= _LARGEST:
        return box
    around = _place_around_brain(_find_brain(network, part))
    return box if around is None else _shift(around, box)


def _predict_part(network: AnatomyNetwork, image: torch.Tensor) -> torch.Tensor:
    """Probabilities of an image that is not very large."""
    box = find_box(image[0, 0] > _OBJECT, margin=_MARGIN)
    if box is None:
        return _fill_air(network.classes, image, [])
    part = crop(image, box)
    first = _apply(network, part)
    around = None
    if any(n > most for n, most in zip(part.shape[2:], _TRAINED)):
        around = _place_around_brain(brain_probability(first) > 0.5)
    if around is None:
        return _fill_air(network.classes, image, [(box, first)])
    inner = _shift(around, box), _apply(network, crop(part, around))
    return _fill_air(network.classes, image, [(box, first), inner])


def _shift(inner: Box, outer: Box) -> Box:
    """The box in an image of a box in a part of it."""
    return tuple(
        slice(b.start + a.start, b.start + a.stop) for a, b in zip(inner, outer)
    )


def find_box(inside: torch.Tensor, *, margin: int = 0) -> Box | None:
    """Find the smallest box around the voxels of a mask.

    Parameters
    ----------
    inside : Tensor of bool, shape (*shape)
        The mask.
    margin : int, optional
        Number of voxels that are added on each side, inside the image.

    Returns
    -------
    box : tuple of slice, or None
        One slice for each axis; None for an empty mask.
    """
    box = []
    for axis, size in enumerate(inside.shape):
        others = [k for k in range(inside.ndim) if k != axis]
        found = inside.sum(others).nonzero()
        if not len(found):
            return None
        start, stop = int(found[0]) - margin, int(found[-1]) + 1 + margin
        box.append(slice(max(start, 0), min(stop, size)))
    return tuple(box)


def _place_around_brain(brain: torch.Tensor) -> Box | None:
    """A box of the size of the training images around the brain's middle.

    Its position depends on the extent of most of the brain, not on single voxels.
    """
    box = []
    for axis, (size, most) in enumerate(zip(brain.shape, _TRAINED)):
        counts = brain.sum([k for k in range(3) if k != axis]).cumsum(0)
        if not int(counts[-1]):
            return None
        ends = [int((counts < f * counts[-1]).sum()) for f in (0.01, 0.99)]
        start = (sum(ends) // 2 - most // 2) // 2 * 2
        start = min(max(start, 0), max(size - most, 0))
        box.append(slice(start, min(start + most, size)))
    return tuple(box)


def _fill_air(
    classes: int, image: torch.Tensor, parts: Iterable[tuple[Box, torch.Tensor]]
) -> torch.Tensor:
    """Maps of a whole image; later parts replace earlier ones."""
    filled = image.new_zeros(classes, *image.shape[2:])
    filled[0] = 1
    for box, part in parts:
        crop(filled, box).copy_(part)
    return filled


def _apply(network: AnatomyNetwork, image: torch.Tensor) -> torch.Tensor:
    """Probabilities (K, *shape), the image padded to what the network takes."""
    shape = image.shape[2:]
    added = [-size % network.multiple for size in shape]
    if all(size <= network.multiple for size in shape):
        added[0] += network.multiple  # its normalization needs two values or more
    before = [n // 2 for n in added]
    pads = [n for a, b in zip(reversed(added), reversed(before)) for n in (b, a - b)]
    logits = network(F.pad(image, pads))
    kept = tuple(slice(b, b + n) for b, n in zip(before, shape))
    return crop(logits[0], kept).softmax(0)


def _find_brain(network: AnatomyNetwork, image: torch.Tensor) -> torch.Tensor:
    """Mask (*shape) of the brain in an image of any size, from overlapping tiles."""
    total = image.new_zeros(image.shape[2:])
    weights = image.new_zeros(image.shape[2:])
    for tile in _make_tiles(tuple(image.shape[2:])):
        part = crop(image, tile)
        weight = _taper(tuple(part.shape[2:]), image.device)
        found = brain_probability(_apply(network, part))
        crop(total, tile).add_(weight * found)
        crop(weights, tile).add_(weight)
    return total / weights > 0.5


def _make_tiles(shape: tuple[int, ...]) -> Iterator[Box]:
    """Tiles of about equal distance that cover an image."""
    lines = []
    for size, most in zip(shape, _TRAINED):
        count = 1 + max(0, -(-(size - most) // (most - _OVERLAP)))
        starts = np.linspace(0, max(size - most, 0), count).round().astype(int)
        lines.append([slice(int(s), int(min(s + most, size))) for s in starts])
    return product(*lines)


def _taper(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Weights of a tile, which fall towards its faces."""
    weight = torch.ones((), device=device)
    for axis, size in enumerate(shape):
        line = torch.arange(size, device=device, dtype=torch.float32)
        line = torch.minimum(line + 1, size - line).clamp_max(_OVERLAP) / _OVERLAP
        weight = weight * line.view(*[-1 if k == axis else 1 for k in range(3)])
    return weight
