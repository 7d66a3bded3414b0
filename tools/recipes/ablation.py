r"""Effect of each part of the pyramid and of its recipe: trainings without it.

    python -m tools.recipes.ablation --label_maps FOLDER --output RESULTS
    python -m tools.recipes.ablation --label_maps FOLDER --output RESULTS \
        --variants base repeats-1 --data BRAINS --pairs 1000:1001 1006:1012
    python -m tools.recipes.ablation --output RESULTS

Every variant is trained for so many `--steps` of the first stages of
``tools/recipes/train_pyramid.py``, one pair at a time, the same pairs for all variants
that draw alike, and ends with its best weights by the validation of the recipe. A
variant is one file of RESULTS: those that exist are not trained again, an interrupted
training is resumed, and several processes may each train some `--variants`. Every call
prints the table of all results, the last of the calls above nothing else, and writes it
to RESULTS/table.txt. BRAINS is a folder as for ``tools/benchmarks/deformable.py``.

Columns: number of weights and their size on disk; the validation loss of the recipe;
1 - Dice, averaged over `--judged` pairs, of shapes and of brains bent strongly, which
were not trained on (the label maps of the 3 subjects held out); "inverse", on the
latter: mean length of the composition of the displacements of a pair and of the swapped
pair, voxels; seconds of a forward pass on the voxels of a brain at 2 mm (variants
trained side by side are timed under different loads: `--time` measures all again, in
turns). Of real brains: mean Dice after the network alone, applied at the spacing of the
last stage, T1 and b0-like to T1 (tools/experiments/contrasts.py); "swap", mean distance
of points of the brain from their places after the map and then that of the swapped
images, voxels of 2 mm, both kinds (a network that is not symmetric is applied both ways
where that helps); "used", how often the network's field was better than none: else it
was not used, and Dice is that without it.
"""

import os

# Must be set before torch loads: its waiting threads then sleep instead of spinning.
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

#: Seed of the pairs that variants are judged on; no training is near it.
JUDGED = 10_000
#: About the voxels of a brain at 2 mm.
WHOLE = (80, 104, 88)
KINDS = ("T1", "b0")
#: What is brighter in a drawn image is brain, for the most part.
SEEN = 0.1


class OneWay(Pyramid):
    """The pyramid that takes ``v <- v + g(a, b)``, not half of a difference."""

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
    """The pyramid that sees intensities alone, no self-similarity."""

    name = "pyramid-intensity"

    def __init__(self, dim, **arguments):
        super().__init__(dim, **arguments)
        first = self.encoder[0][0]
        self.encoder[0][0] = conv(dim, 1, first.out_channels, stride=2)

    def describe(self, both):
        """Leave the images as they are."""
        return both


class Variant(NamedTuple):
    """Differences from the base: the network's arguments, and the pairs drawn."""

    arguments: dict = {}
    pairs: dict = {}
    architecture: str = "pyramid"
    seed: int = 0


#: Pairs like T1 alone; random shapes have contrasts of their own, and are left out.
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
#: Networks that this tool alone has.
OWN = {kind.name: kind for kind in (OneWay, Intensity)}


def trained(name, arguments):
    """The network of a variant, with its card: from its file, or trained now."""
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
    """The recipe's first stages with other steps; the last one's rate ends at 0."""
    stages = [stage._replace(steps=n) for stage, n in zip(STAGES[3], steps)]
    return [*stages[:-1], stages[-1]._replace(schedule="cosine")]


def measured(name, network, arguments):
    """All measures of a trained variant."""
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
    """1 - Dice of drawn pairs: before, and with the network."""
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
    """Time of a forward pass of each: medians of five, in turns, after one."""
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
    """Dice of real brains, by kind, and distance of swapped images from the inverse."""
    from dipy_dl_reg import DeepRegistration

    row, swaps, used = {}, [], []
    # Across contrasts it must tell a field that is worse than none.
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
    """Lines of text: every variant that has a file, in the order of `VARIANTS`."""
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
            row = measured(name, trained(name, arguments), arguments)
            path.write_text(json.dumps(row, indent=1) + "\n")
            print(f"{name} is done", flush=True)
    if arguments.time:
        time_again(arguments.output)
    lines = list(table(arguments.output))
    print("\n".join(lines))
    (arguments.output / "table.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
