"""Options of a command, from the fields of a dataclass."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dipy_dl_reg.workflows.command_options import (
    CommandOption,
    command_options,
    command_type,
    takes_command_options,
)


@dataclass(frozen=True)
class Painting:
    """How a wall is painted.

    Parameters
    ----------
    colour : {"red", "blue"}, optional
        Of the paint :footcite:p:`Painter2000`.
    width, height : float, optional
        Of the wall, m; see `wall`.
    layers : sequence of int, optional
        Thickness of each layer; the first is ``layers[0]``.
    """

    colour: Literal["red", "blue"] = "red"
    width: float = 3.0
    height: float = 2.0
    layers: Sequence[int] | None = None


@pytest.mark.parametrize(
    "annotation, name",
    [
        (bool, "boolean"),
        (int | None, "int"),
        (float | Literal["auto"], "float"),
        (str | Path, "string or Path"),
        (list[float], "variable float"),
        (Sequence[str] | None, "variable string"),
        (Literal["a", "b"] | None, "string"),
        (Literal["a"] | str, "string"),
    ],
)
def test_type_of_a_command(annotation, name):
    assert command_type(annotation) == name


def test_type_that_no_command_has():
    with pytest.raises(ValueError, match="the command line has no type for"):
        command_type(np.ndarray)


def test_options_of_a_command():
    first, second = command_options(
        Painting, ["layers", "height"], height={"default": 5, "text": "Of a room."}
    )
    assert first.name == "layers" and first.kind == "variable int"
    assert first.default is None and first.text.endswith("is layers[0].")
    (colour,) = command_options(Painting, ["colour"])
    assert colour == CommandOption("colour", "string", "Of the paint.", "red")
    assert second == CommandOption("height", "float", "Of a room.", 5)


def test_command_takes_its_options():
    class Command:
        @takes_command_options(
            [
                CommandOption("wall", "string", "Which."),
                *command_options(Painting, ["width", "colour"]),
            ]
        )
        def run(self, **given):
            """Paint a wall.

            Parameters
            ----------
            given : CommandOption
                Replaced.
            """
            return given

    command = Command()
    parameters = signature(command.run).parameters
    assert [*parameters] == ["wall", "width", "colour"]
    assert parameters["wall"].default is Parameter.empty
    assert command.run("a", colour="blue") == {
        "wall": "a",
        "width": 3.0,
        "colour": "blue",
    }
    with pytest.raises(TypeError, match="wall"):
        command.run()
    assert "wall : string\n" in command.run.__doc__
    assert "width : float, optional\n" in command.run.__doc__
    assert "Replaced" not in command.run.__doc__
