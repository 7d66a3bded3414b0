"""MIND: differences of self-similarity descriptors, for any two contrasts."""

from collections.abc import Iterable, Sequence

import torch

from dipy_dl_reg.metrics.base import BoundMetric, Metric
from dipy_dl_reg.metrics.self_similarity import SelfSimilarity
from dipy_dl_reg.validation import check_number, check_whole_number


class MINDMetric(Metric):
    r"""Mean squared difference of self-similarity descriptors, for any two contrasts.

    Each voxel is described by the differences between patches around it, which are
    almost independent of the contrast :footcite:p:`Heinrich2013`; see
    the notes for the formula.
    In contrast to mutual information, this metric is local: it is robust to a bias
    field, and to a tissue whose intensity differs between regions.

    For two images of the same subject, such as a b0 and its T1, which differ only by
    distortion, a smoother field is better: ``sigma_field=1.4`` or more.

    Parameters
    ----------
    dim : {2, 3}, optional
        Dimension of the images.
    sigma_diff : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the update of
        the field.
    radius : int, optional
        A patch is ``2 radius + 1`` voxels of the level wide.
    dilation : int or sequence of int, optional
        Distance of the neighbours that are compared, in voxels of the level: one
        number, or one for each axis, for voxels that are longer along one axis.
    floor : float, optional
        Variance, for images scaled to about [0, 1], below which all differences count
        as noise: the descriptor of such a region is the same in all directions.

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    DeepRegistration : takes the metric, or its name ``"MIND"``.
    MIMetric : global, for any contrasts.
    CCMetric : for images of the same contrast.

    Notes
    -----
    With :math:`a` and :math:`b` the steps of `dilation` voxels to two neighbours that
    are not on opposite sides of the voxel (4 pairs in 2D, 12 in 3D), and means over a
    patch of offsets :math:`p`, the descriptor of an image :math:`I` is

    .. math::

        d_{ab}(x) &= \mathrm{mean}_p \, (I(x + a + p) - I(x + b + p))^2 \\
        m_{ab}(x) &= \exp\!\left(-\frac{d_{ab} - \min d}{\mathrm{mean}\, d - \min d
        + \mathrm{floor}}\right)

    with the minimum and the mean over the pairs.  The value is the mean squared
    difference of :math:`m` of the two images.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import torch
    >>> from dipy_dl_reg import MINDMetric
    >>> static = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> metric = MINDMetric(2)
    >>> metric(static, 1 - static) < metric(static, static.flip(-1))
    tensor(True)
    """

    name = "MIND"
    gradient_floor = 0.03
    batched = True
    bytes_per_voxel = 450

    dilation: int | tuple[int, ...]

    def __init__(
        self,
        dim: int | None = None,
        *,
        sigma_diff: float = 1.0,
        radius: int = 1,
        dilation: int | Sequence[int] = 1,
        floor: float = 3e-4,
    ) -> None:
        super().__init__(dim, sigma_diff=sigma_diff)
        self.radius = check_whole_number("radius", radius, low=0)
        if isinstance(dilation, Iterable):
            steps = [check_whole_number("dilation", d, low=1) for d in dilation]
            self.dilation = tuple(steps)
            if dim is not None:
                self._check_dilation(dim)
        else:
            self.dilation = check_whole_number("dilation", dilation, low=1)
        self.floor = check_number("floor", floor, above=True)

    def _check_dilation(self, dim: int) -> None:
        """Raise if there is not one number for each of `dim` axes."""
        if isinstance(self.dilation, tuple) and len(self.dilation) != dim:
            raise ValueError(
                f"dilation must be one number or {dim}, one for each axis, got "
                f"{self.dilation}."
            )

    def _bind(
        self,
        static: torch.Tensor,
        mask: torch.Tensor | None,
        moving: torch.Tensor | None,
    ) -> BoundMetric:
        self._check_dilation(static.ndim - 2)
        return SelfSimilarity(
            static,
            mask,
            radius=self.radius,
            dilation=self.dilation,
            floor=self.floor,
        )
