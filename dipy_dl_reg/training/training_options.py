"""Options of a training, each declared once: name, type, default, description, check.

`dipy_dl_reg.fit`, `train_network`, the command ``dipy_train_deep`` and the recipe in a
network's card all take them from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dipy_dl_reg.validation import (
    check_affine,
    check_choice,
    check_number,
    check_whole_number,
    wrong_value,
)

#: A file, or an image in memory: nibabel's, an array or a tensor.
ImageLike = str | Path | Any
#: A folder; files, images in memory, or pairs of these; or an array of images.
ImagesLike = str | Path | Sequence[str] | Any


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the loss and of the loop of a training.

    Parameters
    ----------
    steps : int
        Updates of the weights, those before an interruption included.
    batch_size : int, optional
        Pairs per step and process.
    metric : Metric or str, optional
        Measure of how alike two images are: "cc" (local correlation), "ssd" (squared
        difference; also "mse"), "ncc" (global correlation), "mi" (mutual information),
        "cr" (correlation ratio) or "mind" (self-similarity), in any case.  None
        compares the labels alone.
    regularizer : callable or str, optional
        Penalty on the field: "diffusion", "bending", "tv", or None.
    weight : float, optional
        Weight of the penalty.
    dice_weight : float, optional
        Weight of the overlap of the labels, see `dice_loss`.
    learning_rate : float, optional
        Learning rate of Adam :footcite:p:`Kingma2015`.
    amsgrad : bool, optional
        Divide by the largest second moment so far :footcite:p:`Reddi2018`.
    schedule : {None, "cosine"}, optional
        None keeps the learning rate; "cosine" lowers it to 0 along half a cosine.
    validate_every : int, optional
        Steps from one row of the log, and one validation, to the next.
    patience : int, optional
        Validations in a row without a better one after which training stops.
    augment : callable, optional
        ``augment(example, generator) -> example``: changes a pair at random, such as
        `Augment`.
    seed : int, optional
        Seed of all that is random.
    workers : int, optional
        Processes that prepare examples; the examples stay the same.
    mixed_precision : bool, optional
        Run the network in bfloat16 and all else in float32; by default on CUDA.
    checkpoint : str or Path, optional
        File for the state of the training, which ``resume`` continues; it is also a
        file of the network.  On several machines it must be one that all see.
    checkpoint_every : int, optional
        Steps from one checkpoint to the next; the last is written at the end, or where
        the training is interrupted (Ctrl-C).
    resume : bool, optional
        Continue from the checkpoint, if there is one.
    time_limit : float, optional
        Seconds from the call after which training stops, the time for reading images
        and for affine registrations included.  The current step is finished, the
        checkpoint written, and the validation that would follow left out.
    log : str or Path, optional
        File ``....csv`` for the losses, or a folder for TensorBoard; a training that is
        resumed writes all its rows again.
    progress : bool, optional
        Show a progress bar.  By default a bar is shown if the output is a terminal;
        else the log gets a line every minute.

    Raises
    ------
    ValueError
        If an option is out of range, or options do not go together.
    """

    #: Options of where a training runs and writes, which do not change its result.
    NOT_IN_RECIPE: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint", "checkpoint_every", "resume", "log", "progress", "workers"}
    )

    steps: int
    batch_size: int = 1
    metric: str | Callable[..., Any] | None = "NCC"
    regularizer: str | Callable[..., Any] | None = "diffusion"
    weight: float = 0.1
    dice_weight: float = 0.0
    learning_rate: float = 1e-4
    amsgrad: bool = False
    schedule: Literal["cosine"] | None = None
    validate_every: int = 100
    patience: int | None = None
    augment: Callable[..., Any] | None = None
    seed: int = 0
    workers: int = 0
    mixed_precision: bool | None = None
    checkpoint: str | Path | None = None
    checkpoint_every: int = 500
    resume: bool = False
    time_limit: float | None = None
    log: str | Path | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
            check_whole_number(name, getattr(self, name), low=1)
        check_whole_number("workers", self.workers)
        if self.patience is not None:
            check_whole_number("patience", self.patience, low=1)
        check_number("learning_rate", self.learning_rate, above=True)
        check_number("weight", self.weight)
        check_number("dice_weight", self.dice_weight)
        if self.metric is None and not self.dice_weight:
            raise ValueError("metric=None requires a dice_weight above 0.")
        if self.schedule is not None:
            check_choice("schedule", self.schedule, ["cosine"])
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, above=True)
        if self.resume and self.checkpoint is None:
            raise ValueError("resume needs a checkpoint to continue from, got none.")

    def check_validation(self, given: bool) -> None:
        """Check that there is validation where options need it.

        Parameters
        ----------
        given : bool
            Whether there are validation pairs.

        Raises
        ------
        ValueError
            If there are none, and `patience` is set.
        """
        if self.patience is not None and not given:
            raise ValueError("patience needs validation pairs, got none.")

    @property
    def is_resumed(self) -> bool:
        """Whether there is a checkpoint to continue from.

        Returns
        -------
        resumed : bool
            False where the training begins anew.
        """
        return bool(self.resume and self.checkpoint and Path(self.checkpoint).exists())

    def loop_settings(self) -> dict[str, Any]:
        """Options of the loop that a training must share with its continuation.

        Returns
        -------
        settings : dict
            By name; the steps count only where the learning rate depends on them.
        """
        names = ["seed", "learning_rate", "amsgrad", "schedule", "augment"]
        names += ["validate_every", "mixed_precision"]
        if self.schedule is not None:
            names.append("steps")
        return {name: getattr(self, name) for name in names}

    def recipe(self) -> dict[str, Any]:
        """Options that a network's card states.

        Returns
        -------
        recipe : dict
            Values that JSON can hold; of functions and metrics the name or the `repr`.
        """
        names = [f.name for f in fields(self) if f.name not in self.NOT_IN_RECIPE]
        return {name: _json_value(getattr(self, name)) for name in names}


@dataclass(frozen=True, eq=False)
class DataOptions:
    """Options of the images of a training: labels, pairs, grid, those held out.

    Parameters
    ----------
    atlas : str, Path, nibabel image or array, optional
        Static image of every pair.  By default images are paired with each other.
    labels : str, Path, or sequence, optional
        Label maps, for a ``dice_weight`` above 0: a list as long as that of the images;
        or a folder with a file for each image, of its name or of that and ``_labels``,
        ``_label``, ``_seg`` or ``_dseg``.
    atlas_labels : str, Path, nibabel image or array, optional
        Label map of the atlas; goes with `labels`.
    reference : str, Path, nibabel image or array, optional
        Image whose field of view the common grid has.  By default the atlas, else the
        first image; of a list of pairs each has its own, that of its static image.
    prealign : {None, "affine"} or sequence of array, shape (dim+1, dim+1), optional
        None takes world coordinates as they are; "affine" registers each image to
        the reference first (of a pair, moving to static; to an atlas, which
        itself is registered to a `reference`); or a matrix for each image, the
        validation's last: reference world (static's) to its world.  The matrices found
        are stored beside the checkpoint, ``NAME.prealign.json``, for ``resume``.
    spacing : float, optional
        Voxel size, mm.  By default the network's, else the finest of the reference;
        a network without one takes it on, unless the images are arrays.
    validation : float, str, Path, or sequence, optional
        Part of the images (or pairs) that is held out, such as 0.2, chosen by `seed`;
        or other images, given as those trained on are.  The network ends with the
        weights that did best on it.
    validation_labels : str, Path, or sequence, optional
        Label maps of the validation images, where these are given.

    Raises
    ------
    ValueError
        If an option is out of range, or options do not go together.
    """

    atlas: ImageLike | None = None
    labels: ImagesLike | None = None
    atlas_labels: ImageLike | None = None
    reference: ImageLike | None = None
    prealign: Literal["affine"] | Sequence[np.ndarray] | None = None
    spacing: float | None = None
    validation: float | ImagesLike | None = None
    validation_labels: ImagesLike | None = None

    def __post_init__(self) -> None:
        if self.spacing is not None:
            check_number("spacing", self.spacing, above=True)
        if self.atlas_labels is not None and self.atlas is None:
            raise ValueError("atlas_labels go with an atlas")
        if self.atlas is not None:
            if (self.atlas_labels is None) != (self.labels is None):
                raise ValueError(
                    "atlas_labels and labels go together: both, or neither"
                )
        part = self.validation_part
        if part is not None:
            check_number("validation", part, above=True, high=1, below=True)
        elif self.validation is not None:
            if (self.validation_labels is None) != (self.labels is None):
                raise ValueError("validation_labels go with labels, and only with them")

    @property
    def validation_part(self) -> float | None:
        """Part of the images that is held out.

        Returns
        -------
        part : float or None
            None where validation images are given, or none are wanted.
        """
        value = self.validation
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        return None

    @property
    def prealign_kind(self) -> str:
        """Kind of the prealign.

        Returns
        -------
        kind : {"none", "affine", "matrices"}
            For a network's card.
        """
        if self.prealign is None:
            return "none"
        return self.prealign if isinstance(self.prealign, str) else "matrices"

    def matrices(self, count: int, dim: int) -> list[np.ndarray | str | None]:
        """Prealign of each image.

        Parameters
        ----------
        count : int
            Number of images (or pairs), the validation's included.
        dim : {2, 3}
            Their dimension.

        Returns
        -------
        matrices : list
            A matrix of each; "affine" where it is still to be found; None where world
            coordinates are taken as they are.

        Raises
        ------
        ValueError
            If `prealign` is not of that number or dimension.
        """
        if self.prealign is None:
            return [None] * count
        if isinstance(self.prealign, str):
            if self.prealign != "affine" or dim == 2:
                raise wrong_value(
                    "prealign",
                    f"None, 'affine' (for 3D images; these are {dim}D) or matrices",
                    self.prealign,
                )
            return [self.prealign] * count
        matrices = [
            check_affine(matrix, dim, f"prealign[{i}]")
            for i, matrix in enumerate(self.prealign)
        ]
        if len(matrices) != count:
            raise ValueError(
                f"prealign must hold a matrix for each of {count} images (or pairs), "
                f"the validation's last, got {len(matrices)}"
            )
        return list(matrices)


def _json_value(value: object) -> object:
    """An option as a value that JSON can hold."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", repr(value))
