"""Check the links, anchors, files and pictures of the built site.

From the root of the repository, after ``tools/docs.sh``, which runs it:

    python tools/check_site.py doc/_build/html
    python tools/check_site.py doc/_build/html --external    # lists other sites, too

It prints a line for each fault and ends with 1 if there is one: a link to a page, a
file or an anchor that does not exist; a file that would come from another site when
the page is opened; a picture without a text in its place; an anchor given twice.
Nothing is fetched.  Links to other sites are counted.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
import re
import sys
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

#: Attributes that name other files, by element; those of the first load with the page.
LOADED = {"img": "src", "script": "src", "source": "src", "video": "src"}
LINKED = {"a": "href", "area": "href", "iframe": "src"}
#: Kinds of ``<link>`` that load with the page.
LOADED_KINDS = {"stylesheet", "icon", "shortcut icon", "preload"}
#: Anchors that the gallery gives to each of its lists, and to which nothing links.
REPEATED = {"sg-tag-list"}
#: Addresses within a style sheet.
STYLE_URL = re.compile(r"url\(\s*[\"']?([^\"')]+)[\"']?\s*\)")


class Reference(NamedTuple):
    """An address in a page, its line, and whether it loads when the page is opened."""

    address: str
    line: int
    loads: bool


class Page(HTMLParser):
    """Addresses, anchors and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[Reference] = []
        self.anchors: Counter[str] = Counter()
        self.without_text: list[tuple[int, str]] = []
        self.title, self._in_title = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the anchor, the address and the picture of an element."""
        given = dict(attrs)
        line = self.getpos()[0]
        if given.get("id"):
            self.anchors[str(given["id"])] += 1
        if tag == "a" and given.get("name") and given.get("name") != given.get("id"):
            self.anchors[str(given["name"])] += 1
        self._in_title |= tag == "title"
        alt, source = given.get("alt"), str(given.get("src"))
        # The theme prints the name beside its logo, the gallery that of an example.
        is_named = "logo__image" in (given.get("class") or "") or "_thumb." in source
        if tag == "img" and not (alt or "").strip() and not (is_named and alt == ""):
            self.without_text.append((line, source))
        kinds = (given.get("rel") or "").lower()
        loads = tag in LOADED or (tag == "link" and kinds in LOADED_KINDS)
        name = {**LOADED, **LINKED, "link": "href"}.get(tag)
        if name and given.get(name) and (tag != "link" or loads):
            self.references.append(Reference(str(given[name]).strip(), line, loads))

    def handle_endtag(self, tag: str) -> None:
        """Note the end of the title."""
        self._in_title &= tag != "title"

    def handle_data(self, data: str) -> None:
        """Collect the title."""
        if self._in_title:
            self.title += data


class Site:
    """All pages of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.pages = {
            path: Page(path.read_text(encoding="utf-8"))
            for path in sorted(self.folder.rglob("*.html"))
            if "_static" not in path.relative_to(self.folder).parts
        }
        self.external: defaultdict[str, set[Path]] = defaultdict(set)

    def find_faults(self) -> Iterator[str]:
        """Yield a line for each fault."""
        for path, page in self.pages.items():
            name = path.relative_to(self.folder)
            if not page.title.strip():
                yield f"{name}: no title"
            for reference in page.references:
                fault = self.check(path, reference)
                if fault:
                    yield f"{name}:{reference.line}: {fault}"
            for line, source in page.without_text:
                yield f"{name}:{line}: no alternative text: {source}"
            for anchor, count in page.anchors.items():
                if count > 1 and anchor not in REPEATED:
                    yield f"{name}: the anchor #{anchor} is there {count} times"
        yield from self.check_styles()

    def check(self, path: Path, reference: Reference) -> str | None:
        """Describe what is wrong with an address, if anything is."""
        address = reference.address
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") or parts.netloc:
            self.external[address].add(path)
            return f"loads from another site: {address}" if reference.loads else None
        if parts.scheme in ("data", "mailto", "javascript"):
            return None
        if parts.scheme:
            return f"unknown kind of address: {address}"
        target = self.resolve(path, parts.path)
        if target is None or not target.is_file():
            return f"no such file: {address}"
        anchor = unquote(parts.fragment)
        page = self.pages.get(target)
        if anchor and page is not None and not page.anchors[anchor]:
            return f"no such anchor: {address}"
        return None

    def resolve(self, path: Path, address: str) -> Path | None:
        """File that an address of a page names; None outside the site."""
        if not address:
            return path
        base = self.folder if address.startswith("/") else path.parent
        target = (base / unquote(address).lstrip("/")).resolve()
        if not target.is_relative_to(self.folder):
            return None
        return target / "index.html" if target.is_dir() else target

    def check_styles(self) -> Iterator[str]:
        """Check the files that style sheets name."""
        for path in sorted(self.folder.rglob("*.css")):
            text = path.read_text(encoding="utf-8", errors="replace")
            for address in STYLE_URL.findall(text):
                parts = urlsplit(address)
                target = None if parts.scheme else self.resolve(path, parts.path)
                if parts.scheme not in ("data", "") or (
                    not parts.scheme and (target is None or not target.is_file())
                ):
                    name = path.relative_to(self.folder)
                    yield f"{name}: no such file in the site: {address}"


def main() -> int:
    """Check a folder; return the code of the process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the built site")
    parser.add_argument("--external", action="store_true", help="list other sites")
    options = parser.parse_args()
    site = Site(options.folder)
    if not site.pages:
        parser.error(f"{options.folder} has no pages")
    faults = list(site.find_faults())
    print(*faults, sep="\n", end="\n" if faults else "")
    if options.external:
        print(*sorted(site.external), sep="\n")
    number = sum(len(page.references) for page in site.pages.values())
    print(
        f"{len(site.pages)} pages, {number} links and files, {len(site.external)} "
        f"addresses of other sites (not fetched): {len(faults)} faults"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
