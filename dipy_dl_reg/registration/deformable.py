"""`DeepRegistration`, which replaces DIPY's `SymmetricDiffeomorphicRegistration`.

Start reading at `DeepRegistration.optimize`.  Arrays become a `Pair` of tensors
(`dipy_adapter`); `prepare_start` decides on the first field and the metric
(`deformable_start`, `initialization.starts`); the field is refined on that pair
(`optimization.deformable`), made invertible without folds (`geometry.inversion`), and
returned as DIPY's map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dipy.align.imwarp import DiffeomorphicMap
from dipy.testing.decorators import warning_for_keywords
import numpy as np

from dipy_dl_reg.geometry.fold_repair import make_diffeomorphic
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.maps.channel_measures import measure_channels
from dipy_dl_reg.maps.checks import add_regularity
from dipy_dl_reg.maps.measures import Measures
from dipy_dl_reg.maps.verdict import judge
from dipy_dl_reg.metrics.registry import list_metrics
from dipy_dl_reg.options import document_options, fill_docstring, takes_options
from dipy_dl_reg.registration import channels, dipy_adapter, factory, monitor
from dipy_dl_reg.registration.anatomy_use import add_anatomy, make_anatomy_use
from dipy_dl_reg.registration.deformable_options import DeformableOptions, check_iters
from dipy_dl_reg.registration.deformable_results import DeformableResults
from dipy_dl_reg.registration.deformable_start import make_objective, prepare_start
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.registration.landmark_checks import check_landmarks_in_view
from dipy_dl_reg.registration.phase_encoding import constrain
from dipy_dl_reg.registration.recording import Stopwatch
from dipy_dl_reg.registration.refinement import memory_budget, refine_within_memory

if TYPE_CHECKING:
    import torch

    from dipy_dl_reg.maps.record import LevelRecord
    from dipy_dl_reg.maps.verdict import PoseComparison

#: Options that are attributes with the values of `DeformableOptions`.
_KEPT_OPTIONS = (
    *("step_length", "ss_sigma_factor", "opt_tol", "inv_iter", "inv_tol", "callback"),
    *("model", "initialization", "landmarks", "landmark_weight", "progress"),
    *("max_memory", "phase_encoding", "modulate", "anatomy"),
)


@fill_docstring(metrics=list_metrics())
@document_options(DeformableOptions)
class DeepRegistration(DeformableResults):
    r"""Diffeomorphic registration with Torch, with the interface of DIPY's SyN.

    Parameters
    ----------
    metric : str, metric or sequence of these, optional
        Measure of similarity of the images: a metric of this package; a metric of
        `dipy.align.metrics`, for which the corresponding metric of this package is
        used; or a name:
        {metrics}.
        By default, or with ``"auto"``, the metric is chosen for the pair: local
        correlation if the images have the same contrast; if they have different
        contrasts, such as T1 and b0, local correlation after an intensity mapping of
        the moving image to static's contrast, or self-similarity if no such mapping
        explains static.  The log and the record name the chosen metric and the reason.
        For images with several channels, such as T1 and FA, a sequence with one entry
        for each channel: ``["auto", "auto"]`` or ``[MIMetric(3), CCMetric(3)]``.
    options : DeformableOptions
        Each of its fields is a parameter.

    Attributes
    ----------
    metric : Metric
        After `optimize`: the metric that was minimized.
    quality : Quality
        After `optimize`: minimum Jacobian determinant of both fields, inverse
        consistency error (voxels of the static grid; mean and maximum), and how many
        rounds of repair were needed.
    verdict : Verdict
        After `optimize`: whether the result is "good", "doubtful" or "failed"
        (``verdict.grade``), and why (``verdict.reasons``).  It is logged too, as a
        warning unless it is "good".
    record : RegistrationRecord
        After `optimize`: metric, network and initial field, and why; iterations, time
        and energies of each level; device; versions.  `write_report` writes it.
    poses : PoseComparison or None
        Result of the affine search over poses that gave the prealign.  If it is set
        before `optimize`, the verdict takes it into account; `optimize` resets it to
        None.
    channel_names : sequence of str or None
        Names of the channels in messages; set it before `optimize`.  By default they
        are numbered.
    network_used : bool
        After `optimize`: whether refinement started from the network's field.
    anatomy_used : bool
        After `optimize`: whether the result depends on anatomy maps; the record says
        why (``record.anatomy_reason``).
    uses_default_network : bool
        Whether the package chooses the network (``model="auto"``).
    affine_only : bool
        After `optimize`: True if ``level_iters=0`` requested only the field of a
        network (or search), but no such field was used, so that the map contains only
        the affine.
    initialization_used : bool
        After `optimize`: whether refinement started from the field of a search.
    landmark_distances : ndarray, shape (N,), or None
        After `optimize`: distance in mm from each mapped static landmark to its moving
        landmark.
    energy_list, full_energy_profile : list of float
        Energies of the current level and of all levels; lower is better.
    levels, level_iters, current_level, niter : int or list
        Number of levels, iterations of each level, current level (0 is the finest),
        and number of iterations done at it.
    static_to_ref, moving_to_ref, static_to_moving : DiffeomorphicMap
        After `optimize`: see `get_intermediate_maps` and `get_map`.

    Raises
    ------
    ValueError
        If an option is out of range.

    See Also
    --------
    deep_registration : the same in one call, for files too, with the affine
        registration.
    deep_affine_registration : finds the `prealign` that `optimize` takes.
    assess_mapping : the verdict on any map.
    write_report, plot_registration : pictures of the result.
    dipy.align.imwarp.SymmetricDiffeomorphicRegistration :
        SyN, which has this interface.

    Notes
    -----
    With :math:`P` the prealign, the displacement :math:`u` on static's grid minimizes
    the dissimilarity :math:`D` (`metric`) of :math:`s` (static) and :math:`m` (moving),

    .. math:: D\big(s,\; m(P\,(x + u(x)))\big)

    from the coarsest level of a pyramid to the finest.  In each iteration the gradient
    is smoothed by a Gaussian (the metric's ``sigma_diff``), normalized by Adam
    :footcite:p:`Kingma2015` to a step :math:`h` of limited length, and composed with
    the field, which is then smoothed (`sigma_field`):

    .. math:: u(x) \leftarrow G_\sigma * \big(h(x) + u(x + h(x))\big)

    The inverse :math:`v` is updated in the same iteration, and both are corrected by
    half of their inverse consistency error.  A local metric is computed in both
    directions, as by SyN :footcite:p:`Avants2008`.  At the end folds are smoothed away,
    so that the Jacobian determinants of both fields are positive in every voxel.

    ``mapping.prealign`` of the returned map is the **inverse** of the `prealign` that
    was given, as in DIPY; ``mapping.prealign_inv`` is the matrix that was given.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> registration = DeepRegistration("SSD")
    >>> mapping = registration.optimize(static=static, moving=moving)
    >>> warped = mapping.transform(moving)
    >>> bool(np.square(static - warped).sum() < 0.1 * np.square(static - moving).sum())
    True
    """

    step_length: float
    ss_sigma_factor: float
    opt_tol: float
    callback: Callable[[Any, Any], object] | None
    model: Any
    initialization: Any
    progress: bool | None
    max_memory: float | None
    phase_encoding: str | None
    modulate: bool
    anatomy: str | bool
    level_iters: list[int]
    level_records: list[LevelRecord]
    poses: PoseComparison | None
    channel_names: Sequence[str] | None

    @warning_for_keywords()
    @takes_options(DeformableOptions)
    def __init__(self, metric: Any = None, *, options: DeformableOptions):
        # The metric and the options have SyN's order, for positional arguments.
        self._metric = channels.make_metrics(
            metric, options.channel_weights, modulate=options.modulate
        )
        super().__init__(metric=channels.provisional_metric(self._metric))
        self.__dict__.update({name: getattr(options, name) for name in _KEPT_OPTIONS})
        monitor.log_ignored_options(options)
        self.network = factory.make_model(options.model)
        # The displacements of a network do not lie on one axis.
        free = options.phase_encoding is None
        self.uses_default_network = free and factory.is_default_model(options.model)
        self._sigma_field = options.sigma_field
        self.regularizer = factory.make_regularizer(options.regularizer)
        self.regularizer_weight = float(options.regularizer_weight or 0)
        self.device = find_device(options.device)
        self.mask0 = channels.masks_zeros(metric)
        self.verbosity, self.poses = monitor.VerbosityLevels.STATUS, None
        self.channel_names = None
        self.level_records = []
        self.energy_list: list[float] = []
        self.full_energy_profile: list[float] = []
        self.current_level: int | None = None
        self.niter = 0
        self.set_level_iters(options.level_iters)

    def set_level_iters(self, level_iters: Sequence[int] | int | None) -> None:
        """Set the iterations of each level.

        Parameters
        ----------
        level_iters : sequence of int, 0 or None
            Coarsest first; 0 means no refinement; None is the default for the size of
            the static image.

        Raises
        ------
        ValueError
            If it is empty, or an entry is not a whole number of at least 0.
        """
        self._automatic_iters = level_iters is None
        super().set_level_iters(check_iters(level_iters))

    @warning_for_keywords()
    def optimize(
        self,
        static: np.ndarray,
        moving: np.ndarray,
        *,
        static_grid2world: np.ndarray | None = None,
        moving_grid2world: np.ndarray | None = None,
        prealign: np.ndarray | None = None,
        static_mask: np.ndarray | None = None,
        moving_mask: np.ndarray | None = None,
        num_threads: int | None = None,
    ) -> DiffeomorphicMap:
        """Register moving to static; both must already be aligned affinely.

        Static comes first, as in SyN; `deep_registration` takes moving first.

        Parameters
        ----------
        static : array, shape (S, R, C) or (R, C)
            Fixed image; the displacement fields are defined on its grid.  NaN and
            masked values of a `numpy.ma.MaskedArray` are missing data.  If `metric` is
            a sequence, or `channel_weights` are given, the last axis holds K channels:
            (S, R, C, K) or (R, C, K).  Each is scaled and masked by itself.
        moving : array, shape (S', R', C') or (R', C')
            Image that is registered to static; it may have another grid.  Its channel k
            is compared with channel k of static.
        static_grid2world, moving_grid2world : array, shape (dim+1, dim+1), optional
            Voxels to world (mm) of the two images; by default the identity.
        prealign : array, shape (dim+1, dim+1), optional
            Affine from static world to moving world, as DIPY's affine registration
            returns it; by default the identity.
        static_mask, moving_mask : array, optional
            Arrays of the shapes of the images; only voxels other than 0 are compared.
            With channels, one mask for all, without the last axis, or one for each.
        num_threads : int, optional
            Threads on the CPU; None uses Torch's default, -1 all processors.  A process
            that was forked after Torch was loaded uses one thread.

        Returns
        -------
        mapping : dipy.align.imwarp.DiffeomorphicMap
            As from SyN: ``mapping.transform(moving)`` lies on the static grid,
            ``mapping.transform_inverse(static)`` on the moving grid.

        Raises
        ------
        ValueError
            If an image, mask or matrix cannot be used, or if all landmarks of an image
            lie outside it.  This is checked before the registration begins.  The map
            of an earlier pair is then no longer available.

        See Also
        --------
        deep_registration : one call, with the affine registration before it.
        save_mapping, write_mapping : store the map.
        transform_streamlines : streamlines of moving in static's space.

        Notes
        -----
        ``mapping.prealign`` is the **inverse** of `prealign`, as in DIPY, because the
        domain of the map is moving.  For a second registration with the same affine, or
        for another program, use ``mapping.prealign_inv``.

        Examples
        --------
        >>> import numpy as np
        >>> from dipy_dl_reg import DeepRegistration
        >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
        >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
        >>> prealign = np.array(
        ...     [[1, 0, 0.5], [0, 1, 0], [0, 0, 1]]
        ... )  # static to moving world
        >>> registration = DeepRegistration("SSD", level_iters=[10])
        >>> mapping = registration.optimize(
        ...     static=static, moving=moving, prealign=prealign
        ... )
        >>> bool(np.allclose(mapping.prealign_inv, prealign))
        True
        """
        self._forget_results()
        self.energy_list, self.full_energy_profile = [], []
        poses, self.poses, stopwatch = self.poses, None, Stopwatch()
        if self.mask0:
            static_mask = dipy_adapter.mask_of_nonzero(static, static_mask)
            moving_mask = dipy_adapter.mask_of_nonzero(moving, moving_mask)
        affines: dict[str, Any] = {
            "static_grid2world": static_grid2world,
            "moving_grid2world": moving_grid2world,
            "prealign": prealign,
        }
        images: dict[str, Any] = {"static": static, "moving": moving, **affines}
        with threads(num_threads):
            pair = self._make_pair(
                images, {"static_mask": static_mask, "moving_mask": moving_mask}
            )
            pair = dipy_adapter.with_landmarks(pair, self.landmarks)
            check_landmarks_in_view(self.landmarks, pair)
            pair, constraint = constrain(pair, static, moving, self)
            stopwatch.lap("preparation")
            anatomy = make_anatomy_use(self, pair)
            start = prepare_start(self, pair, images, anatomy)
            compared = add_anatomy(self, anatomy, start, pair)
            stopwatch.lap("initial field and metric")
            u, v = refine_within_memory(
                compared,
                make_objective(self, self.metric),
                level_iters=self.level_iters,
                budget=memory_budget(self.max_memory, self.device),
                recorded=self,
                start=start.fields,
                step=2 * self.step_length,
                sigma_field=self.sigma_field,
                sigma_factor=self.ss_sigma_factor,
                tolerance=self.opt_tol,
                constraint=constraint,
            )
            stopwatch.lap("refinement")
            u, v, self.quality = make_diffeomorphic(u, v)
            if constraint is not None:  # rounding errors off the axis
                u, v = (constraint.project(f, pair.static_grid) for f in (u, v))
            measures, shrunk = self._measure(pair, u), self.quality.shrunk
            verdict = judge(measures, poses=poses, shrunk=shrunk)
            self.verdict = add_regularity(anatomy.check(verdict, u), self.quality)
            mapping = dipy_adapter.make_map(u, v, pair, **affines)
            stopwatch.lap("inverse, verdict and map")
            self._finish(mapping, pair, start, stopwatch)
        return mapping

    def _make_pair(self, images: dict[str, Any], masks: dict[str, Any]) -> Pair:
        """Check the images, their affines and their masks; convert them to tensors."""
        return channels.make_pair(
            channels.count_channels(self._metric),
            **images,
            **masks,
            device=self.device,
            find_masks=True,
        )

    def _measure(self, pair: Pair, u: torch.Tensor) -> Measures:
        """Measure the registered images, for the verdict."""
        return measure_channels(pair, u)
