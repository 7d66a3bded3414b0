"""`DeepRegistration`, in place of DIPY's `SymmetricDiffeomorphicRegistration`.

Start reading at `DeepRegistration.optimize`: arrays become a pair of tensors
(`bridge`), the engine refines a field on that very pair (`engine.refine`), the field
is made to keep its promise (`engine.inversion`), and becomes DIPY's map (`bridge`).
"""

from contextlib import closing

from dipy.align.imwarp import DiffeomorphicRegistration, RegistrationStages
from dipy.testing.decorators import warning_for_keywords
from dipy.utils.logging import logger
import numpy as np
from tqdm.auto import tqdm

from dipy_dl_reg.geometry.fields import compose
from dipy_dl_reg.geometry.inversion import diffeomorphic
from dipy_dl_reg.geometry.pair import moved
from dipy_dl_reg.geometry.thin_plate_grid import start_field
from dipy_dl_reg.initialization.displacement_search import discrete, helps
from dipy_dl_reg.initialization.metric_selection import ALIKE, agreement, comparison
from dipy_dl_reg.initialization.network import better_than_none
from dipy_dl_reg.initialization.single_slice import flatten_slices
from dipy_dl_reg.initialization.single_slice import predict_also_slices as predict
from dipy_dl_reg.maps.measures import measure_registration
from dipy_dl_reg.maps.verdict import judge, log_verdict
from dipy_dl_reg.metrics.metrics import CCMetric
from dipy_dl_reg.metrics.objective import Objective
from dipy_dl_reg.metrics.registry import METRIC_MEANINGS
from dipy_dl_reg.optimization import memory
from dipy_dl_reg.optimization.deformable import refine
from dipy_dl_reg.registration import dipy_adapter, factory
from dipy_dl_reg.registration.deformable_options import (
    DEFAULTS,
    automatic_iters,
    brief_iters,
    checked_iters,
    checked_landmarks,
    not_negative,
)
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.registration.landmark_checks import (
    check_landmarks_in_view,
    describe_swapped_rows,
    describe_worst_landmark,
)

try:  # DIPY 1.13 moves it
    from dipy.utils import VerbosityLevels
except ImportError:
    from dipy.align import VerbosityLevels

#: How much more the energy must fall, in a coarse refinement, from the field of a
#: network that nobody asked for: of two about equal ends the one that went less far is
#: the better bet.
_WORTH_IT = 1.01
#: Agreement below which images are of opposite contrasts, and not only far apart.
_OPPOSITE = -0.15
#: What a dropped start means where no refinement was asked for.
_NOTHING_LEFT = (
    "level_iters=0 asks for no refinement, so the map holds no displacement: it is the "
    "affine (prealign) alone, or the spline through landmarks."
)
#: A landmark missed by more of static's voxels than this is told, where they are held.
_MISSED = 2
#: What `optimize` sets.
_RESULTS = (
    *("static_to_moving", "static_to_ref", "moving_to_ref", "quality", "verdict"),
    *("network_used", "initialization_used", "landmark_distances", "affine_only"),
)
_STAGES = {
    "level_start": RegistrationStages.SCALE_START,
    "level_end": RegistrationStages.SCALE_END,
    "iteration_start": RegistrationStages.ITER_START,
    "iteration_end": RegistrationStages.ITER_END,
}


class DeepRegistration(DiffeomorphicRegistration):
    """Diffeomorphic registration by Torch, called as DIPY's SyN is.

    Parameters
    ----------
    metric : str or metric, optional
        What to compare the images by: a name (``"CC"`` local correlation, ``"SSD"``,
        ``"NCC"`` global correlation, ``"MI"`` mutual information, ``"CR"`` correlation
        ratio, ``"MIND"`` self-similarity), a metric of this package, or one of
        `dipy.align.metrics`, which is translated.  By default, or as ``"auto"``, it is
        chosen for the pair: local correlation within a contrast; across contrasts,
        such as T1 and b0, the same once the moving image is shown in static's
        contrast, or self-similarity where no function of intensity does that.  The
        log says which, and why
        (`dipy_dl_reg.initialization.metric_selection.comparison`).
    level_iters : sequence of int, or 0, optional
        Most iterations at each level of the pyramid; `level_iters[0]` is the
        coarsest.  0 skips a level; 0 for all of it is no refinement.  By default as
        many levels as the static image has room for, with up to 100 iterations each
        (40 at the finest of four); most end before, see `opt_tol`.  Where a network's
        field is the start and the metric was chosen for two contrasts, 10 each at
        the levels of 2 mm and finer: more of them lose overlap again.
    step_length : float, optional
        How far an iteration moves each image, in voxels of the level.  SyN moves
        both towards their middle, so that the whole of an update is twice this, and
        here too; local correlation moves voxels by up to 2.8 times as much where the
        images differ most, and most voxels by less.  By default 0.25, as in SyN.
    ss_sigma_factor : float, optional
        Smoothing of the images on the way to a coarser level: the standard
        deviation along an axis is this times the level's voxel size over the
        image's, less 1.  By default 0.8.
    opt_tol : float, optional
        A level ends when an iteration's decrease of its energy, averaged over ten,
        falls below this part of the decrease so far.  By default 0.005.
    inv_iter, inv_tol : float, optional
        Options of SyN without a meaning here (the inverse is always taken to its
        bound); accepted, with a message.
    callback : callable, optional
        ``callback(registration, stage)`` with DIPY's `RegistrationStages`.
    model : str, Path, RegistrationNetwork or None, optional
        Network whose field refinement starts from: one that was trained, the name of
        one that comes with the package (`list_models`), or the file of one
        (`save_network`).  With ``level_iters=0`` its field is the result,
        under the same promise.  A field worse than none, by the metric, is dropped
        with a warning (`network_used` is then False; with ``level_iters=0`` the map is
        the affine alone).  None is no network; ``"auto"``, the default, is the one for
        images of any contrast that comes with the package, ``"pyramid-brain"`` in 3D
        and ``"pyramid-slices"`` in 2D and for volumes of one slice; it sees nothing
        outside masks, a model that is named sees the whole images.  It is left out
        where there are landmarks or a discrete search to begin with, and for images of
        less than 16 of its voxels along an axis; and its field is dropped, too, if the
        images agree without it and a coarse refinement, where there are coarse levels,
        ends no better from it.
    initialization : {"discrete", "auto"} or None, optional
        "discrete" searches for displacements of up to a quarter of the static image's
        longest side first, by self-similarity and so in any contrast, and refinement
        starts from what it finds; "auto" keeps that only if a coarse refinement from
        it lowers the energy by 5 % more than one without.  For images that are far
        apart: it takes seconds in 3D, and of images that are close already it can
        cost overlap.  There is no search where a network's field is kept.  By default
        None.
    sigma_field : float, optional
        Standard deviation, in voxels, of the Gaussian that smooths the whole field
        after each iteration: larger is smoother, and `doc/benchmark` shows what
        overlap it costs.  By default 0.8 for local correlation and 0.7 for other
        metrics, and what suits the pair where the metric is chosen for it.
    regularizer : {"diffusion", "bending", "tv"} or callable, optional
        Penalty on the displacement, besides the smoothing; by default none.
    regularizer_weight : float, optional
        Of that penalty; goes with it.
    landmarks : tuple of array, shape (N, dim), optional
        Points in static's world and the same places in moving's, mm, row by row; at
        least dim + 1, not on one line or plane.  Refinement starts from the thin-plate
        spline through them (and the network looks at what that leaves).  Warnings tell
        of those that lie outside the images, and of those that are not met.
    landmark_weight : float, optional
        Refinement minimises the dissimilarity plus this times the mean squared
        distance of the landmarks, mm**2.  0 lets the images go where they will from
        the start; the default, 1, holds the landmarks.
    device : str or torch.device, optional
        ``"auto"`` is CUDA, else MPS where it works, else the CPU.
    max_memory : float or str, optional
        What refinement may take besides the images as given: bytes, or such as
        ``"1.5 GB"``; by default what is free on the device.  Where that is too
        little the finest levels, or the search, are left out, with a warning; so,
        too, where memory runs out all the same.  It does not count the network, which
        may take up to 2 GB for a head at 1 mm, and none with ``model=None``.
    progress : bool, optional
        Show a bar of the iterations; by default only at a terminal.

    Attributes
    ----------
    metric : Metric
        After `optimize`: what the images were compared by.
    quality : Quality
        After `optimize`: least Jacobian determinant of both fields, round trip
        (voxels of the static grid; mean and maximum) and how many repairs it took.
    verdict : Verdict
        After `optimize`: whether the result is "good", "doubtful" or "failed"
        (`verdict.grade`), and why (`verdict.reasons`); ``print(verdict)`` says both.
        It is logged too, as a warning unless it is "good".
    poses : PoseComparison or None
        Result of the search over poses from which the next prealign comes
        (`dipy_dl_reg.registration.affine_start.PoseComparison`).  Set it before
        `optimize`, whose
        verdict then considers it; `optimize` sets it back to None.
    network_used : bool
        After `optimize`: whether the network's field was better than none, and kept.
    affine_only : bool
        After `optimize`: whether ``level_iters=0`` asked for the field of a network
        (or search) alone and none was kept, so that the map is the affine alone.
    initialization_used : bool
        After `optimize`: whether there was a search, and what it found was kept.
    landmark_distances : ndarray, shape (N,), or None
        After `optimize`: mm from where the map takes each static landmark to its
        moving one.
    energy_list, full_energy_profile : list of float
        Energies of the current level and of all; lower is better.
    levels, level_iters, current_level, niter : int or list
        Where the optimisation stands; level 0 is the finest.
    static_to_ref, moving_to_ref, static_to_moving : DiffeomorphicMap
        After `optimize`: see `get_intermediate_maps` and `get_map`.

    Raises
    ------
    ValueError
        If an option is out of range.

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

    @warning_for_keywords()
    def __init__(
        self,
        metric=None,
        *,
        level_iters=None,
        step_length=None,
        ss_sigma_factor=None,
        opt_tol=None,
        inv_iter=None,
        inv_tol=None,
        callback=None,
        model="auto",
        initialization=None,
        sigma_field=None,
        regularizer=None,
        regularizer_weight=None,
        landmarks=None,
        landmark_weight=1.0,
        device="auto",
        max_memory=None,
        progress=None,
    ):  # the first in SyN's order, for calls that pass them by position
        self._metric = factory.make_metric(metric)
        super().__init__(metric=self._metric or CCMetric())
        given = {
            "step_length": step_length,
            "ss_sigma_factor": ss_sigma_factor,
            "opt_tol": opt_tol,
        }
        for name, value in given.items():
            value = DEFAULTS[name] if value is None else value
            setattr(self, name, not_negative(name, value))
        if self.step_length == 0:
            raise ValueError("step_length must be above 0, got 0.")
        for name, value in (("inv_iter", inv_iter), ("inv_tol", inv_tol)):
            if value is not None:
                logger.info(f"{name} has no effect: both fields are made inverses.")
        self.model, self.network = model, factory.make_model(model)
        self._automatic_model = isinstance(model, str) and model == "auto"
        if initialization not in (None, "discrete", "auto"):
            raise ValueError(
                "initialization must be 'discrete', 'auto' or None, got "
                f"{initialization!r}."
            )
        self.initialization = initialization
        self.inv_iter, self.inv_tol = inv_iter, inv_tol
        self._sigma_field = sigma_field
        if sigma_field is not None:
            not_negative("sigma_field", sigma_field)
        self.regularizer = factory.make_regularizer(regularizer)
        if (regularizer is None) != (regularizer_weight is None):
            raise ValueError("regularizer and regularizer_weight go together.")
        self.regularizer_weight = not_negative(
            "regularizer_weight", regularizer_weight or 0.0
        )
        self.landmarks = checked_landmarks(landmarks)
        self.landmark_weight = not_negative("landmark_weight", landmark_weight)
        self.device = find_device(device)
        self.max_memory = None if max_memory is None else memory.to_bytes(max_memory)
        self.progress, self.poses = progress, None
        self.callback = callback
        self.mask0 = bool(getattr(metric, "mask0", False))
        self.verbosity = VerbosityLevels.STATUS
        self.energy_list, self.full_energy_profile = [], []
        self.current_level, self.niter = None, 0
        self.set_level_iters(level_iters)

    def set_level_iters(self, level_iters):
        """Set the iterations of each level.

        Parameters
        ----------
        level_iters : sequence of int, 0 or None
            Coarsest first; 0 is none at all; None chooses by the size of the static
            image.

        Raises
        ------
        ValueError
            If it is empty or holds anything but whole numbers from 0.
        """
        self._automatic = level_iters is None
        super().set_level_iters(checked_iters(level_iters))

    @warning_for_keywords()
    def optimize(
        self,
        static,
        moving,
        *,
        static_grid2world=None,
        moving_grid2world=None,
        prealign=None,
        static_mask=None,
        moving_mask=None,
        num_threads=None,
    ):
        """Register moving to static, which must be aligned by an affine already.

        Static comes first, as in SyN; `deep_registration` takes moving first.

        Parameters
        ----------
        static : array, shape (S, R, C) or (R, C)
            Image that stays, first as in SyN's `optimize` (`deep_registration` takes
            moving first); the fields live on its grid.  NaN is missing data, and so
            is what is masked in a `numpy.ma.MaskedArray`.
        moving : array, shape (S', R', C') or (R', C')
            Image that is brought onto it; on a grid of its own.
        static_grid2world, moving_grid2world : array, shape (dim+1, dim+1), optional
            Voxels to world (mm) of the two images; by default the identity.
        prealign : array, shape (dim+1, dim+1), optional
            Affine from static world to moving world, as DIPY's affine registration
            returns it; by default the identity.
        static_mask, moving_mask : array, optional
            Shaped as their images: only voxels other than 0 are compared.
        num_threads : int, optional
            Threads on the CPU; None is Torch's own choice, -1 all processors.  A
            process that was forked after Torch was loaded has one.

        Returns
        -------
        mapping : dipy.align.imwarp.DiffeomorphicMap
            As SyN's: ``mapping.transform(moving)`` lies on the static grid,
            ``mapping.transform_inverse(static)`` on the moving grid.

        Raises
        ------
        ValueError
            If an image, mask or matrix cannot be used, or an image holds none of its
            landmarks; before any work.  There is no map then, not that of an earlier
            pair either.
        """
        self._forget_results()
        poses, self.poses = self.poses, None
        if self.mask0:
            static_mask = (
                np.not_equal(static, 0) if static_mask is None else static_mask
            )
            moving_mask = (
                np.not_equal(moving, 0) if moving_mask is None else moving_mask
            )
        affines = {
            "static_grid2world": static_grid2world,
            "moving_grid2world": moving_grid2world,
            "prealign": prealign,
        }
        with threads(num_threads):
            pair = dipy_adapter.make_pair(
                static,
                moving,
                **affines,
                static_mask=static_mask,
                moving_mask=moving_mask,
                device=self.device,
                find_masks=True,
            )
            pair = dipy_adapter.with_landmarks(pair, self.landmarks)
            check_landmarks_in_view(self.landmarks, pair)
            self._prepare(pair)
            whole = pair
            masked = pair.static_mask is not None or pair.moving_mask is not None
            own = self.network is not None and not self._automatic_model
            if masked and own:
                # Masks say what is compared; a network of one's own was trained on
                # whole images, the default one on brains without anything around too.
                whole = dipy_adapter.make_pair(
                    static, moving, **affines, device=self.device
                )
                whole = whole._replace(landmarks=pair.landmarks)
            start = self._affordable_start(pair, whole)
            unrefined = self.model is not None and not any(self.level_iters)
            self.affine_only = unrefined and start is None
            if self._automatic and self.network_used and self._across():
                super().set_level_iters(brief_iters(self.level_iters, pair.static_grid))
            u, v = self._refine(self._shown(pair), start)
            u, v, self.quality = diffeomorphic(u, v)
            measures, shrunk = measure_registration(pair, u), self.quality.shrunk
            self.verdict = judge(measures, poses=poses, shrunk=shrunk)
            mapping = dipy_adapter.make_map(u, v, pair, **affines)
        self.landmark_distances = _distances(mapping, self.landmarks)
        self._report()
        if self.landmarks is not None:
            self._report_landmarks(pair.static_grid)
        self.static_to_ref, self.moving_to_ref = dipy_adapter.make_halves(mapping, pair)
        self.static_to_moving = mapping
        self._emit(RegistrationStages.OPT_END)
        return mapping

    def get_map(self):
        """The map that the last `optimize` returned.

        Returns
        -------
        mapping : DiffeomorphicMap
            ``mapping.transform(moving)`` lies on the static grid.

        Raises
        ------
        ValueError
            Before `optimize`.
        """
        self._check_done()
        return self.static_to_moving

    def get_intermediate_maps(self):
        """The maps from static and from moving to the reference between them.

        SyN's lie halfway.  Here the reference is the prealigned moving image: the
        first map is the whole of the deformation, the second the prealign alone.

        Returns
        -------
        static_to_ref : DiffeomorphicMap
            The whole map.
        moving_to_ref : DiffeomorphicMap
            No displacement.

        Raises
        ------
        ValueError
            Before `optimize`.
        """
        self._check_done()
        return self.static_to_ref, self.moving_to_ref

    def _forget_results(self):
        """Drop what an earlier pair left, so that a failure leaves nothing of it."""
        for name in _RESULTS:
            vars(self).pop(name, None)
        self.energy_list, self.full_energy_profile = [], []

    def _check_done(self):
        if not hasattr(self, "static_to_moving"):
            raise ValueError(
                "There is no map yet: please call DeepRegistration.optimize() first."
            )

    def _prepare(self, pair):
        """Fit metric, network and levels to the images at hand."""
        dim = pair.static_grid.dim
        if self._metric is not None and self._metric.dim not in (None, dim):
            raise ValueError(
                f"metric is for {self.metric.dim}D images, these are {dim}D."
            )
        self.dim, self._comparison = dim, None
        metric = CCMetric() if self._metric is None else self._metric
        self._compare_by(metric, metric.sigma_field)
        if self._automatic_model:
            # Whoever brings a start, or asks for a search, gets that.
            given = self.landmarks is not None or self.initialization == "discrete"
            seen = flatten_slices(pair) or pair
            grids = seen.static_grid, seen.moving_grid
            self.network = None if given else factory.default_model(*grids)
        if self._automatic:
            super().set_level_iters(automatic_iters(pair.static_grid))
        asked = self._automatic_model and self.landmarks is None
        asked = asked and self.initialization is None and not any(self.level_iters)
        if asked and self.network is None:
            logger.warning(
                "The default network is not used: an image has less than 16 of its "
                f"voxels along an axis. {_NOTHING_LEFT} Leave out level_iters."
            )
        self.energy_list, self.full_energy_profile = [], []
        self._emit(RegistrationStages.OPT_START)

    def _compare_by(self, metric, sigma_field):
        """Take a metric, and a smoothing unless another was asked for."""
        self.metric, given = metric, self._sigma_field
        self.sigma_field = sigma_field if given is None else float(given)
        self._objective = Objective(
            metric,
            regularizer=self.regularizer,
            weight=self.regularizer_weight,
            landmark_weight=self.landmark_weight,
        )

    def _choose(self, pair, *, aligned=False):
        """Decide how to compare a pair, aligned as well as it is, if nobody did."""
        nothing = self.network is None and not any(self.level_iters)
        if self._metric is not None or nothing:
            return
        self._comparison = chosen = comparison(pair, aligned=aligned)
        self._compare_by(chosen.metric, chosen.sigma_field)
        mapped = ""
        if chosen.curve is not None:
            mapped = " of static and intensity-mapped moving"
        named = f"{self.metric.name} ({METRIC_MEANINGS[self.metric.name]}{mapped})"
        self._say(f"Metric: {named}. {chosen.reason}")

    def _across(self):
        """Whether the images were found to be of different contrasts."""
        return self._comparison is not None and self._comparison.across

    def _shown(self, pair):
        """The pair as it is compared."""
        return pair if self._comparison is None else self._comparison.shown(pair)

    def _start(self, pair, whole):
        """The field to begin with and its inverse, sound and of use; or None.

        The spline through the landmarks, and the network's or the search's after it.
        """
        self.network_used = self.initialization_used = self._spline_folds = False
        spline = None
        if pair.landmarks is not None:
            u, v, quality = diffeomorphic(start_field(pair))
            self._spline_folds, spline = quality.repairs > 0, (u, v)
            pair, whole = moved(pair, *spline), moved(whole, *spline)
        found = self._predicted(pair, whole)
        if found is None:
            found = self._searched(pair)
            if self._comparison is None:
                self._choose(pair if found is None else moved(pair, *found))
        if spline is None or found is None:
            return found or spline
        (u, v), (first, last) = found, spline
        return compose(u, first), compose(last, v)

    def _predicted(self, pair, whole):
        """The network's field and its inverse; None where it is of no use."""
        if self.network is None:
            return None
        if not self.network.symmetric:
            self._choose(pair)  # it is asked for what the metric thinks best
        alone = not any(self.level_iters)
        fields = predict(self.network, whole, self._objective, alone=alone)
        u, v, _ = diffeomorphic(*fields)
        if not bool(u.any()):
            return None  # it says that there is nothing to do
        if self.network.symmetric:
            self._choose(moved(pair, u, v), aligned=True)
        self.network_used = self._is_of_use(pair, u, v)
        if self.network_used:
            return u, v
        self._report_dropped_field()
        self._comparison = None  # it rests on that field
        return None

    def _report_dropped_field(self):
        """Say that the network's field is not used, what follows, and what to do."""
        alone = not any(self.level_iters)
        said = (
            "The network's field is not used: by the metric "
            f"{self.metric.name} the images are aligned no better with it than without"
        )
        if self._automatic_model and not alone:
            self._say(f"{said}. Refinement begins without it.")
            return
        check = (
            "check that the images are aligned by an affine, and are of the kind that "
            "the network was trained on"
        )
        if alone:
            check = f"{_NOTHING_LEFT} Leave out level_iters, or {check}"
        else:
            check = f"Refinement begins without it; {check}"
        logger.warning(f"{said}. {check}.")

    def _is_of_use(self, pair, u, v):
        """Whether a network's field is better than none.

        One that nobody asked for must be so after coarse levels, too, if there are any;
        but where the images are far apart, or were found to be of different contrasts,
        the network knows more than any metric tells.
        """
        shown, spacing = self._shown(pair), self.network.spacing
        better = better_than_none(shown, u, self._objective, spacing=spacing)
        if better and self._automatic_model and any(self.level_iters[:-1]):
            told = agreement(pair)
            far = told is not None and _OPPOSITE < told < ALIKE
            if not far and not self._across():
                return helps(shown, self._objective, u, v, worth=_WORTH_IT)
        return better

    def _searched(self, pair):
        """The field of the discrete search and its inverse, if wanted and of use."""
        if self.initialization is None:
            return None
        wanted = memory.needed_by_search(pair.static_grid)
        if wanted > self._budget():
            logger.warning(
                f"The search is left out: it would take {wanted:.2g} bytes of memory "
                f"where {self._budget():.2g} may be used."
            )
            return None
        u, v, _ = diffeomorphic(*discrete(pair))
        automatic = self.initialization == "auto"
        if automatic:
            self._choose(pair)
        if automatic and not helps(self._shown(pair), self._objective, u, v):
            return None
        self.initialization_used = True
        return u, v

    def _budget(self):
        """Bytes that may be used, or infinity where nobody knows."""
        free = self.max_memory or memory.free_memory(self.device)
        return float("inf") if free is None else free

    def _plan(self, pair):
        """Iterations per level, as far as memory goes."""
        budget, wanted = self._budget(), self.level_iters
        about = int(np.prod(pair.static_grid.shape)), self.dim, self._objective
        plan = memory.within(budget, wanted, *about)
        size = memory.needed(plan, *about)
        if plan != wanted or size > budget:
            logger.warning(
                f"Refinement with {wanted} iterations would take "
                f"{memory.needed(wanted, *about):.2g} bytes of memory where "
                f"{budget:.2g} may be used: it is cut down to {plan}"
                + (f", which takes {size:.2g} still." if size > budget else ".")
            )
        return plan

    def _affordable_start(self, pair, whole):
        """What `_start` finds, or nothing if memory does not suffice for it."""
        try:
            return self._start(pair, whole)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
        logger.warning("Memory has run out: refinement begins without a start.")
        self.network_used = self.initialization_used = False
        self._comparison = None  # it may rest on a field that is lost
        self._choose(pair)
        return None

    def _refine(self, pair, start):
        """Run the engine, on a smaller plan where memory runs out."""
        plan = self._plan(pair)
        while True:
            try:
                return self._run(pair, start, plan)
            except (RuntimeError, MemoryError) as error:
                smaller = memory.coarser(plan) if memory.ran_out(error) else None
                if smaller is None:
                    raise
            logger.warning(f"Memory has run out: from {plan} iterations to {smaller}.")
            self.energy_list, self.full_energy_profile = [], []
            plan = smaller

    def _run(self, pair, start, level_iters):
        """The engine with a progress bar, callbacks and messages around it."""
        disable = None if self.progress is None else not self.progress
        with closing(tqdm(total=sum(level_iters), disable=disable, unit="it")) as bar:
            return refine(
                pair,
                self._objective,
                level_iters=level_iters,
                start=start,
                step=2 * self.step_length,
                sigma_field=self.sigma_field,
                sigma_factor=self.ss_sigma_factor,
                tolerance=self.opt_tol,
                observer=lambda *event: self._observe(bar, *event),
            )

    def _observe(self, bar, stage, level, energy):
        """Keep DIPY's records and pass the engine's events on."""
        if stage == "level_start":
            self.current_level, self.energy_list, self.niter = level, [], 0
            bar.set_description(f"level {level}")
            self._say(f"Optimizing level {level}")
        elif stage == "iteration_end":
            self.energy_list.append(energy)
            bar.update()
            bar.set_postfix(energy=f"{energy:.4f}", refresh=False)
            if self.verbosity >= VerbosityLevels.DIAGNOSE:
                logger.info(f"{self.niter + 1}:\t{energy:.6f}")
        elif stage == "level_reverted":
            self._say(
                f"Level {level} ended with a higher energy than it began with: its "
                f"fields of the lowest energy, {energy:.4f}, are kept."
            )
            return
        elif stage == "level_end":
            self.full_energy_profile.extend(self.energy_list)
        self._emit(_STAGES[stage])
        if stage == "iteration_end":
            self.niter += 1  # after the callback, as SyN counts

    def _say(self, message):
        """A line of the log, for who wants to know how it goes."""
        if self.verbosity >= VerbosityLevels.STATUS:
            logger.info(message)

    def _emit(self, stage):
        if self.callback is not None:
            self.callback(self, stage)

    def _report(self):
        """Log verdict and quality of the fields; warn if these had to be repaired."""
        q = self.quality
        log_verdict(self.verdict, quiet=self.verbosity < VerbosityLevels.STATUS)
        if self.verbosity >= VerbosityLevels.STATUS:
            logger.info(
                f"Least Jacobian determinant {q.minimum_jacobian:.3f}, of the inverse "
                f"{q.minimum_jacobian_inverse:.3f}; round trip {q.round_trip_mean:.3f} "
                f"voxel on average, {q.round_trip_max:.3f} at most"
                + (f"; rounds of repair: {q.repairs}." if q.repairs else ".")
            )

    def _report_landmarks(self, grid):
        """Say how near the map comes to landmarks in view, and loudly if it is not."""
        inside = grid.contains(self.landmarks[0])
        missed = np.where(inside, self.landmark_distances, 0)
        if self.verbosity >= VerbosityLevels.STATUS:
            logger.info(
                f"Landmarks missed by {missed.sum() / max(1, inside.sum()):.3f} mm on "
                f"average, {missed.max():.3f} at most."
            )
        far = self.landmark_weight and missed.max() > _MISSED * grid.spacing.max()
        if self._spline_folds or far:
            logger.warning(
                "The map does not meet all landmarks"
                + (", for their spline folds. " if self._spline_folds else ". ")
                + describe_worst_landmark(missed, *self.landmarks)
                + " Landmarks that cross or contradict the images may be the cause."
                + (describe_swapped_rows(*self.landmarks) if self._spline_folds else "")
            )


def _distances(mapping, landmarks):
    """How far a map misses landmarks, mm."""
    if landmarks is None:
        return None
    landed = np.asarray(mapping.transform_points(landmarks[0]))
    return np.linalg.norm(landed - landmarks[1], axis=1)
