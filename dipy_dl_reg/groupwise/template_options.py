"""Options of a template and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

from dipy_dl_reg.groupwise.identity import describe_value
from dipy_dl_reg.registration.deformable_options import check_iters
from dipy_dl_reg.validation import (
    check_choice,
    check_number,
    check_whole_number,
    wrong_value,
)

#: Averages over the subjects.
AVERAGES = ("mean", "median")
#: Affine maps between the template and the subjects.
TRANSFORMS = ("affine", "rigid")


@dataclass(frozen=True)
class TemplateOptions:
    """Options of a template.

    Parameters
    ----------
    iterations : int, optional
        Number of deformable registrations of each subject to the template, after each
        of which the template is made anew.  The first half of them, rounded down, omits
        the finest level, because the template is not sharp yet.  0 gives a template
        from affine maps alone.
    affine_iterations : int, optional
        Number of affine registrations of each subject to the mean of all, after the
        first alignment.
    transform : {"affine", "rigid"}, optional
        Affine part of the maps.  ``"rigid"`` is for visits of one subject, whose head
        has the same size in all of them.
    average : {"mean", "median"}, optional
        How the intensities of the subjects are combined in each voxel.  The median is
        robust against what only few of them show.
    sharpening : float, optional
        The difference between the average and its smoothed copy (Gaussian with a
        standard deviation of one voxel), multiplied by this number, is added to the
        average.  0 leaves the average as it is.
    voxel_size : float, optional
        Voxel size of the template, mm; by default the median over the subjects of the
        cube root of their voxel volume.
    metric : str, metric, or sequence of these, optional
        Metric of the deformable registration (see `DeepRegistration`); for several
        channels, one for all or one for each.
    level_iters : sequence of int, optional
        Maximum number of iterations at each level of the deformable registration,
        coarsest first.
    channel_weights : sequence of float, optional
        Weights of several channels (see `DeepRegistration`).
    model : str, Path or None, optional
        Network that the deformable registrations start from (see `DeepRegistration`);
        by default none.
    sigma_field : float, optional
        Smoothing of the field (see `DeepRegistration`).
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    iterations: int = 4
    affine_iterations: int = 2
    transform: Literal["affine", "rigid"] = "affine"
    average: Literal["mean", "median"] = "mean"
    sharpening: float = 0.5
    voxel_size: float | None = None
    metric: Any = None
    level_iters: Sequence[int] | None = None
    channel_weights: Sequence[float] | None = None
    model: str | PathLike | None = None
    sigma_field: float | None = None
    device: Any = "auto"

    def __post_init__(self) -> None:
        for name in ("iterations", "affine_iterations"):
            check_whole_number(name, getattr(self, name), low=0)
        check_choice("transform", self.transform, TRANSFORMS)
        check_choice("average", self.average, AVERAGES)
        check_number("sharpening", self.sharpening)
        if self.voxel_size is not None:
            check_number("voxel_size", self.voxel_size, above=True)
        levels = check_iters(self.level_iters)
        if levels == [0]:
            wanted = "numbers of iterations; iterations=0 leaves out deformation"
            raise wrong_value("level_iters", wanted, self.level_iters)
        object.__setattr__(self, "level_iters", levels)

    @property
    def steps(self) -> list[str]:
        """Steps of an affine registration that begins near the solution."""
        return ["rigid"] if self.transform == "rigid" else ["rigid", "affine"]

    @property
    def first_steps(self) -> list[str]:
        """Steps of an affine registration of images in any pose."""
        return ["center_of_mass", "translation", *self.steps]

    def describe(self) -> dict[str, Any]:
        """The options as plain values, for comparison and for JSON files.

        Returns
        -------
        options : dict
            Numbers, texts and lists by name, without the device.
        """
        names = [name for name in self.__dataclass_fields__ if name != "device"]
        return {name: describe_value(getattr(self, name)) for name in names}
