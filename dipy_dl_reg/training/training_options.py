"""Options of a training: names, types, defaults, descriptions and checks.

`dipy_dl_reg.fit`, `train_network`, the command ``dipy_train_deep`` and the recipe in a
network's card use these definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dipy_dl_reg.metrics.registry import REGULARIZERS, list_metrics
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.validation import (
    check_affine,
    check_number,
    check_whole_number,
    wrong_value,
)

#: A file, or an image in memory: nibabel's, an array or a tensor.
ImageLike = str | Path | Any
#: A folder; files, images in memory, or pairs of these; or an array of images.
ImagesLike = str | Path | Sequence[str] | Any


@fill_docstring(metrics=list_metrics(), regularizers=REGULARIZERS)
@dataclass(frozen=True)
class TrainingOptions:
    """Options of the loss and of the loop of a training.

    Parameters
    ----------
    steps : int
        Number of updates of the weights, including those before an interruption.
    batch_size : int, optional
        Pairs per step and process.
    metric : Metric or str, optional
        Measure of the similarity of two images:
        {metrics},
        in upper or lower case; "MSE" is another name of "SSD".  With None, only labels
        are compared.
    regularizer : callable or str, optional
        Penalty on the field: {regularizers}, or None.
    weight : float, optional
        Weight of the penalty.
    dice_weight : float, optional
        Weight of one minus the soft Dice overlap of the labels.
    learning_rate : float, optional
        Learning rate of Adam :footcite:p:`Kingma2015`.
    amsgrad : bool, optional
        Divide by the largest second moment so far :footcite:p:`Reddi2018`.
    schedule : {None, "cosine"}, optional
        With None the learning rate is constant; "cosine" decreases it to 0 along half a
        cosine.
    validate_every : int, optional
        Number of steps between rows of the log, and between validations.
    patience : int, optional
        Number of successive validations without improvement after which training stops.
    augment : callable, optional
        ``augment(example, generator) -> example``: changes a pair at random, such as
        ``dipy_dl_reg.training.examples.augmentation.Augment()``.
    seed : int, optional
        Seed of all random numbers.
    workers : int, optional
        Number of processes that prepare examples; it does not change the examples.
    mixed_precision : bool, optional
        Run the network in bfloat16 and all other computations in float32; by default
        only on CUDA.
    checkpoint : str or Path, optional
        File for the state of the training, from which ``resume`` continues; it is also
        a file of the network.  With several machines, all must be able to access it.
    checkpoint_every : int, optional
        Number of steps between checkpoints; the last one is written at the end, or when
        the training is interrupted (Ctrl-C).
    resume : bool, optional
        Continue from the checkpoint, if there is one.
    time_limit : float, optional
        Seconds after which training stops, counted from the call; this includes the
        time for reading images and for affine registrations.  The current step is
        completed and the checkpoint is written, but there is no further validation.
    log : str or Path, optional
        File that ends in ``.csv`` for the losses, or a folder for TensorBoard; a
        resumed training also writes the rows of the interrupted one.
    progress : bool, optional
        Show a progress bar.  By default a bar is shown if the output is a terminal;
        otherwise a line is logged after 10 s, and every minute from then on.

    Raises
    ------
    ValueError
        If an option is out of range, or options contradict each other.
    """

    #: Options of execution and output, which do not change the result of a training.
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
        if self.schedule not in (None, "cosine"):
            raise wrong_value("schedule", "None or 'cosine'", self.schedule)
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, above=True)
        if self.resume and self.checkpoint is None:
            raise ValueError("resume requires a checkpoint, got none.")

    def check_validation(self, given: bool) -> None:
        """Check that there are validation pairs if options require them.

        Parameters
        ----------
        given : bool
            Whether there are validation pairs.

        Raises
        ------
        ValueError
            If there are no validation pairs, but `patience` is set.
        """
        if self.patience is not None and not given:
            raise ValueError("patience requires validation pairs, got none.")

    @property
    def is_resumed(self) -> bool:
        """Whether there is a checkpoint to continue from.

        Returns
        -------
        resumed : bool
            False if the training begins from the start.
        """
        return bool(self.resume and self.checkpoint and Path(self.checkpoint).exists())

    def loop_settings(self) -> dict[str, Any]:
        """Options of the loop that must be equal when a training is resumed.

        Returns
        -------
        settings : dict
            Options by name; the number of steps is included only if the learning rate
            depends on it.
        """
        names = ["seed", "learning_rate", "amsgrad", "schedule", "augment"]
        names += ["validate_every", "mixed_precision"]
        if self.schedule is not None:
            names.append("steps")
        return {name: getattr(self, name) for name in names}

    def recipe(self) -> dict[str, Any]:
        """Options to be stored in a network's card.

        Returns
        -------
        recipe : dict
            Values that JSON can store; functions and metrics are stored by their name
            or `repr`.
        """
        names = [f.name for f in fields(self) if f.name not in self.NOT_IN_RECIPE]
        return {name: _json_value(getattr(self, name)) for name in names}


@dataclass(frozen=True, eq=False)
class DataOptions:
    """Options of the images of a training: labels, pairs, grid and validation images.

    Parameters
    ----------
    atlas : str, Path, nibabel image or array, optional
        Static image of every pair.  By default images are paired with each other.
    labels : str, Path, or sequence, optional
        Label maps, for a ``dice_weight`` above 0: a list with one map for each image;
        or a folder with a file for each image, whose name is that of the image or that
        followed by ``_labels``, ``_label``, ``_seg`` or ``_dseg``.
    atlas_labels : str, Path, nibabel image or array, optional
        Label map of the atlas; required if both `atlas` and `labels` are given.
    reference : str, Path, nibabel image or array, optional
        Image that defines the field of view of the common grid.  By default the atlas,
        else the first image; in a list of pairs, the reference of each pair is its
        static image.
    prealign : {None, "affine"} or sequence of array, shape (dim+1, dim+1), optional
        With None, images are resampled by their world coordinates.  With "affine", each
        image is first registered to the reference; in a pair, moving to static; with an
        atlas, each image to the atlas, and the atlas to a `reference` if there is one.
        Otherwise a matrix for each image, from the world of the reference (or static)
        to that of the image; matrices of validation images are last.  The matrices that
        are computed are stored beside the checkpoint, as ``NAME.prealign.json``, for
        ``resume``.
    spacing : float, optional
        Voxel size, mm.  By default that of the network, else the smallest of the
        reference.  If the network has no voxel size, this value is set as its voxel
        size, unless the images are arrays.
    validation : float, str, Path, or sequence, optional
        Fraction of the images (or pairs) that is held out, such as 0.2, chosen by
        `seed`; or other images, in the same form as the training images.  The trained
        network has the weights with the lowest validation loss.
    validation_labels : str, Path, or sequence, optional
        Label maps of the validation images, if images are given in `validation`.

    Raises
    ------
    ValueError
        If an option is out of range, or options contradict each other.
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
        """Fraction of the images that is held out.

        Returns
        -------
        part : float or None
            None if validation images are given, or there is no validation.
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
            Number of images (or pairs), including those for validation.
        dim : {2, 3}
            Their dimension.

        Returns
        -------
        matrices : list
            For each image a matrix; "affine" if it must be computed; None if there is
            no prealign.

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
                f"prealign must have a matrix for each of {count} images (or pairs), "
                f"those for validation last, got {len(matrices)}"
            )
        return list(matrices)


def _json_value(value: object) -> object:
    """Convert an option to a value that JSON can store."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", repr(value))
