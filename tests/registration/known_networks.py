"""Networks that predict a known field, and heads to register with them."""

from maps import affine
import numpy as np
from pairs import anatomy, centred, move, voxels
import torch

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.networks.base import RegistrationNetwork


class Says(RegistrationNetwork):
    """Predicts a field that is a function of the grid's shape."""

    def __init__(self, dim, answer, **options):
        super().__init__(dim, **options)
        self.answer = answer
        self.weight = torch.nn.Parameter(torch.ones(()))

    def _fields(self, images):
        self.seen = images
        return (self.answer(images.shape[2:])[None] * self.weight,)


def shift(*voxels):
    """A constant field."""

    def answer(shape):
        field = torch.tensor(voxels, dtype=torch.float32)
        return field.view(-1, *[1] * len(shape)).expand(-1, *shape)

    return answer


CENTRE = np.array([3.0, -5.0, 2.0])

GRIDS = {
    "RAS": np.diag([2.0, 2.0, 2.0]),
    "LAS": np.diag([-2.0, 2.0, 2.0]),
    "permuted": np.diag([2.0, 2.0, -2.0])[:, [2, 0, 1]],
    "anisotropic": np.diag([1.0, -2.0, 3.0]),
    "oblique": affine((2, 2, 2), (0.3, -0.2, 0.25))[:3, :3],
}


def heads(linear, shape=(30, 28, 26), away=(0.0, 0.0, 0.0)):
    """A head, and the same moved by `away` mm, on a grid."""
    shape = tuple(int(n) for n in np.array(shape))
    grid2world = centred(linear, shape, CENTRE)
    points = move(grid2world, voxels(shape))
    return anatomy(points, CENTRE), anatomy(points - away, CENTRE), grid2world


def register(network, static, moving, grid2world, **options):
    registration = DeepRegistration(model=network, progress=False, **options)
    mapping = registration.optimize(
        static, moving, static_grid2world=grid2world, moving_grid2world=grid2world
    )
    return registration, mapping
