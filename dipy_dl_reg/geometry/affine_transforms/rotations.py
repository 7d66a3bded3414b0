"""Rotation matrices and their derivatives by the angles."""

import torch


def rotation_matrices(
    angles: torch.Tensor, dim: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Rotation matrices and their derivatives.

    Parameters
    ----------
    angles : Tensor, shape (B, K)
        In radians: one angle in 2D, three in 3D, or none at all (K = 0).
    dim : {2, 3}
        Dimension of space.

    Returns
    -------
    rotation : Tensor, shape (B, D, D)
        ``R(a)`` in 2D, ``Rz(c) Rx(a) Ry(b)`` in 3D; the identity without angles.
    derivatives : list of Tensor, shape (B, D, D)
        By each of the K angles.
    """
    if angles.shape[1] == 0:
        eye = torch.eye(dim, dtype=angles.dtype, device=angles.device)
        return eye.expand(len(angles), dim, dim), []
    planes = [(0, 1)] if dim == 2 else [(0, 1), (1, 2), (2, 0)]
    # In 3D the factors stand in the order z, x, y of the angles c, a, b.
    order = [0] if dim == 2 else [2, 0, 1]
    pairs = [_plane_rotation(angles[:, k], p, dim) for k, p in zip(order, planes)]
    product = _product([turn for turn, _ in pairs])
    by_angle = [product] * len(order)
    for place, k in enumerate(order):
        factors = [slope if i == place else r for i, (r, slope) in enumerate(pairs)]
        by_angle[k] = _product(factors)
    return product, by_angle


def _plane_rotation(
    angle: torch.Tensor, plane: tuple[int, int], dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotation in the plane of two axes, and its derivative."""
    i, j = plane
    turn = torch.eye(dim, dtype=angle.dtype, device=angle.device)
    turn = turn.repeat(len(angle), 1, 1)
    slope = torch.zeros_like(turn)
    cos, sin = angle.cos(), angle.sin()
    for matrix, c, s in ((turn, cos, sin), (slope, -sin, cos)):
        matrix[:, i, i] = matrix[:, j, j] = c
        matrix[:, i, j], matrix[:, j, i] = -s, s
    return turn, slope


def _product(factors: list[torch.Tensor]) -> torch.Tensor:
    """Matrix product of several factors."""
    result = factors[0]
    for factor in factors[1:]:
        result = result @ factor
    return result
