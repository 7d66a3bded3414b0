"""Train the pyramid on images synthesised from label maps and shapes, of any contrast.

    python -m tools.recipes.train_pyramid --label_maps FOLDER --output NET.npz

FOLDER holds label maps of heads with FreeSurfer's numbers, one NIfTI file a subject.
No image is read.  Pairs are synthesised with the contrasts T1, b0, FA and MD (in two of
five pairs, both images have the same contrast; otherwise a contrast is drawn for each),
with random intensities, and as random shapes.  The loss is the overlap of the classes
plus the smoothness of the velocity, and does not depend on the contrast.  Training
begins at 6 mm, continues at 3 mm, and ends at 2 mm, the resolution at which the network
is used; one brain pair in ten has a large deformation.

It can be stopped at any time, or by --minutes, and is continued by --resume. The
checkpoint and the log (CSV) of each stage are written beside NET. --sheet FILE.png
draws pairs to a picture instead. --dim 2 trains only on shapes, for slices. If the
program is started by ``torchrun``, several processes train together, each on its own
pairs. The network that comes with the package was trained by ``torchrun
--nproc_per_node 3`` on three cores, with three pairs in each step.
"""

import os

# Must be set before torch is imported: waiting threads then sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path
from typing import NamedTuple

import torch

from dipy_dl_reg.networks import make_network
from dipy_dl_reg.training.examples.acquisition import Acquisition
from dipy_dl_reg.training.examples.shapes import Mixture, ShapePairs
from tools.recipes import stages
from tools.recipes.brain_maps import (
    diffusion_contrasts,
    draw_sheet,
    make_pairs,
    read_maps,
)
from tools.recipes.stages import HELD_OUT, train_stage


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


#: Options of all pairs of brains.
BRAINS = {
    "stripped": 0.85, "masked": 0.8, "random_contrast": 0.25, "across": 0.6,
    "scored": 6,
}  # fmt: skip
SHAPES = {"classes": 10, "scored": 6}
#: Part of the pairs that is of shapes, and part that is of brains bent strongly.
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
#: Voxel size, mm, at which the network is applied: of 2, 2.5 and 3 the best on two
#: real pairs.
SPACING = 2.0


def shape_pairs(stage):
    """Pairs of random shapes for a stage."""
    return ShapePairs(
        stage.shape,
        acquisition=Acquisition(cut=0.1, slices=0.2, thick=2.0, rician=0.3),
        count=6,
        **SHAPES | stage.shapes,
    )


def brain_options(stage):
    """Options of `make_pairs` for the brains of a stage."""
    options = dict(BRAINS | stage.synthesis)
    coarse = options.pop("coarse")
    options["contrasts"] = diffusion_contrasts(coarse=coarse)
    options["acquisition"] = Acquisition(noise=0.06, blur=0.5, cut=0.05)
    return options


def sources(
    arguments, stage, *, of_shapes=SHARE_OF_SHAPES, of_far=SHARE_OF_FAR, changes=None
):
    """Pairs for training and for validation; `changes` are other options of brains."""
    shapes = shape_pairs(stage)
    if arguments.dim == 2:
        return shapes, shapes
    options = brain_options(stage)
    maps = read_maps(arguments.label_maps, stage.spacing, stage.shape)
    drawn = options | (changes or {})
    usual = make_pairs(maps[:-HELD_OUT], **drawn)
    far = make_pairs(maps[:-HELD_OUT], **drawn | stage.far)
    near = 1 - of_shapes - of_far
    training = Mixture([usual, far, shapes], [near, of_far, of_shapes])
    return training, make_pairs(maps[-HELD_OUT:], **options)


def train(network, stage, arguments, seconds, **drawn):
    """Train one stage, from its checkpoint if there is one."""
    pairs, validation = sources(arguments, stage, **drawn)
    return train_stage(
        network,
        stage,
        arguments,
        seconds,
        pairs=pairs,
        validation=validation,
        steps=arguments.steps or stage.steps,
        metric=None,
        # Batches of one, and classes of a few voxels: now and then a gradient is wild,
        # and without this, at twice the learning rate, one ended a training.
        amsgrad=True,
        workers=arguments.workers,
        checkpoint_every=100,
    )


def card(arguments, histories):
    """What a user of the weights must know."""
    recipe = {
        "command": f"python -m tools.recipes.train_pyramid --dim {arguments.dim}",
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "synthesis": BRAINS if arguments.dim == 3 else None,
        "shapes": SHAPES,
        "loss": "soft Dice + weight * diffusion of velocity",
    }
    return stages.describe(arguments, STAGES[arguments.dim], histories, recipe)


def main():
    """Draw, train, and write the network."""
    parser = stages.parser_of(__doc__)
    add = parser.add_argument
    add("--dim", type=int, choices=(2, 3), default=3)
    add("--steps", type=int, help="of each stage, instead of the recipe's")
    add("--workers", type=int, default=0, help="processes that draw")
    add("--sheet", type=Path, help="only draw pairs of the last stage into this file")
    arguments = parser.parse_args()
    if arguments.dim == 3 and arguments.label_maps is None:
        parser.error("--label_maps is needed for --dim 3.")
    if arguments.sheet:
        draw_sheet(sources(arguments, STAGES[arguments.dim][-1])[0], arguments.sheet)
        return
    stages.check_output(parser, arguments.output)
    torch.manual_seed(arguments.seed)
    spacing = SPACING if arguments.dim == 3 else None
    network = make_network("pyramid", arguments.dim, spacing=spacing)
    histories = stages.train_stages(network, STAGES[arguments.dim], arguments, train)
    stages.save(arguments.output, network, card(arguments, histories))


if __name__ == "__main__":
    main()
