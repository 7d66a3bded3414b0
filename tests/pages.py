"""Code blocks of the pages: of reStructuredText and of Markdown, with their marks.

A block that cannot be executed is marked by a comment directly before it:
``.. not-executed: reason``, or ``<!-- not-executed: reason -->`` in Markdown.

tests/documents executes the other blocks as they are printed, with these limits:

- The search over rotations is left out, a training takes one step, and a template one
  iteration (tests/documents/conftest.py).
- In blocks of a shell, only ``dipy_*`` commands and, where they are installed, the
  programs of tests/documents/shell.py run. Of ``pip`` only the names of extras are
  checked; of ``python``, ``pytest`` and ``tools/`` whether the files and modules exist;
  of ``cd``, ``git`` and ``source`` nothing.
- JSON and TOML are parsed. Images are small drawings with the names that the pages use.
"""

from pathlib import Path
import re
import textwrap
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DIRECTIVE = re.compile(r"\s*\.\. (?:code-block|code|sourcecode)::\s*(\S*)\s*$")
LITERAL = re.compile(r"(?!\s*\.\. ).*::\s*$")
OPTION = re.compile(r"\s*:[\w-]+:")
FENCE = re.compile(r"^```[ ]?(\S*)[^\n]*\n(.*?)^```", re.M | re.S)
RST_MARK = re.compile(r"\s*\.\. not-executed: *(.*)")
MD_MARK = re.compile(r"<!-- not-executed: *(.*?) *-->\s*\Z")


class Block(NamedTuple):
    """A block of code: the line where it begins, and the reason of its mark."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self):
        return f"{self.page}, line {self.line}"


def list_pages():
    """All pages, as paths from the root of the repository."""
    paths = [*sorted(ROOT.glob("doc/*.rst")), *sorted(ROOT.glob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in paths]


def read_page(page):
    """Blocks of a page, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return list((read_md if page.endswith(".md") else read_rst)(page, text))


def read_md(page, text):
    """Blocks between fences; one without a language has the language ''."""
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        mark = MD_MARK.search(before)
        reason = mark[1] if mark else None
        yield Block(page, before.count("\n") + 1, match[1], match[2], reason)


def read_rst(page, text):
    """Blocks of directives, and literal blocks, which have the language ''."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        directive = DIRECTIVE.match(line)
        if directive or LITERAL.match(line):
            start, number = number, read_body(lines, number)
            body = lines[start + 1 : number]
            if directive:
                body = [each for k, each in enumerate(body) if not is_option(body, k)]
            content = textwrap.dedent("\n".join(body)).strip("\n") + "\n"
            reason = find_reason(lines, start)
            language = directive[1] if directive else ""
            yield Block(page, start + 1, language, content, reason)
        else:
            number += 1


def is_option(body, k):
    """Whether a line belongs to the options, which precede the first empty line."""
    return OPTION.match(body[k]) and all(map(OPTION.match, body[:k]))


def depth(line):
    return len(line) - len(line.lstrip())


def read_body(lines, start):
    """Number of the first line after the block that begins at a line."""
    number = start + 1
    inside = depth(lines[start])
    while number < len(lines) and (
        not lines[number].strip() or depth(lines[number]) > inside
    ):
        number += 1
    return number


def find_reason(lines, start):
    """Reason in the comment before a block, or before the paragraph above it."""
    number = start
    if LITERAL.match(lines[start]):
        while number and lines[number - 1].strip():
            number -= 1
    number -= 1
    while number >= 0 and not lines[number].strip():
        number -= 1
    words = []
    while number >= 0 and depth(lines[number]) > depth(lines[start]):
        words.insert(0, lines[number].strip())
        number -= 1
    mark = RST_MARK.match(lines[number]) if number >= 0 else None
    return " ".join([mark[1], *words]).strip() if mark else None
