r"""Ablation study of the pyramid network and its training recipe.

    python -m tools.recipes.ablation --label_maps FOLDER --output RESULTS
    python -m tools.recipes.ablation --label_maps FOLDER --output RESULTS \
        --variants base repeats-1 --data BRAINS --pairs 1000:1001 1006:1012
    python -m tools.recipes.ablation --output RESULTS

Every variant is trained for `--steps` steps of the first stages of
``tools/recipes/train_pyramid.py``, with one pair at a time. Variants with the same
source of pairs are trained on the same pairs. The result has the best weights by the
validation of the recipe. Each variant has one file in RESULTS. Variants whose file
exists are not trained again, an interrupted training is resumed, and several processes
may each train some `--variants`. Every call prints the table of all results and writes
it to RESULTS/table.txt; the last of the calls above does only this. BRAINS is a folder
as for ``tools/benchmarks/deformable.py``.

The columns are:

- number of weights and their size on disk;
- validation loss of the recipe;
- 1 - Dice, averaged over `--judged` pairs that are not used for training, of shapes and
  of strongly deformed brains (label maps of the 3 subjects that are held out);
- "inverse": for these brains, the mean length, in voxels, of the composition of the
  displacements of a pair and of the swapped pair;
- seconds of a forward pass for the number of voxels of a brain at 2 mm. If variants
  are trained in parallel, they are timed under different loads; `--time` measures all
  again, in turns.

For real brains, the further columns are:

- mean Dice of the network alone, applied at the spacing of the last stage, for T1 and
  b0-like images to T1 (tools/experiments/contrasts.py);
- "swap": mean distance of points of the brain from their initial position after the map
  and then the map of the swapped images, in voxels of 2 mm, for both contrasts (a
  network that is not symmetric is also applied to swapped images if this helps);
- "used": how often the network's field was better than no field. If it was not better,
  it was not used, and Dice is that without it.
"""

import os

# Must be set before torch is imported: waiting threads then sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from copy import copy
import json
from pathlib import Path
import time
from typing import NamedTuple

import numpy as np
import torch

from dipy_dl_reg.geometry.fields import compose, resize
from dipy_dl_reg.networks import NETWORKS, make_network
from dipy_dl_reg.networks.checkpoint import load_network, save_network
from dipy_dl_reg.networks.layers import conv
from dipy_dl_reg.networks.pyramid_network import (
    Pyramid,
    correlate_neighbours,
    warp_half_way,
)
from dipy_dl_reg.training.loop.losses import dice_loss
from tools.experiments.contrast_cases import contrast_case, swap_images
from tools.recipes.brain_maps import make_pairs, read_maps
from tools.recipes.stages import HELD_OUT
from tools.recipes.train_pyramid import STAGES, brain_options, shape_pairs, train

#: Seed of the pairs for evaluation; it is not used by any training.
JUDGED = 10_000
#: Approximate size of a brain in voxels of 2 mm.
WHOLE = (80, 104, 88)
KINDS = ("T1", "b0")
#: Voxels brighter than this in a synthetic image are mostly brain.
SEEN = 0.1


class OneWay(Pyramid):
    """Pyramid with the update ``v <- v + g(a, b)``, without antisymmetry."""

    name = "pyramid-one-way"
    symmetric = False

    def update(self, velocity, both, level):
        """Update the velocity at one resolution, without the antisymmetric part."""
        if velocity is not None:
            velocity = resize(velocity, both.shape[2:])
            both = warp_half_way(both, velocity)
        a, b = both.chunk(2)
        x = torch.cat([a, b, correlate_neighbours(a, b)], 1)
        step = self.flow[level](self.decoder[level](x))
        return step if velocity is None else velocity + step


class Intensity(Pyramid):
    """Pyramid whose input is only intensities, without self-similarity."""

    name = "pyramid-intensity"

    def __init__(self, dim, **arguments):
        super().__init__(dim, **arguments)
        first = self.encoder[0][0]
        self.encoder[0][0] = conv(dim, 1, first.out_channels, stride=2)

    def describe(self, both):
        """Return the images unchanged."""
        return both


class Variant(NamedTuple):
    """Differences from the base variant: arguments of the network, source of pairs."""

    arguments: dict = {}
    pairs: dict = {}
    architecture: str = "pyramid"
    seed: int = 0


#: Pairs with T1 contrast only; random shapes have other contrasts and are omitted.
T1_ONLY = {"random_contrast": 0.0, "across": 0.0, "contrasts": ()}
VARIANTS = {
    "base": Variant(),
    "another-seed": Variant(seed=1),
    "no-shapes": Variant(pairs={"of_shapes": 0}),
    "no-far": Variant(pairs={"of_far": 0}),
    "t1-only": Variant(pairs={"of_shapes": 0, "changes": T1_ONLY}),
    "one-way": Variant(architecture=OneWay.name),
    "intensity": Variant(architecture=Intensity.name),
    "narrow": Variant({"width": 8, "features": (8, 16, 16)}),
    "wide": Variant({"width": 32, "features": (32, 64, 64)}),
    "repeats-1": Variant({"repeats": 1}),
    "repeats-3": Variant({"repeats": 3}),
}
#: Networks that are defined only in this tool.
OWN = {kind.name: kind for kind in (OneWay, Intensity)}


def train_variant(name, arguments):
    """Load the network of a variant, with its card, from its file, or train it."""
    path = arguments.output / f"{name}.npz"
    if path.exists():
        return load_network(path)
    variant = VARIANTS[name]
    stages = stages_of(arguments.steps)
    network = make_network(
        variant.architecture,
        3,
        seed=variant.seed,
        spacing=stages[-1].spacing,
        **variant.arguments,
    )
    own = copy(arguments)
    own.output, own.seed, own.steps, own.resume = path, variant.seed, None, True
    for stage in stages:
        history = train(network, stage, own, None, **variant.pairs)
    scores = {"validation_loss": history.best}
    save_network(path, network, card={"scores": scores})
    return load_network(path)


def stages_of(steps):
    """First stages of the recipe with other steps; the learning rate ends at 0."""
    stages = [stage._replace(steps=n) for stage, n in zip(STAGES[3], steps)]
    return [*stages[:-1], stages[-1]._replace(schedule="cosine")]


def measure_variant(name, network, arguments):
    """Compute all measures of a trained variant."""
    row = {"variant": name, "steps": arguments.steps}
    row["parameters"] = sum(p.numel() for p in network.parameters())
    row["MB"] = (arguments.output / f"{name}.npz").stat().st_size / 1e6
    row["validation"] = network.card["scores"]["validation_loss"]
    row |= unseen(network, arguments)
    (row["seconds"],) = seconds([network])
    if arguments.data:
        row |= real(network, arguments)
    return row


def unseen(network, arguments):
    """Compute 1 - Dice of synthetic pairs, before and after the network."""
    stage = stages_of(arguments.steps)[-1]
    maps = read_maps(arguments.label_maps, stage.spacing, stage.shape)
    brains = make_pairs(maps[-HELD_OUT:], **brain_options(stage) | stage.far)
    row = {}
    for kind, pairs in (("shapes", shape_pairs(stage)), ("far", brains)):
        losses, left = [], []
        for number in range(arguments.judged):
            pair = pairs.draw(torch.Generator().manual_seed(JUDGED + number))
            images = pair.static[None], pair.moving[None]
            with torch.no_grad():
                u, v = (network(*x).displacement for x in (images, images[::-1]))
            away = compose(u, v).square().sum(1).sqrt()
            left.append(float(away[images[0][:, 0] > SEEN].mean()))
            labels = pair.static_labels[None], pair.moving_labels[None]
            fields = torch.zeros_like(u), u
            losses.append([float(dice_loss(*labels, field)) for field in fields])
        row[f"{kind} before"], row[kind] = np.mean(losses, axis=0).tolist()
    return row | {"inverse": float(np.mean(left))}


def seconds(networks):
    """Median time of five forward passes of each network, in turns."""
    images, taken = torch.rand(2, 1, 1, *WHOLE), []
    with torch.no_grad():
        for _ in range(6):
            for network in networks:
                start = time.perf_counter()
                network(*images)
                taken.append(time.perf_counter() - start)
    return np.median(np.reshape(taken, (6, -1))[1:], axis=0).tolist()


def time_again(folder):
    """Measure the seconds of all variants in RESULTS again, in one process."""
    paths = sorted(folder.glob("*.json"))
    networks = [load_network(path.with_suffix(".npz")) for path in paths]
    for path, value in zip(paths, seconds(networks)):
        row = json.loads(path.read_text()) | {"seconds": value}
        path.write_text(json.dumps(row, indent=1) + "\n")


def real(network, arguments):
    """Compute Dice of real brains by contrast, and the error of swapped images."""
    from dipy_dl_reg import DeepRegistration

    row, swaps, used = {}, [], []
    # For different contrasts, the metric must detect a field that is worse than none.
    how = {"metric": "MIND", "level_iters": 0, "progress": False}
    for kind in KINDS:
        scores = []
        for pair in arguments.pairs:
            case = contrast_case(arguments.data, pair, kind)
            maps = []
            for images in (case.images, swap_images(case.images)):
                registration = DeepRegistration(model=network, **how)
                maps.append(
                    registration.optimize(**images, num_threads=arguments.threads)
                )
                used.append(registration.network_used)
            scores.append(case.judge(maps[0])["Dice"])
            there = maps[0].transform_points(case.points)
            left = np.linalg.norm(maps[1].transform_points(there) - case.points, axis=1)
            swaps.append(left.mean() / np.cbrt(voxel(case.images)))
        row[kind] = float(np.mean(scores))
    return row | {"swap": float(np.mean(swaps)), "used": float(np.mean(used))}


def voxel(images):
    """Volume of a voxel of static, mm**3."""
    return abs(np.linalg.det(images["static_grid2world"][:3, :3]))


COLUMNS = {
    "parameters": "d", "MB": ".2f", "validation": ".4f", "shapes": ".3f",
    "far": ".3f", "inverse": ".3f", "seconds": ".2f", **dict.fromkeys(KINDS, ".4f"),
    "swap": ".4f", "used": ".0%",
}  # fmt: skip


def table(folder):
    """Format a line for every variant that has a file, in the order of `VARIANTS`."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    rows = [found[name] for name in VARIANTS if name in found]
    yield f"{'variant':13} " + " ".join(f"{name:>10}" for name in COLUMNS)
    for row in rows:
        cells = (
            format(row[name], form) if name in row else "-"
            for name, form in COLUMNS.items()
        )
        yield f"{row['variant']:13} " + " ".join(f"{cell:>10}" for cell in cells)
    if rows:
        names = ("shapes", "far")
        before = (f"{name} {rows[0][f'{name} before']:.3f}" for name in names)
        steps = " and ".join(sorted({str(row["steps"]) for row in rows}))
        yield f"Before: {', '.join(before)}. Steps: {steps}."


def main():
    """Train and measure the variants without a file, then print all."""
    from dipy.utils.logging import logger

    logger.setLevel("ERROR")
    NETWORKS.update(OWN)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="RESULTS")
    add("--label_maps", type=Path, help="folder of label maps; without, only a table")
    add("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    add("--steps", nargs="+", type=int, default=[1500, 600], help="of each stage")
    add("--judged", type=int, default=12, help="drawn pairs to be judged on")
    add("--data", type=Path, metavar="BRAINS", help="real brains with labels")
    add("--pairs", nargs="+", default=[], metavar="STATIC:MOVING")
    add(
        "--time", action="store_true", help="measure the seconds of all again, in turns"
    )
    add("--threads", type=int, default=1)
    add("--workers", type=int, default=0, help="processes that draw")
    arguments = parser.parse_args()
    if arguments.data and not arguments.pairs:
        parser.error("--data needs --pairs.")
    if not 1 <= len(arguments.steps) <= len(STAGES[3]):
        parser.error(f"--steps must be 1 to {len(STAGES[3])} numbers.")
    arguments.dim = 3
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.variants if arguments.label_maps else ():
        path = arguments.output / f"{name}.json"
        if not path.exists():
            row = measure_variant(name, train_variant(name, arguments), arguments)
            path.write_text(json.dumps(row, indent=1) + "\n")
            print(f"{name} is done", flush=True)
    if arguments.time:
        time_again(arguments.output)
    lines = list(table(arguments.output))
    print("\n".join(lines))
    (arguments.output / "table.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
