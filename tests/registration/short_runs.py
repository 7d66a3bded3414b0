"""A short registration of a small pair, and comparison of its map with another."""

from dipy.align.imwarp import RegistrationStages
import numpy as np

from dipy_dl_reg import DeepRegistration

FIELDS = ("forward", "backward")

STAGE = RegistrationStages

#: As short as it may be where only what surrounds it is looked at.
SHORT = {"level_iters": [2, 2]}


def run(pair, metric="SSD", *, level_iters=(12, 12), **changes):
    """Register a pair, with changes to the images or the options.

    Without a network: what is looked at here is refinement.
    """
    changes = {"model": None} | changes
    given = {"static": pair.static, "moving": pair.moving, **pair.affines}
    masks = ("static_mask", "moving_mask", "num_threads")
    names = (*given, *masks)
    given |= {k: v for k, v in changes.items() if k in names}
    options = {k: v for k, v in changes.items() if k not in names}
    registration = DeepRegistration(metric, level_iters=level_iters, **options)
    return registration.optimize(given.pop("static"), given.pop("moving"), **given)


def same(one, other):
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in FIELDS)


def apart(one, other):
    """Largest distance between the fields of two maps, mm."""
    pairs = [(getattr(one, f), getattr(other, f)) for f in FIELDS]
    return max(np.linalg.norm(a - b, axis=-1).max() for a, b in pairs)


def ball(image, radius=0.6):
    """A disc or ball in the middle of an image, as a mask."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    return sum(a**2 for a in axes) < radius**2
