"""Small things to train on, for all tests of training."""

import numpy as np
import torch

from dipy_dl_reg.networks import make_network
from dipy_dl_reg.training.training_set import CrossSubject, Example


def ellipses(count, shape=(16, 16), seed=0):
    """Images of smooth ellipses (ellipsoids), none like the other."""
    rng = np.random.default_rng(seed)
    axes = np.indices(shape)
    images = []
    for _ in range(count):
        middle = np.array(shape) / 2 + rng.uniform(-1, 1, len(shape))
        radii = rng.uniform(0.2, 0.35, len(shape)) * shape
        parts = (((x - m) / r) ** 2 for x, m, r in zip(axes, middle, radii))
        images.append(1 / (1 + np.exp(4 * (sum(parts) - 1))))
    return np.array(images)


class DoublePairs(CrossSubject):
    """Pairs in double precision.

    There rounding does not matter, which Adam would make much of where a gradient
    is 0, such as that of a bias before batch normalization.
    """

    def __getitem__(self, index):
        static, moving, *_ = super().__getitem__(index)
        return Example(static.double(), moving.double())


def small(name="voxelmorph", dim=2, seed=0, **arguments):
    """An untrained network, the same each time."""
    if name == "unet":
        arguments = {"features": (4, 8), **arguments}
    if name == "selfsup-fcn":
        arguments = {"features": (4, 8, 8), **arguments}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network(name, dim, **arguments)


def weights(network):
    """All weights and running statistics in one vector."""
    return torch.cat([x.flatten().double() for x in network.state_dict().values()])
