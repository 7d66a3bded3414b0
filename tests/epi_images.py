"""Echo-planar images whose distortion is known."""

import numpy as np
from scipy.ndimage import gaussian_filter


def make_image(shape, seed=0):
    """Make a smooth random object on a background of zeros."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=shape), 2)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    object_ = sum(x**2 for x in axes) < 0.7
    image = gaussian_filter(np.where(object_, 1 + 0.6 * noise / noise.std(), 0), 0.7)
    return image.clip(0).astype(np.float32)


def make_shift(shape, axis, longest, seed=3):
    """Make a smooth random shift in voxels, whose slope along the axis is below 1."""
    rng = np.random.default_rng(seed)
    shift = gaussian_filter(rng.normal(size=shape), 5)
    shift *= longest / abs(shift).max()
    assert abs(np.gradient(shift, axis=axis)).max() < 0.8
    return shift


def distort(image, shift, axis):
    """Displace the signal of each voxel by a shift along an axis, without loss.

    The sum of the signal up to the lower face of a voxel is that up to the displaced
    position of the face in the distorted image.
    """
    lines = np.moveaxis(image, axis, -1).astype(float)
    moves = np.moveaxis(shift, axis, -1)
    count = lines.shape[-1]
    faces = np.arange(count + 1) - 0.5
    inner = (moves[..., 1:] + moves[..., :-1]) / 2
    moves = np.concatenate([moves[..., :1], inner, moves[..., -1:]], -1)
    totals = np.cumsum(lines, -1)
    totals = np.concatenate([np.zeros_like(totals[..., :1]), totals], -1)
    out = np.empty_like(lines)
    for place in np.ndindex(lines.shape[:-1]):
        out[place] = np.diff(np.interp(faces, faces + moves[place], totals[place]))
    return np.moveaxis(out, -1, axis).astype(np.float32)
