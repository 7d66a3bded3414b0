"""Inversion of a field, and inverse consistency of a pair of fields."""

import torch

from dipy_dl_reg.geometry.derivatives import derivative
from dipy_dl_reg.geometry.fields import identity, sample, warp
from dipy_dl_reg.geometry.kernels import dispatch
from dipy_dl_reg.geometry.kernels import functions as kernels

#: Longest correction by one call of `enforce_inverse_consistency`, in voxels.
_LONGEST = 0.5


def invert(
    displacement: torch.Tensor,
    *,
    start: torch.Tensor | None = None,
    tolerance: float = 1e-3,
    sweeps: int = 6,
    newton: int = 20,
) -> torch.Tensor:
    """Invert a map: ``v(y) = -u(y + v(y))`` at every voxel.

    A few fixed-point iterations over the whole grid solve this equation at most voxels,
    also for large displacements.  At the other voxels, where the map expands or
    contracts strongly, it is solved by damped Newton steps.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *shape)
        Field in voxels.
    start : Tensor, shape (1, D, *shape), optional
        First guess; by default ``-u``.
    tolerance : float, optional
        Residual ``|v + u(y + v)|``, in voxels, below which a point has converged; for a
        point that does not converge, the best value is returned.
    sweeps : int, optional
        Fixed-point sweeps.
    newton : int, optional
        Maximum number of Newton steps for each of the other points.

    Returns
    -------
    v : Tensor, shape (1, D, *shape)
        Field of the inverse, in voxels.
    """
    u = displacement
    v = -u if start is None else start
    for _ in range(sweeps):
        new = warp(u, v).neg_()
        residual = (new - v).square_().sum(1).sqrt_().flatten()
        v = new
        if float(residual.max()) <= tolerance:
            return v
    # The residual of the last sweep belongs to the field before this sweep; `_newton`
    # first computes the residual of the current field.
    left = (residual > tolerance).nonzero()[:, 0]
    v = v.clone()
    flat = v.flatten(2)[0]
    grid = identity(u.shape[2:], dtype=u.dtype, device=u.device).flatten(2)[0]
    flat[:, left] = _newton(u, grid[:, left], flat[:, left], tolerance, newton)
    return v


def _newton(
    u: torch.Tensor, y: torch.Tensor, v: torch.Tensor, tolerance: float, steps: int
) -> torch.Tensor:
    """Solve ``v + u(y + v) = 0`` at points; a step that increases it is halved."""
    dim = len(y)
    derivatives = torch.cat([derivative(u, axis) for axis in range(dim)], 1)
    eye = torch.eye(dim, dtype=u.dtype, device=u.device)

    def residual(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r = v + sample(u, y + v)
        return r, r.square().sum(0).sqrt()

    r, size = residual(v)
    damping = torch.ones_like(size)
    for _ in range(steps):
        if not bool((size > tolerance).any()):
            break
        # The derivatives are ordered (axis, component), the matrix (component, axis).
        matrix = sample(derivatives, y + v).reshape(dim, dim, -1).permute(2, 1, 0) + eye
        move = torch.linalg.solve_ex(matrix, r.T[..., None])[0][..., 0].T
        move = move.nan_to_num(0, 0, 0).clamp(-5, 5)
        trial = v - damping * move
        new_r, new_size = residual(trial)
        better = new_size < size
        v = torch.where(better, trial, v)
        r, size = torch.where(better, new_r, r), torch.where(better, new_size, size)
        damping = torch.where(better, (2 * damping).clamp(max=1), damping / 2)
    return v


def round_trip(
    first: torch.Tensor, second: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure the distance of each voxel from its position after both maps.

    Parameters
    ----------
    first, second : Tensor, shape (1, D, *shape)
        Fields in voxels of one grid.

    Returns
    -------
    distance : Tensor, shape (1, 1, *shape)
        ``|first(x) + second(x + first(x))|`` in voxels; 0 where not inside.
    inside : Tensor of bool, shape (1, 1, *shape)
        Where ``x + first(x)`` lies on the grid; outside, the second field is unknown.
    """
    error = warp(second, first).add_(first).square_().sum(1, keepdim=True).sqrt_()
    inside = _stays_inside(first)
    return error.masked_fill_(~inside, 0), inside


def _stays_inside(u: torch.Tensor) -> torch.Tensor:
    """Where ``x + u(x)`` lies on the grid: bool, shape (1, 1, *shape)."""
    inside = torch.ones_like(u[:, :1], dtype=torch.bool)
    for axis, size in enumerate(u.shape[2:]):
        line = torch.arange(size, dtype=u.dtype, device=u.device)
        place = u[:, axis : axis + 1] + line.view(-1, *(1,) * (u.ndim - 3 - axis))
        inside &= (place >= 0) & (place <= size - 1)
    return inside


def enforce_inverse_consistency(
    u: torch.Tensor,
    v: torch.Tensor,
    *,
    out: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce the inverse consistency error of two fields.

    Each field is changed by half a Newton step that reduces its inverse consistency
    error.  For ``u`` the error is ``e(x) = u(x) + v(x + u(x))`` and the step is
    ``(1 + Du(x)) e(x)``, because ``1 + Dv`` at ``x + u(x)`` is the inverse of
    ``1 + Du`` at ``x``; for ``v`` likewise.  (Subtracting ``e / 2`` alone diverges
    where a map expands fourfold.)  Where ``x + u(x)`` is outside the grid, `v` is
    unknown and `u` is not changed.

    A sampled inverse is exact only at its voxels; between them there is an error of
    interpolation.  If both fields are changed, the errors of both directions decrease.
    If one field is recomputed from the other, the error only moves between them.

    Parameters
    ----------
    u, v : Tensor, shape (1, D, *shape)
        Fields in voxels of one grid, nearly inverse to each other.
    out : tuple of Tensor, optional
        Tensors for the results; they must be neither of the two fields.

    Returns
    -------
    u, v : Tensor, shape (1, D, *shape)
        New fields.
    """
    return _half_newton_step(u, v, out[0]), _half_newton_step(v, u, out[1])


def _half_newton_step(
    u: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Move `u` half a Newton step towards the inverse of `v`, at most half a voxel."""
    if dispatch.supports(u, v, out):
        return kernels.half_newton_step(u, v, longest=_LONGEST, out=out)
    error = warp(v, u).add_(u)
    step, slope = error.clone(), torch.empty_like(u)
    for axis in range(u.shape[1]):
        derivative(u, axis, out=slope)
        step.addcmul_(slope, error[:, axis : axis + 1])
    length = step.square().sum(1, keepdim=True).sqrt_()
    step *= _LONGEST / length.clamp_min_(2 * _LONGEST)
    step.masked_fill_(~_stays_inside(u), 0)
    return torch.sub(u, step, out=out)
