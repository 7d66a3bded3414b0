"""Functions shared by the recipes: options, training in stages, the network's card."""

import argparse
import math
import os
from pathlib import Path
import sys
import time

import torch

from dipy_dl_reg.networks.checkpoint import save_network
from dipy_dl_reg.training.loop.train_network import train_network

LICENCE = "that of the label maps, which was not stated"
#: Subjects held out for validation, the last of the folder.
HELD_OUT = 3


def parser_of(description):
    """Make a parser with the options of all recipes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--label_maps", type=Path, help="folder of label maps")
    add("--output", type=Path, help="file of the network, .npz")
    add("--minutes", type=float, help="stop after so many; by default when done")
    add("--licence", default=LICENCE, help="of the network, for its file: by default "
        f"'{LICENCE}'")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="continue an interrupted training")
    return parser


def check_output(parser, output):
    """Exit with a message if the output file is missing or exists already."""
    if output is None or output.exists():
        parser.error(f"--output must be a new file, got {output}.")


def train_stage(network, stage, arguments, seconds, **options):
    """Train one stage; resume from its checkpoint if there is one.

    The checkpoint and the log (CSV) are written beside the output; `options` are
    further options of `train_network`.
    """
    beside = f"{arguments.output.stem}_{stage.spacing:g}mm"
    options = {
        "validate_every": 200, "steps": stage.steps, "batch_size": stage.batch_size,
        "regularizer": "diffusion", "weight": stage.weight, "dice_weight": 1.0,
        "learning_rate": stage.learning_rate, "schedule": stage.schedule,
    } | options  # fmt: skip
    history = train_network(
        network,
        seed=arguments.seed,
        checkpoint=arguments.output.with_name(f"{beside}.npz"),
        resume=arguments.resume,
        time_limit=seconds,
        log=arguments.output.with_name(f"{beside}.csv"),
        **options,
    )
    best = "none validated" if history.best is None else f"best {history.best:.4f}"
    print(f"{stage.spacing:g} mm: {history.steps} steps; {best}")
    return history


def train_stages(network, stages, arguments, train):
    """Train all stages; `train(network, stage, arguments, seconds)` trains one.

    The program exits when the time limit `--minutes` is reached.
    """
    end = math.inf
    if arguments.minutes is not None:
        end = time.monotonic() + 60 * arguments.minutes
    histories = []
    for stage in stages:
        seconds = None if math.isinf(end) else max(1e-3, end - time.monotonic())
        histories.append(train(network, stage, arguments, seconds))
        if histories[-1].stopped == "time":
            sys.exit("Out of time; --resume continues the training.")
    return histories


def describe(arguments, stages, histories, recipe):
    """Make the network's card; `recipe` has the settings besides the stages."""
    return {
        "licence": arguments.licence,
        "preprocessing": {"intensity": "drawn, the brightest voxel 1"},
        "recipe": recipe
        | {
            "seed": arguments.seed,
            "stages": [stage._asdict() for stage in stages],
            "steps": [history.steps for history in histories],
            "torch": torch.__version__,
        },
        "scores": {"validation_loss": histories[-1].best},
    }


def save(path, network, card):
    """Write the network, in the first process only."""
    if int(os.environ.get("RANK", 0)) == 0:
        save_network(path, network, card=card)
