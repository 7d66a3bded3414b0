"""`DeepRegistration` of images whose channels are reoriented in every iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.diffusion.direction_images import DirectionImage
from dipy_dl_reg.geometry.direction_images import make_direction_pair
from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.geometry.reorientation import HarmonicRotation, TensorRotation
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.measures import Measures, measure_registration
from dipy_dl_reg.metrics.orientation import OrientationMetric
from dipy_dl_reg.registration.affine.call import deep_affine_registration
from dipy_dl_reg.registration.deformable import DeepRegistration
from dipy_dl_reg.registration.image_checks import check_affine_or_none, check_mask

if TYPE_CHECKING:
    import torch


class ReorientingRegistration(DeepRegistration):
    """Deformable registration of images whose channels depend on directions.

    Parameters
    ----------
    rotation : TensorRotation or HarmonicRotation
        What the channels after the first are, and how they are reoriented.
    metric : OrientationMetric
        Compares the channels.
    **options : dict
        Options of `DeepRegistration`.
    """

    def __init__(
        self,
        rotation: TensorRotation | HarmonicRotation,
        metric: OrientationMetric,
        **options: Any,
    ) -> None:
        super().__init__(metric, model=None, **options)
        self._rotation = rotation
        self._axes = (np.eye(3), np.eye(3))

    def register(
        self,
        moving: DirectionImage,
        static: DirectionImage,
        *,
        prealign: Any = None,
        steps: Sequence[Any] = (),
        affine_options: dict[str, Any] | None = None,
        num_threads: int | None = None,
    ) -> DiffeomorphicMap:
        """Register two images: affinely by the first channels, then by all of them.

        Parameters
        ----------
        moving, static : DirectionImage
            The images.
        prealign : array or AffineMap, optional
            Static world to moving world.
        steps : sequence of str, optional
            Affine steps.
        affine_options : dict, optional
            Passed to `deep_affine_registration`.
        num_threads : int, optional
            See `optimize`.

        Returns
        -------
        mapping : DiffeomorphicMap
            The map from static to moving.
        """
        prealign = getattr(prealign, "affine", prealign)
        if steps:
            given = {"device": self.device, "num_threads": num_threads}
            prealign = deep_affine_registration(
                moving=moving.channels[..., 0],
                static=static.channels[..., 0],
                moving_affine=moving.affine,
                static_affine=static.affine,
                moving_mask=moving.mask,
                static_mask=static.mask,
                pipeline=steps,
                starting_affine=prealign,
                **given | (affine_options or {}),
            )[1]
        self._axes = static.axes, moving.axes
        return self.optimize(
            static=static.channels,
            moving=moving.channels,
            static_grid2world=static.affine,
            moving_grid2world=moving.affine,
            prealign=prealign,
            static_mask=static.mask,
            moving_mask=moving.mask,
            num_threads=num_threads,
        )

    def _make_pair(self, images: dict[str, Any], masks: dict[str, Any]) -> Pair:
        """Make the pair of the channels, with their reorientation."""
        arrays = images["static"], images["moving"]
        affines = images["static_grid2world"], images["moving_grid2world"]
        grids = tuple(
            Grid(array.shape[:3], check_affine_or_none(affine, f"{role}_affine", 3))
            for array, affine, role in zip(arrays, affines, ("static", "moving"))
        )
        pair = make_direction_pair(
            arrays,
            (grids[0], grids[1]),
            self._rotation,
            axes=self._axes,
            prealign=check_affine_or_none(images["prealign"], "prealign", 3),
            masks=(
                check_mask(masks["static_mask"], arrays[0][..., 0], "static"),
                check_mask(masks["moving_mask"], arrays[1][..., 0], "moving"),
            ),
            device=self.device,
        )
        if not bool(pair.overlap().any()):
            raise ValueError(
                "static and moving do not overlap: with the affines and prealign "
                "given, no static voxel lies inside the moving image. Check that none "
                "is missing, or use a pipeline that begins with center_of_mass."
            )
        return pair

    def _measure(self, pair: Pair, u: torch.Tensor) -> Measures:
        """Measure the first channel, which is an image like any other."""
        return measure_registration(pair.channel(0), u)
