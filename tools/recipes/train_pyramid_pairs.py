"""Train the pyramid on real T1 images and on drawn ones together, on a GPU.

    python -m tools.recipes.train_pyramid_pairs --maps MAPS.npz --images T1.npz \
        --folder FOLDER --seconds 1000
    python -m tools.recipes.train_pyramid_pairs ... --limit 500 (in pieces: once more)

Half of each batch are pairs of real T1 images of different people, which are compared
by local correlation and, with --anatomy, by soft Dice of the maps that a network of
train_anatomy.py finds in them. The other half are pairs drawn from label maps, of any
contrast, which are compared by soft Dice of the classes. Images have voxels of 1.4 to
2.2 mm, because the network is applied at 1.5 and at 2 mm. In two of five steps the
images are first warped half-way to each other by the network's own field, as in its
second application. Training begins from the network that comes with the package,
unless --scratch is given. The files are packed by tools/recipes/pack_maps.py.
"""

import argparse
from pathlib import Path
import time

import numpy as np
import torch
import torch.nn.functional as F

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.metrics.registry import metric_by_name, regularizer_by_name
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.anatomy_network import AnatomyNetwork
from dipy_dl_reg.networks.base import SQUARINGS
from dipy_dl_reg.networks.pretrained import load_model
from dipy_dl_reg.networks.pyramid_network import warp_half_way
from tools.recipes import gpu_drawing as drawing
from tools.recipes.timed_training import TimedTraining
from tools.recipes.train_anatomy import HELD_OUT

SHAPE = (73, 89, 73)
#: Voxel sizes of the training images, mm.
SPACINGS = (1.4, 2.2)
#: Real images that are not trained on.
HELD_OUT_ADULTS = tuple(f"adult_{n:02d}" for n in range(67, 73))
#: Part of the steps whose images the network has already aligned once.
SECOND = 0.4
#: Weight of the squared gradient of the velocity for drawn pairs, as in the last stage
#: of train_pyramid.py.
DRAWN_SMOOTHNESS = 0.1
#: Part of the drawn pairs with a large deformation.
FAR = 0.15
#: Classes that are compared: the tissues but not the fluid around the brain, which a
#: brain extraction may remove.
FLUID = 1 + drawing.TISSUE_LABELS.index(24)


def read_images(path, device):
    """Read the real images of a packed file: by name, the image and its matrix."""
    packed = np.load(path)
    names = [key[6:] for key in packed if key.startswith("image_")]
    return {
        name: drawing.Subject(
            torch.from_numpy(packed[f"image_{name}"]).to(device),
            packed[f"matrix_{name}"].astype(float),
        )
        for name in names
    }


def sample(volume, points):
    """Interpolate (1, C, *size) at voxel coordinates (3, *shape); 0 outside."""
    sizes = torch.tensor(volume.shape[2:], device=points.device).view(3, 1, 1, 1)
    normal = (2 * points / (sizes - 1) - 1).flip(0)
    grid = normal.permute(1, 2, 3, 0)[None]
    return F.grid_sample(volume, grid, padding_mode="zeros", align_corners=True)


def draw_setting(rng):
    """Voxel size, and the affine that the images of a pair have in common."""
    spacing = rng.uniform(*SPACINGS)
    room = max(0.0, 10 * (2.0 - spacing))  # the smaller the voxels, the more is outside
    common = drawing.draw_affine(
        rng, rotation=7, scale=0.05, shift=(3 + room, 3 + room, 3 + room), shear=0.03
    )
    return spacing, common


def draw_residual(rng, *, far=False):
    """What an affine registration leaves."""
    much = 3 if far else 1
    return drawing.draw_affine(
        rng, rotation=1.5 * much, scale=0.015 * much, shift=(1.0 * much,) * 3,
        shear=0.01 * much,
    )  # fmt: skip


class RealPairs:
    """Pairs of real T1 images of different people, with the maps of an anatomy network.

    Parameters
    ----------
    images : list of Subject
        Real images.
    maps : list of Tensor, optional
        For each image, fractions of the classes on its voxels, (1, K, *size), uint8.
    """

    def __init__(self, images, device, maps=None):
        self.images, self.maps, self.device = images, maps, device

    def draw(self, rng, clean=False):
        """One pair: what the network sees, what is compared, and the maps."""
        spacing, common = draw_setting(rng)
        mirror = bool(rng.random() < 0.5)
        sides = []
        for index in rng.choice(len(self.images), 2, replace=False):
            subject = self.images[index]
            matrix = subject.matrix @ common @ draw_residual(rng)
            still = torch.zeros(1, 3, *SHAPE, device=self.device)
            points = drawing.sample_points(SHAPE, spacing, matrix, still, mirror=mirror)
            image = sample(subject.labels[None, None].float(), points)
            image = drawing.scale_intensities(image)
            maps = None
            if self.maps is not None:
                maps = sample(self.maps[index].float() / 255, points)
            sides.append((image if clean else vary(image, rng), image, maps))
        return sides


def vary(image, rng):
    """Change the contrast of an image a little, add a bias field and noise."""
    knots = torch.randn(1, 1, 4, 4, 4, device=image.device) * rng.uniform(0, 0.15)
    bias = F.interpolate(knots, size=image.shape[2:], mode="trilinear").exp()
    noise = torch.randn_like(image) * 0.04 * rng.uniform(0, 1) ** 2
    power = float(np.exp(rng.normal(0, 0.15)))
    return (image.clamp_min(0) ** power * bias + noise).clamp_min(0) * (image > 0.01)


class DrawnPairs:
    """Pairs of drawn images of different subjects."""

    def __init__(self, subjects, device):
        self.subjects, self.device = subjects, device
        self.tables = drawing.make_tables(device)
        # T2 and FLAIR are rarer in registration than T1 and diffusion images.
        self.contrasts = drawing.contrast_tables()

    def draw(self, rng):
        """Two images and their classes."""
        spacing, common = draw_setting(rng)
        mirror, stripped = bool(rng.random() < 0.5), rng.random() < 0.85
        far = rng.random() < FAR
        same = rng.random() < 0.4
        table = self.contrasts[rng.integers(len(self.contrasts))][None]
        random_part = 1.0 if rng.random() < 0.25 else 0.0
        sides = []
        for index in rng.choice(len(self.subjects), 2, replace=False):
            affine = common @ draw_residual(rng, far=far)
            labels = drawing.draw_labels(
                self.subjects[index], SHAPE, spacing, rng, affine=affine,
                size=3.0 if far else 0.8, knots=(4,) if far else (5, 9), mirror=mirror,
            )  # fmt: skip
            sides.append(
                drawing.paint(
                    labels, self.tables, table if same else self.contrasts, rng,
                    stripped=stripped, mirror=mirror, random_part=random_part,
                )
            )  # fmt: skip
        return sides


def soft_dice(static, moving, field):
    """One minus the mean soft Dice of the classes that occur in both."""
    chosen = [k for k in range(1, len(drawing.TISSUE_LABELS) + 1) if k != FLUID]
    s, m = static[:, chosen], moving[:, chosen]
    w = warp(m, field)
    axes = (2, 3, 4)
    present = ((s.sum(axes) > 4) & (m.sum(axes) > 4)).float()
    each = s.square().sum(axes) + w.square().sum(axes)
    dice = 2 * (s * w).sum(axes) / each.clamp_min(1e-3)
    return 1 - (dice * present).sum() / present.sum().clamp_min(1)


class Losses:
    """The loss of a batch of real and drawn pairs."""

    def __init__(self, network, arguments):
        self.network, self.smoothness = network, arguments.smoothness
        self.metric = metric_by_name("CC", radius=arguments.radius)
        self.penalty = regularizer_by_name("diffusion")
        self.map_weight = arguments.map_weight

    def __call__(self, real, drawn, *, second=False, network=None):
        """Terms of the loss; in a second application the images are warped first."""
        network = network or self.network
        of_static, of_moving = zip(*real, *drawn)
        static, moving = (
            torch.cat([side[0] for side in x]) for x in (of_static, of_moving)
        )
        count = len(real)
        clean = [torch.cat([s[1] for s in x[:count]]) for x in (of_static, of_moving)]
        shares = [
            torch.cat([d.shares for d in x[count:]]) for x in (of_static, of_moving)
        ]
        maps = None
        if of_static[0][2] is not None:
            maps = [
                torch.cat([s[2] for s in x[:count]]) for x in (of_static, of_moving)
            ]
        if second:
            with torch.no_grad():
                velocity = network.output_fields(static, moving)[0]
            static, moving = move(static, moving, velocity)
            clean = move(*clean, velocity[:count])
            shares = move(*shares, velocity[count:])
            maps = None if maps is None else move(*maps, velocity[:count])
        found = network(static, moving)
        return self._compare(found, count, clean, shares, maps)

    def _compare(self, found, count, clean, shares, maps):
        """Terms for a prediction of `count` real pairs, then drawn ones."""
        u, velocity = found.displacement, found.velocity
        inside = (clean[0] > 0.02).float().mean().clamp_min(0.05)
        similarity = self.metric(clean[0], warp(clean[1], u[:count])) / inside
        overlap = soft_dice(*shares, u[count:])
        rough = self.penalty(velocity[:count]), self.penalty(velocity[count:])
        terms = {"similarity": similarity, "overlap": overlap, "roughness": rough[0]}
        loss = similarity + self.smoothness * rough[0]
        loss = loss + overlap + DRAWN_SMOOTHNESS * rough[1]
        if maps is not None:
            terms["maps"] = soft_dice(*maps, u[:count])
            loss = loss + self.map_weight * terms["maps"]
        return {"loss": loss} | terms


def move(static, moving, velocity):
    """Both images, or fractions of classes, warped half-way to each other."""
    return warp_half_way(torch.cat([static, moving]), velocity).chunk(2)


def make_loss(losses, real, drawn, rng, pairs):
    """The function that draws a batch and computes its loss."""

    def loss_of(step):
        with torch.no_grad():
            batch = [real.draw(rng) for _ in range(pairs)]
            others = [drawn.draw(rng) for _ in range(pairs)]
        return losses(batch, others, second=rng.random() < SECOND)

    return loss_of


def make_validation(losses, real, drawn, count):
    """Fixed pairs of held-out people, and the function that uses them."""
    rng = np.random.default_rng(2)
    torch.manual_seed(2)
    fixed = [([real.draw(rng, clean=True)], [drawn.draw(rng)]) for _ in range(count)]

    def validate(network):
        rows = []
        for one, other in fixed:
            terms = losses(one, other, network=network)
            rows.append({f"held_{k}": float(v) for k, v in terms.items()})
            velocity = network.output_fields(one[0][0][0], one[0][1][0])[0]
            determinant = jacobian(exp(velocity, steps=SQUARINGS)).clamp_min(1e-3)
            inside = one[0][0][1][0, 0] > 0.02
            rows[-1]["held_sd_log_j"] = float(determinant.log()[0][inside].std())
        return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}

    return validate


@torch.no_grad()
def find_maps(path, images, device):
    """Maps of an anatomy network for every image, on its own voxels, uint8."""
    state = torch.load(path, map_location=device)
    network = AnatomyNetwork().to(device)
    network.load_state_dict(state)
    network.eval()
    found = []
    for subject in images:
        image = drawing.scale_intensities(subject.labels[None, None].float())
        sizes = image.shape[2:]
        widths = [w for n in reversed(sizes) for w in (0, -n % network.multiple)]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(F.pad(image, widths))
        maps = logits.float().softmax(1)[:, :, : sizes[0], : sizes[1], : sizes[2]]
        found.append((255 * maps).round().to(torch.uint8))
    return found


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--maps", type=Path, required=True, help="packed label maps, .npz")
    add("--images", type=Path, required=True, help="packed real images, .npz")
    add("--anatomy", type=Path, help="weights of train_anatomy.py, mean.pt")
    add("--folder", type=Path, required=True, help="of the checkpoint")
    add("--seconds", type=float, default=1000, help="of the whole training")
    add("--limit", type=float, default=float("inf"), help="seconds of this piece")
    add("--learning_rate", type=float, default=4e-4)
    add("--smoothness", type=float, default=0.25, help="of real pairs")
    add("--map_weight", type=float, default=1.0)
    add("--radius", type=int, default=1, help="of the local correlation, voxels")
    add("--pairs", type=int, default=2, help="real ones in a batch, and drawn ones")
    add("--features", type=int, nargs="+", default=[16, 32, 32])
    add("--width", type=int, default=16)
    add("--scratch", action="store_true", help="begin with random weights")
    add("--validation", type=int, default=12, help="number of pairs")
    add("--every", type=float, default=60, help="seconds between validations")
    return parser.parse_args()


def main():
    """Train one piece."""
    begin, arguments = time.monotonic(), parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    network = load_model("pyramid-brain")
    if arguments.scratch:
        network = make_network(
            "pyramid",
            3,
            spacing=2.0,
            features=arguments.features,
            width=arguments.width,
        )
    network = network.to(device).train()
    training = TimedTraining(
        network, learning_rate=arguments.learning_rate, seconds=arguments.seconds
    )
    training.load(arguments.folder)
    images = read_images(arguments.images, device)
    subjects = drawing.read_subjects(arguments.maps, device)
    kept = [k for k in images if k.startswith("adult") and k not in HELD_OUT_ADULTS]
    held = [k for k in images if k in HELD_OUT_ADULTS]
    maps = {}
    if arguments.anatomy is not None:
        found = find_maps(arguments.anatomy, list(images.values()), device)
        maps = dict(zip(images, found))
    losses = Losses(network, arguments)
    sources = [
        RealPairs(
            [images[k] for k in names],
            device,
            [maps[k] for k in names] if maps else None,
        )
        for names in (kept, held)
    ]
    drawn = DrawnPairs([s for k, s in subjects.items() if k not in HELD_OUT], device)
    others = DrawnPairs([subjects[k] for k in HELD_OUT], device)
    validate = make_validation(losses, sources[1], others, arguments.validation)
    rng = np.random.default_rng(100 + training.step)
    torch.manual_seed(100 + training.step)
    training.run(
        make_loss(losses, sources[0], drawn, rng, arguments.pairs),
        folder=arguments.folder, validate=validate, every=arguments.every,
        limit=arguments.limit - (time.monotonic() - begin),
    )  # fmt: skip
    training.write_log(arguments.folder / "log.csv")


if __name__ == "__main__":
    main()
