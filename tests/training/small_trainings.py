"""A training with everything that has a state, and images to train on."""

from shapes import ellipses

from dipy_dl_reg.training.examples.augmentation import Augment

IMAGES = ellipses(8)

HELD_OUT = ellipses(5, seed=1)

#: Everything that has a state, in one training: running statistics, the larger second
#: moment, random changes, validation.
MUCH = {
    "batch_size": 2, "learning_rate": 3e-3, "amsgrad": True, "augment": Augment(),
    "validation": HELD_OUT, "validate_every": 3, "regularizer": "bending",
}  # fmt: skip
