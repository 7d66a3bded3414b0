"""Families of affine maps and their parameters, as DIPY's transforms have them.

A batch of parameters ``(B, P)`` gives matrices ``(B, D + 1, D + 1)``.  In 3D a rotation
by ``(a, b, c)`` is ``Rz(c) Rx(a) Ry(b)``; with scales ``s`` the linear part is
``diag(s) R``.  Angles are in radians, everything is float64 on the CPU: there are a
dozen numbers.
"""

from dataclasses import dataclass

import torch

_EXACT = {"dtype": torch.float64, "device": "cpu"}


@dataclass(frozen=True)
class AffineTransform:
    """One kind of affine map.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    dim : {2, 3}
        Of space.
    """

    kind: str
    dim: int

    def __post_init__(self):
        if self.kind not in KINDS or self.dim not in (2, 3):
            raise ValueError(
                f"a family is one of {sorted(KINDS)} in 2D or 3D, got {self.kind!r} in "
                f"{self.dim}D."
            )

    @property
    def angles(self):
        """How many parameters are angles; they come first."""
        turns = self.kind == "rotation" or self.kind.startswith("rigid")
        return {2: 1, 3: 3}[self.dim] if turns else 0

    @property
    def shifts(self):
        """Whether there is a free translation, so that any point may be the centre."""
        return self.kind not in ("rotation", "scaling")

    @property
    def scales(self):
        """How many parameters are scales; they come last."""
        return {"scaling": 1, "rigid_isoscaling": 1, "rigid_scaling": self.dim}.get(
            self.kind, 0
        )

    @property
    def count(self):
        """Number of parameters."""
        if self.kind == "affine":
            return self.dim * (self.dim + 1)
        return self.angles + self.dim * self.shifts + self.scales

    def identity(self):
        """Parameters of the identity.

        Returns
        -------
        theta : Tensor, shape (1, P)
            Of a batch of one.
        """
        if self.kind == "affine":
            return torch.eye(self.dim, self.dim + 1, **_EXACT).view(1, -1)
        theta = torch.zeros(1, self.count, **_EXACT)
        theta[:, self.count - self.scales :] = 1
        return theta

    def matrix(self, theta):
        """Matrices of a batch of parameters.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        matrix : Tensor, shape (B, D + 1, D + 1)
            The last row is 0 ... 0 1.
        """
        top = self._evaluate(theta, slopes=False)[0]
        last = torch.eye(self.dim + 1, dtype=theta.dtype, device=theta.device)[-1:]
        return torch.cat([top, last.expand(len(theta), 1, -1)], 1)

    def array(self, theta):
        """The matrix of one set of parameters, both as arrays.

        Parameters
        ----------
        theta : ndarray, shape (P,)
            Parameters.

        Returns
        -------
        matrix : ndarray, shape (D + 1, D + 1)
            As of DIPY's `param_to_matrix`.
        """
        theta = torch.as_tensor(theta, **_EXACT)
        return self.matrix(theta[None])[0].numpy()

    def jacobian(self, theta):
        """Derivatives of the matrices by the parameters.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            Float64.

        Returns
        -------
        jacobian : Tensor, shape (B, P, D, D + 1)
            Of the rows but the last, which never changes.
        """
        return self._evaluate(theta, slopes=True)[1]

    def change_centre(self, theta, centre):
        """Parameters of the same maps, about another origin.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
            With the origin as the centre.
        centre : Tensor, shape (D,) or (B, D)
            ``T(-centre) M(theta) T(centre)`` is what comes out; a family without a
            translation knows the origin only, and stays.

        Returns
        -------
        theta : Tensor, shape (B, P)
            A new one.
        """
        theta = theta.clone()
        if not self.shifts:
            return theta
        linear = self.matrix(theta)[:, :-1, :-1]
        turned = (linear @ centre[..., None]).squeeze(-1)
        self._translation(theta).add_(turned - centre)
        return theta

    def _translation(self, theta):
        """View of the translation among the parameters, (B, D)."""
        if self.kind == "affine":
            return theta.view(-1, self.dim, self.dim + 1)[:, :, -1]
        return theta[:, self.angles : self.angles + self.dim]

    def _evaluate(self, theta, slopes):
        """Rows but the last, and their derivatives (None unless wanted)."""
        batch, dim = len(theta), self.dim
        jacobian = theta.new_zeros(batch, self.count, dim, dim + 1) if slopes else None
        if self.kind == "affine":
            if slopes:
                own = torch.eye(self.count, dtype=theta.dtype, device=theta.device)
                jacobian[:] = own.view(self.count, dim, dim + 1)
            return theta.view(batch, dim, dim + 1), jacobian
        top = theta.new_zeros(batch, dim, dim + 1)
        turn, by_angle = _rotation(theta[:, : self.angles], dim)
        scale = theta[:, self.count - self.scales :].expand(batch, -1)
        full = scale.expand(batch, dim) if self.scales else theta.new_ones(batch, dim)
        top[:, :, :dim] = full[:, :, None] * turn
        if self.shifts:
            top[:, :, dim] = self._translation(theta)
        if slopes:
            for k in range(self.angles):
                jacobian[:, k, :, :dim] = full[:, :, None] * by_angle[k]
            for d in range(dim * self.shifts):
                jacobian[:, self.angles + d, d, dim] = 1
            first = self.count - self.scales
            if self.scales == 1:
                jacobian[:, first, :, :dim] = turn
            for d in range(dim if self.scales > 1 else 0):
                jacobian[:, first + d, d, :dim] = turn[:, d]
        return top, jacobian


def _rotation(angles, dim):
    """Rotation matrices (B, D, D), and a list of their derivatives by each angle."""
    if angles.shape[1] == 0:
        eye = torch.eye(dim, dtype=angles.dtype, device=angles.device)
        return eye.expand(len(angles), dim, dim), []
    planes = [(0, 1)] if dim == 2 else [(0, 1), (1, 2), (2, 0)]
    # In 3D the factors stand in the order z, x, y of the angles c, a, b.
    order = [0] if dim == 2 else [2, 0, 1]
    pairs = [_plane(angles[:, k], p, dim) for k, p in zip(order, planes)]
    product = _product([turn for turn, _ in pairs])
    by_angle = [None] * len(order)
    for place, k in enumerate(order):
        factors = [slope if i == place else r for i, (r, slope) in enumerate(pairs)]
        by_angle[k] = _product(factors)
    return product, by_angle


def _plane(angle, plane, dim):
    """Rotation in a plane of two axes, and its derivative."""
    i, j = plane
    turn = torch.eye(dim, dtype=angle.dtype, device=angle.device)
    turn = turn.repeat(len(angle), 1, 1)
    slope = torch.zeros_like(turn)
    cos, sin = angle.cos(), angle.sin()
    for matrix, c, s in ((turn, cos, sin), (slope, -sin, cos)):
        matrix[:, i, i] = matrix[:, j, j] = c
        matrix[:, i, j], matrix[:, j, i] = -s, s
    return turn, slope


def _product(factors):
    result = factors[0]
    for factor in factors[1:]:
        result = result @ factor
    return result


#: What DIPY's transforms are, by the names that its pipelines give them.
KINDS = {
    "translation": "no more than that",
    "rotation": "about the origin",
    "rigid": "rotation and translation",
    "scaling": "one scale, about the origin",
    "rigid_isoscaling": "rigid, and one scale",
    "rigid_scaling": "rigid, and a scale for each axis",
    "affine": "any matrix",
}
