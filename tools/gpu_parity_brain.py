"""Anatomy, directions, distortion and uncertainty, for gpu_parity.py.

The cases are those of images that are 3D: the network for anatomy, the intensity
mapping by its maps, metrics of several channels, reorientation of tensors and fibre
orientation distributions, echo-planar distortion, motion of a series, refinement from a
start and along an axis, and the repetition of a registration for its uncertainty.
"""

import numpy as np
import torch

from dipy_dl_reg.anatomy.classes import CLASSES
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, predict_anatomy
from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.geometry.mean_map import invert_mean, remove_mean_map
from dipy_dl_reg.geometry.reorientation import (
    Reorientation,
    TensorRotation,
    polar_rotation,
)
from dipy_dl_reg.geometry.smoothing import smooth
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.initialization.anatomy_maps import PairMaps, map_intensities
from dipy_dl_reg.metrics.anatomy import AnatomyMetric
from dipy_dl_reg.metrics.channels import ChannelsMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mind import MINDMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.orientation import OrientationMetric
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.optimization.phase_encoding import constrain_to_axis

SPACING = 2.0


def noise(shape, channels, sigma, seed):
    """Make smooth noise between -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn(1, channels, *shape, generator=generator), sigma)
    return image / image.abs().max()


def make_tensors(shape, seed):
    """Positive definite tensors (X, Y, Z, 6), in DIPY's order, 0 in the background."""
    factor = np.eye(3) + 0.6 * noise(shape, 9, 3.0, seed)[0].movedim(0, -1).numpy(
        force=True
    ).reshape(*shape, 3, 3)
    tensors = 1e-3 * factor @ np.swapaxes(factor, -1, -2)
    rows, columns = (0, 0, 1, 0, 1, 2), (0, 1, 1, 2, 2, 2)
    lines = [np.linspace(-1, 1, n) for n in shape]
    radius = sum(x**2 for x in np.meshgrid(*lines, indexing="ij"))
    return tensors[..., rows, columns] * (radius < 0.8)[..., None]


def metric_cases(shape):
    """Gradients of metrics of several channels."""
    static, moving = noise(shape, 7, 2.0, 10), noise(shape, 7, 2.0, 11)
    metrics = {
        "channels": (ChannelsMetric([CCMetric(), MINDMetric(3)], [2, 1]), 2),
        "CC + anatomy maps": (AnatomyMetric(CCMetric(), 3, weight=0.5), 4),
        "orientation": (OrientationMetric((1, 2, 1, 2, 2, 1)), 7),
    }

    def gradient(metric, count, d):
        images = [x[:, :count].contiguous().to(d) for x in (static, moving)]
        return metric.bind(images[0], None, moving=images[1])(images[1])[1]

    return {
        f"metric {name}": lambda d, m=metric, n=count: gradient(m, n, d)
        for name, (metric, count) in metrics.items()
    }


def direction_cases(shape):
    """Rotations of tensors, and centring of maps."""
    grid = Grid(tuple(shape), np.diag([SPACING] * 3 + [1]))
    tensors = torch.from_numpy(make_tensors(shape, 12)).movedim(-1, 0)[None].float()
    u, v = 3 * noise(shape, 3, 5.0, 13), 2 * noise(shape, 3, 6.0, 14)
    matrices = torch.eye(3)[:, :, None] + 0.3 * torch.randn(
        3, 3, 500, generator=torch.Generator().manual_seed(0)
    )

    def turned(d):
        reorient = Reorientation(TensorRotation(), first=0)
        return 1e3 * reorient(tensors.to(d, copy=True), u.to(d), grid, np.eye(4))

    def centred(d):
        fields = exp(u.to(d)), exp(-u.to(d))
        return torch.cat(remove_mean_map(*fields, *invert_mean(v.to(d) / 2)))

    return {
        "polar_rotation": lambda d: polar_rotation(matrices.to(d)),
        "reorientation of tensors": turned,
        "remove_mean_map": centred,
    }


def anatomy_cases(shape, make_pair):
    """The network for anatomy, and what its maps are used for."""
    grid = Grid(tuple(shape), np.diag([SPACING] * 3 + [1]))
    made = 60 * noise(shape, len(CLASSES), 3.0, 15)[0]

    def predicted(d, mirror):
        image = make_pair(shape, "cpu").static[0, 0].numpy()
        return predict_anatomy(image, grid, device=d, mirror=mirror).probabilities

    def mapped(d):
        maps = AnatomyMaps(made.softmax(0).to(d), grid)
        pair = make_pair(shape, d)
        return map_intensities(pair, PairMaps(maps, maps))(pair.moving)

    return {
        "predict_anatomy": lambda d: predicted(d, False),
        "predict_anatomy, mirror": lambda d: predicted(d, True),
        "map_intensities": mapped,
    }


def refinement_cases(shape, make_pair):
    """Refinement from a start, along an axis, and what chooses the start."""
    u = 2 * noise(shape, len(shape), 5.0, 16)

    def refined(d, metric=None, **options):
        objective = Objective(metric or CCMetric())
        return torch.cat(refine(make_pair(shape, d), objective, **options))

    def started(d):
        start = exp(u.to(d)), exp(-u.to(d))
        return refined(d, level_iters=[10, 10], start=start)

    def along_axis(d):
        constraint = constrain_to_axis(make_pair(shape, d), "j", modulates=True)
        return refined(d, level_iters=[10, 10], constraint=constraint)

    def one_direction(d):
        metric = CCMetric()
        metric.symmetric = False
        return refined(d, metric, level_iters=[20, 20])

    return {
        "refine, CC of one direction": one_direction,
        "refine, from a start": started,
        "refine, along an axis": along_axis,
    }


def call_cases(shape, make_images):
    """Calls of users that take images of brains or diffusion images."""
    import dipy_dl_reg as package

    matrix = np.diag([SPACING] * 3 + [1])
    affines = {"static_grid2world": matrix, "moving_grid2world": matrix}
    static, moving = (x[0, 0].numpy() for x in make_images(shape))

    def other_contrast(d):
        dark = np.where(static > 0.02, 1.1 - moving, 0).astype(np.float32)
        found = package.DeepRegistration(device=d, progress=False).optimize(
            static, dark, **affines
        )
        return np.moveaxis(found.backward, -1, 0) / SPACING

    def uncertain(d):
        mapping = package.DeepRegistration(
            device="cpu", model=None, progress=False
        ).optimize(static, moving, **affines)
        found = package.mapping_uncertainty(mapping, static, moving, device=d)
        return found.expected_error

    def segmented(d):
        found = package.segment_anatomy(static, grid2world=matrix, device=d)
        return found.labels != 0

    def tensors(d):
        pair = (make_tensors(shape, seed) for seed in (17, 17))
        fixed, other = pair
        other = np.roll(other, 1, axis=0)
        found = package.register_tensors(
            other, fixed, moving_affine=matrix, static_affine=matrix, frame="voxel",
            level_iters=[10, 5], device=d, progress=False,
        )  # fmt: skip
        return np.moveaxis(found[1].backward, -1, 0) / SPACING

    def epi(d):
        field = torch.zeros(1, 3, *shape)
        field[:, 1:2] = 2 * noise(shape, 1, 6.0, 18)
        image = make_images(shape)[0]
        first, second = (warp(image, s * field)[0, 0].numpy() for s in (1, -1))
        found = package.deep_epi_correction(
            first, second, affine=matrix, phase_encoding="j", device=d
        )
        return found.field

    return {
        "DeepRegistration(), opposite contrast": other_contrast,
        "mapping_uncertainty": uncertain,
        "segment_anatomy": segmented,
        "register_tensors": tensors,
        "deep_epi_correction": epi,
    }
