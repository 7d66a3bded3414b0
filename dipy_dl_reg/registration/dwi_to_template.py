"""`register_dwi_to_template`, which replaces DIPY's function of the same name."""

from __future__ import annotations

from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.core.gradients import GradientTable, gradient_table
from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.io.input_image import read_input_image
from dipy_dl_reg.registration.affine.call import deep_affine_registration
from dipy_dl_reg.registration.affine.steps import AFFINE_STEPS
from dipy_dl_reg.registration.pipeline import DEFORM, deep_registration


@warning_for_keywords()
def register_dwi_to_template(
    dwi: Any,
    gtab: Any,
    *,
    dwi_affine: np.ndarray | None = None,
    template: Any = None,
    template_affine: np.ndarray | None = None,
    reg_method: str = "deep",
    **reg_kwargs: Any,
) -> tuple[np.ndarray, DiffeomorphicMap | np.ndarray]:
    """Register diffusion data to a template through the mean of its b0 volumes.

    The interface is that of `dipy.align.register_dwi_to_template`.  In contrast to
    DIPY's function, the affine part is also computed.

    Parameters
    ----------
    dwi : array, nibabel image, str or Path
        The moving image: a 4D series whose volumes are aligned to each other or, with
        ``gtab=None``, a 3D b0 volume.
    gtab : GradientTable, pair of (bvals, bvecs), or None
        Determines which volumes are b0; bvals and bvecs may be files.
    dwi_affine : array, shape (4, 4), optional
        Voxels to world of the series.  Required for an array; by default the affine in
        the file.
    template : array, nibabel image, str or Path, optional
        The static image.  By default DIPY's MNI template (T2), which DIPY downloads at
        its first use.
    template_affine : array, shape (4, 4), optional
        Voxels to world of the template; required for an array.
    reg_method : {"deep", "aff"}, optional
        `deep_registration`, or `deep_affine_registration` alone.
    **reg_kwargs : dict
        Passed to that function.  Here, the default pipeline of `deep_registration` is
        centre of mass, translation, rigid, affine, deform.

    Returns
    -------
    warped_b0 : ndarray, shape of the template
        The mean b0 volume on the template's grid.
    mapping : DiffeomorphicMap or ndarray, shape (4, 4)
        The map from the template (static) to the series (moving); with
        ``reg_method="aff"`` the matrix.

    Raises
    ------
    ValueError
        If the series or the table cannot be used, or there is no such method.
    FileNotFoundError
        If a file is missing.
    """
    if reg_method not in ("deep", "aff"):
        raise ValueError(f"reg_method must be 'deep' or 'aff', got {reg_method!r}.")
    series = read_input_image(dwi, dwi_affine, name="dwi")
    b0 = _mean_b0(series.values, gtab)
    if template is None:
        from dipy.data import read_mni_template

        template = read_mni_template()
    static = read_input_image(template, template_affine, name="template")
    for name, image in (("dwi", series), ("template", static)):
        if image.grid2world is None:
            raise ValueError(f"{name}_affine is required if {name} is an array.")
    given = {
        "moving": b0,
        "static": static.values,
        "moving_affine": series.grid2world,
        "static_affine": static.grid2world,
    }
    if reg_method == "aff":
        return deep_affine_registration(**given, **reg_kwargs)
    options = {"pipeline": [*AFFINE_STEPS, DEFORM]} | reg_kwargs
    return deep_registration(**given, **options)


def _mean_b0(data: np.ndarray, gtab: Any) -> np.ndarray:
    """The mean of a series' b0 volumes."""
    if gtab is None:
        if data.ndim != 3:
            raise ValueError(f"dwi without gtab must be 3D, got shape {data.shape}.")
        return data
    if isinstance(gtab, (list, tuple)) and len(gtab) == 2:
        gtab = gradient_table(gtab[0], bvecs=gtab[1])
    if not isinstance(gtab, GradientTable):
        raise ValueError(
            "gtab must be a GradientTable, a pair (bvals, bvecs) or None, got "
            f"{type(gtab).__name__}."
        )
    chosen = np.asarray(gtab.b0s_mask)
    if data.ndim != 4 or data.shape[3] != len(chosen):
        raise ValueError(
            f"dwi must be 4D with {len(chosen)} volumes, as many as gtab has, got "
            f"shape {data.shape}."
        )
    if not chosen.any():
        raise ValueError("gtab has no b0 volume: see GradientTable's b0_threshold.")
    return data[..., chosen].mean(axis=3)
