"""Raw images in, aligned images out: the affine steps and the deformable one in a call.

`deep_registration` stands in the place of DIPY's `syn_registration` and, with a
`pipeline`, of `affine_registration` before it; `register_dwi_to_template` in that of
DIPY's function of this name.
"""

from inspect import signature

from dipy.core.gradients import GradientTable, gradient_table
from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.io.image_kinds import is_slice, match_dimensions, plane_axes
from dipy_dl_reg.io.images import read_image
from dipy_dl_reg.io.masks import fill_masked, read_mask
from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.registration import factory
from dipy_dl_reg.registration.affine import deep_affine_registration, find_affine
from dipy_dl_reg.registration.affine_options import AFFINE_STEPS, checked_pipeline
from dipy_dl_reg.registration.deformable import DeepRegistration

#: The last step of a pipeline that deforms.
DEFORM = "deform"

#: What puts a displacement into the map.
_DISPLACING = ("level_iters", "model", "landmarks", "initialization")


@warning_for_keywords()
def deep_registration(
    moving,
    static,
    *,
    moving_affine=None,
    static_affine=None,
    step_length=None,
    metric=None,
    dim=None,
    level_iters=None,
    prealign=None,
    static_mask=None,
    moving_mask=None,
    num_threads=None,
    pipeline=None,
    affine_options=None,
    **options,
):
    """Register a moving image to a static one: files, NIfTI images or arrays.

    Mirrors `dipy.align.syn_registration`: moving comes first, where
    `DeepRegistration.optimize` takes static first.  With a `pipeline` it does the
    affine registration before it too; without one the images must be aligned already.

    Parameters
    ----------
    moving, static : str, Path, nibabel image or array
        The images, 2D or 3D: moving first, as in `dipy.align.syn_registration`, while
        `DeepRegistration.optimize` and the commands take static first.  What is
        masked in a `numpy.ma.MaskedArray` is missing data, as NaN is.
    moving_affine, static_affine : array, shape (dim + 1, dim + 1), optional
        Voxels to world of the two; by default the file's own.  Arrays need both, or
        none: two arrays without affines both have the identity.
    step_length : float, optional
        See `DeepRegistration`.
    metric : str or metric, optional
        See `DeepRegistration`.
    dim : {2, 3}, optional
        Dimension of the images; by default what they have.
    level_iters : sequence of int, optional
        See `DeepRegistration`.
    prealign : array or AffineMap, optional
        Static world to moving world; where a pipeline's affine steps begin (a centre
        of mass begins anew, with a warning).
    static_mask, moving_mask : str, Path, nibabel image or array, optional
        Only voxels other than 0 are compared.  A file or nibabel image on another
        grid than its image's is resampled onto that, nearest neighbour, through both
        affines; an array has the image's shape.
    num_threads : int, optional
        See `DeepRegistration.optimize`.
    pipeline : sequence of str, optional
        Steps, in order: those of `deep_affine_registration`, such as
        ``"center_of_mass"``, ``"rigid"``, ``"affine"``, and then ``"deform"``.  Without
        the last the map holds no displacement, and options that ask for one are an
        error.  By default ``["deform"]``: the images are aligned already, or
        `prealign` does it.
    affine_options : dict, optional
        Passed to `deep_affine_registration`; goes with such steps.
    **options : dict
        Passed to `DeepRegistration`; those that it does not have, such as ``radius``,
        to the metric, if `metric` is a name, or to local correlation if it is None.

    Returns
    -------
    warped : ndarray, shape of static
        The moving image on the static grid.
    mapping : dipy.align.imwarp.DiffeomorphicMap
        From static to moving; in 2D if both images are single slices, also of shape
        (X, Y, 1).

    Raises
    ------
    ValueError
        If an image or an option cannot be used, if one image has an affine and the
        other has none, or if a mask does not cover its image.
    FileNotFoundError
        If a file is missing.
    """
    steps, deforms = checked_steps(pipeline)
    own = signature(DeepRegistration).parameters
    for_metric = {key: options.pop(key) for key in list(options) if key not in own}
    named = isinstance(metric, str) and not factory.is_automatic(metric)
    if dim is not None and named:
        for_metric["dim"] = dim
    options |= {"level_iters": level_iters, "step_length": step_length}
    options = options if deforms else undeformed(options)
    registration = DeepRegistration(
        factory.make_metric(metric, **for_metric), **options
    )
    affine_options = _checked_affine_options(affine_options, steps)
    given = {"static": static, "moving": moving}
    moving, moving_affine = _read(moving, moving_affine, "moving")
    static, static_affine = _read(static, static_affine, "static")
    if dim is not None and np.ndim(static) != dim:
        raise ValueError(f"dim is {dim}, and static has {np.ndim(static)} axes.")
    _check_both_or_none(static_affine, moving_affine)
    grids = {
        "static": (np.shape(static), static_affine),
        "moving": (np.shape(moving), moving_affine),
    }
    masks = {
        f"{role}_mask": read_mask(mask, given[role], *grids[role], name=f"{role}_mask")
        for role, mask in (("static", static_mask), ("moving", moving_mask))
    }
    prealign, shape = getattr(prealign, "affine", prealign), np.shape(static)
    if is_slice(np.shape(static)) and is_slice(np.shape(moving)):
        prealign = _in_plane_of(static_affine, prealign)
        static, moving, static_affine, moving_affine = match_dimensions(
            static, moving, static_affine, moving_affine
        )
        masks = {
            name: None if mask is None else np.reshape(mask, np.shape(mask)[:2])
            for name, mask in masks.items()
        }
    if steps:
        chosen = {"device": registration.device, "num_threads": num_threads}
        if prealign is not None:
            chosen["starting_affine"] = prealign
        affines = {
            "static_affine": _matrix(static_affine, static),
            "moving_affine": _matrix(moving_affine, moving),
        }
        affine = find_affine(
            moving=moving,
            static=static,
            pipeline=steps,
            **affines,
            **masks,
            **chosen | affine_options,
        )
        prealign, registration.poses = affine.matrix, affine.poses
    mapping = registration.optimize(
        static=static,
        moving=moving,
        static_grid2world=static_affine,
        moving_grid2world=moving_affine,
        prealign=prealign,
        num_threads=num_threads,
        **masks,
    )
    warped = apply_mapping(mapping, moving, interpolation="linear")
    return warped.reshape(shape), mapping


@warning_for_keywords()
def register_dwi_to_template(
    dwi,
    gtab,
    *,
    dwi_affine=None,
    template=None,
    template_affine=None,
    reg_method="deep",
    **reg_kwargs,
):
    """Register diffusion data to a template through the mean of its b0 volumes.

    Mirrors `dipy.align.register_dwi_to_template`; but the affine part is found too.

    Parameters
    ----------
    dwi : array, nibabel image, str or Path
        The moving image, first as in DIPY's function: the series, 4D, its volumes
        aligned to each other; or, with ``gtab=None``, a b0 volume, 3D.
    gtab : GradientTable, pair of (bvals, bvecs), or None
        Says which volumes are b0; bvals and bvecs may be files.
    dwi_affine : array, shape (4, 4), optional
        Voxels to world of the series; needed for an array, by default the file's own.
    template : array, nibabel image, str or Path, optional
        By default DIPY's MNI template (T2), which DIPY downloads at its first use.
    template_affine : array, shape (4, 4), optional
        Voxels to world of the template; needed for an array.
    reg_method : {"deep", "aff"}, optional
        `deep_registration`, or `deep_affine_registration` alone.
    **reg_kwargs : dict
        Passed to that function.  Unless told otherwise here, `deep_registration` takes
        a whole pipeline (centre of mass, translation, rigid, affine, deform).

    Returns
    -------
    warped_b0 : ndarray, shape of the template
        The mean b0 volume on the template's grid.
    mapping : DiffeomorphicMap or ndarray, shape (4, 4)
        From the template to the series; with ``reg_method="aff"`` the matrix.

    Raises
    ------
    ValueError
        If the series or the table cannot be used, or there is no such method.
    FileNotFoundError
        If a file is missing.
    """
    if reg_method not in ("deep", "aff"):
        raise ValueError(f"reg_method must be 'deep' or 'aff', got {reg_method!r}.")
    data, dwi_affine = _read(dwi, dwi_affine, "dwi")
    b0 = _mean_b0(data, gtab)
    if template is None:
        from dipy.data import read_mni_template

        template = read_mni_template()
    template, template_affine = _read(template, template_affine, "template")
    for name, matrix in (("dwi", dwi_affine), ("template", template_affine)):
        if matrix is None:
            raise ValueError(f"{name}_affine is needed where {name} is an array.")
    images = {"moving": b0, "static": template}
    affines = {"moving_affine": dwi_affine, "static_affine": template_affine}
    if reg_method == "aff":
        return deep_affine_registration(**images, **affines, **reg_kwargs)
    given = {"pipeline": [*AFFINE_STEPS, DEFORM]} | reg_kwargs
    return deep_registration(**images, **affines, **given)


def _mean_b0(data, gtab):
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
            f"dwi must be 4D with a volume for each of gtab's {len(chosen)}, got shape "
            f"{data.shape}."
        )
    if not chosen.any():
        raise ValueError("gtab has no b0 volume: see GradientTable's b0_threshold.")
    return data[..., chosen].mean(axis=3)


def checked_steps(pipeline):
    """Take a pipeline apart.

    Parameters
    ----------
    pipeline : str, sequence of str or None
        Affine steps and at last ``"deform"``; None is that alone.

    Returns
    -------
    steps : list of str
        The affine ones.
    deforms : bool
        Whether the deformable one follows.

    Raises
    ------
    ValueError
        If a step is unknown, there is none, or ``"deform"`` is not the last.
    """
    if pipeline is None:
        return [], True
    steps = [pipeline] if isinstance(pipeline, str) else list(pipeline)
    if not steps:
        raise ValueError("pipeline must have a step, such as 'deform'.")
    if DEFORM in steps[:-1]:
        raise ValueError(f"pipeline must have 'deform' once, as its last, got {steps}.")
    deforms = steps[-1] == DEFORM
    steps = steps[: len(steps) - deforms]
    if not steps:
        return [], deforms
    try:
        return checked_pipeline(steps, False), deforms
    except ValueError as error:
        raise ValueError(f"{error}; the last may be {DEFORM!r}.") from None


def undeformed(options):
    """Options of a `DeepRegistration` that moves nothing.

    Parameters
    ----------
    options : dict
        As the user gave them.

    Returns
    -------
    options : dict
        The same, but for no network and no iterations.

    Raises
    ------
    ValueError
        If one of them asks for a displacement.
    """
    asked = [n for n in _DISPLACING if options.get(n) is not None]
    asked = [n for n in asked if (n, options[n]) != ("model", "auto")]
    if asked:
        raise ValueError(f"{asked[0]} needs 'deform' at the end of the pipeline.")
    return options | {"model": None, "level_iters": 0}


def _checked_affine_options(options, steps):
    """A dictionary that goes with affine steps."""
    if options is None:
        return {}
    if not isinstance(options, dict) or "pipeline" in options:
        raise ValueError(
            "affine_options must be a dictionary of other options than pipeline, got "
            f"{options!r}."
        )
    if options and not steps:
        raise ValueError("affine_options needs affine steps in the pipeline.")
    return options


def _check_both_or_none(static_affine, moving_affine):
    """Raise where one image lies in a world, and nobody knows where the other does."""
    affines = {"static": static_affine, "moving": moving_affine}
    without = [role for role, affine in affines.items() if affine is None]
    if len(without) == 1:
        (role,) = without
        raise ValueError(
            f"{role}_affine is needed: {role} is an array without an affine, and the "
            "other image has one."
        )


def _in_plane_of(grid2world, prealign):
    """The part of a prealign, world to world, that acts in the plane of a slice."""
    if np.shape(prealign) != (4, 4) or np.shape(grid2world) != (4, 4):
        return prealign
    axes = [*plane_axes(grid2world), 3]
    return np.asarray(prealign)[np.ix_(axes, axes)]


def _matrix(affine, image):
    """Voxels to world, the identity if there is none."""
    return np.eye(image.ndim + 1) if affine is None else affine


def _read(image, affine, name):
    """Array and matrix of whatever holds an image; NaN for what is masked in it."""
    values, affine = read_image(image, affine, name=name)
    return fill_masked(values), affine
