"""Prepares label maps of heads (FreeSurfer's labels) for the synthesis of images.

This module is used by ``tools/recipes/train_brains.py``. ``python -m
tools.recipes.brain_maps FOLDER sheet.png`` draws a sheet of synthetic training pairs.
"""

from pathlib import Path
import sys

import nibabel as nib
import numpy as np
from scipy.ndimage import center_of_mass, map_coordinates
import torch

from dipy_dl_reg.training.examples.acquisition import Acquisition
from dipy_dl_reg.training.examples.synthesis import Contrast, SynthesisedPairs, shares

#: Left and right of the same tissue, and the mean and spread of its T1 intensity.
TISSUES = {
    (2, 41): (0.85, 0.06),  # white matter
    (3, 42): (0.55, 0.05),  # cortex
    (4, 43): (0.15, 0.05),  # lateral ventricles
    (5, 44): (0.17, 0.05),  # their inferior horns
    (7, 46): (0.80, 0.06),  # cerebellar white matter
    (8, 47): (0.52, 0.05),  # cerebellar cortex
    (10, 49): (0.72, 0.05),  # thalamus
    (11, 50): (0.60, 0.05),  # caudate
    (12, 51): (0.65, 0.05),  # putamen
    (13, 52): (0.76, 0.05),  # pallidum
    (14,): (0.15, 0.05),  # third ventricle
    (15,): (0.15, 0.05),  # fourth ventricle
    (16,): (0.75, 0.06),  # brain stem
    (17, 53): (0.55, 0.05),  # hippocampus
    (18, 54): (0.56, 0.05),  # amygdala
    (24,): (0.12, 0.05),  # fluid around the brain
    (26, 58): (0.60, 0.06),  # accumbens
    (28, 60): (0.74, 0.06),  # ventral diencephalon
}
#: Mean intensities of the same tissues in b0, FA and MD (1 is that of free water).
DIFFUSION = {
    (2, 41): (0.38, 0.60, 0.25),
    (3, 42): (0.52, 0.16, 0.30),
    (4, 43): (0.92, 0.08, 0.95),
    (5, 44): (0.85, 0.09, 0.85),
    (7, 46): (0.40, 0.45, 0.24),
    (8, 47): (0.52, 0.17, 0.28),
    (10, 49): (0.44, 0.30, 0.26),
    (11, 50): (0.48, 0.18, 0.26),
    (12, 51): (0.43, 0.18, 0.25),
    (13, 52): (0.26, 0.30, 0.25),
    (14,): (0.90, 0.09, 0.92),
    (15,): (0.90, 0.09, 0.92),
    (16,): (0.42, 0.48, 0.27),
    (17, 53): (0.55, 0.16, 0.32),
    (18, 54): (0.53, 0.17, 0.29),
    (24,): (0.95, 0.07, 0.90),
    (26, 58): (0.48, 0.20, 0.26),
    (28, 60): (0.40, 0.48, 0.27),
}
#: Standard deviations of these intensities, relative frequency of each contrast (that
#: of T1 is 1), and defects of the acquisition: EPI has a low resolution and magnitude
#: noise; FA of white matter varies in space.
DIFFUSION_SPREADS = (0.07, 0.05, 0.06)
DIFFUSION_WEIGHTS = (1.0, 1.0, 0.5)
DIFFUSION_ACQUISITIONS = (
    {"noise": 0.08, "rician": 0.7, "bias": 0.4},
    {"noise": 0.10, "rician": 0.5, "bias": 0.6},
    {"noise": 0.08, "rician": 0.3, "bias": 0.2},
)
#: Classes that are not brain, such as skull, scalp and eyes.
OUTSIDE = tuple(range(204, 215))
CLASSES = [k for pair in TISSUES for k in pair] + list(OUTSIDE)
#: Structures that are used to align the subjects with each other.
ANCHORS = (2, 3, 4, 7, 8, 10, 11, 12, 16, 17, 41, 42, 43, 46, 47, 49, 50, 51, 53)
#: Number of fine voxels along the edge of a coarse voxel, to compute shares.
FINE = 3


def read_maps(folder, spacing, shape):
    """Compute the shares of all classes for every label map of a folder, on one grid.

    Subjects are aligned by the affine that fits the centroids of their structures to
    the mean centroids, in three iterations.
    """
    images = [nib.load(path) for path in sorted(Path(folder).glob("*.nii*"))]
    if len(images) < 2:
        raise ValueError(f"{folder} must hold two label maps or more.")
    centroids = [_centroids(image) for image in images]
    mean = centroids[0]
    for _ in range(3):
        fits = [_fit(mean, own) for own in centroids]
        mean = np.mean([own @ np.linalg.inv(f).T for own, f in zip(centroids, fits)], 0)
    fits = [_fit(mean, own) for own in centroids]
    middle = _middle(images[0], fits[0])
    maps = []
    for image, fit in zip(images, fits):
        labels = _resample_labels(
            image, fit, middle, spacing / FINE, np.array(shape) * FINE
        )
        maps.append(shares(labels, CLASSES, FINE))
    return maps


def make_pairs(maps, **options):
    """Make synthetic pairs from these maps; by default with T1 contrast."""
    means = [TISSUES[pair][0] for pair in TISSUES for _ in pair]
    spreads = [TISSUES[pair][1] for pair in TISSUES for _ in pair]
    groups = [n for n, pair in enumerate(TISSUES) for _ in pair]
    extra = len(OUTSIDE)
    return SynthesisedPairs(
        maps,
        means + [0.4] * extra,
        spreads + [0.2] * extra,
        groups=groups + [len(TISSUES) + n for n in range(extra)],
        outside=range(len(groups), len(groups) + extra),
        always=[CLASSES.index(k) for k in (2, 3, 41, 42)],
        **options,
    )


def diffusion_contrasts(coarse=1.3, thick=2.0):
    """The three contrasts of diffusion images, for `make_pairs(contrasts=...)`.

    `coarse` and `thick` are those of `Acquisition`, in voxels of the images.
    """
    found = []
    for n, (spread, weight, own) in enumerate(
        zip(DIFFUSION_SPREADS, DIFFUSION_WEIGHTS, DIFFUSION_ACQUISITIONS)
    ):
        means = [DIFFUSION[pair][n] for pair in TISSUES for _ in pair]
        spreads = [spread] * len(means) + [0.2] * len(OUTSIDE)
        acquisition = Acquisition(
            blur=0.4, coarse=coarse, thick=thick, slices=0.3, cut=0.1, **own
        )
        means = means + [0.4] * len(OUTSIDE)
        found.append(Contrast(means, spreads, weight, acquisition))
    return found


def _centroids(image):
    """World centroids of the anchor structures in homogeneous coordinates, in rows."""
    labels = np.asarray(image.dataobj)[::2, ::2, ::2]
    places = np.array(center_of_mass(np.ones_like(labels), labels, ANCHORS))
    return nib.affines.apply_affine(image.affine, 2 * places) @ np.eye(3, 4) + [
        0,
        0,
        0,
        1,
    ]


def _middle(image, fit):
    """Centre of the box around the brain, in the mean world."""
    inside = np.argwhere(np.isin(np.asarray(image.dataobj), ANCHORS))
    places = nib.affines.apply_affine(np.linalg.inv(fit) @ image.affine, inside)
    return (places.min(0) + places.max(0)) / 2


def _fit(mean, own):
    """Fit the affine from the mean's world to a subject's by least squares."""
    return np.linalg.lstsq(mean, own, rcond=None)[0].T


def _resample_labels(image, fit, middle, spacing, shape):
    """Resample labels to an axial grid about the mean brain, by nearest neighbour."""
    corner = middle - (shape - 1) / 2 * spacing
    grid = np.eye(4)
    grid[:3, :3] *= spacing
    grid[:3, 3] = corner
    matrix = np.linalg.inv(image.affine) @ fit @ grid
    places = np.indices(tuple(shape), dtype=np.float32).reshape(3, -1)
    places = matrix[:3, :3].astype(np.float32) @ places + matrix[:3, 3:].astype("f4")
    labels = map_coordinates(np.asarray(image.dataobj), places, order=0)
    return labels.reshape(shape)


def draw_sheet(pairs, path, *, rows=4, columns=4, seed=0):
    """Draw pairs to a file: the middle slice of both images of each pair."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    generator = torch.Generator().manual_seed(seed)
    figure, axes = plt.subplots(
        rows, 2 * columns, figsize=(2.2 * columns, 1.5 * rows), facecolor="black"
    )
    for row in axes:
        for both in row.reshape(-1, 2):
            example = pairs.draw(generator)
            for axis, image in zip(both, (example.static, example.moving)):
                plane = image[(0, ..., *[n // 2 for n in image.shape[3:]])]
                axis.imshow(
                    plane.T.numpy(), origin="lower", cmap="gray", vmin=0, vmax=1
                )
                axis.axis("off")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, wspace=0.02, hspace=0.02)
    figure.savefig(path, dpi=90)


def main():
    """Draw a sheet of T1-like pairs."""
    maps = read_maps(sys.argv[1], 3.0, (49, 65, 49))
    draw_sheet(make_pairs(maps, random_contrast=0.3), sys.argv[2])


if __name__ == "__main__":
    main()
