r"""Thin-plate splines: the smooth map through pairs of points.

.. math:: f(x) = A x + b + \sum_i w_i \phi(|x - p_i|), \quad
          \sum_i w_i = 0, \quad \sum_i w_i p_i^T = 0

with the points centred and divided by their root mean square distance from the centre,
L, so that the result does not depend on the unit of length.  All tensors are float64.
`thin_plate_grid` computes the spline on a voxel grid.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

#: A point set is flat if its smallest extent is at most this fraction of its largest.
_FLAT = 1e-5
#: Newton steps of the inverse stay within this distance of their start, in scales of
#: the spline: at larger distances the round-off of the weights is as large as the
#: points.
_REACH = 1e3
#: Maximum number of values in a temporary tensor, so that it fits a processor's cache.
_CHUNK = 2**18

#: Kernels by the names that `ThinPlateSplineRegistration(kernel=...)` takes.
KERNELS = ("thin_plate_spline", "biharmonic")


class ThinPlateSpline(NamedTuple):
    """A map of the plane or of space, from `fit_spline`.

    Attributes
    ----------
    points : Tensor, shape (N, D)
        Centres of the kernels: ``(p - centre) / scale``.
    weights : Tensor, shape (N, D)
        Weights of the kernels.
    affine : Tensor, shape (D + 1, D + 1)
        The polynomial part, in the unscaled coordinates.
    nearest_affine : Tensor, shape (D + 1, D + 1)
        The affine map nearest to the targets, by least squares.
    centre : Tensor, shape (D,)
        Mean of the points.
    scale : float
        Their root mean square distance from it, L.
    logarithmic : bool
        Whether the kernel is ``r**2 log(r)``, not ``-r``.
    """

    points: torch.Tensor
    weights: torch.Tensor
    affine: torch.Tensor
    nearest_affine: torch.Tensor
    centre: torch.Tensor
    scale: float
    logarithmic: bool


def fit_spline(
    points: torch.Tensor,
    targets: torch.Tensor,
    *,
    regularization: float = 0.0,
    kernel: str = "thin_plate_spline",
) -> ThinPlateSpline:
    r"""Fit a thin-plate spline that maps points to targets :footcite:p:`Bookstein1989`.

    It minimizes, with :math:`\lambda` the regularization,

    .. math:: \frac{1}{N} \sum_i |f(p_i) - q_i|^2 + \lambda\, w^T K w,
              \quad K_{ij} = \phi(|p_i - p_j| / L)

    and for :math:`\lambda = 0` reaches every target.

    Parameters
    ----------
    points, targets : Tensor, shape (N, D)
        Corresponding points; any real type.
    regularization : float, optional
        :math:`\lambda`, without a unit.  SciPy's `RBFInterpolator` has a `smoothing`
        that is N :math:`\lambda` L**2 for ``r**2 log(r)``, N :math:`\lambda` L for
        ``-r``.
    kernel : {"thin_plate_spline", "biharmonic"}, optional
        The first is ``r**2 log(r)`` in every dimension, as SciPy has it; the second
        is ``r**2 log(r)`` in 2D and ``-r`` in 3D (SciPy's ``"linear"`` with
        ``degree=1``), which has the least integral of squared second derivatives.

    Returns
    -------
    spline : ThinPlateSpline
        For `evaluate_spline`.

    Raises
    ------
    ValueError
        If the points are too few, or lie on one line or plane.

    References
    ----------
    .. footbibliography::
    """
    points, targets = points.double(), targets.double()
    count, dim = points.shape
    if is_flat(points):
        raise ValueError(
            f"points must be at least {dim + 1} points that do not lie on one "
            f"{'line' if dim == 2 else 'plane'}, got {count}."
        )
    centre = points.mean(0)
    scale = float((points - centre).square().sum(1).mean().sqrt())
    x = (points - centre) / scale
    logarithmic = kernel == "thin_plate_spline" or dim == 2
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    # The system is solved for the residual of the best affine map: the affine part may
    # be so large that the rest would lose precision.
    nearest = _fit_linear(ones, targets)
    system = x.new_zeros(count + dim + 1, count + dim + 1)
    system[:count, :count] = evaluate_kernel(_squared_distances(x, x), logarithmic)
    system.diagonal()[:count] += count * regularization
    system[:count, count:], system[count:, :count] = ones, ones.T
    right = x.new_zeros(count + dim + 1, dim)
    right[:count] = targets - ones @ nearest
    solved = _solve(system, right)
    # The sums of the weights must be exactly 0; otherwise errors grow with distance.
    weights = solved[:count] - ones @ _fit_linear(ones, solved[:count])
    linear = nearest + solved[count:]
    return ThinPlateSpline(
        x,
        weights,
        _unscale(linear, centre, scale),
        _unscale(nearest, centre, scale),
        centre,
        scale,
        logarithmic,
    )


def is_flat(points: torch.Tensor) -> bool:
    """Whether points lie on one line (2D) or plane (3D), or are too few.

    Parameters
    ----------
    points : Tensor, shape (N, D)
        The points.

    Returns
    -------
    flat : bool
        True if the smallest extent of the points is at most 1e-5 of the largest.
    """
    if len(points) <= points.shape[1]:
        return True
    points = points.double()
    extents = torch.linalg.svdvals(points - points.mean(0))
    return bool(extents[-1] <= _FLAT * extents[0])


def _fit_linear(columns: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Least squares of few columns of about equal size, by the normal equations.

    Unlike those of `torch.linalg.lstsq`, the results are the same bits in each call.
    """
    return _solve(columns.T @ columns, columns.T @ values)


def _solve(system: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve linear equations, with one step of iterative refinement."""
    factors = torch.linalg.lu_factor(system)
    solved = torch.linalg.lu_solve(*factors, right)
    return solved + torch.linalg.lu_solve(*factors, right - system @ solved)


def _unscale(linear: torch.Tensor, centre: torch.Tensor, scale: float) -> torch.Tensor:
    """The matrix of ``[(x - centre) / scale, 1] @ linear``."""
    dim = len(centre)
    matrix = torch.eye(dim + 1, dtype=linear.dtype, device=linear.device)
    matrix[:dim, :dim] = linear[:dim].T / scale
    matrix[:dim, dim] = linear[dim] - matrix[:dim, :dim] @ centre
    return matrix


def _squared_distances(x: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Squared distances of two sets of points, (C, D) and (N, D): (C, N)."""
    squares = x.new_zeros(len(x), len(points))
    for one, other in zip(x.unbind(1), points.unbind(1)):
        squares.add_((one[:, None] - other).square_())
    return squares


def evaluate_kernel(squares: torch.Tensor, logarithmic: bool) -> torch.Tensor:
    """The kernel's values at squared distances.

    Parameters
    ----------
    squares : Tensor
        Squared distances; overwritten.
    logarithmic : bool
        Whether the kernel is ``r**2 log(r)``, not ``-r``.

    Returns
    -------
    values : Tensor
        In the same memory.
    """
    if not logarithmic:
        return squares.sqrt_().neg_()
    return squares.mul_(squares.clamp(min=1e-37).log_()).mul_(0.5)


def chunks(x: torch.Tensor, count: int) -> Iterator[slice]:
    """Divide points into parts whose distances from all kernels fit the cache.

    Parameters
    ----------
    x : Tensor, shape (M, D)
        The points.
    count : int
        Number of kernels.

    Returns
    -------
    slices : iterator of slice
        Of `x`, in order.
    """
    step = max(1, _CHUNK // count)
    return (slice(first, first + step) for first in range(0, len(x), step))


def evaluate_spline(spline: ThinPlateSpline, x: torch.Tensor) -> torch.Tensor:
    """The spline's values at points.

    Parameters
    ----------
    spline : ThinPlateSpline
        From `fit_spline`.
    x : Tensor, shape (M, D)
        Any real type.

    Returns
    -------
    y : Tensor, shape (M, D)
        ``f(x)``, float64.
    """
    x = x.to(spline.points)
    dim = x.shape[1]
    y = x @ spline.affine[:dim, :dim].T + spline.affine[:dim, dim]
    scaled = (x - spline.centre) / spline.scale
    for chunk in chunks(x, len(spline.points)):
        squares = _squared_distances(scaled[chunk], spline.points)
        y[chunk].addmm_(evaluate_kernel(squares, spline.logarithmic), spline.weights)
    return y


def jacobian_matrix(spline: ThinPlateSpline, x: torch.Tensor) -> torch.Tensor:
    """First derivatives of the spline at points.

    Parameters
    ----------
    spline : ThinPlateSpline
        From `fit_spline`.
    x : Tensor, shape (M, D)
        Any real type.

    Returns
    -------
    matrices : Tensor, shape (M, D, D)
        ``[m, i, j]`` is the derivative of component i along axis j, float64.  A kernel
        ``-r`` has no derivative at its centre; there, this kernel is ignored.
    """
    x = x.to(spline.points)
    dim = x.shape[1]
    matrices = spline.affine[:dim, :dim].repeat(len(x), 1, 1)
    scaled = (x - spline.centre) / spline.scale
    products = spline.weights[:, :, None] * spline.points[:, None] / spline.scale
    for chunk in chunks(x, len(spline.points)):
        squares = _squared_distances(scaled[chunk], spline.points)
        # phi'(r) / r, the factor of the difference vector
        none = squares <= 1e-24
        squares.clamp_(min=1e-24)
        slopes = squares.log_().add_(1) if spline.logarithmic else -squares.rsqrt_()
        slopes.masked_fill_(none, 0)
        here = (slopes @ spline.weights / spline.scale)[:, :, None]
        matrices[chunk] += here * scaled[chunk][:, None]
        matrices[chunk] -= (slopes @ products.flatten(1)).view(-1, dim, dim)
    return matrices


def invert_points(
    spline: ThinPlateSpline,
    y: torch.Tensor,
    *,
    start: torch.Tensor,
    tolerance: float = 1e-9,
    steps: int = 50,
) -> torch.Tensor:
    """Find the points that the spline maps to given points, by damped Newton steps.

    Parameters
    ----------
    spline : ThinPlateSpline
        From `fit_spline`.
    y : Tensor, shape (M, D)
        The given points; any real type.
    start : Tensor, shape (M, D)
        First guess.
    tolerance : float, optional
        Distance from `y`, as a part of the spline's scale, at which a point counts as
        found.
    steps : int, optional
        Maximum number of steps.

    Returns
    -------
    x : Tensor, shape (M, D)
        With ``f(x) = y``, float64; NaN where no point was found.
    """
    y, start = y.to(spline.points), start.to(spline.points)
    x, tolerance, reach = start, tolerance * spline.scale, _REACH * spline.scale
    rest = evaluate_spline(spline, x) - y
    damping = torch.ones_like(rest[:, :1])
    for _ in range(steps):
        size = rest.norm(dim=1, keepdim=True)
        if not bool((size > tolerance).any()):
            break
        move = torch.linalg.solve_ex(jacobian_matrix(spline, x), rest[..., None])[0]
        trial = x - damping * move[..., 0].nan_to_num(0, 0, 0)
        new = evaluate_spline(spline, trial) - y
        near = (trial - start).norm(dim=1, keepdim=True) <= reach
        better = (new.norm(dim=1, keepdim=True) < size) & near
        x, rest = torch.where(better, trial, x), torch.where(better, new, rest)
        damping = torch.where(better, (2 * damping).clamp(max=1), damping / 2)
    found = rest.norm(dim=1, keepdim=True) <= tolerance
    return torch.where(found, x, torch.nan)
