"""What a `DeepRegistration` holds after `optimize`: the maps, and what the log says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipy.align.imwarp import (
    DiffeomorphicMap,
    DiffeomorphicRegistration,
    RegistrationStages,
)
import numpy as np

from dipy_dl_reg.geometry.fold_repair import Quality
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.initialization.starts import Start
from dipy_dl_reg.maps.verdict import Verdict, log_verdict
from dipy_dl_reg.registration import dipy_adapter, monitor
from dipy_dl_reg.registration.recording import Stopwatch, make_record

if TYPE_CHECKING:
    from dipy_dl_reg.maps.record import RegistrationRecord

#: Attributes that `optimize` sets.
RESULTS = (
    *("static_to_moving", "static_to_ref", "moving_to_ref", "quality", "verdict"),
    *("network_used", "initialization_used", "landmark_distances", "affine_only"),
    *("record", "anatomy_used"),
)


class DeformableResults(DiffeomorphicRegistration):
    """Base class of `DeepRegistration`, with the results of `optimize`.

    Attributes
    ----------
    static_to_moving, static_to_ref, moving_to_ref : DiffeomorphicMap
        See `get_map` and `get_intermediate_maps`.
    quality, verdict, record : Quality, Verdict and RegistrationRecord
        See `DeepRegistration`.
    network_used, anatomy_used, initialization_used, affine_only : bool
        See `DeepRegistration`.
    landmarks, landmark_weight, landmark_distances : tuple, float and ndarray
        See `DeepRegistration`.
    verbosity : int
        One of DIPY's `VerbosityLevels`.
    """

    static_to_moving: DiffeomorphicMap
    static_to_ref: DiffeomorphicMap
    moving_to_ref: DiffeomorphicMap
    quality: Quality
    verdict: Verdict
    record: RegistrationRecord
    network_used: bool
    anatomy_used: bool
    initialization_used: bool
    affine_only: bool
    landmarks: tuple[np.ndarray, np.ndarray] | None
    landmark_weight: float
    landmark_distances: np.ndarray | None
    verbosity: int

    def _forget_results(self) -> None:
        """Delete the results of an earlier pair, so that an error leaves none."""
        for name in RESULTS:
            self.__dict__.pop(name, None)

    def get_map(self) -> DiffeomorphicMap:
        """Return the map that the last `optimize` returned.

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

    def get_intermediate_maps(self) -> tuple[DiffeomorphicMap, DiffeomorphicMap]:
        """Return the maps from static and from moving to a common reference space.

        In SyN the reference is half-way between the images.  Here the reference is the
        prealigned moving image: the first map contains the whole deformation, the
        second only the prealign.

        Returns
        -------
        static_to_ref : DiffeomorphicMap
            The whole deformation.
        moving_to_ref : DiffeomorphicMap
            The prealign, without displacement.

        Raises
        ------
        ValueError
            Before `optimize`.
        """
        self._check_done()
        return self.static_to_ref, self.moving_to_ref

    def _check_done(self) -> None:
        if not hasattr(self, "static_to_moving"):
            raise ValueError(
                "There is no map yet: please call DeepRegistration.optimize() first."
            )

    def _finish(
        self,
        mapping: DiffeomorphicMap,
        pair: Pair,
        start: Start,
        stopwatch: Stopwatch,
    ) -> None:
        """Set the attributes of the result, and log its quality and verdict."""
        log_verdict(self.verdict, quiet=self.verbosity < monitor.VerbosityLevels.STATUS)
        distances = monitor.measure_landmark_distances(mapping, self.landmarks)
        self.landmark_distances = distances
        self.record = make_record(self, start, stopwatch)
        messages = [monitor.describe_quality(self.quality)]
        if self.landmarks is not None and distances is not None:
            weight, folds = self.landmark_weight, start.spline_folds
            messages += monitor.describe_landmark_errors(
                *(distances, self.landmarks, pair.static_grid),
                weight=weight,
                spline_folds=folds,
            )
        monitor.log_messages(messages, self.verbosity)
        self.static_to_ref, self.moving_to_ref = dipy_adapter.make_halves(mapping, pair)
        self.static_to_moving = mapping
        monitor.call_back(self, RegistrationStages.OPT_END)
