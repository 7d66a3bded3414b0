"""Train a network that segments brains of any contrast, on a GPU.

    python -m tools.recipes.train_anatomy --maps FILE.npz --folder FOLDER --seconds 1000
    python -m tools.recipes.train_anatomy ... --limit 500    (in pieces: once more)

The network takes one image at 2 mm, axes left to right, back to front and upwards, and
returns the fractions of `gpu_drawing.NAMES`: the tissues of the brain, left and right
apart, bone, soft tissue and air. All training images are drawn from label maps: heads
and stripped brains, of the contrasts T1, T2, FLAIR, b0, FA, MD and of random ones,
whole or cut to a slab, rotated, mirrored and deformed. FILE.npz is packed by
tools/recipes/pack_maps.py. Three subjects are held out for validation.
"""

import argparse
from pathlib import Path
import time

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.networks.anatomy_network import AnatomyNetwork
from tools.recipes import gpu_drawing as drawing
from tools.recipes.timed_training import TimedTraining

SPACING = 2.0
#: Subjects that are not trained on. 18 may be the same person as an earlier one, and is
#: therefore trained on.
HELD_OUT = ("17", "19", "20")
#: Shapes of the training images, in voxels, the probability of each, and the number of
#: images in a batch. Every axis is a multiple of `AnatomyNetwork.multiple`.
SHAPES = (((80, 96, 80), 0.75, 2), ((96, 112, 96), 0.25, 1))
CLASSES = len(drawing.NAMES)


def segmentation_loss(logits, shares):
    """Soft Dice of the classes that occur, and cross-entropy."""
    logits = logits.float()
    entropy = -(shares * F.log_softmax(logits, 1)).sum(1).mean()
    found = logits.softmax(1)
    axes = (2, 3, 4)
    both = 2 * (found * shares).sum(axes)
    each = found.square().sum(axes) + shares.square().sum(axes)
    present = (shares.sum(axes) > 4).float()
    present[:, 0] = 0
    overlap = (both / each.clamp_min(1e-3) * present).sum() / present.sum()
    return {"loss": 1 - overlap + entropy, "overlap": overlap, "entropy": entropy}


class Drawing:
    """Draws batches of images of a list of subjects."""

    def __init__(self, subjects, device):
        self.subjects, self.device = subjects, device
        self.tables = drawing.make_tables(device)
        self.contrasts = drawing.contrast_tables()

    def draw(self, rng, shape):
        """One image and its classes."""
        subject = self.subjects[rng.integers(len(self.subjects))]
        affine = drawing.draw_affine(
            rng, rotation=9, scale=0.07, shift=(6, 8, 8), shear=0.05
        )
        mirror = bool(rng.random() < 0.5)
        labels = drawing.draw_labels(
            subject, shape, SPACING, rng, affine=affine, size=1.6,
            knots=(4, 8, 14), mirror=mirror,
        )  # fmt: skip
        stripped = rng.random() < 0.6
        drawn = drawing.paint(
            labels, self.tables, self.contrasts, rng, stripped=stripped, mirror=mirror
        )
        if rng.random() < 0.15:
            drawn = drawing.cut(drawn, rng)
        image = drawn.image * float(rng.uniform(0.8, 1.25))
        return image, drawn.shares

    @torch.no_grad()
    def batch(self, rng):
        """A batch of one of `SHAPES`."""
        odds = [probability for _, probability, _ in SHAPES]
        shape, _, count = SHAPES[rng.choice(len(SHAPES), p=odds)]
        images, shares = zip(*(self.draw(rng, shape) for _ in range(count)))
        return torch.cat(images), torch.cat(shares)


def hard_dice(logits, shares):
    """Dice of the most probable class, for each class: (B, K), NaN if absent."""
    found, true = logits.argmax(1), shares.argmax(1)
    rows = []
    for k in range(1, shares.shape[1]):
        a, b = found == k, true == k
        both, each = (
            (a & b).flatten(1).sum(1),
            (a.flatten(1).sum(1) + b.flatten(1).sum(1)),
        )
        rows.append(
            torch.where(b.flatten(1).any(1), 2 * both / each.clamp_min(1), torch.nan)
        )
    return torch.stack(rows, 1)


def make_validation(source, count, device):
    """Make the function that measures a network on images of held-out subjects."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    fixed = [source.draw(rng, SHAPES[0][0]) for _ in range(count)]

    def validate(network):
        scores = []
        for image, shares in fixed:
            with torch.autocast(
                device.type, torch.bfloat16, enabled=device.type == "cuda"
            ):
                logits = network(image)
            scores.append(hard_dice(logits, shares))
        scores = torch.cat(scores)
        brain = scores[:, : len(drawing.TISSUE_LABELS)]
        return {"dice": float(brain.nanmean()), "dice_all": float(scores.nanmean())}

    return validate


def make_loss(network, source, rng, device):
    """The function that draws a batch and computes its loss."""
    cuda = device.type == "cuda"

    def loss_of(step):
        images, shares = source.batch(rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            logits = network(images)
        return segmentation_loss(logits, shares)

    return loss_of


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--maps", type=Path, required=True, help="packed label maps, .npz")
    add("--folder", type=Path, required=True, help="of the checkpoint")
    add("--seconds", type=float, default=1000, help="of the whole training")
    add("--limit", type=float, default=float("inf"), help="seconds of this piece")
    add("--learning_rate", type=float, default=2e-3)
    add("--validation", type=int, default=24, help="number of images")
    add("--every", type=float, default=60, help="seconds between validations")
    return parser.parse_args()


def main():
    """Train one piece."""
    begin, arguments = time.monotonic(), parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    network = AnatomyNetwork(CLASSES).to(device)
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last_3d)
    training = TimedTraining(
        network, learning_rate=arguments.learning_rate, seconds=arguments.seconds
    )
    training.load(arguments.folder)
    subjects = drawing.read_subjects(arguments.maps, device)
    held = Drawing([subjects[k] for k in HELD_OUT if k in subjects], device)
    source = Drawing([s for k, s in subjects.items() if k not in HELD_OUT], device)
    validate = make_validation(held, arguments.validation, device)
    rng = np.random.default_rng(100 + training.step)
    torch.manual_seed(100 + training.step)
    training.run(
        make_loss(network, source, rng, device), folder=arguments.folder,
        limit=arguments.limit - (time.monotonic() - begin), validate=validate,
        every=arguments.every,
    )  # fmt: skip
    training.write_log(arguments.folder / "log.csv")


if __name__ == "__main__":
    main()
