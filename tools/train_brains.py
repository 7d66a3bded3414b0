"""Train VoxelMorph on brains synthesised from label maps.

    .venv-py3.X/bin/python -m tools.train_brains --label_maps FOLDER --output brains.npz

FOLDER holds label maps of heads with FreeSurfer's numbers, one NIfTI file a subject.
The run takes about 45 minutes on two processors, most at 3 mm, after a first stage at 6
mm that teaches the same layers what to look for at an eighth of the cost. It can be
stopped at any time, or by --minutes, and goes on with --resume. No image is read: what
a network learns from here is drawn, see `dipy_dl_reg.training.examples.synthesis`. The
loss is local correlation, the overlap of the classes, and the smoothness of the
velocity; the last three subjects are kept for validation. What it does on real brains
is measured by ``python -m tools.benchmarks.deformable --model brains.npz --methods
affine network deep-10 network-10``.
"""

import os

# Must be set before torch loads: its waiting threads then sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path
import sys
import time
from typing import NamedTuple

import torch

from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.checkpoint import save_network
from dipy_dl_reg.training.loop.fit import fit
from tools.recipes.brain_maps import make_pairs, read_maps


class Stage(NamedTuple):
    """Part of the training, at one resolution."""

    spacing: float  # mm
    shape: tuple  # one more than a multiple of 16 needs no padding
    steps: int
    batch_size: int
    radius: int  # of the local correlation, voxels
    weight: float  # of the smoothness
    learning_rate: float
    schedule: str | None
    synthesis: dict  # in voxels


#: How the images are drawn in any case: brains without their heads, T1-like.
SYNTHESIS = {"stripped": 1.0, "noise": 0.03, "scored": 4}
COARSE = {"blur": 0.3, "translation": 0.25, "bending": 0.35, "bending_scale": 5}
FINE = {"blur": 0.4, "translation": 0.5, "bending": 0.7, "bending_scale": 10}
STAGES = [
    Stage(6.0, (25, 33, 25), 3000, 2, 2, 0.5, 1e-3, None, COARSE),
    Stage(3.0, (49, 65, 49), 4000, 1, 3, 0.5, 1e-3, "cosine", FINE),
]
LICENCE = "that of the label maps, which was not stated"
#: Subjects kept for validation.
KEPT = 3


def train(network, stage, arguments, seconds):
    """One stage of the training, from its checkpoint if there is one."""
    maps = read_maps(arguments.label_maps, stage.spacing, stage.shape)
    options = SYNTHESIS | stage.synthesis
    beside = f"{arguments.output.stem}_{stage.spacing:g}mm"
    history = fit(
        network,
        make_pairs(maps[:-KEPT], **options),
        validation=make_pairs(maps[-KEPT:], **options),
        validate_every=200,
        steps=stage.steps,
        batch_size=stage.batch_size,
        metric=CCMetric(radius=stage.radius),
        regularizer="diffusion",
        weight=stage.weight,
        dice_weight=1.0,
        learning_rate=stage.learning_rate,
        schedule=stage.schedule,
        seed=arguments.seed,
        checkpoint=arguments.output.with_name(f"{beside}.npz"),
        checkpoint_every=200,
        resume=arguments.resume,
        time_limit=seconds,
        log=arguments.output.with_name(f"{beside}.csv"),
    )
    best = "none validated" if history.best is None else f"best {history.best:.4f}"
    print(f"{stage.spacing:g} mm: {history.steps} steps; {best}")
    return history


def card(arguments, histories):
    """What a user of the weights must know."""
    return {
        "licence": arguments.licence,
        "preprocessing": {"intensity": "drawn, the brightest voxel 1"},
        "recipe": {
            "command": "tools/train_brains.py",
            "seed": arguments.seed,
            "stages": [stage._asdict() for stage in STAGES],
            "steps": [history.steps for history in histories],
            "synthesis": SYNTHESIS,
            "loss": "local correlation + soft Dice + weight * diffusion of velocity",
            "torch": torch.__version__,
        },
        "scores": {"validation_loss": histories[-1].best},
    }


def main():
    """Read the label maps, train, and write the network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--label_maps", type=Path, required=True, help="folder of label maps")
    add("--output", type=Path, required=True, help="file of the network, .npz")
    add("--minutes", type=float, help="stop after so many; by default when done")
    add("--licence", default=LICENCE, help="of the network, for its file: by default "
        f"'{LICENCE}'")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="go on with an interrupted training")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"--output: {arguments.output} exists.")
    torch.manual_seed(arguments.seed)
    network = make_network("voxelmorph", 3, spacing=STAGES[-1].spacing)
    start, histories = time.monotonic(), []
    for stage in STAGES:
        left = None
        if arguments.minutes is not None:
            left = max(1, 60 * arguments.minutes - (time.monotonic() - start))
        histories.append(train(network, stage, arguments, left))
        if histories[-1].stopped == "time":
            sys.exit("Out of time; --resume goes on.")
    save_network(arguments.output, network, card=card(arguments, histories))


if __name__ == "__main__":
    main()
