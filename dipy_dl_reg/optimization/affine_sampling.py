"""Two images at one resolution, as affine registration compares them.

Static is read at some points once, moving at where a matrix brings them.  Beyond the
moving image's field of view there are two cases, told apart for each of its faces: a
face that shows background alone goes on as background, which counts; one that cuts
through the object (a slab, a neck) goes on as nothing known, which does not.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import sample_at
from dipy_dl_reg.geometry.resampling import resize_image, shrink_mask
from dipy_dl_reg.geometry.smoothing import smooth

#: Intensities (of a range of about 1) up to which voxels are background.
BACKGROUND = 0.1
#: A face with no more than this part of it above is all background.
_STRAY = 0.03
#: Smoothing, in voxels, for each unit by which voxels grow (see `levels`).
_LEAST_SIGMA = 0.4
#: Background is compared up to this part of the field of view beside the object.
_MARGIN = 0.08


class Level(NamedTuple):
    """What is compared at one resolution.

    Attributes
    ----------
    points : Tensor, shape (N, D)
        In static's world, mm, less `centre`.
    centre : Tensor, shape (D,)
        Float64.
    static : Tensor, shape (N,)
        Static's intensities there.
    volume : Tensor, shape (1, 1 or 2, *shape)
        Moving's intensities and, if not all of space counts, how much it does; one
        voxel larger on every side than moving is.
    world2volume : Tensor, shape (D + 1, D + 1)
        Moving's world to `sample_at` coordinates of `volume`, float64.
    most : float
        Number of points that would count with as much overlap as there can be.
    spacing : float
        Of the level, mm.
    shape : tuple of int or None
        Of the points, where they are a whole grid.
    counts : Tensor, shape (N,), or None
        1 where a point of a whole grid is to be compared, 0 elsewhere.
    moments : Tensor, shape (D + 1, D + 1)
        Mean of ``[x, 1] [x, 1]'`` over the points, float64.
    smaller : float
        Number of points that would show both objects, were the smaller one all inside
        the other.
    """

    points: torch.Tensor
    centre: torch.Tensor
    static: torch.Tensor
    volume: torch.Tensor
    world2volume: torch.Tensor
    most: float
    spacing: float
    shape: tuple | None
    counts: torch.Tensor | None
    moments: torch.Tensor
    smaller: float

    @property
    def device(self):
        """Where the images are."""
        return self.points.device


class Picture(NamedTuple):
    """An image, where it lies, and which of its voxels count.

    Attributes
    ----------
    image, mask : Tensor, shape (1, 1, *shape)
        The mask may be None.
    grid : Grid
        Where its voxels lie.
    sigma : float
        Standard deviation, mm, by which it was smoothed already.
    """

    image: torch.Tensor
    mask: torch.Tensor | None
    grid: object
    sigma: float = 0.0

    def reduced(self, spacing, sigma):
        """The image with larger voxels.

        Parameters
        ----------
        spacing : float
            Wanted voxel size, mm.
        sigma : float
            Standard deviation of all the smoothing since the original, mm; more where
            the voxels would miss details otherwise.

        Returns
        -------
        picture : Picture
            At about `spacing`.
        """
        new = self.grid.coarsen(spacing)
        more = max(sigma**2 - self.sigma**2, 0.0) ** 0.5
        growth = new.spacing / self.grid.spacing - 1
        sigmas = np.maximum(more / self.grid.spacing, _LEAST_SIGMA * growth)
        image = self.image
        if (sigmas > 0.05).any():
            image = smooth(image, list(sigmas))
        mask = self.mask
        if new.shape != self.grid.shape:
            image = resize_image(image, new.shape)
            if mask is not None:
                mask = shrink_mask(mask, list(sigmas), new.shape)
        return Picture(image, mask, new, max(sigma, self.sigma))


def open_faces(picture):
    """Faces of an image that cut through what it shows.

    Parameters
    ----------
    picture : Picture
        Its intensities range over about [0, 1].

    Returns
    -------
    faces : list of tuple of bool
        For each axis, the first face and the last; a single slice has none, and with a
        mask there is no telling: all are open.
    """
    faces = []
    for axis, size in enumerate(picture.grid.shape):
        if size == 1:
            faces.append((False, False))
            continue
        ends = (picture.image.select(axis + 2, k) for k in (0, size - 1))
        cut = (float((end > BACKGROUND).float().mean()) > _STRAY for end in ends)
        faces.append(tuple(picture.mask is not None or c for c in cut))
    return faces


def levels(pair, factors, sigmas, *, most_points, proportion=None, grids=False, seed=0):
    """Prepare two images for affine registration at a series of resolutions.

    Parameters
    ----------
    pair : Pair
        The two images; nothing but the scale of its prealign matters.
    factors : sequence of float
        Voxel sizes over the smallest one of static, coarsest first.
    sigmas : sequence of float
        Standard deviations of the smoothing, in the smallest voxel size of static.
    most_points : int
        Where a level has more voxels, some are drawn.
    proportion : float, optional
        In place of `most_points`: the part of a level's voxels to draw.
    grids : bool, optional
        Take whole grids of points instead of drawing, coarser where they must be.
    seed : int, optional
        For the drawing of the points.

    Returns
    -------
    levels : list of Level
        In the order of `factors`.
    """
    dim = pair.static_grid.dim
    axes = zip(pair.static_grid.spacing, pair.static_grid.shape)
    unit = min(float(s) for s, n in axes if n > 1)
    scale = abs(np.linalg.det(pair.prealign[:dim, :dim])) ** (1 / dim)
    static = Picture(pair.static, pair.static_mask, pair.static_grid)
    moving = Picture(pair.moving, pair.moving_mask, pair.moving_grid)
    faces = {"static": open_faces(static), "moving": open_faces(moving)}
    made = {}
    for k in np.argsort(factors, kind="stable"):
        spacing, sigma = unit * factors[k], unit * sigmas[k]
        static = static.reduced(spacing, sigma)
        moving = moving.reduced(spacing * scale, sigma * scale)
        most = most_points
        if proportion is not None:
            most = int(np.ceil(proportion * np.prod(static.grid.shape)))
        draw = (most, seed, grids)
        made[k] = _level(static, moving, faces, spacing, scale, draw)
    return [made[k] for k in range(len(factors))]


def _level(static, moving, faces, spacing, scale, draw):
    dim, device = static.grid.dim, static.image.device
    like = {"dtype": torch.float64, "device": "cpu"}
    voxels, cell, shape = _places(static, faces["static"], *draw)
    affine = torch.as_tensor(static.grid.affine, **like)
    world = voxels @ affine[:dim, :dim].T + affine[:dim, dim]
    centre = world.mean(0)
    ends = torch.tensor([max(n - 1, 1) for n in static.grid.shape], **like)
    normal = (voxels * (2 / ends) - 1).float().to(device)
    values = sample_at(static.image, normal[None])[0, 0]
    counts = None
    if shape is not None and static.mask is not None:
        counts = sample_at(static.mask, normal[None], "nearest")[0, 0]
    volume, world2volume = _volume(moving, faces["moving"])
    points = world - centre
    ones = torch.cat([points, torch.ones(len(points), 1, **like)], 1)
    # As many cells of static as moving's whole field of view would fill.
    view = np.prod(np.array(moving.grid.shape) * moving.grid.spacing) / scale**dim
    unknown = any(map(any, faces["moving"]))
    most = min(len(points), view / cell) if unknown else len(points)
    if moving.mask is not None:
        most = min(most, view / cell * float(moving.mask.mean()))
    objects = values > BACKGROUND, moving.image > BACKGROUND
    if counts is not None:
        objects = objects[0] & (counts > 0), objects[1]
    if moving.mask is not None:
        objects = objects[0], objects[1] & (moving.mask > 0)
    shown = float(objects[0].sum()), view / cell * float(objects[1].float().mean())
    return Level(
        points.float().to(device),
        centre,
        values,
        volume,
        world2volume,
        float(max(most, 1.0)),
        float(spacing),
        shape,
        counts,
        ones.T @ ones / len(ones),
        float(min(shown)),
    )


def shared(level, matrix):
    """How much of the smaller object lies upon the other, through a matrix.

    Parameters
    ----------
    level : Level
        The images; an object is what is not background.
    matrix : ndarray, shape (D + 1, D + 1)
        Static's world to moving's.

    Returns
    -------
    share : float
        0 where they are apart, and 1 also where there is next to no object.
    """
    if level.smaller < 1:
        return 1.0
    dim = level.points.shape[1]
    matrix = np.array(matrix, dtype=np.float64)
    whole = level.world2volume @ torch.from_numpy(matrix)
    world = level.points.cpu().double() + level.centre
    where = world @ whole[:dim, :dim].T + whole[:dim, dim]
    sampled = sample_at(level.volume, where.float().to(level.device)[None])[0]
    both = (level.static > BACKGROUND) & (sampled[0] > BACKGROUND)
    for known in (level.counts, sampled[1] if len(sampled) > 1 else None):
        if known is not None:
            both &= known > 0.5
    return min(float(both.sum()) / level.smaller, 1.0)


def _places(static, faces, most_points, seed, grids):
    """Points in static's voxels (N, D), world volume of each, and shape of a grid."""
    shape = np.array(static.grid.shape)
    low, high = _box(static, faces)
    size = high - low + 1
    cell = float(np.prod(static.grid.spacing))
    if grids:
        growth = max(1.0, (size.prod() / most_points) ** (1 / (size > 1).sum()))
        size = np.where(size > 1, np.maximum(size // growth, 2), 1).astype(int)
        axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, size)]
        places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
        cell *= float((high - low + 1).prod() / size.prod())
        return torch.from_numpy(places), cell, tuple(int(n) for n in size)
    count = int(size.prod())
    rng = np.random.default_rng(seed)
    if static.mask is None:
        chosen = np.arange(count)
    else:
        box = tuple(slice(a, b + 1) for a, b in zip(low, high))
        chosen = np.flatnonzero(static.mask[0, 0].cpu().numpy()[box])
    if len(chosen) > most_points:
        # One from each of as many stretches: spread evenly, yet in no pattern.
        edges = np.linspace(0, len(chosen), most_points, endpoint=False)
        width = len(chosen) / most_points
        cell *= width
        chosen = chosen[(edges + rng.random(most_points) * width).astype(int)]
    places = np.stack(np.unravel_index(chosen, size), -1) + low
    # Off the voxel centres: there, linear interpolation blurs least, and two grids
    # that coincide would seem to match.
    places = places + rng.uniform(-0.5, 0.5, places.shape) * (shape > 1)
    return torch.from_numpy(places.clip(0, shape - 1)), cell, None


def _box(static, faces):
    """First and last voxels, along each axis, of what is worth comparing."""
    shape = np.array(static.grid.shape)
    if static.mask is not None:
        shown = static.mask[0, 0] > 0
        margin = 0 * shape
    else:
        shown = static.image[0, 0] > BACKGROUND
        margin = np.ceil(_MARGIN * shape).astype(int)
    low, high = [], []
    for axis, size in enumerate(shape):
        others = tuple(k for k in range(len(shape)) if k != axis)
        there = shown
        for k in reversed(others):
            there = there.any(k)
        found = there.nonzero().flatten()
        low.append(int(found[0]) if len(found) else 0)
        high.append(int(found[-1]) if len(found) else size - 1)
    low = np.maximum(np.array(low) - margin, 0)
    return low, np.minimum(np.array(high) + margin, shape - 1)


def _volume(moving, faces):
    """Moving with a border of one voxel, and the matrix to its coordinates."""
    dim = moving.grid.dim
    mode = {"pad": (1, 1) * dim, "mode": "replicate"}
    volume = F.pad(moving.image, **mode)
    if any(map(any, faces)):
        counts = torch.ones_like(moving.image) if moving.mask is None else moving.mask
        counts = F.pad(counts, **mode)
        for axis, pair in enumerate(faces):
            for side, is_open in zip((0, -1), pair):
                if is_open:
                    counts.select(axis + 2, side).zero_()
        volume = torch.cat([volume, counts], 1)
    # Axes reversed in memory, as `sample_at` shows them to torch.
    order = (0, 1, *range(dim + 1, 1, -1))
    volume = volume.permute(order).contiguous().permute(order)
    matrix = torch.from_numpy(np.array(moving.grid.inverse, dtype=np.float64))
    sizes = torch.from_numpy(np.array(moving.grid.shape, dtype=np.float64)) + 2
    scale = 2 / (sizes - 1)
    matrix[:dim] *= scale[:, None]
    matrix[:dim, dim] += scale - 1
    return volume, matrix
