"""Registration of handwritten digits by networks: the proof of concept of 2020.

    python -m tools.recipes.digits --output digits
    python -m tools.recipes.digits --dirnet --output digits

Every network is trained on pairs of images of one digit, and then on pairs of all ten
digits (both images of a pair always show the same digit).  It is tested on pairs of
images that are not used for training.  The criterion of 2020 was a mean correlation
above 0.7 for one digit.  A picture for each network, and a file with all numbers, the
machine and the versions, are written to the folder `--output`.

The digits are scikit-learn's (it comes with the `doc` extra), 8x8, enlarged to 24x24
within 32x32; or, with `--mnist FOLDER`, MNIST's training images from its two idx files
(gzipped or not), or its test images (t10k-...) if there are no training images.  For
each digit, the first images are used for training, the next for the choice of settings
(`--validation` reports results for them), and the last for testing.  Images of one
writer are consecutive, so that the parts have different writers, except at their
borders.  Every image of a part is paired with ten others, evenly distributed over the
part.

"Folded" counts pixels where the Jacobian determinant (central differences) of the
network's field is 0 or less; `DeepRegistration` repairs them.

`--dirnet` repeats the experiment of the DIRNet publication: one digit, control points 8
pixels apart, 16 kernels, no penalty. All test images are registered to the first of
them; if this succeeds, their mean becomes sharp.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import gzip
from importlib.metadata import version
from pathlib import Path
import time
import zlib

from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import zoom
import torch

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import identity, warp
from dipy_dl_reg.networks import NETWORKS, make_network
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.training_set import CrossSubject
from tools.benchmarks.record import describe, write_json

#: Fractions of each digit's images in the parts.
PARTS = {"training": (0, 0.7), "validation": (0.7, 0.85), "held-out": (0.85, 1)}
#: Largest number of images of a digit in the last two.
MOST = 40
PARTNERS = 10

#: Common options of training; those of each network: its arguments, its own options.
COMMON = {
    "batch_size": 16,
    "metric": "NCC",
    "regularizer": "diffusion",
    "weight": 0.03,
    "learning_rate": 1e-3,
    "schedule": "cosine",
}
RECIPES = {
    "unet": ({"output": "velocity"}, {"steps": 500}),
    "voxelmorph": ({}, {"steps": 700, "learning_rate": 2e-3}),
    "dirnet": (
        {"output": "velocity", "grid_spacing": 4},
        {"steps": 1500, "learning_rate": 3e-3},
    ),
    "selfsup-fcn": (
        {"output": "velocity"},
        {"steps": 400, "regularizer": "tv", "weight": 0.05},
    ),
}
OTHERS = ({}, {"steps": 600})

DIRNET = {"grid_spacing": 8, "features": 16}
DIRNET_FIT = {
    "steps": 2000,
    "batch_size": 32,
    "metric": "NCC",
    "regularizer": None,
    "weight": 0.0,
    "learning_rate": 1e-3,
    "amsgrad": True,
}


def small_digits():
    """Images (N, 32, 32) in [0, 1], and their digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    smooth = {"order": 3, "mode": "grid-constant", "grid_mode": True}
    images = [zoom(image / 16, 3, **smooth).clip(0, 1) for image in digits.images]
    return np.pad(images, [(0, 0), (4, 4), (4, 4)]).astype(np.float32), digits.target


def mnist_digits(folder):
    """Images (N, 32, 32) and digits from MNIST's idx files, 28x28 within 32x32."""
    kinds = "images-idx3-ubyte", "labels-idx1-ubyte"
    for part in ("train", "t10k"):
        paths = [find_idx(folder / f"{part}-{kind}") for kind in kinds]
        if all(paths):
            break
    else:
        wanted = " and ".join(f"train-{kind}" for kind in kinds)
        raise SystemExit(f"--mnist: {folder} must hold {wanted}, or both of t10k-...")
    images, labels = map(read_idx, paths)
    if images.shape != (len(labels), 28, 28):
        shapes = f"{images.shape} and {labels.shape}"
        raise SystemExit(f"--mnist: images of 28x28 and as many labels, not {shapes}")
    return np.pad(images, [(0, 0), (2, 2), (2, 2)]).astype(np.float32) / 255, labels


def find_idx(path):
    """The file, the gzipped file, or None."""
    return next(
        (p for p in (path, path.with_name(f"{path.name}.gz")) if p.exists()), None
    )


def read_idx(path):
    """Array of bytes of an idx file, or an error that names it."""
    try:
        found = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
        dimensions = found[3]
        shape = np.frombuffer(found, ">i4", dimensions, offset=4)
        values = np.frombuffer(found, np.uint8, offset=4 + 4 * dimensions)
        if found[:3] != b"\0\0\x08":
            raise ValueError("no idx file of bytes")
        return values.reshape(shape)
    except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
        raise SystemExit(f"--mnist: {path} cannot be read: {error}") from None


def part_of(images, targets, digit, part):
    """Images (N, 1, 32, 32) of one digit and part."""
    chosen = images[targets == digit]
    first, last = (int(share * len(chosen)) for share in PARTS[part])
    last = last if part == "training" else min(last, first + MOST)
    return torch.from_numpy(chosen[first:last])[:, None]


def pairs_of(images):
    """Pair every image (static) with others, evenly distributed over the rest."""
    count = len(images)
    static = torch.arange(count).repeat_interleave(PARTNERS)
    steps = torch.arange(1, PARTNERS + 1) * count // (PARTNERS + 1)
    moving = (static + steps.repeat(count)) % count
    return images[static], images[moving]


def correlation(first, second):
    """Pearson's correlation of each pair."""
    first, second = (x.flatten(1) - x.flatten(1).mean(1, True) for x in (first, second))
    return torch.nn.functional.cosine_similarity(first, second)


def train(name, arguments, options, images, targets, digits):
    """Train a network on some digits; return it and the seconds of the training."""
    parts = [part_of(images, targets, digit, "training") for digit in digits]
    groups = np.repeat(digits, [len(part) for part in parts])
    pairs = CrossSubject(torch.cat(parts)[:, 0].numpy(), groups=groups, normalized=True)
    torch.manual_seed(0)
    network = make_network(name, 2, **arguments)
    start = time.perf_counter()
    train_network(network, pairs, seed=0, **options)
    return network.eval(), time.perf_counter() - start


@torch.no_grad()
def register_images(network, static, moving):
    """Compute displacements and warped images, a few pairs at a time."""
    parts = zip(static.split(100), moving.split(100))
    displacement = torch.cat([network(*part).displacement for part in parts])
    return displacement, warp(moving, displacement)


def measure(network, images, targets, digits, part):
    """Measure the registration of the pairs of a part."""
    pairs = [pairs_of(part_of(images, targets, digit, part)) for digit in digits]
    static, moving = (torch.cat(side) for side in zip(*pairs))
    start = time.perf_counter()
    displacement, warped = register_images(network, static, moving)
    seconds = time.perf_counter() - start
    before, after = correlation(static, moving), correlation(static, warped)
    folded = jacobian(displacement).flatten(1) <= 0
    return {
        "pairs": len(static),
        "before": before.mean().item(),
        "after": after.mean().item(),
        "after, 5th percentile": after.quantile(0.05).item(),
        "pairs below 0.7": (after < 0.7).sum().item(),
        "folded pixels, %": 100 * folded.float().mean().item(),
        "folded pairs": folded.any(1).sum().item(),
        "largest displacement, pixels": displacement.norm(dim=1).max().item(),
        "ms per pair": 1000 * seconds / len(static),
    }


def draw_pairs(path, network, images, targets, digits, part):
    """Picture of the first pair of each digit, or of five pairs of one."""
    rows = []
    for digit in digits:
        static, moving = pairs_of(part_of(images, targets, digit, part))
        each = range(1) if len(digits) > 1 else range(0, 5 * PARTNERS, PARTNERS)
        rows += [(static[i : i + 1], moving[i : i + 1]) for i in each]
    figure, axes = plt.subplots(
        len(rows), 4, figsize=(7, 1.8 * len(rows)), layout="constrained"
    )
    for row, (static, moving) in zip(axes, rows):
        displacement, warped = register_images(network, static, moving)
        for ax, image in zip(row, (moving, static, warped)):
            ax.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        draw_field(row[3], displacement)
        for ax in row:
            ax.set_axis_off()
    for ax, title in zip(axes[0], ("moving", "static", "warped", "field")):
        ax.set_title(title)
    save(figure, path)


def draw_field(ax, displacement):
    """Positions of the rows and columns of static's pixels in moving."""
    points = (identity(displacement.shape[2:]) + displacement)[0]
    for y, x in (points[:, ::2].mT, points[:, :, ::2]):
        ax.plot(x, y, color="C0", linewidth=0.6)
    ax.set(xlim=(-2, 33), ylim=(33, -2), aspect="equal")


def save(figure, path):
    """Write a figure and close it."""
    figure.savefig(path, dpi=100)
    plt.close(figure)


LINE = "{:12} {:>7} {:>6} {:>7} {:>6} {:>6} {:>6} {:>9} {:>8} {:>7} {:>7}"
HEAD = (
    "network", "digits", "pairs", "before", "after", "5 %", "< 0.7", "folded %",
    "in pairs", "ms/pair", "train s",
)  # fmt: skip


def table_line(row):
    """A row of the printed table."""
    return LINE.format(
        row["network"],
        "0-9" if len(row["digits"]) > 1 else row["digits"][0],
        row["pairs"],
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        f"{row['after, 5th percentile']:.3f}",
        row["pairs below 0.7"],
        f"{row['folded pixels, %']:.4f}",
        row["folded pairs"],
        f"{row['ms per pair']:.1f}",
        f"{row['training, seconds']:.1f}",
    )


def proof_of_concept(images, targets, asked):
    """Train and measure every network; yield a row for each."""
    part = "validation" if asked.validation else "held-out"
    print(f"Correlation of static and moving, before and after, on {part} pairs:")
    print(LINE.format(*HEAD))
    for digits in ([asked.digit], list(range(10))):
        for name in asked.networks:
            arguments, own = RECIPES.get(name, OTHERS)
            options = COMMON | own
            network, seconds = train(name, arguments, options, images, targets, digits)
            row = {"network": name, "digits": digits, "part": part}
            row |= measure(network, images, targets, digits, part)
            row |= {
                "training, seconds": seconds,
                "arguments": arguments,
                "fit": options,
            }
            print(table_line(row), flush=True)
            words = f"{name}_{'all' if len(digits) > 1 else digits[0]}.png"
            draw_pairs(asked.output / words, network, images, targets, digits, part)
            yield row


def dirnet_experiment(images, targets, asked):
    """Register all images of a digit to the first; measure how sharp their mean is."""
    part = "validation" if asked.validation else "held-out"
    network, seconds = train(
        "dirnet", DIRNET, DIRNET_FIT, images, targets, [asked.digit]
    )
    chosen = part_of(images, targets, asked.digit, part)
    fixed, moving = chosen[:1], chosen[1:]
    displacement, warped = register_images(network, fixed.expand_as(moving), moving)
    row = {"network": "dirnet", "digits": [asked.digit], "part": part}
    row |= {"images": len(moving), "training, seconds": seconds}
    row |= {"arguments": DIRNET, "fit": DIRNET_FIT}
    row["before"], row["after"] = (likeness(fixed, x) for x in (moving, warped))
    row["folded pairs"] = (jacobian(displacement) <= 0).flatten(1).any(1).sum().item()
    print(f"{len(moving)} {part} images to one, after {seconds:.0f} s of training:")
    for name, before in row["before"].items():
        print(f"{name:40} {before:.4f} -> {row['after'][name]:.4f}")
    print(f"{'folded pairs':40} {row['folded pairs']}")
    draw_means(asked.output / f"mean_{asked.digit}.png", fixed, moving, warped)
    yield row


def likeness(fixed, images):
    """Differences between images, and the gradient of their mean."""
    slope = torch.stack(torch.gradient(images.mean(0)[0])).square().sum(0)
    return {
        "correlation with the fixed one": correlation(fixed, images).mean().item(),
        "standard deviation, mean over pixels": images.std(0).mean().item(),
        "squared gradient of their mean": slope.mean().item(),
    }


def draw_means(path, fixed, moving, warped):
    """The fixed image, and the mean of the others before and after."""
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
    titles = ("fixed", "mean before", "mean after")
    for ax, image, title in zip(axes, (fixed, moving, warped), titles):
        ax.imshow(image.mean(0)[0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_axis_off()
    save(figure, path)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for the results")
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--digit", type=int, choices=range(10), default=3, help="the one digit")
    add("--mnist", type=Path, metavar="FOLDER", help="with MNIST's idx files")
    add("--dirnet", action="store_true", help="DIRNet's own experiment")
    add("--validation", action="store_true", help="leave the held-out images alone")
    add("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def main():
    asked = parse()
    torch.set_num_threads(asked.threads)
    asked.output.mkdir(parents=True, exist_ok=True)
    images, targets = mnist_digits(asked.mnist) if asked.mnist else small_digits()
    described = describe(asked.threads)
    del described["settings"]
    described["versions"]["scikit-learn"] = version("scikit-learn")
    experiment = dirnet_experiment if asked.dirnet else proof_of_concept
    path = asked.output / ("dirnet.json" if asked.dirnet else "networks.json")
    rows = []
    for row in experiment(images, targets, asked):
        rows.append(row)
        write_json(path, described | {"rows": rows})


if __name__ == "__main__":
    main()
