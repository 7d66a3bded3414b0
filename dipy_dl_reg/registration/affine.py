"""`DeepAffineRegistration`, in place of DIPY's `AffineRegistration`.

Start reading at `DeepAffineRegistration.optimize`: arrays become a pair of tensors
(`bridge`), the engine prepares them at a few resolutions (`engine.affine_levels`),
looks for a start if it is to (`engine.affine_search`), and fits the parameters of
DIPY's transform (`engine.affine_fit`).
"""

from inspect import signature
from typing import NamedTuple
from warnings import warn

from dipy.align.imaffine import AffineMap
from dipy.testing.decorators import warning_for_keywords
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry.affine_transforms.registry import make_transform
from dipy_dl_reg.initialization.rotation_search import search_rotations
from dipy_dl_reg.io.images import read_image
from dipy_dl_reg.io.masks import fill_masked, read_mask
from dipy_dl_reg.maps.interpolation import interpolate_linearly
from dipy_dl_reg.maps.measures import measure_registration
from dipy_dl_reg.maps.verdict import judge, log_verdict
from dipy_dl_reg.optimization.affine import optimize_levels
from dipy_dl_reg.optimization.affine_sampling import make_levels
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.affine_options import (
    ITERATIONS,
    automatic_factors,
    checked_levels,
    checked_metric,
    checked_params,
    checked_pipeline,
    checked_sampling,
    default_sigmas,
    family_of,
    mask_or_none,
    named_metric,
)
from dipy_dl_reg.registration.affine_start import (
    compare_poses,
    starting_matrix,
    turn_between,
    warn_if_apart,
)
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.validation import check_choice

try:  # DIPY 1.13 moves it
    from dipy.utils import VerbosityLevels
except ImportError:
    from dipy.align import VerbosityLevels

# Stack levels of warnings count two frames of DIPY's `warning_for_keywords`.
#: Points that a level compares, unless the user says, and windows of local correlation.
_POINTS = 50_000
#: A start from another pose is taken if it improves the usual one's value by this part
#: of it; if it is turned by more than `_FAR_POSE` degrees from it, by `_FAR_GAIN`.
_GAIN, _FAR_POSE, _FAR_GAIN = 0.04, 45.0, 0.15
#: A usual start that turned farther than this (degrees) is better taken as it ended.
_FAR_TURN = 15.0


class DeepAffineRegistration:
    """Affine registration by Torch, called as DIPY's is.

    Parameters
    ----------
    metric : str or metric, optional
        ``"MI"`` mutual information, ``"NCC"`` global correlation, ``"CC"`` local
        correlation in windows of radius 2, ``"SSD"`` squared difference; a metric of
        this package of one of these kinds, with its options (`nbins` of MI; `radius`,
        which is 1 in `CCMetric` unless given, and `variance_floor` of CC); or DIPY's
        `MutualInformationMetric`, whose bins and sampling are taken over.  By default
        MI with 32 bins.
    level_iters : sequence of int, optional
        Most evaluations of the metric at each level, `level_iters[0]` the coarsest.
        By default 100, and as many levels as static has room for.
    sigmas : sequence of float, optional
        Smoothing at each level, in static's smallest voxel size; by default 0.6 times
        the level's factor less 1.
    factors : sequence of float, optional
        Voxel size of each level, in static's smallest; by default powers of 2.
    method : str, optional
        Optimiser of DIPY; accepted, without a meaning here.
    ss_sigma_factor : float, optional
        In place of `factors` and `sigmas`: powers of 2, smoothed by this times the
        factor less 1.
    options : dict, optional
        Of DIPY's optimiser; accepted, without a meaning here.
    verbosity : int, optional
        As DIPY's; from 1 on levels are logged.
    starts : {"one", "auto", "all"}, optional
        ``"one"`` starts from `starting_affine` alone, as DIPY does.  ``"all"`` also
        tries rotations by any angle about the centres of mass, rigidly and coarsely,
        by mutual information, and starts from the best.  ``"auto"`` does so too, but
        stays with `starting_affine` unless the best is clearly better.
    sampling_proportion : float, optional
        Part of a level's voxels to compare, at random places; by default all of them,
        or 50 thousand of more.
    device : str or torch.device, optional
        ``"auto"`` is CUDA, else MPS where it works, else the CPU.

    Attributes
    ----------
    starting_affine : ndarray
        After `optimize`: what the parameters found are relative to.
    verdict : Verdict
        After `optimize`: whether the result is "good", "doubtful" or "failed", and why;
        logged too, as a warning unless it is "good".
    dim, levels, level_iters, factors, sigmas : int or list
        As DIPY's; set for the images at hand where they were left open.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    Only what both images show is compared.  Where a face of moving shows nothing but
    background, background is what lies beyond; where it cuts through the object, as in
    a slab, nothing is known beyond, and too little overlap counts as unlike.  A map
    never turns into its mirror image.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.transforms import RigidTransform2D
    >>> from dipy_dl_reg import DeepAffineRegistration
    >>> x, y = np.mgrid[-1:1:48j, -1:1:48j]
    >>> static, moving = (np.exp(-9 * (x + s) ** 2 - 4 * y**2) for s in (0, 0.2))
    >>> affine_map = DeepAffineRegistration(metric="SSD").optimize(
    ...     static=static, moving=moving, transform=RigidTransform2D(), params0=None
    ... )
    >>> bool(abs(affine_map.transform(moving) - static).max() < 0.05)
    True
    """

    @warning_for_keywords()
    def __init__(
        self,
        *,
        metric=None,
        level_iters=None,
        sigmas=None,
        factors=None,
        method="L-BFGS-B",
        ss_sigma_factor=None,
        options=None,
        verbosity=VerbosityLevels.STATUS,
        starts="one",
        sampling_proportion=None,
        device="auto",
    ):
        self.metric, own_sampling = checked_metric(metric)
        if sampling_proportion is None:
            sampling_proportion = own_sampling
        self.sampling_proportion = checked_sampling(sampling_proportion)
        check_choice("starts", starts, ("one", "auto", "all"))
        self.starts = starts
        self.device = find_device(device)
        if not isinstance(verbosity, (int, np.integer)):
            raise ValueError(
                f"verbosity must be one of DIPY's VerbosityLevels, got {verbosity!r}."
            )
        self.method, self.options, self.verbosity = method, options, verbosity
        self._forget_results()
        if options or method != "L-BFGS-B":
            logger.info("method and options of DIPY's optimiser have no effect here.")
        self.ss_sigma_factor = ss_sigma_factor
        self._given = checked_levels(level_iters, factors, sigmas, ss_sigma_factor)
        if self._given is not None:
            self.level_iters, self.factors, self.sigmas = self._given
            self.levels = len(self.level_iters)

    @warning_for_keywords()
    def optimize(
        self,
        static,
        moving,
        transform,
        params0,
        *,
        static_grid2world=None,
        moving_grid2world=None,
        starting_affine=None,
        ret_metric=False,
        static_mask=None,
        moving_mask=None,
        num_threads=None,
    ):
        """Register moving to static.

        Parameters
        ----------
        static : array, 2D or 3D
            Image that stays, first as in DIPY's class (`deep_affine_registration`
            takes moving first).  NaN is missing data, and so is what is masked in a
            `numpy.ma.MaskedArray`.
        moving : array, 2D or 3D
            Image that is brought onto it; on a grid of its own.
        transform : dipy.align.transforms.Transform
            The kind of map, such as ``RigidTransform3D()``.
        params0 : array, shape (n,), or None
            Parameters of the transform to start from; None is the identity.
        static_grid2world, moving_grid2world : array, shape (dim+1, dim+1), optional
            Voxels to world (mm); by default the identity.
        starting_affine : str or array, shape (dim+1, dim+1), optional
            From static's world to moving's, before the transform: a matrix; or
            ``"mass"`` to align centres of mass, ``"centers"`` central voxels,
            ``"voxel-origin"`` the first voxels.  By default the identity.  Of an image
            without clearly positive mass, such as one brought to mean 0, the least
            value counts as 0 for its centre.
        ret_metric : bool, optional
            Return parameters and metric too.
        static_mask, moving_mask : array, optional
            Shaped as their images: only voxels other than 0 are compared.
        num_threads : int, optional
            Threads on the CPU; None is Torch's own choice, -1 all processors.

        Returns
        -------
        affine_map : dipy.align.imaffine.AffineMap
            ``affine_map.transform(moving)`` lies on the static grid.
        xopt : ndarray, shape (n,)
            Parameters, if `ret_metric`:
            ``affine_map.affine == transform.param_to_matrix(xopt) @
            self.starting_affine``.  (DIPY's are those of its last level alone.)
        fopt : float
            Metric at the last level, if `ret_metric`; lower is better.

        Raises
        ------
        ValueError
            If an image, mask, matrix, transform or parameter cannot be used; before
            any work.

        Warns
        -----
        UserWarning
            If the two images hardly overlap through the map found: the start was too
            far off.
        """
        self._forget_results()
        family = family_of(transform)
        params0 = checked_params(params0, family)
        with threads(num_threads):
            pair = self._prepare(
                *(static, moving, static_grid2world, moving_grid2world),
                *(starting_affine, static_mask, moving_mask),
            )
            if family.dim != self.dim:
                raise ValueError(
                    f"transform is for {family.dim}D images, these are {self.dim}D."
                )
            if self.starts != "one":
                self._choose_start(pair)
            prepared = self._prepared(pair)
            theta, value = self._fit(family, params0, prepared)
            matrix = transform.param_to_matrix(theta) @ self.starting_affine
            warn_if_apart(prepared[-1], matrix, stacklevel=4)
            self.verdict = self._judge(pair, matrix)
        quiet = self.verbosity < VerbosityLevels.STATUS
        log_verdict(self.verdict, "affine registration", quiet=quiet)
        found = _affine_map(matrix, pair)
        return (found, theta, value) if ret_metric else found

    def _prepare(
        self,
        static,
        moving,
        static_grid2world,
        moving_grid2world,
        starting_affine,
        static_mask,
        moving_mask,
    ):
        """Tensors of the images, and where to start."""
        static_mask = mask_or_none(static_mask, "static_mask")
        moving_mask = mask_or_none(moving_mask, "moving_mask")
        masked = static_mask is not None or moving_mask is not None
        if masked and self.sampling_proportion not in (None, 1):
            warn(
                "DIPY ignores masks where sampling_proportion is below 1; here they "
                "are used.",
                UserWarning,
                stacklevel=5,
            )
        pair = dipy_adapter.make_pair(
            static,
            moving,
            static_grid2world=static_grid2world,
            moving_grid2world=moving_grid2world,
            static_mask=static_mask,
            moving_mask=moving_mask,
            device=self.device,
            apart=True,
            find_masks=True,
        )
        self.dim = pair.static_grid.dim
        if self.metric.dim not in (None, self.dim):
            raise ValueError(
                f"metric is for {self.metric.dim}D images, these are {self.dim}D."
            )
        start = starting_matrix(starting_affine, static, moving, pair)
        self.starting_affine = start
        return pair._replace(prealign=start)

    def _forget_results(self):
        """Drop what an earlier pair left, so that a failure leaves nothing of it."""
        self.poses = self.verdict = None

    def _judge(self, pair, matrix):
        """The verdict on a matrix."""
        measures = measure_registration(pair._replace(prealign=matrix))
        return judge(measures, poses=self.poses)

    def _prepared(self, pair):
        """The images at every level."""
        if self._given is None:
            self.factors = automatic_factors(pair.static_grid)
            self.levels = len(self.factors)
            self.level_iters = [ITERATIONS] * self.levels
            self.sigmas = default_sigmas(self.factors)
        return make_levels(
            pair,
            self.factors,
            self.sigmas,
            most_points=_POINTS,
            proportion=self.sampling_proportion,
            grids=self.metric.name == "CC",
        )

    def _choose_start(self, pair):
        """Replace `starting_affine` by a start in another pose, if that is better."""
        poses = search_rotations(pair, self.starting_affine)
        chosen = self._better_pose(poses)
        if chosen is not None:
            angle = turn_between(chosen.matrix, self.starting_affine)
            logger.info(f"Start turned by {angle:.0f} degrees from the one given.")
            self.starting_affine = chosen.matrix
        self.poses = compare_poses(poses, chosen or poses.usual)

    def _better_pose(self, poses):
        """The pose to start from, or None to stay with `starting_affine`.

        The farther a pose is turned, the more it must gain: images that are hard to
        compare fit about equally well in poses far apart.
        """
        best, usual = poses.best, poses.usual
        if self.starts == "all":
            return best
        gain = (usual.value - best.value) / max(abs(usual.value), 1e-12)
        far = turn_between(best.matrix, usual.matrix) > _FAR_POSE
        if gain > (_FAR_GAIN if far else _GAIN):
            return best
        if turn_between(usual.matrix, self.starting_affine) > _FAR_TURN:
            near = turn_between(best.matrix, usual.matrix) <= _FAR_TURN
            return best if near else usual
        return None

    def _fit(self, family, params0, prepared):
        """Parameters relative to `starting_affine`, and the metric."""
        if self.verbosity >= VerbosityLevels.STATUS:
            logger.info(f"Optimizing {family.kind}, {len(prepared)} levels.")
        return optimize_levels(
            prepared,
            family,
            self.starting_affine,
            params0,
            level_iters=self.level_iters,
            metric=self.metric,
        )


@warning_for_keywords()
def deep_affine_registration(
    moving,
    static,
    *,
    moving_affine=None,
    static_affine=None,
    pipeline=None,
    starting_affine=None,
    metric="MI",
    level_iters=None,
    sigmas=None,
    factors=None,
    ret_metric=False,
    moving_mask=None,
    static_mask=None,
    optimizer_options=None,
    starts="auto",
    device="auto",
    num_threads=None,
    **metric_kwargs,
):
    """Affine registration in steps, of files, images or arrays.

    Mirrors `dipy.align.affine_registration`: moving comes first, where
    `DeepAffineRegistration.optimize` takes static first.

    Parameters
    ----------
    moving, static : array, nibabel image, str or Path
        The images, 2D or 3D: moving first, as in `dipy.align.affine_registration`,
        while `DeepAffineRegistration.optimize` takes static first.  What is masked in
        a `numpy.ma.MaskedArray` is missing data, as NaN is.
    moving_affine, static_affine : array, shape (dim + 1, dim + 1), optional
        Voxels to world (mm); needed for arrays, by default the file's own.  A 4x4
        matrix will do for a slice.
    pipeline : sequence of str or callable, optional
        Steps: ``"center_of_mass"``, ``"translation"``, ``"rigid"``,
        ``"rigid_isoscaling"``, ``"rigid_scaling"``, ``"affine"``, or DIPY's functions
        of these names.  By default centre of mass, translation, rigid, affine.  The
        centre of mass is that of the values less the least one where the negative ones
        weigh much, as in an image brought to mean 0.
    starting_affine : array, shape (dim + 1, dim + 1), optional
        From static's world to moving's; by default the identity.
    metric : str or metric, optional
        See `DeepAffineRegistration`.
    level_iters, sigmas, factors : sequence, optional
        See `DeepAffineRegistration`.  Unless `level_iters` is given, steps before the
        last do without the finest levels, which the next would repeat.
    ret_metric : bool, optional
        Return parameters and metric of the last step too.
    moving_mask, static_mask : array, nibabel image, str or Path, optional
        Only voxels other than 0 are compared.  A file or nibabel image on another
        grid than its image's is resampled onto that, nearest neighbour, through both
        affines; an array has the image's shape.
    optimizer_options : dict, optional
        Accepted; without a meaning here.
    starts : {"auto", "one", "all"}, optional
        Whether the centre of mass comes with a search over rotations by any angle (see
        `DeepAffineRegistration`).  It does if a later step may rotate; ``"one"`` is
        DIPY's plain shift.
    device : str or torch.device, optional
        See `DeepAffineRegistration`.
    num_threads : int, optional
        See `DeepAffineRegistration.optimize`.
    **metric_kwargs : dict
        Of the metric, if it is a name or None: `nbins` of MI; `radius` (by default 2)
        and `variance_floor` of CC; and `sampling_proportion`.

    Returns
    -------
    resampled : ndarray, shape of static
        The moving image on the static grid; NaN as in `apply_mapping`.
    final_affine : ndarray, shape (dim + 1, dim + 1)
        From static's world to moving's.
    xopt : ndarray
        Parameters of the last step, if `ret_metric`.
    fopt : float
        Its metric, if `ret_metric`.

    Raises
    ------
    ValueError
        If an image or an option cannot be used, or a mask does not cover its image.
    FileNotFoundError
        If a file is missing.

    Warns
    -----
    UserWarning
        If the two images hardly overlap through the matrix found.
    """
    checked_pipeline(pipeline, ret_metric)
    result = find_affine(
        moving,
        static,
        moving_affine=moving_affine,
        static_affine=static_affine,
        pipeline=pipeline,
        starting_affine=starting_affine,
        moving_mask=moving_mask,
        static_mask=static_mask,
        num_threads=num_threads,
        metric=metric,
        optimizer_options=optimizer_options,
        level_iters=level_iters,
        sigmas=sigmas,
        factors=factors,
        starts=starts,
        device=device,
        **metric_kwargs,
    )
    if result.verdict is not None:
        log_verdict(result.verdict, "affine registration", quiet=True)
    found = (result.matrix, result.parameters, result.value)
    resampled = interpolate_linearly(result.affine_map.transform, result.moving)
    return (resampled, *(found if ret_metric else found[:1]))


class AffineResult(NamedTuple):
    """What an affine registration in steps found.

    Attributes
    ----------
    affine_map : AffineMap
        DIPY's map on the grids of the images.
    moving : ndarray
        The moving image as it was read.
    matrix : ndarray, shape (dim + 1, dim + 1)
        From static's world to moving's.
    parameters : ndarray or None
        Of the last step; None after the centre of mass.
    value : float or None
        Its metric.
    poses : PoseComparison or None
        How clearly the search over poses decided; None without a search.
    verdict : Verdict or None
        On the result; None after the centre of mass alone.
    """

    affine_map: AffineMap
    moving: np.ndarray
    matrix: np.ndarray
    parameters: np.ndarray | None
    value: float | None
    poses: NamedTuple
    verdict: tuple | None


def find_affine(
    moving,
    static,
    *,
    moving_affine,
    static_affine,
    pipeline=None,
    starting_affine=None,
    moving_mask=None,
    static_mask=None,
    num_threads=None,
    metric="MI",
    optimizer_options=None,
    starts="auto",
    **options,
):
    """Affine registration in steps, with its parameters, poses and verdict.

    Parameters
    ----------
    moving, static, moving_affine, static_affine
        As in `deep_affine_registration`.
    pipeline, starting_affine, moving_mask, static_mask, num_threads
        As in `deep_affine_registration`.
    metric, optimizer_options, starts
        As in `deep_affine_registration`.
    **options : dict
        Options of `DeepAffineRegistration`; all others go to the metric.

    Returns
    -------
    result : AffineResult
        Its verdict is not logged: a deformation may follow.

    Raises
    ------
    ValueError
        If an image or an option cannot be used.
    """
    steps = checked_pipeline(pipeline, False)
    known = signature(DeepAffineRegistration).parameters
    for_metric = {key: options.pop(key) for key in list(options) if key not in known}
    registration = DeepAffineRegistration(
        metric=named_metric(metric, **for_metric) if for_metric else metric,
        options=optimizer_options,
        verbosity=VerbosityLevels.NONE,
        starts=starts,
        **options,
    )
    given = static, moving
    moving, moving_affine = read_image(moving, moving_affine, name="moving")
    static, static_affine = read_image(static, static_affine, name="static")
    static, moving = fill_masked(static), fill_masked(moving)
    for name, matrix in (("moving", moving_affine), ("static", static_affine)):
        if matrix is None:
            raise ValueError(f"{name}_affine is needed where {name} is an array.")
    masks = [
        read_mask(
            static_mask, given[0], static.shape, static_affine, name="static_mask"
        ),
        read_mask(
            moving_mask, given[1], moving.shape, moving_affine, name="moving_mask"
        ),
    ]
    if "center_of_mass" in steps and starting_affine is not None:
        warn(
            "starting_affine overwritten by center_of_mass transform",
            UserWarning,
            stacklevel=5,
        )
    with threads(num_threads):
        pair = registration._prepare(
            *(static, moving, static_affine, moving_affine, starting_affine, *masks)
        )
        found, level = _run(registration, steps, pair, (static, moving))
        final = found[0]
        if level is not None:
            warn_if_apart(level, final, stacklevel=5)
            registration.verdict = registration._judge(pair, final)
    affine_map = _affine_map(final, pair)
    return AffineResult(
        affine_map, moving, *found, registration.poses, registration.verdict
    )


def _affine_map(matrix, pair):
    """The map of DIPY, on the grids of the images."""
    return AffineMap(
        matrix,
        domain_grid_shape=pair.static_grid.shape,
        domain_grid2world=pair.static_grid.affine,
        codomain_grid_shape=pair.moving_grid.shape,
        codomain_grid2world=pair.moving_grid.affine,
    )


def _run(registration, steps, pair, images):
    """Take the steps; matrix, parameters and metric of the last, and its level."""
    kinds = [step for step in steps if step != "center_of_mass"]
    prepared = registration._prepared(pair) if kinds else []
    turning = any(kind != "translation" for kind in kinds)
    matrix, theta, value = registration.starting_affine, None, None
    for place, step in enumerate(steps):
        registration.starting_affine = matrix
        if step == "center_of_mass":
            matrix = starting_matrix("mass", *images, pair)
            registration.starting_affine = matrix
            if turning and registration.starts != "one":
                registration._choose_start(pair._replace(prealign=matrix))
                matrix = registration.starting_affine
            continue
        family = make_transform(step, registration.dim)
        few = prepared
        if registration._given is None and place < len(steps) - 1:
            few = prepared[: 1 if step == "translation" else 2]
        theta, value = registration._fit(family, None, few)
        matrix = family.numpy_matrix(theta) @ matrix
    return (matrix, theta, value), prepared[-1] if kinds else None
