"""`register_dwi_to_template`, which replaces DIPY's function of the same name."""

from __future__ import annotations

from typing import Any

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.testing.decorators import warning_for_keywords
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.dwi_contrasts import make_contrasts, mean_b0
from dipy_dl_reg.diffusion.gradient_tables import check_gradient_table
from dipy_dl_reg.io.input_channels import read_input_channels
from dipy_dl_reg.io.input_image import read_input_image
from dipy_dl_reg.maps.apply import transform_array
from dipy_dl_reg.registration.affine.call import deep_affine_registration
from dipy_dl_reg.registration.affine.steps import AFFINE_STEPS
from dipy_dl_reg.registration.pipeline import DEFORM, deep_registration
from dipy_dl_reg.validation import wrong_value

#: What the series provides for the contrasts of a template.
CONTRASTS = {"T1": "b0", "T2": "b0", "B0": "b0", "FA": "FA", "MD": "MD"}


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
    """Register diffusion data to a template through mean b0, FA or both.

    The interface is that of `dipy.align.register_dwi_to_template`.  In contrast to
    DIPY's function, the affine part is also computed, and the template may consist of
    several images, such as T1 and FA: FA shows the white matter, b0 the ventricles and
    the outer surface of the brain.

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
    template : array, nibabel image, str or Path, dict or pair of these, optional
        The static image.  By default DIPY's MNI template (T2), which DIPY downloads at
        its first use.  Several images are given by their contrasts, such as
        ``{"T1": t1, "FA": fa}``: "T1", "T2" or "b0" is compared with the mean b0
        volume, "FA" and "MD" with a tensor fit of the series (within a mask of the
        brain, by DIPY).  A pair of images is understood as (T1, T2 or b0; FA).
        Contrasts that the series cannot provide are left out, with a message: without
        `gtab`, or with fewer than six directions, no tensor is fitted.
    template_affine : array, shape (4, 4), optional
        Voxels to world of the template; required for arrays.  One for all images.
    reg_method : {"deep", "aff"}, optional
        `deep_registration`, or `deep_affine_registration` alone, which compares one
        image of each side: the first of b0, FA and MD that the template has.
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
        If the series or the table cannot be used, there is no such method, a contrast
        is not known or twice there, or the series provides none of the contrasts.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    transform_dwi, transform_tensor_fit : transform the series or its tensors by the
        map.
    register_tensors : registers two subjects by the directions of their tensors.
    deep_motion_correction : aligns the volumes of the series first.
    dipy.align.register_dwi_to_template : the function that this one replaces.

    Notes
    -----
    Several contrasts are registered together, by one map: b0 is compared with "T1",
    "T2" or "b0", FA with "FA" and MD with "MD".  The affine steps use the first
    contrast of b0, FA and MD that the template has.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import register_dwi_to_template
    >>> x, y, z = np.mgrid[-1:1:16j, -1:1:16j, -1:1:16j]
    >>> template, b0 = (np.exp(-6 * (x**2 + k * y**2 + z**2)) for k in (1, 1.5))
    >>> warped_b0, mapping = register_dwi_to_template(
    ...     b0,
    ...     None,
    ...     dwi_affine=np.eye(4),
    ...     template=template,
    ...     template_affine=np.eye(4),
    ...     pipeline=["deform"],
    ...     metric="SSD",
    ... )
    >>> bool(abs(warped_b0 - template).mean() < 0.3 * abs(b0 - template).mean())
    True
    """
    if reg_method not in ("deep", "aff"):
        raise ValueError(f"reg_method must be 'deep' or 'aff', got {reg_method!r}.")
    if gtab is not None:
        gtab = check_gradient_table(gtab)
    series = read_input_image(dwi, dwi_affine, name="dwi")
    b0 = mean_b0(series.values, gtab)
    if template is None:
        from dipy.data import read_mni_template

        template = read_mni_template()
    named = _name_contrasts(template)
    if reg_method == "aff":
        named = _keep_first_contrast(named)
    images = make_contrasts(series.values, gtab, b0, named)
    static = read_input_channels(
        [image for image, _ in images.values()], template_affine, name="template"
    )
    for name, image in (("dwi", series), ("template", static[0])):
        if image.grid2world is None:
            raise ValueError(f"{name}_affine is required if {name} is an array.")
    given: dict[str, Any] = {
        "moving": [moving for _, moving in images.values()],
        "static": [channel.values for channel in static],
        "moving_affine": series.grid2world,
        "static_affine": static[0].grid2world,
    }
    if len(static) == 1:
        given |= {"moving": given["moving"][0], "static": given["static"][0]}
    if reg_method == "aff":
        return _register_affinely(given, b0, reg_kwargs)
    options = {"pipeline": [*AFFINE_STEPS, DEFORM]} | reg_kwargs
    warped, mapping = deep_registration(**given, **options)
    if len(static) == 1 and given["moving"] is b0:
        return warped, mapping
    return transform_array(mapping, b0), mapping


def _register_affinely(
    given: dict[str, Any], b0: np.ndarray, options: dict[str, Any]
) -> tuple[Any, ...]:
    """Register one image of each side; the b0 volume on the template's grid, matrix."""
    warped, matrix, *others = deep_affine_registration(**given, **options)
    if given["moving"] is not b0:
        affine_map = AffineMap(
            matrix,
            domain_grid_shape=given["static"].shape,
            domain_grid2world=given["static_affine"],
            codomain_grid_shape=b0.shape,
            codomain_grid2world=given["moving_affine"],
        )
        warped = affine_map.transform(b0)
    return warped, matrix, *others


def _keep_first_contrast(named: dict[str, Any]) -> dict[str, Any]:
    """The first of b0, FA and MD; the affine registration compares one image a side."""
    first, *others = named
    if others:
        logger.warning(
            f"The template's {' and '.join(others)} is not used: reg_method='aff' "
            f"compares one image of each side, here {first}."
        )
    return {first: named[first]}


def _name_contrasts(template: Any) -> dict[str, Any]:
    """The images of a template by what the series must provide: b0, FA or MD."""
    if isinstance(template, (list, tuple)):
        if len(template) != 2:
            raise ValueError(
                "template must be one image, a pair (T1, T2 or b0; FA), or a "
                f"dictionary of images by contrast, got {len(template)} images."
            )
        return dict(zip(("b0", "FA"), template))
    if not isinstance(template, dict):
        return {"b0": template}
    if not template:
        raise ValueError("template must have at least one image, got none.")
    named: dict[str, Any] = {}
    for contrast, image in template.items():
        name = CONTRASTS.get(str(contrast).upper())
        if name is None:
            raise wrong_value("template", f"images by {list(CONTRASTS)}", contrast)
        if name in named:
            raise ValueError(
                f"template has two images that would be compared with {name}: give one."
            )
        named[name] = image
    # b0 first, because the affine steps use the first image.
    return {name: named[name] for name in ("b0", "FA", "MD") if name in named}
