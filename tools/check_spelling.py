"""Check the spelling of the prose of the built site.

From the root of the repository, after ``tools/docs.sh``, which runs it:

    python tools/check_spelling.py doc/_build/html

It reads the text of all pages, docstrings and examples included, without code, names,
formulae and the bibliography.  A word is right if it is in pyspellchecker's English
dictionary, which comes with that package, or in ``doc/words.txt``: terms of the field,
names and abbreviations, one a line.  It ends with 1 if a word is in neither.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
import re
import sys

from spellchecker import SpellChecker

WORDS = Path(__file__).parents[1] / "doc" / "words.txt"
#: Elements without prose, and classes of those.
NO_PROSE = {"code", "pre", "script", "style", "svg", "nav", "footer", "header", "dt"}
NO_PROSE_CLASSES = {"math", "citation", "highlight", "sig", "footnote", "references"}
#: Pages that Sphinx and its gallery make.
NOT_PAGES = {"genindex.html", "search.html", "sg_execution_times.html"}
#: Elements without an end.
VOID = {"br", "img", "hr", "input", "link", "meta", "source", "wbr", "area", "col"}
#: A word; with digits or inner capitals it is a name, and so is a part of a path.
WORD = re.compile(r"(?<![\w./@#-])[A-Za-z][a-z]+(?:['’][a-z]+)?(?![\w/@]|\.\w)")


class Prose(HTMLParser):
    """Text of the main part of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._open: list[bool] = []  # whether each open element has no prose
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note whether an element has prose."""
        if tag in VOID:
            self.parts.append(" ")
            return
        classes = set((dict(attrs).get("class") or "").split())
        self._open.append(tag in NO_PROSE or bool(classes & NO_PROSE_CLASSES))
        if tag not in ("em", "strong", "span", "a", "i", "b"):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of an element."""
        if tag not in VOID and self._open:
            # What replaces code counts as a word, so that its neighbours stay apart.
            self.parts.append("_" if self._open.pop() else "")

    def handle_data(self, data: str) -> None:
        """Collect prose."""
        if not any(self._open):
            self.parts.append(data)


def find_words(folder: Path) -> dict[str, set[str]]:
    """Pages of each word of a site."""
    found = defaultdict(set)
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder)
        if name.parts[0] in ("_static", "_modules") or name.name in NOT_PAGES:
            continue
        main = re.search(
            r"<article.*?</article>", path.read_text(encoding="utf-8"), re.S
        )
        for word in WORD.findall("".join(Prose(main[0]).parts) if main else ""):
            found[word.replace("’", "'").removesuffix("'s")].add(str(name))
    return found


def main() -> int:
    """Check a folder; return the code of the process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the built site")
    folder = parser.parse_args().folder
    found = find_words(folder)
    if not found:
        parser.error(f"{folder} has no prose")
    own = set(WORDS.read_text(encoding="utf-8").split()) if WORDS.is_file() else set()
    known = SpellChecker()
    wrong = known.unknown(set(found))
    faults = 0
    for word in sorted(found, key=str.lower):
        if word.lower() in wrong and word not in own and word.lower() not in own:
            faults += 1
            pages = sorted(found[word])
            print(f"{word}: {', '.join(pages[:3])}{' ...' if pages[3:] else ''}")
    used = set(found) | {word.lower() for word in found}
    for word in sorted(own - used):
        print(f"not used, in {WORDS.name}: {word}")
    print(f"{len(found)} words, {len(own)} of them in {WORDS.name}: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
