"""Train the pyramid on images drawn from label maps and on shapes, of any contrast.

    .venv-py3.X/bin/python -m tools.train_pyramid --label_maps FOLDER --output NET.npz

FOLDER holds label maps of heads with FreeSurfer's numbers, one NIfTI file a subject.
No image is read. Pairs are drawn as T1, b0, FA and MD (two times in five one contrast
for both images, else any for each), as images of wholly random intensities, and as
random blobs; the loss is the overlap of the classes and the smoothness of the
velocity, so that contrast is nothing to learn from. First at 6 mm, then at 3 mm, then
at 2 mm, where it is used; one brain pair in ten is bent strongly.

It can be stopped at any time, or by --minutes, and goes on with --resume. Beside NET
stand the checkpoint and the log (CSV) of each stage, and, with --sheet FILE.png, a
picture of what is drawn. --dim 2 trains on shapes alone, for slices. Started by
``torchrun``, processes train together, each on pairs of its own: what ships was trained
by ``torchrun --nproc_per_node 3`` on as many cores, so that a step is of three pairs.
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

from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.checkpoint import save_network
from dipy_dl_reg.training.examples.acquisition import Acquisition
from dipy_dl_reg.training.examples.shapes import Mixture, ShapePairs
from dipy_dl_reg.training.loop.fit import fit
from tools.recipes.brain_maps import (
    diffusion_contrasts,
    draw_sheet,
    make_pairs,
    read_maps,
)


class Stage(NamedTuple):
    """Part of the training, at one resolution."""

    spacing: float  # mm
    shape: tuple  # one more than a multiple of 8 needs no padding
    steps: int
    batch_size: int
    weight: float  # of the smoothness
    learning_rate: float
    schedule: str | None
    synthesis: dict  # in voxels
    far: dict  # the same, of pairs bent strongly
    shapes: dict


#: How brains are drawn in any case.
BRAINS = {
    "stripped": 0.85, "masked": 0.8, "random_contrast": 0.25, "across": 0.6,
    "scored": 6,
}  # fmt: skip
SHAPES = {"classes": 10, "scored": 6}
#: How often a pair is of shapes, and how often it is of brains bent strongly.
SHARE_OF_SHAPES, SHARE_OF_FAR = 0.12, 0.1
STAGES = {
    3: [
        Stage(
            6.0, (25, 33, 25), 2400, 1, 0.2, 5e-4, None,
            {"translation": 0.25, "bending": 0.35, "bending_scale": 5, "coarse": 1.0},
            {"bending": 1.5, "bending_scale": 7},
            {"size": 5, "bending": 0.8, "bending_scale": 6},
        ),
        Stage(
            3.0, (49, 65, 49), 2000, 1, 0.15, 5e-4, None,
            {"translation": 0.5, "bending": 0.7, "bending_scale": 10, "coarse": 1.2},
            {"bending": 3.0, "bending_scale": 14},
            {"size": 8, "bending": 1.6, "bending_scale": 10},
        ),
        Stage(
            2.0, (73, 89, 73), 1200, 1, 0.1, 4e-4, "cosine",
            {"translation": 0.7, "bending": 1.0, "bending_scale": 15, "coarse": 1.4},
            {"bending": 4.0, "bending_scale": 20},
            {"size": 12, "bending": 2.4, "bending_scale": 15},
        ),
    ],
    2: [
        Stage(
            1.0, (129, 129), 3000, 4, 0.3, 5e-4, "cosine", {}, {},
            {"size": 14, "bending": 3.0, "bending_scale": 20, "classes": 14},
        ),
    ],
}  # fmt: skip
LICENCE = "that of the label maps, which was not stated"
#: Voxels, mm, that the network is asked at: of 2, 2.5 and 3 the best on two real pairs.
SPACING = 2.0
#: Subjects kept for validation.
KEPT = 3


def shape_pairs(stage):
    """Pairs of shapes, as a stage draws them."""
    return ShapePairs(
        stage.shape,
        acquisition=Acquisition(cut=0.1, slices=0.2, thick=2.0, rician=0.3),
        count=6,
        **SHAPES | stage.shapes,
    )


def brain_options(stage):
    """How a stage draws brains, as `make_pairs` reads it."""
    options = dict(BRAINS | stage.synthesis)
    coarse = options.pop("coarse")
    options["contrasts"] = diffusion_contrasts(coarse=coarse)
    options["acquisition"] = Acquisition(noise=0.06, blur=0.5, cut=0.05)
    return options


def sources(
    arguments, stage, *, of_shapes=SHARE_OF_SHAPES, of_far=SHARE_OF_FAR, changes=None
):
    """Pairs for training, and for validation; `changes` are to how brains are drawn."""
    shapes = shape_pairs(stage)
    if arguments.dim == 2:
        return shapes, shapes
    options = brain_options(stage)
    maps = read_maps(arguments.label_maps, stage.spacing, stage.shape)
    drawn = options | (changes or {})
    usual = make_pairs(maps[:-KEPT], **drawn)
    far = make_pairs(maps[:-KEPT], **drawn | stage.far)
    near = 1 - of_shapes - of_far
    training = Mixture([usual, far, shapes], [near, of_far, of_shapes])
    return training, make_pairs(maps[-KEPT:], **options)


def train(network, stage, arguments, seconds, **drawn):
    """One stage of the training, from its checkpoint if there is one."""
    pairs, validation = sources(arguments, stage, **drawn)
    beside = f"{arguments.output.stem}_{stage.spacing:g}mm"
    history = fit(
        network,
        pairs,
        validation=validation,
        validate_every=200,
        steps=arguments.steps or stage.steps,
        batch_size=stage.batch_size,
        metric=None,
        regularizer="diffusion",
        weight=stage.weight,
        dice_weight=1.0,
        learning_rate=stage.learning_rate,
        # Batches of one, and classes of a few voxels: now and then a gradient is wild,
        # and without this, at twice the learning rate, one ended a training.
        amsgrad=True,
        schedule=stage.schedule,
        seed=arguments.seed,
        workers=arguments.workers,
        checkpoint=arguments.output.with_name(f"{beside}.npz"),
        checkpoint_every=100,
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
            "command": f"tools/train_pyramid.py --dim {arguments.dim}",
            "seed": arguments.seed,
            "processes": int(os.environ.get("WORLD_SIZE", 1)),
            "stages": [stage._asdict() for stage in STAGES[arguments.dim]],
            "steps": [history.steps for history in histories],
            "synthesis": BRAINS if arguments.dim == 3 else None,
            "shapes": SHAPES,
            "loss": "soft Dice + weight * diffusion of velocity",
            "torch": torch.__version__,
        },
        "scores": {"validation_loss": histories[-1].best},
    }


def main():
    """Draw, train, and write the network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--label_maps", type=Path, help="folder of label maps, for --dim 3")
    add("--output", type=Path, help="file of the network, .npz")
    add("--dim", type=int, choices=(2, 3), default=3)
    add("--steps", type=int, help="of each stage, instead of the recipe's")
    add("--minutes", type=float, help="stop after so many; by default when done")
    add("--licence", default=LICENCE, help="of the network, for its file: by default "
        f"'{LICENCE}'")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=0, help="processes that draw")
    add("--resume", action="store_true", help="go on with an interrupted training")
    add("--sheet", type=Path, help="only draw pairs of the last stage into this file")
    arguments = parser.parse_args()
    stages = STAGES[arguments.dim]
    if arguments.dim == 3 and arguments.label_maps is None:
        parser.error("--label_maps is needed for --dim 3.")
    if arguments.sheet:
        draw_sheet(sources(arguments, stages[-1])[0], arguments.sheet)
        return
    if arguments.output is None or arguments.output.exists():
        parser.error(f"--output must be a new file, got {arguments.output}.")
    torch.manual_seed(arguments.seed)
    spacing = SPACING if arguments.dim == 3 else None
    network = make_network("pyramid", arguments.dim, spacing=spacing)
    start, histories = time.monotonic(), []
    for stage in stages:
        left = None
        if arguments.minutes is not None:
            left = max(1e-3, 60 * arguments.minutes - (time.monotonic() - start))
        histories.append(train(network, stage, arguments, left))
        if histories[-1].stopped == "time":
            sys.exit("Out of time; --resume goes on.")
    if int(os.environ.get("RANK", 0)) == 0:
        save_network(arguments.output, network, card=card(arguments, histories))


if __name__ == "__main__":
    main()
