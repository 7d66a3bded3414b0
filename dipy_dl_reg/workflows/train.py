"""The command `dipy_train_deep`: trains a network on a folder of images.

Modules that load slowly are imported inside functions, so that ``--help`` is fast.
"""

from __future__ import annotations

from ast import literal_eval
from contextlib import suppress
from dataclasses import fields
from glob import glob
from pathlib import Path
from time import monotonic
from typing import Any

from dipy_dl_reg.networks.registry import NETWORKS
from dipy_dl_reg.options import join_words
from dipy_dl_reg.training.training_options import DataOptions, TrainingOptions
from dipy_dl_reg.workflows.base import (
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.command_options import (
    CommandOption,
    command_options,
    takes_command_options,
)
from dipy_dl_reg.workflows.exit_codes import usage_errors

#: Options of the command in the order of its help.  Options of the training are defined
#: in `training_options`; different defaults and descriptions are given here.
OPTIONS = [
    CommandOption(
        "image_files",
        "variable string or Path",
        "A folder of NIfTI files, or the files, or patterns: all 3D, or all 2D.",
    ),
    CommandOption(
        "network",
        "string",
        f"What is trained: {join_words(NETWORKS)}; or a file that this command wrote,\n"
        "to train that network further. By default the type of --init, or voxelmorph.",
        None,
    ),
    CommandOption(
        "init",
        "string",
        "Trained network to begin with: the name of one that comes with the package,\n"
        "such as pyramid-brain, or a file. By default the weights are random.",
        None,
    ),
    CommandOption(
        "variant",
        "string",
        "Size of a new voxelmorph: vm1 or vm2, which is the larger.",
        None,
    ),
    CommandOption(
        "output",
        "string",
        "What a new network predicts: velocity, whose flow is invertible, or\n"
        "displacement. By default velocity for voxelmorph and pyramid, displacement\n"
        "for the others.",
        None,
    ),
    CommandOption(
        "network_arguments",
        "variable string",
        "More arguments of a new network: features=8,16,32 (pyramid, selfsup-fcn,\n"
        "unet), repeats=1 or width=32 (pyramid), grid_spacing=8 or bounded=true\n"
        "(dirnet), half_resolution=true (voxelmorph).",
        None,
    ),
    *command_options(DataOptions, ["labels", "atlas", "atlas_labels", "reference"]),
    CommandOption(
        "affine",
        "boolean",
        "Register each image to the reference first by an affine, with a search over\n"
        "rotations.",
        False,
    ),
    *command_options(DataOptions, ["spacing", "validation", "validation_labels"]),
    *command_options(
        TrainingOptions,
        ["steps", "batch_size", "metric", "regularizer", "weight", "dice_weight"],
        steps={"default": 10000},
        metric={"default": "ncc"},
        weight={"default": None, "text": "Weight of the penalty; 0.1 if not given."},
        dice_weight={
            "default": None,
            "text": "Weight of the overlap of the labels; 1 if labels are given.",
        },
    ),
    *command_options(TrainingOptions, ["learning_rate", "schedule"]),
    CommandOption(
        "augment",
        "boolean",
        "Change images at random: place, contrast, bias field, noise.",
        False,
    ),
    *command_options(
        TrainingOptions,
        ["patience", "checkpoint", "checkpoint_every", "resume", "time_limit", "log"],
    ),
    CommandOption(
        "licence",
        "string",
        "Licence of the trained network, to be written into its file.",
        None,
    ),
    *command_options(TrainingOptions, ["seed"]),
    CommandOption(
        "device", "string", "Where to compute: auto, cpu, cuda or mps.", "auto"
    ),
    CommandOption("num_threads", "int", "Threads on the CPU; all if not given.", None),
    CommandOption("out_dir", "string or Path", "Folder of the outputs.", ""),
    CommandOption("out_model", "string", "The trained network.", "model.npz"),
]


class TrainDeepFlow(StrictWorkflow):
    """`dipy_train_deep`: train a network on image files with `fit`."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "train_deep".
        """
        return "train_deep"

    @takes_command_options(OPTIONS)
    def run(self, **given: Any) -> None:
        r"""Train a network on images of your own.

        The images are resampled onto one grid and paired: with each other, or with an
        atlas. The network learns to register the second of a pair to the first. It is
        then used by dipy_align_deep --model model.npz, if it is one for volumes; one
        for slices is used from Python, by DeepRegistration(model="model.npz").

        Parameters
        ----------
        given : CommandOption
            The options by name.

        Examples
        --------
        On a folder of images; the same command continues after a stop::

            dipy_train_deep images --affine --spacing 3 \
                --checkpoint state.npz --resume

        From the network that comes with the package, for brains in voxels of 2 mm::

            dipy_train_deep images --init pyramid-brain --affine --steps 300 \
                --out_model tuned.npz

        Further, on the regions of label maps; then use the network::

            dipy_train_deep images --network model.npz --labels labels \
                --out_model better.npz
            dipy_align_deep template.nii.gz t1.nii.gz --model better.npz --out_dir out
        """
        began = monotonic()
        from dipy_dl_reg.training.fit import fit
        from dipy_dl_reg.training.loop.losses import TrainingLoss

        limit = given["time_limit"]
        if limit is not None and limit > 0:  # loading used a part of the time limit
            given["time_limit"] = max(1e-3, limit - (monotonic() - began))
        path = self._plan(given)
        images = _files_or_part(given["image_files"], "image_files")
        network = _start_network(given["network"], given["init"])
        options = _fit_options(given)
        with usage_errors():
            names = [field.name for field in fields(TrainingOptions)]
            chosen = {k: v for k, v in options.items() if k in names}
            TrainingLoss.from_options(TrainingOptions(**chosen))
        fit(network, images, save=path, overwrite=self._force_overwrite, **options)
        log_result(f"Saved {path}")

    def _plan(self, given: dict[str, Any]) -> Path:
        """Check the output file, which must not be one of the inputs."""
        with usage_errors():
            name = check_suffix(given["out_model"], (".npz",), "out_model")
        checkpoint = given["checkpoint"]
        if given["resume"] and checkpoint is not None and Path(checkpoint).exists():
            self._force_overwrite = True  # written earlier by the same training
        inputs = [given["network"], given["init"], checkpoint]
        return self.plan_one(given["out_dir"], "out_model", name, inputs)


#: Options of the command that are passed to `fit` without change.
_UNCHANGED = [
    *("steps", "batch_size", "learning_rate", "seed", "patience", "time_limit"),
    *("checkpoint", "checkpoint_every", "resume", "log", "atlas", "atlas_labels"),
    *("reference", "spacing", "device", "num_threads", "init"),
]


def _fit_options(given: dict[str, Any]) -> dict[str, Any]:
    """Convert the options of the command to those of `fit`."""
    options = {name: given[name] for name in _UNCHANGED}
    options["network_arguments"] = _network_arguments(
        given["variant"], given["output"], given["network_arguments"]
    )
    options["labels"] = _files_or_part(given["labels"], "labels")
    options["validation"] = _files_or_part(given["validation"], "validation", part=True)
    options["validation_labels"] = _files_or_part(
        given["validation_labels"], "validation_labels"
    )
    options["prealign"] = "affine" if given["affine"] else None
    options["schedule"] = given["schedule"] and given["schedule"].lower()
    options |= _loss_options(
        given["metric"], given["regularizer"], given["weight"], given["dice_weight"],
        given["labels"],
    )  # fmt: skip
    if given["licence"] is not None:
        options["licence"] = given["licence"]
    if given["augment"]:
        from dipy_dl_reg.training.examples.augmentation import Augment

        options["augment"] = Augment()
    return options


def _files_or_part(given: Any, name: str, *, part: bool = False) -> Any:
    """Interpret a value as a folder, files, patterns, or a number."""
    if given is None:
        return None
    given = [given] if isinstance(given, (str, Path)) else list(given)
    if len(given) == 1 and Path(given[0]).is_dir():
        return Path(given[0])
    if part and len(given) == 1:
        with suppress(ValueError):
            return float(given[0])
    found: list[Path] = []
    for path in map(str, given):
        matching = [path] if Path(path).exists() else sorted(glob(path))
        if not matching:
            raise FileNotFoundError(f"{name}: no such file or folder: {path}")
        found += map(Path, matching)
    return found


def _start_network(network: str | Path | None, init: str | Path | None) -> Any:
    """Load a network from a file, or return the name of a new network, or None."""
    if network is None:
        return "voxelmorph" if init is None else None
    if not str(network).endswith(".npz"):
        return network
    from dipy_dl_reg.networks.checkpoint import load_network

    return load_network(network)


@usage_errors()
def _network_arguments(
    variant: str | None, output: str | None, more: list[str] | None
) -> dict[str, Any] | None:
    """Parse the arguments of a new network, such as ``features=8,16``."""
    named = {"variant": variant, "output": output}
    arguments: dict[str, Any] = {k: v for k, v in named.items() if v is not None}
    for word in more or []:
        name, equals, text = word.partition("=")
        if not equals or name in arguments:
            raise ValueError(
                f"network_arguments must be NAME=VALUE, each once, got {word}"
            )
        arguments[name] = _value(text)
    return arguments or None


def _value(text: str) -> Any:
    """Parse a number, numbers separated by commas, true, false, none, or a text."""
    if text.lower() in ("true", "false", "none"):
        text = text.title()
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _loss_options(
    metric: str | None,
    regularizer: str | None,
    weight: float | None,
    dice_weight: float | None,
    labels: Any,
) -> dict[str, Any]:
    """Options of the loss: `fit`'s defaults, but labels are used if they are given."""
    if dice_weight is None:
        dice_weight = 0.0 if labels is None else 1.0
    options = {
        "metric": metric and metric.upper(),
        "regularizer": regularizer and regularizer.lower(),
        "dice_weight": dice_weight,
    }
    return options if weight is None else {**options, "weight": weight}


def train_deep() -> None:
    """Run the command `dipy_train_deep`."""
    run_command(TrainDeepFlow())


if __name__ == "__main__":
    train_deep()
