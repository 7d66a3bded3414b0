"""`DeepAffineRegistration`, which replaces DIPY's `AffineRegistration`.

Start reading at `DeepAffineRegistration.optimize`: arrays become a `Pair` of tensors
(`affine.poses.make_affine_pair`), and the steps are run (`affine.steps.run_steps`): a
search over rotations if it is wanted, and the optimization of the transform's
parameters from coarse to fine (`optimization.affine`).
"""

from __future__ import annotations

from typing import Any, Literal

from dipy.align.imaffine import AffineMap
from dipy.align.transforms import Transform
from dipy.testing.decorators import warning_for_keywords
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.maps.verdict import PoseComparison, Verdict, log_verdict
from dipy_dl_reg.metrics.base import Metric
from dipy_dl_reg.options import document_options, takes_options
from dipy_dl_reg.registration.affine.options import (
    AffineOptions,
    VerbosityLevels,
    check_parameters,
    choose_levels,
    find_transform,
)
from dipy_dl_reg.registration.affine.orientation import warn_if_turned
from dipy_dl_reg.registration.affine.poses import make_affine_pair
from dipy_dl_reg.registration.affine.steps import (
    AffineResult,
    FitStep,
    StartStep,
    run_steps,
    warn_if_apart,
)
from dipy_dl_reg.registration.devices import threads

#: Options that are attributes and can be set until `optimize` is called.
_ATTRIBUTES = (
    *("metric", "method", "options", "verbosity", "starts"),
    *("sampling_proportion", "device", "ss_sigma_factor"),
)
#: Options that are attributes: from the beginning if they are given, otherwise after
#: `optimize`.
_LEVELS = ("level_iters", "factors", "sigmas")


@document_options(AffineOptions)
class DeepAffineRegistration:
    """Affine registration with Torch, with the interface of DIPY's class.

    Parameters
    ----------
    affine_options : AffineOptions
        Each of its fields is a parameter.

    Attributes
    ----------
    starting_affine : ndarray
        After `optimize`: the matrix that is applied before the transform, with
        ``affine_map.affine == transform.param_to_matrix(xopt) @ starting_affine``.
    verdict : Verdict
        After `optimize`: whether the result is "good", "doubtful" or "failed", and why.
        It is logged too, as a warning unless it is "good".
    poses : PoseComparison or None
        After `optimize`: comparison of the chosen starting pose with other poses, if
        rotations were searched.
    dim, levels, level_iters, factors, sigmas : int or list
        As in DIPY.  If the levels were not given, `optimize` sets them for the images.

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    deep_affine_registration : several steps in one call, for files too.
    DeepRegistration : deforms; ``affine_map.affine`` is its `prealign`.
    ThinPlateSplineRegistration : affine and deformation from landmarks.
    dipy.align.imaffine.AffineRegistration : the class of DIPY, which has this
        interface.

    Notes
    -----
    Only the region that both images show is compared.  If a face of the moving image
    shows only background, background is assumed beyond this face.  If a face cuts
    through the object, as in a slab, no values are assumed beyond it, and too little
    overlap counts as low similarity.  The result never contains a reflection.

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

    metric: Metric
    method: str
    options: dict[str, Any] | None
    verbosity: int
    starts: Literal["one", "auto", "all"]
    sampling_proportion: float | None
    device: Any
    ss_sigma_factor: float | None
    level_iters: list[int]
    factors: list[float]
    sigmas: list[float]
    levels: int
    dim: int
    starting_affine: np.ndarray
    verdict: Verdict | None
    poses: PoseComparison | None

    @warning_for_keywords()
    @takes_options(AffineOptions, "affine_options")
    def __init__(self, *, affine_options: AffineOptions) -> None:
        for name in _ATTRIBUTES:
            setattr(self, name, getattr(affine_options, name))
        self._has_levels = affine_options.level_iters is not None
        if self._has_levels:
            for name in _LEVELS:
                setattr(self, name, getattr(affine_options, name))
            self.levels = len(self.level_iters)
        self.poses = self.verdict = None
        if self.options or self.method != "L-BFGS-B":
            logger.info("method and options of DIPY's optimizer have no effect here.")

    @warning_for_keywords()
    def optimize(
        self,
        static: np.ndarray,
        moving: np.ndarray,
        transform: Transform,
        params0: np.ndarray | None,
        *,
        static_grid2world: np.ndarray | None = None,
        moving_grid2world: np.ndarray | None = None,
        starting_affine: str | np.ndarray | None = None,
        ret_metric: bool = False,
        static_mask: np.ndarray | None = None,
        moving_mask: np.ndarray | None = None,
        num_threads: int | None = None,
    ) -> AffineMap | tuple[Any, ...]:
        """Register moving to static.

        Parameters
        ----------
        static : array, 2D or 3D
            Fixed image, first as in DIPY's class (`deep_affine_registration` takes
            moving first).  NaN is missing data, as are masked values of a
            `numpy.ma.MaskedArray`.
        moving : array, 2D or 3D
            Image that is registered to static; it may have another grid.
        transform : dipy.align.transforms.Transform
            The type of affine transform, such as ``RigidTransform3D()``.
        params0 : array, shape (n,), or None
            Initial parameters of the transform; None is the identity.
        static_grid2world, moving_grid2world : array, shape (dim+1, dim+1), optional
            Voxels to world (mm); by default the identity.
        starting_affine : str or array, shape (dim+1, dim+1), optional
            From static's world to moving's, before the transform: a matrix; or
            ``"mass"`` to align centres of mass, ``"centers"`` central voxels,
            ``"voxel-origin"`` the first voxels.  By default the identity.  If an image
            has large negative values (for example, an image of mean 0), its smallest
            value is subtracted before its centre of mass is computed.
        ret_metric : bool, optional
            Also return the parameters and the metric.
        static_mask, moving_mask : array, optional
            Arrays of the shapes of the images; only voxels other than 0 are compared.
        num_threads : int, optional
            Threads on the CPU; None uses Torch's default, -1 all processors.

        Returns
        -------
        affine_map : dipy.align.imaffine.AffineMap
            ``affine_map.transform(moving)`` is on the static grid.
        xopt : ndarray, shape (n,)
            Parameters, if `ret_metric`:
            ``affine_map.affine == transform.param_to_matrix(xopt) @
            self.starting_affine``.  (DIPY returns the parameters of the last level
            alone.)
        fopt : float
            Metric at the last level, if `ret_metric`; lower is better.

        Raises
        ------
        ValueError
            If an image, mask, matrix, transform or parameter cannot be used.  This is
            checked before the registration begins.

        Warns
        -----
        UserWarning
            If the two images hardly overlap after the registration, because the
            initial misalignment was too large; or if a head was rotated by more than 60
            degrees that is not upright in the orientation of its header.

        See Also
        --------
        deep_affine_registration : several steps in one call, for files too.
        DeepRegistration : its `optimize` takes ``affine_map.affine`` as `prealign`.

        Examples
        --------
        >>> import numpy as np
        >>> from dipy.align.transforms import TranslationTransform2D
        >>> from dipy_dl_reg import DeepAffineRegistration
        >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
        >>> static, moving = (np.exp(-9 * (x + s) ** 2 - 4 * y**2) for s in (0, 0.25))
        >>> affine_map = DeepAffineRegistration(metric="SSD").optimize(
        ...     static, moving, TranslationTransform2D(), None
        ... )
        >>> float(affine_map.affine[0, 2].round(1))  # static world to moving world
        -3.9
        """
        self.poses = self.verdict = None  # no results of an earlier pair after an error
        own = find_transform(transform)
        step = FitStep(own, transform.param_to_matrix, check_parameters(params0, own))
        options = self._current_options()
        with threads(num_threads):
            images = (
                InputImage(static, static_grid2world, static_mask),
                InputImage(moving, moving_grid2world, moving_mask),
            )
            pair = make_affine_pair(*images, starting_affine, options)
            if own.dim != pair.static_grid.dim:
                raise ValueError(
                    f"transform is for {own.dim}D images, but the images are "
                    f"{pair.static_grid.dim}D."
                )
            self._set_levels(pair, options)
            if self.verbosity >= VerbosityLevels.STATUS:
                logger.info(f"Optimizing {own.kind}, {self.levels} levels.")
            start = StartStep(pair.prealign, options.starts)
            result = run_steps(pair, pair.prealign, [start, step], options)
            warn_if_turned(result.matrix, *images)
        self._finish(result)
        if ret_metric:
            return result.affine_map, result.parameters, result.value
        return result.affine_map

    def _current_options(self) -> AffineOptions:
        """Options of the next registration; attributes that were set replace fields.

        `ss_sigma_factor` is not used again, because the attributes of the levels, which
        the user may have changed, already include its effect.
        """
        names = {*_ATTRIBUTES, *(_LEVELS if self._has_levels else ())}
        names.remove("ss_sigma_factor")
        return AffineOptions(**{name: getattr(self, name) for name in names})

    def _set_levels(self, pair: Pair, options: AffineOptions) -> None:
        """Set the attributes that depend on the images."""
        self.dim = pair.static_grid.dim
        chosen = choose_levels(options, pair.static_grid)
        if not self._has_levels:
            self.level_iters, self.factors, self.sigmas = chosen
        self.levels = len(chosen.level_iters)

    def _finish(self, result: AffineResult) -> None:
        """Set the results, log and warn."""
        self.starting_affine, self.poses = result.starting_affine, result.poses
        self.verdict = result.verdict
        for message in result.messages:
            logger.info(message)
        warn_if_apart(result.overlap)
        if result.verdict is not None:
            quiet = self.verbosity < VerbosityLevels.STATUS
            log_verdict(result.verdict, "affine registration", quiet=quiet)
