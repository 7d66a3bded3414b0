"""The messages that doc/troubleshooting.rst quotes are those that the code prints."""

import ast
from functools import cache
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "doc" / "troubleshooting.rst").read_text()
MESSAGES = re.findall(r"^\.\. code-block:: text\n\n((?:   .+\n)+)", PAGE, re.M)
#: Messages of other packages.
FOREIGN = {"unrecognized arguments"}


def text_of(node):
    """The text of a constant or an f-string, with a hole for each value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(
        text_of(part) if isinstance(part, ast.Constant) else "\0"
        for part in node.values
    )


@cache
def modules():
    """Strings of each module, docstrings left out: the texts between their holes."""
    found = []
    for path in (ROOT / "dipy_dl_reg").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = [
            text_of(node)
            for node in nodes
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            or isinstance(node, ast.JoinedStr)
            if id(node) not in docstrings
        ]
        pieces = [" ".join(x.split()) for text in texts for x in text.split("\0")]
        found.append([piece for piece in pieces if piece])
    return found


def parts_of(message):
    """The words between the holes, marked by dots."""
    text = " ".join(message.split())
    return [part.strip(" ,;:()'%") for part in text.split("...") if len(part) > 3]


def is_put_together(part, pieces, begun=False, least=5):
    """Whether words are the end of a piece, whole pieces, and the beginning of one.

    So they are where a message inserts another string of its module.
    """
    if begun and any(piece.startswith(part) for piece in pieces):
        return True
    return any(
        any(x == part[:k] if begun else x.endswith(part[:k]) for x in pieces)
        and is_put_together(part[k:].strip(), pieces, begun=True)
        for k in range(least, len(part) - least)
    )


def is_printed(message):
    """Whether one module has each part of a message in one string, or in a few."""
    parts = parts_of(message)
    assert parts
    return any(
        all(any(part in piece for piece in pieces) for part in parts)
        for pieces in modules()
    ) or any(
        all(
            any(part in piece for piece in pieces) or is_put_together(part, pieces)
            for part in parts
        )
        for pieces in modules()
    )


@pytest.mark.parametrize("message", MESSAGES, ids=lambda text: text.strip()[:40])
def test_message_is_in_the_code(message):
    assert message.strip() in FOREIGN or is_printed(message)


@pytest.mark.parametrize(
    "message",
    [
        "registration begins with the largest image of the pair",
        "the images were not aligned before the refinement (...",
        "the map folds in ... of the images",
        "the overlap of the anatomy maps rises from ... to ... by the deformation",
        "must be one 3D volume or one mask, got shape ...",
        "device=... cannot be found: ...",
        "computes on the GPU, because ...",
    ],
)
def test_invented_messages_are_found_out(message):
    assert not is_printed(message)


def test_there_are_messages():
    assert len(MESSAGES) > 40
