"""One declaration of each option: functions, command and recipe all have it."""

from dataclasses import fields
from inspect import Parameter, signature

from numpydoc.docscrape import FunctionDoc
import pytest

import dipy_dl_reg
from dipy_dl_reg.training.loop.train_network import train_network
from dipy_dl_reg.training.training_options import DataOptions, TrainingOptions
from dipy_dl_reg.workflows.train import TrainDeepFlow

#: Of `fit` and `train_network`; "steps" must be given.
TRAINING = {
    "steps": Parameter.empty, "batch_size": 1, "metric": "NCC",
    "regularizer": "diffusion", "weight": 0.1, "dice_weight": 0.0,
    "learning_rate": 1e-4, "amsgrad": False, "schedule": None, "validate_every": 100,
    "patience": None, "augment": None, "seed": 0, "workers": 0,
    "mixed_precision": None, "checkpoint": None, "checkpoint_every": 500,
    "resume": False, "time_limit": None, "log": None, "progress": None,
}  # fmt: skip
DATA = dict.fromkeys(
    ["atlas", "labels", "atlas_labels", "reference", "prealign", "spacing",
     "validation", "validation_labels"]
)  # fmt: skip
FIT = TRAINING | DATA | {
    "network": Parameter.empty, "images": Parameter.empty, "network_arguments": None,
    "init": None, "save": None, "overwrite": False, "device": "auto",
    "num_threads": None,
    "licence": "that of the training images, which was not stated",
}  # fmt: skip
TRAIN_NETWORK = TRAINING | {
    "network": Parameter.empty, "pairs": Parameter.empty, "validation": None,
    "device": None, "card": None,
}  # fmt: skip
#: Of the command: default and type of each, in the order of its help.
COMMAND = {
    "image_files": (Parameter.empty, "variable string or Path"),
    "network": (None, "string"),
    "init": (None, "string"),
    "variant": (None, "string"),
    "output": (None, "string"),
    "network_arguments": (None, "variable string"),
    "labels": (None, "variable string"),
    "atlas": (None, "string or Path"),
    "atlas_labels": (None, "string or Path"),
    "reference": (None, "string or Path"),
    "affine": (False, "boolean"),
    "spacing": (None, "float"),
    "validation": (None, "variable string"),
    "validation_labels": (None, "variable string"),
    "steps": (10000, "int"),
    "batch_size": (1, "int"),
    "metric": ("ncc", "string"),
    "regularizer": ("diffusion", "string"),
    "weight": (None, "float"),
    "dice_weight": (None, "float"),
    "learning_rate": (1e-4, "float"),
    "schedule": (None, "string"),
    "augment": (False, "boolean"),
    "patience": (None, "int"),
    "checkpoint": (None, "string or Path"),
    "checkpoint_every": (500, "int"),
    "resume": (False, "boolean"),
    "time_limit": (None, "float"),
    "log": (None, "string or Path"),
    "licence": (None, "string"),
    "seed": (0, "int"),
    "device": ("auto", "string"),
    "num_threads": (None, "int"),
    "out_dir": ("", "string or Path"),
    "out_model": ("model.npz", "string"),
}
#: Options of the loop in a network's card.
RECIPE = set(TRAINING) - {
    "checkpoint", "checkpoint_every", "resume", "log", "progress", "workers",
}  # fmt: skip


@pytest.mark.parametrize(
    "function, expected", [(dipy_dl_reg.fit, FIT), (train_network, TRAIN_NETWORK)]
)
def test_functions_take_the_options(function, expected):
    parameters = signature(function).parameters
    assert {name: p.default for name, p in parameters.items()} == expected
    by_place = [n for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    assert len(by_place) == 2 and by_place[0] == "network"
    documented = [p.name for p in FunctionDoc(function)["Parameters"]]
    assert sorted(n for names in documented for n in names.split(", ")) == sorted(
        expected
    )


def test_command_takes_the_options():
    found = signature(TrainDeepFlow().run).parameters
    assert {n: p.default for n, p in found.items()} == {
        name: default for name, (default, _) in COMMAND.items()
    }
    assert list(found) == list(COMMAND)
    kinds = {p.name: p.type for p in FunctionDoc(TrainDeepFlow.run)["Parameters"]}
    assert kinds == {
        name: kind if default is Parameter.empty else f"{kind}, optional"
        for name, (default, kind) in COMMAND.items()
    }


def test_recipe_has_what_determines_the_result():
    recipe = TrainingOptions(steps=3, metric=len, learning_rate=0.1).recipe()
    assert recipe.keys() == RECIPE
    assert recipe["metric"] == "len" and recipe["learning_rate"] == 0.1


def test_options_cannot_be_changed():
    options = TrainingOptions(steps=3)
    for name in ("steps", "metric"):
        with pytest.raises(AttributeError):
            setattr(options, name, 1)
    assert {f.name for f in fields(DataOptions)} == DATA.keys()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": "many"}, "steps must be a whole number from 1, got 'many'"),
        ({"learning_rate": "fast"}, "learning_rate must be above 0 and finite"),
        ({"weight": -1}, "weight must be 0 or more and finite, got -1"),
        ({"metric": None}, "metric=None requires a dice_weight above 0"),
        ({"schedule": "step"}, r"schedule must be None or 'cosine', got 'step'"),
        ({"resume": True}, "resume requires a checkpoint"),
    ],
)
def test_wrong_training_options(options, words):
    with pytest.raises(ValueError, match=words):
        TrainingOptions(**{"steps": 1, **options})


@pytest.mark.parametrize(
    "options, words",
    [
        ({"spacing": 0}, "spacing must be above 0 and finite, got 0"),
        ({"validation": 1.0}, "validation must be above 0 and below 1, got 1.0"),
        ({"atlas_labels": "a"}, "atlas_labels go with an atlas"),
        ({"atlas": "a", "labels": "b"}, "atlas_labels and labels go together"),
        ({"validation": "a", "validation_labels": "b"}, "go with labels"),
    ],
)
def test_wrong_data_options(options, words):
    with pytest.raises(ValueError, match=words):
        DataOptions(**options)


def test_missing_steps_are_named():
    with pytest.raises(TypeError, match="fit requires the option 'steps'"):
        dipy_dl_reg.fit("unet", [])
