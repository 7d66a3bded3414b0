r"""Reorientation of tensors and spherical harmonics during a registration.

When an image of directions is resampled by a map :math:`T` (static to moving), the
directions must turn with the anatomy.  With the Jacobian matrix
:math:`J = \partial T / \partial x` in world axes, the local rotation is the orthogonal
polar factor of :math:`J^{-1}` (finite strain :footcite:p:`Alexander2001`), which is the
transpose of that of :math:`J`.  `Reorientation` computes it from the displacement of an
iteration, and turns the channels of the warped moving image by it.

Components are along the axes of the world in both images.  A polar factor is found by
Newton's iteration, :math:`X \leftarrow (X + X^{-\top}) / 2`, which converges
quadratically and needs no decomposition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dipy_dl_reg.geometry.derivatives import derivative
from dipy_dl_reg.geometry.kernels import directions as kernels
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.sphere import spread_directions
from dipy_dl_reg.geometry.tensor_elements import TENSOR_ELEMENTS
from dipy_dl_reg.grid import Grid

#: Number of Newton iterations.  The iteration never changes the rotation, but removes
#: the stretch: from a ratio of 4 between two stretches to less than 1e-3.
_ITERATIONS = 4
#: Squared deviation from an orthogonal matrix above which a voxel is not turned: the
#: map is nearly singular there, as at a fold.
_NOT_ORTHOGONAL = 0.1
#: Smallest determinant that the iteration divides by.
_LEAST_DETERMINANT = 1e-6
#: Number of voxels that are computed together; their matrices fit the cache.
_BLOCK = 8192
_ROWS, _COLUMNS = (list(axes) for axes in zip(*TENSOR_ELEMENTS))
#: Channels that are the elements of the whole symmetric matrix.
_MATRIX = [0, 1, 3, 1, 2, 4, 3, 4, 5]


def polar_rotation(matrices: torch.Tensor) -> torch.Tensor:
    """Orthogonal polar factors of matrices, without a decomposition.

    Parameters
    ----------
    matrices : Tensor, shape (3, 3, N)
        Invertible matrices.

    Returns
    -------
    rotations : Tensor, shape (3, 3, N)
        The nearest orthogonal matrices: rotations, or reflections where the determinant
        is negative.  The identity where a matrix is nearly singular.
    """
    norms = matrices.square().sum((0, 1)).clamp_min(1e-12)
    x = matrices * (3 / norms).sqrt()
    for _ in range(_ITERATIONS):
        cofactors = _cofactors(x)
        determinant = (cofactors[0] * x[0]).sum(0)
        determinant = torch.where(
            determinant.abs() < _LEAST_DETERMINANT, _LEAST_DETERMINANT, determinant
        )
        x = cofactors.div_(determinant).add_(x).mul_(0.5)
    fails = ((x.square().sum(1) - 1).square().sum(0) > _NOT_ORTHOGONAL)[None, None]
    if bool(fails.any()):
        x = torch.where(
            fails, torch.eye(3, dtype=x.dtype, device=x.device)[..., None], x
        )
    return x


def _cofactors(x: torch.Tensor) -> torch.Tensor:
    """Cofactors of matrices (3, 3, N): the rows' cross products."""
    after, before = [1, 2, 0], [2, 0, 1]
    first, second = x[after], x[before]
    return (first[:, after] * second[:, before]).sub_(
        first[:, before] * second[:, after]
    )


def rotate_tensors(tensors: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    r"""Rotate symmetric tensors: :math:`R D R^\top`.

    Parameters
    ----------
    tensors : Tensor, shape (6, N)
        Elements xx, xy, yy, xz, yz, zz, in DIPY's order.
    rotations : Tensor, shape (3, 3, N)
        Matrices :math:`R`.

    Returns
    -------
    rotated : Tensor, shape (6, N)
        The same elements of the rotated tensors.
    """
    full = tensors[_MATRIX].unflatten(0, (3, 3))
    turned = (rotations[:, :, None] * full[None]).sum(1)
    return (turned[_ROWS] * rotations[_COLUMNS]).sum(1)


class TensorRotation:
    """Rotation of symmetric tensors of six channels; see `rotate_tensors`."""

    #: Number of channels.
    count = 6

    def __call__(self, tensors: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """Rotate tensors, as `rotate_tensors` does.

        Parameters
        ----------
        tensors : Tensor, shape (6, N)
            Elements of N tensors.
        rotations : Tensor, shape (3, 3, N)
            Matrices.

        Returns
        -------
        rotated : Tensor, shape (6, N)
            Elements of the rotated tensors.
        """
        return rotate_tensors(tensors, rotations)

    def turn(
        self, channels: torch.Tensor, u: torch.Tensor, linear: torch.Tensor
    ) -> None:
        """Rotate all tensors of an image in place, by a compiled loop.

        Parameters
        ----------
        channels : Tensor, shape (1, 6, *shape)
            The image.
        u, linear : Tensor
            See `dipy_dl_reg.geometry.kernels.directions.turn_tensors`.
        """
        kernels.turn_tensors(channels, u, linear)


class HarmonicRotation:
    r"""Rotation of functions on the sphere in a basis of even spherical harmonics.

    The rotated function is :math:`f'(d) = f(R^\top d)`, exactly: it is evaluated in as
    many directions as there are coefficients, which determine those of the result.

    Parameters
    ----------
    directions : ndarray, shape (M, 3)
        Unit vectors in which the basis is given; at least as many as coefficients.
    values : ndarray, shape (M, C)
        The C functions of the basis, even and of order 2 or 4, in these directions.

    Raises
    ------
    ValueError
        If the functions are not even polynomials of degree 4 at most, or not
        independent.
    """

    def __init__(self, directions: np.ndarray, values: np.ndarray) -> None:
        directions, values = (np.asarray(x, np.float64) for x in (directions, values))
        monomials = _monomials(np.moveaxis(directions, -1, 0))
        polynomials = np.linalg.lstsq(monomials.T, values, rcond=None)[0]
        if not np.allclose(monomials.T @ polynomials, values, atol=1e-6):
            raise ValueError(
                "values must be spherical harmonics of even order up to 4 in these "
                "directions."
            )
        chosen = spread_directions(values.shape[1], hemisphere=True)
        matrix = _monomials(chosen.T).T @ polynomials
        if np.linalg.cond(matrix) > 1e4:
            raise ValueError("values must be those of independent functions.")
        self.directions = torch.from_numpy(chosen)
        self.polynomials = torch.from_numpy(polynomials)
        self.inverse = torch.from_numpy(np.linalg.inv(matrix))

    @property
    def count(self) -> int:
        """Number of channels: of functions of the basis."""
        return len(self.inverse)

    def __call__(
        self, harmonics: torch.Tensor, rotations: torch.Tensor
    ) -> torch.Tensor:
        """Rotate functions.

        Parameters
        ----------
        harmonics : Tensor, shape (C, N)
            Coefficients of N functions.
        rotations : Tensor, shape (3, 3, N)
            Matrices.

        Returns
        -------
        rotated : Tensor, shape (C, N)
            Coefficients of the rotated functions.
        """
        directions = self.directions.to(rotations)
        turned = [directions @ rotations[:, axis] for axis in range(3)]
        coefficients = self.polynomials.to(harmonics) @ harmonics
        return self.inverse.to(harmonics) @ _evaluate(coefficients, turned)

    def turn(
        self, channels: torch.Tensor, u: torch.Tensor, linear: torch.Tensor
    ) -> None:
        """Rotate all functions of an image in place, by a compiled loop.

        Parameters
        ----------
        channels : Tensor, shape (1, C, *shape)
            The image.
        u, linear : Tensor
            See `dipy_dl_reg.geometry.kernels.directions.turn_harmonics`.
        """
        kernels.turn_harmonics(
            channels,
            u,
            linear,
            polynomials=self.polynomials.float().contiguous(),
            directions=self.directions.float().contiguous(),
            inverse=self.inverse.float().contiguous(),
        )


#: Exponents of x, y and z of the 15 monomials of degree 4.
_EXPONENTS = [(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]


def _monomials(points: np.ndarray) -> np.ndarray:
    """The monomials of degree 4 of unit vectors (3, M): (15, M)."""
    x, y, z = points
    return np.stack([x**a * y**b * z**c for a, b, c in _EXPONENTS])


def _evaluate(
    coefficients: torch.Tensor, points: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Values of N polynomials of degree 4, each at M points of its own: (M, N).

    By Horner's rule in x and y, with the powers of z.
    """
    x, y, z = points
    rows = dict(zip(_EXPONENTS, coefficients))
    powers = [torch.ones_like(z), z, z * z]
    powers += [powers[2] * z, powers[2] * powers[2]]
    value = torch.zeros_like(z)
    for a in range(4, -1, -1):
        inner = torch.zeros_like(z)
        for b in range(4 - a, -1, -1):
            term = rows[a, b, 4 - a - b] * powers[4 - a - b]
            inner = term.addcmul_(inner, y)
        value = inner.addcmul_(value, x)
    return value


class Reorientation:
    """Reorientation of the warped moving image, for `dipy_dl_reg.geometry.pair.Pair`.

    Parameters
    ----------
    rotation : TensorRotation or HarmonicRotation
        Determines what the channels are.
    first : int, optional
        Number of the first of these channels.  Others, such as FA, are not changed.
    """

    def __init__(
        self, rotation: TensorRotation | HarmonicRotation, *, first: int = 0
    ) -> None:
        self.rotation, self.first = rotation, first

    def __call__(
        self, warped: torch.Tensor, u: torch.Tensor, grid: Grid, prealign: np.ndarray
    ) -> torch.Tensor:
        """Turn the directions of a warped image with its anatomy.

        Parameters
        ----------
        warped : Tensor, shape (1, first + C or more, *shape)
            Moving channels at the displaced voxels of the static grid, with components
            along the axes of moving's world.  It may be overwritten.
        u : Tensor, shape (1, 3, *shape)
            The displacement, in voxels of the static grid.
        grid : Grid
            The static grid.
        prealign : ndarray, shape (4, 4)
            Static world to moving world.

        Returns
        -------
        warped : Tensor, shape (1, first + C or more, *shape)
            With components along the axes of static's world.
        """
        warped = warped.contiguous()
        channels = warped[:, self.first : self.first + self.rotation.count]
        linear = _linear_maps(grid, prealign).to(u)
        if dispatch.supports(channels, u):
            self.rotation.turn(channels, u, linear)
        else:
            self._turn(channels[0].flatten(1), u, linear)
        return warped

    def _turn(
        self, channels: torch.Tensor, u: torch.Tensor, linear: torch.Tensor
    ) -> None:
        """Rotate channels (C, N) in place, without compiled loops."""
        constant, left, right = linear
        slopes = torch.stack([derivative(u, axis)[0] for axis in range(3)])
        slopes = slopes.flatten(2).flatten(0, 1)
        matrix = torch.einsum("ik,lj->ijlk", left, right).reshape(9, 9)
        # The background of diffusion images is 0 and has no directions.
        for voxels in (channels != 0).any(0).nonzero()[:, 0].split(_BLOCK):
            jacobians = torch.addmm(constant.reshape(9, 1), matrix, slopes[:, voxels])
            rotations = polar_rotation(jacobians.view(3, 3, -1)).transpose(0, 1)
            channels[:, voxels] = self.rotation(channels[:, voxels], rotations)


def _linear_maps(grid: Grid, prealign: np.ndarray) -> torch.Tensor:
    """Matrices P, L and M (3, 3, 3) of the Jacobian ``J = P + L (du/dx) M``.

    P is the linear part of the prealign; with that of the affine of the grid, A,
    ``L = P A`` and ``M = inv(A)``.
    """
    matrix, linear = prealign[:3, :3], grid.affine[:3, :3]
    return torch.from_numpy(np.stack([matrix, matrix @ linear, np.linalg.inv(linear)]))
