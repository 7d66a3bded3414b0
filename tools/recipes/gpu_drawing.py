"""Draws images from label maps on a GPU, tens of them a second.

The same as `dipy_dl_reg.training.examples.synthesis` does on the CPU, for trainings
that see tens of thousands of images.  A draw is determined by two generators: NumPy's,
for single numbers, and torch's, for arrays on the device.  No number is copied from the
device to the host, so that the GPU never waits.

A *subject* is a label map (uint8) and the matrix from millimetres about the middle of
a mean brain, axes left to right, back to front and upwards, to its voxels.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import exp, resize
from tools.recipes.brain_maps import DIFFUSION, OUTSIDE, TISSUES

#: Classes of a drawn image: air, the tissues of the brain, bone and soft tissue.
TISSUE_LABELS = [k for pair in TISSUES for k in pair]
NAMES = ["air", *(str(k) for k in TISSUE_LABELS), "bone", "soft"]
#: Labels of the maps that belong to a class of `TISSUE_LABELS`: lesions of the white
#: matter, vessels, the choroid plexus, the fifth ventricle and the optic chiasm.
JOINED = {
    25: 2, 57: 41, 30: 12, 62: 51, 200: 4, 202: 43, 201: 5, 203: 44, 72: 14, 85: 28,
}  # fmt: skip
BONE = (212, 213)
#: Labels with an intensity of their own, left and right together.
EXTRA_GROUPS = ((25, 57), (30, 62), (200, 201, 202, 203), (85,), (72,))
#: Mean intensities of T2 and FLAIR images, in the order of `TISSUES`.
T2 = (.35, .55, .95, .93, .38, .55, .42, .48, .45, .30, .95, .95, .42, .56, .55, .97,
      .50, .40)  # fmt: skip
FLAIR = (.50, .68, .12, .14, .52, .66, .58, .62, .60, .48, .12, .14, .54, .70, .70, .12,
         .64, .55)  # fmt: skip


class Tables(NamedTuple):
    """What belongs to each of the 256 values of a label map, on the device."""

    classes: torch.Tensor  # int64: number in NAMES
    groups: torch.Tensor  # int64: number of the intensity
    mirrored: torch.Tensor  # int64: the class on the other side


class Subject(NamedTuple):
    """A label map on the device, and the matrix from millimetres to its voxels."""

    labels: torch.Tensor
    matrix: np.ndarray


class Drawn(NamedTuple):
    """An image (1, 1, *shape), and the fraction of each class (1, K, *shape)."""

    image: torch.Tensor
    shares: torch.Tensor


def make_tables(device):
    """Make the tables of classes, intensities and sides."""
    classes, groups = np.zeros(256, int), np.zeros(256, int)
    sides = list(range(len(NAMES)))
    for number, pair in enumerate(TISSUES):
        for label in pair:
            classes[label] = 1 + TISSUE_LABELS.index(label)
            groups[label] = 1 + number
        both = [classes[label] for label in pair]
        for here, there in zip(both, reversed(both)):
            sides[here] = there
    for label, of in JOINED.items():
        classes[label] = classes[of]
    last = len(TISSUES)
    for labels in (*EXTRA_GROUPS, *((k,) for k in OUTSIDE)):
        last += 1
        groups[list(labels)] = last
    for label in OUTSIDE:
        classes[label] = len(NAMES) - (2 if label in BONE else 1)
    return Tables(*(torch.tensor(x, device=device) for x in (classes, groups, sides)))


def contrast_tables():
    """Mean intensity of each tissue for T1, b0, FA, MD, T2 and FLAIR."""
    t1 = [mean for mean, _ in TISSUES.values()]
    diffusion = zip(*(DIFFUSION[pair] for pair in TISSUES))
    return np.array([t1, *diffusion, T2, FLAIR])


def read_subjects(path, device):
    """Read the label maps of a packed file, by their names."""
    packed = np.load(path)
    names = [key[7:] for key in packed if key.startswith("labels_")]
    return {
        name: Subject(
            torch.from_numpy(packed[f"labels_{name}"]).to(device),
            packed[f"matrix_{name}"].astype(float),
        )
        for name in names
    }


def draw_affine(rng, *, rotation, scale, shift, shear=0.0):
    """A random affine in millimetres: angles (pitch largest) in degrees."""
    angles = np.deg2rad(rng.normal(0, rotation, 3) * (1.0, 0.6, 0.6))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[a, b], [a, b]] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    stretch = np.diag(np.exp(rng.normal(0, scale, 3) + rng.normal(0, scale)))
    stretch[np.triu_indices(3, 1)] = rng.normal(0, shear, 3)
    full = np.eye(4)
    full[:3, :3] = matrix @ stretch
    full[:3, 3] = rng.normal(0, 1, 3) * shift
    return full


def draw_flow(shape, rng, *, size, knots, device):
    """Displacement (1, 3, *shape), in voxels: the flow of a smooth random velocity.

    `size` is the root mean square of its components, and `knots` the number of control
    points along each axis, from the coarsest to the finest.
    """
    coarse = [max(4, n // 4) for n in shape]
    velocity = torch.zeros(1, 3, *coarse, device=device)
    for count in knots:
        drawn = torch.randn(1, 3, count, count, count, device=device)
        velocity = velocity + F.interpolate(drawn, size=coarse, mode="trilinear")
    ratio = coarse[0] / shape[0]
    velocity *= size * ratio * rng.uniform(0.3, 1.7) / len(knots) ** 0.5
    return resize(exp(velocity, steps=5), shape)


def sample_points(shape, spacing, matrix, flow, *, mirror=False):
    """Voxel coordinates (3, *shape) in a volume of the points of a grid.

    The grid has voxels of `spacing` mm about the middle of the mean brain; `matrix` is
    from millimetres to the volume's voxels.
    """
    to_mm = np.eye(4)
    to_mm[:3, :3] *= spacing
    to_mm[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    if mirror:
        to_mm[0] *= -1
    full = torch.tensor(matrix @ to_mm, dtype=torch.float32).to(flow.device)
    lines = [torch.arange(n, device=flow.device, dtype=torch.float32) for n in shape]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij")) + flow[0]
    return torch.einsum("ij,jxyz->ixyz", full[:3, :3], points) + full[:3, 3].view(
        3, 1, 1, 1
    )


def look_up(labels, points):
    """Labels (int64) at the nearest voxels of points; 0 outside."""
    index, inside = 0, True
    for axis, size in enumerate(labels.shape):
        place = points[axis].round().long()
        inside = inside & (place >= 0) & (place < size)
        index = index * size + place.clamp(0, size - 1)
    return labels.flatten()[index].long() * inside


def draw_contrast(rng, tables, contrasts, *, random_part, device):
    """Mean and spread of the intensity of each of the 256 values of a label map."""
    count = len(TISSUES) + 1 + len(EXTRA_GROUPS) + len(OUTSIDE)
    means = rng.uniform(0, 1, count)
    tissues = len(TISSUES)
    spread = rng.uniform(0, 0.08)
    if rng.random() >= random_part:
        table = contrasts[rng.integers(len(contrasts))]
        own = table + rng.normal(0, 0.05, tissues) + rng.normal(0, 0.03)
        means[1 : tissues + 1] = np.clip(own, 0, 1)
        means[tissues + 1] = np.clip(means[1] + rng.uniform(-0.4, 0.4), 0, 1)
        spread = rng.uniform(0.02, 0.10)
    means[0] = rng.uniform(0, 0.6) if rng.random() < 0.05 else 0.0
    spreads = spread * rng.uniform(0.5, 1.5, count)
    spreads[0] = 0.0
    both = torch.tensor(np.stack([means, spreads]), dtype=torch.float32).to(device)
    return both[:, tables.groups]


def blur(x, sigmas):
    """Gaussian blur of (1, C, *shape) by standard deviations in voxels, zeros beyond.

    The kernel is a matrix for each axis: for kernels of changing widths, convolutions
    would be tuned anew in every call.
    """
    batch, channels, *shape = x.shape
    for axis, (sigma, size) in enumerate(zip(sigmas, shape)):
        if sigma < 0.1:
            continue
        line = torch.arange(size, device=x.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * ((line[:, None] - line) / float(sigma)) ** 2)
        kernel = (kernel / kernel[size // 2].sum()).to(x.dtype)
        before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        x = torch.matmul(kernel, x.reshape(batch * channels * before, size, after))
        x = x.reshape(batch, channels, *shape)
    return x


def strip(labels, tables, rng):
    """Mask (1, 1, *shape) of a brain extraction that keeps too much or too little."""
    classes = tables.classes[labels]
    brain = (classes > 0) & (classes < len(NAMES) - 2)
    if rng.random() < 0.5:  # without the fluid around the brain
        brain &= labels != 24
    soft = blur(brain.float()[None, None], [rng.uniform(1, 4)] * 3)
    return soft > rng.uniform(0.2, 0.7)


def spoil(image, rng):
    """Add a bias field, low resolution and noise to an image (1, 1, *shape)."""
    shape, device = image.shape[2:], image.device
    knots = torch.randn(1, 1, 4, 4, 4, device=device) * rng.uniform(0, 0.4)
    image = image * F.interpolate(knots, size=shape, mode="trilinear").exp()
    factors = np.full(3, 1 + rng.uniform(0, 0.6) * (rng.random() < 0.5))
    if rng.random() < 0.3:
        factors[rng.integers(3)] = rng.uniform(1, 3)
    image = blur(image, 0.42 * np.sqrt(factors**2 - 1) + rng.uniform(0, 0.3))
    sizes = [max(2, round(n / f)) for n, f in zip(shape, factors)]
    image = F.interpolate(image, size=sizes, mode="trilinear")
    sigma = 0.1 * rng.uniform(0, 1) ** 2
    noise = sigma * torch.randn(2, *image.shape, device=device)
    if rng.random() < 0.5:
        image = torch.hypot(image + noise[0], noise[1])
    else:
        image = (image + noise[0]).clamp_min(0)
    image = F.interpolate(image, size=shape, mode="trilinear")
    return image ** float(np.exp(rng.normal(0, 0.2)))


def scale_intensities(image, *, part=0.99):
    """Divide an image by a quantile of its foreground, estimated on some voxels."""
    flat = image.flatten()
    step = max(1, flat.numel() // 50_000)
    values = flat[step // 2 :: step].sort().values
    positive = (values > 0.02 * values[-1]).sum().clamp_min(1)
    place = (len(values) - 1 - ((1 - part) * positive).long()).clamp(0, len(values) - 1)
    return image / values[place].clamp_min(1e-6)


def cut(drawn, rng):
    """Remove what lies outside of a slab: the rest is air."""
    axis = 2 + int(rng.integers(3))
    size = drawn.image.shape[axis]
    kept = int(size * rng.uniform(0.35, 0.9))
    first = int(rng.integers(size - kept + 1))
    image, shares = drawn.image.clone(), drawn.shares.clone()
    for start, count in ((0, first), (first + kept, size - first - kept)):
        image.narrow(axis, start, count).zero_()
        gone = shares.narrow(axis, start, count)
        gone.zero_()[:, 0] = 1
    return Drawn(image, shares)


def share_classes(labels, tables, *, mirror=False):
    """Fractions (1, K, *shape) of the classes in voxels of two by two by two labels."""
    classes = tables.classes[labels]
    if mirror:
        classes = tables.mirrored[classes]
    half = [n // 2 for n in labels.shape]
    shares = torch.zeros(len(NAMES), *half, device=labels.device)
    one = torch.full((1, *half), 1 / 8, device=labels.device)
    for corner in np.ndindex(2, 2, 2):
        part = classes[tuple(slice(c, None, 2) for c in corner)]
        shares.scatter_add_(0, part[None], one)
    return shares[None]


def draw_labels(subject, shape, spacing, rng, *, affine, size, knots, mirror):
    """Deformed labels (int64) on a grid with voxels of half of `spacing`."""
    fine = [2 * n for n in shape]
    device = subject.labels.device
    flow = draw_flow(fine, rng, size=2 * size, knots=knots, device=device)
    matrix = subject.matrix @ affine
    points = sample_points(fine, spacing / 2, matrix, flow, mirror=mirror)
    return look_up(subject.labels, points)


def paint(labels, tables, contrasts, rng, *, stripped, mirror, random_part=0.5):
    """Draw an image of deformed labels, and the fractions of the classes."""
    if stripped:
        labels = labels * strip(labels, tables, rng)[0, 0]
    means, spreads = draw_contrast(
        rng, tables, contrasts, random_part=random_part, device=labels.device
    )
    noise = torch.randn(labels.shape, device=labels.device)
    image = (means[labels] + spreads[labels] * noise).clamp_min_(0)[None, None]
    image = spoil(F.avg_pool3d(image, 2), rng)
    if stripped and rng.random() < 0.7:  # exactly 0 outside the mask
        image = image * (F.avg_pool3d((labels > 0).float()[None, None], 2) > 0.5)
    image = scale_intensities(image)
    return Drawn(image, share_classes(labels, tables, mirror=mirror))
