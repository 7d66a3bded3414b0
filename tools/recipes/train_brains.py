"""Train VoxelMorph on brains synthesised from label maps.

    python -m tools.recipes.train_brains --label_maps FOLDER --output brains.npz

FOLDER holds label maps of heads with FreeSurfer's numbers, one NIfTI file a subject.
The run takes about 45 minutes on two processors, most of it at 3 mm; a first stage at
6 mm trains the same layers at an eighth of the cost. It can be stopped at any time, or
by --minutes, and is continued by --resume. No image is read: the images are
synthesised, see `dipy_dl_reg.training.examples.synthesis`. The loss is local
correlation, the overlap of the classes, and the smoothness of the velocity; the last
three subjects are held out for validation. ``python -m tools.benchmarks.deformable
--model brains.npz --methods affine network deep-10 network-10`` measures the network on
real brains.
"""

import os

# Must be set before torch is imported: waiting threads then sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from typing import NamedTuple

import torch

from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.networks import make_network
from tools.recipes import stages
from tools.recipes.brain_maps import make_pairs, read_maps
from tools.recipes.stages import HELD_OUT, train_stage


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


#: Options of all pairs: brains without their heads, T1-like.
SYNTHESIS = {"stripped": 1.0, "noise": 0.03, "scored": 4}
COARSE = {"blur": 0.3, "translation": 0.25, "bending": 0.35, "bending_scale": 5}
FINE = {"blur": 0.4, "translation": 0.5, "bending": 0.7, "bending_scale": 10}
STAGES = [
    Stage(6.0, (25, 33, 25), 3000, 2, 2, 0.5, 1e-3, None, COARSE),
    Stage(3.0, (49, 65, 49), 4000, 1, 3, 0.5, 1e-3, "cosine", FINE),
]


def train(network, stage, arguments, seconds):
    """Train one stage; resume from its checkpoint if there is one."""
    maps = read_maps(arguments.label_maps, stage.spacing, stage.shape)
    options = SYNTHESIS | stage.synthesis
    return train_stage(
        network,
        stage,
        arguments,
        seconds,
        pairs=make_pairs(maps[:-HELD_OUT], **options),
        validation=make_pairs(maps[-HELD_OUT:], **options),
        metric=CCMetric(radius=stage.radius),
        checkpoint_every=200,
    )


def card(arguments, histories):
    """Make the network's card, with the information for users of the weights."""
    recipe = {
        "command": "python -m tools.recipes.train_brains",
        "synthesis": SYNTHESIS,
        "loss": "local correlation + soft Dice + weight * diffusion of velocity",
    }
    return stages.describe(arguments, STAGES, histories, recipe)


def main():
    """Read the label maps, train, and write the network."""
    parser = stages.parser_of(__doc__)
    arguments = parser.parse_args()
    if arguments.label_maps is None:
        parser.error("--label_maps is needed.")
    stages.check_output(parser, arguments.output)
    torch.manual_seed(arguments.seed)
    network = make_network("voxelmorph", 3, spacing=STAGES[-1].spacing)
    histories = stages.train_stages(network, STAGES, arguments, train)
    stages.save(arguments.output, network, card(arguments, histories))


if __name__ == "__main__":
    main()
