"""Links between pages of the API and of the source that would lead to no anchor.

`sphinx.ext.viewcode` names an object by its module; a page of the API that names it by
the package has another anchor.  Each such page is about one object: the link leads to
the page instead.
"""

from pathlib import Path
import re

LINK = re.compile(
    r'(<a class="(?:viewcode-back|reference internal)" href=")([^"#]+)#([^"]+)"'
)


def find_anchors(path, known):
    """Return the anchors of a page; those of pages that were read are in `known`."""
    if path not in known:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        known[path] = set(re.findall(r'\bid="([^"]+)"', text))
    return known[path]


def mend_links(app, exception):
    """Remove anchors that do not exist from the links to and from the source."""
    if exception or app.builder.name != "html":
        return
    folder, known = Path(app.outdir), {}
    for path in [*folder.glob("_modules/**/*.html"), *folder.glob("generated/*.html")]:

        def mend(match, path=path):
            start, address, anchor = match.groups()
            target = (path.parent / address).resolve()
            is_source = "_modules" in (*path.parts, *Path(address).parts)
            if is_source and anchor not in find_anchors(target, known):
                return f'{start}{address}"'
            return match[0]

        text = path.read_text(encoding="utf-8")
        mended = LINK.sub(mend, text)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def setup(app):
    """Mend the pages when all are written."""
    app.connect("build-finished", mend_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
