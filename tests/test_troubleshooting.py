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
def strings():
    """All strings of the package, each text in one line."""
    found = []
    for path in (ROOT / "dipy_dl_reg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text or isinstance(node, ast.JoinedStr):
                found.append(" ".join(text_of(node).split()))
    return found


def parts_of(message):
    """The words between the holes, marked by dots."""
    text = " ".join(message.split())
    return [part.strip(" ,;:()'%") for part in text.split("...") if len(part) > 3]


def is_printed(words, pieces=4):
    """Whether words are in a string, or in a few that are put together."""
    if not words:
        return True
    ends = range(len(words), 1 if len(words) > 1 else 0, -1)
    return pieces > 0 and any(
        any(" ".join(words[:end]) in text for text in strings())
        and is_printed(words[end:], pieces - 1)
        for end in ends
    )


@pytest.mark.parametrize("message", MESSAGES, ids=lambda text: text.strip()[:40])
def test_message_is_in_the_code(message):
    if message.strip() in FOREIGN:
        return
    parts = parts_of(message)
    assert parts
    for part in parts:
        assert is_printed(part.split()), part


def test_there_are_messages():
    assert len(MESSAGES) > 40
