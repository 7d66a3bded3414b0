"""Images of a diffusion series that can be compared with a template: b0, FA and MD."""

from __future__ import annotations

from typing import Any

from dipy.core.gradients import GradientTable
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.gradient_tables import LEAST_DIRECTIONS

#: Largest fraction of the largest singular value of the tensor's design matrix that
#: counts as 0: the directions then do not determine a tensor.
_SINGULAR = 1e-3


def mean_b0(data: np.ndarray, gtab: GradientTable | None) -> np.ndarray:
    """Compute the mean of a series' b0 volumes.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, N), or (X, Y, Z) without a table
        The series.
    gtab : GradientTable or None
        Its gradient table; with None, `data` is a b0 volume.

    Returns
    -------
    b0 : ndarray, shape (X, Y, Z)
        The mean.

    Raises
    ------
    ValueError
        If the shape of the series does not fit the table, or there is no b0 volume.
    """
    if gtab is None:
        if data.ndim != 3:
            raise ValueError(f"dwi without gtab must be 3D, got shape {data.shape}.")
        return data
    chosen = np.asarray(gtab.b0s_mask)
    if data.ndim != 4 or data.shape[3] != len(chosen):
        raise ValueError(
            f"dwi must be 4D with {len(chosen)} volumes, as many as gtab has, got "
            f"shape {data.shape}."
        )
    if not chosen.any():
        raise ValueError("gtab has no b0 volume: see GradientTable's b0_threshold.")
    return data[..., chosen].mean(axis=3)


def make_contrasts(
    data: np.ndarray,
    gtab: GradientTable | None,
    b0: np.ndarray,
    template: dict[str, Any],
) -> dict[str, tuple[Any, np.ndarray]]:
    """Pair the images of a template with those of a series.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, N) or (X, Y, Z)
        The series.
    gtab : GradientTable or None
        Its gradient table.
    b0 : ndarray, shape (X, Y, Z)
        The mean b0 volume.
    template : dict
        Images of the template, by "b0", "FA" and "MD".

    Returns
    -------
    images : dict of tuple
        The template's and the series' image of each contrast that both have.

    Raises
    ------
    ValueError
        If they have none in common.
    """
    maps = {"b0": b0}
    wanted = [name for name in template if name != "b0"]
    if wanted and has_tensor(gtab):
        maps |= fit_tensor_maps(data, gtab, b0)
    missing = [name for name in template if name not in maps]
    if len(missing) == len(template):
        raise ValueError(
            f"template has {' and '.join(missing)} only, which dwi does not provide: a "
            f"tensor requires gtab with at least {LEAST_DIRECTIONS} directions."
        )
    if missing:
        logger.warning(
            f"The template's {' and '.join(missing)} is not used: a tensor requires "
            f"gtab with at least {LEAST_DIRECTIONS} directions."
        )
    return {name: (template[name], maps[name]) for name in template if name in maps}


def has_tensor(gtab: GradientTable | None) -> bool:
    """Whether the directions of a gradient table determine a diffusion tensor.

    Parameters
    ----------
    gtab : GradientTable or None
        The table.

    Returns
    -------
    determined : bool
        False without a table, or if fewer than six directions are independent.
    """
    if gtab is None:
        return False
    x, y, z = np.asarray(gtab.bvecs)[~np.asarray(gtab.b0s_mask)].T
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], 1)
    if len(design) < LEAST_DIRECTIONS:
        return False
    sizes = np.linalg.svd(design, compute_uv=False)
    return bool(sizes[-1] > _SINGULAR * sizes[0])


def fit_tensor_maps(
    data: np.ndarray, gtab: GradientTable, b0: np.ndarray
) -> dict[str, np.ndarray]:
    """Fit a tensor by DIPY within the brain, and compute its FA and MD.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, N)
        The series.
    gtab : GradientTable
        Its gradient table.
    b0 : ndarray, shape (X, Y, Z)
        The mean b0 volume, from which the mask of the brain is made (`median_otsu`).

    Returns
    -------
    maps : dict of ndarray, shape (X, Y, Z)
        "FA" and "MD", 0 outside the brain.
    """
    from dipy.reconst.dti import TensorModel
    from dipy.segment.mask import median_otsu

    values = np.nan_to_num(np.asarray(data, dtype=np.float64))
    _, mask = median_otsu(np.nan_to_num(np.asarray(b0, np.float64)))
    fit = TensorModel(gtab, fit_method="WLS", min_signal=1e-6).fit(values, mask=mask)
    fa = np.where(mask, np.nan_to_num(fit.fa), 0).clip(0, 1)
    md = np.where(mask, np.nan_to_num(fit.md), 0).clip(0)
    return {"FA": fa.astype(np.float32), "MD": md.astype(np.float32)}
