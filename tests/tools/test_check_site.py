"""The check of the built site finds each kind of fault, and nothing in a good site."""

import shutil
import subprocess
import sys

import pytest

from tools import check_site, screenshots

GOOD = """<html><head><title>A page</title>
<link rel="stylesheet" href="_static/style.css"><link rel="canonical" href="x"></head>
<body id="top"><h1 id="one">One</h1><a href="#one">up</a> <a href="">here</a>
<a href="sub/other.html#two%20b">other</a> <a href="sub/">folder</a>
<a href="https://example.org/a">elsewhere</a> <a href="mailto:a@b.org">mail</a>
<img src="_static/picture.png" alt="A picture">
<img class="logo__image" src="_static/picture.png" alt=""></body></html>"""
OTHER = """<html><head><title>Other</title></head><body><p id="two b">Two</p>
<a href="../index.html">back</a></body></html>"""


@pytest.fixture
def site(tmp_path):
    """A small site without faults."""
    for folder in ("sub", "_static"):
        (tmp_path / folder).mkdir()
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "sub/other.html").write_text(OTHER)
    (tmp_path / "sub/index.html").write_text(OTHER)
    (tmp_path / "_static/picture.png").touch()
    (tmp_path / "_static/font.woff").touch()
    style = "a { src: url('font.woff?v=1') } b { c: url(data:image/png;base64,xx) }"
    (tmp_path / "_static/style.css").write_text(style)
    return tmp_path


def faults(site):
    return list(check_site.Site(site).find_faults())


def test_a_good_site_has_no_faults(site):
    checked = check_site.Site(site)
    assert list(checked.find_faults()) == []
    assert list(checked.external) == ["https://example.org/a"]


@pytest.mark.parametrize(
    "text, fault",
    [
        ('<a href="none.html">a</a>', "no such file: none.html"),
        ('<a href="../outside.html">a</a>', "no such file: ../outside.html"),
        ('<a href="#none">a</a>', "no such anchor: #none"),
        ('<a href="sub/other.html#one">a</a>', "no such anchor: sub/other.html#one"),
        ('<img src="_static/picture.png">', "no alternative text"),
        ('<img src="_static/picture.png" alt=" ">', "no alternative text"),
        ('<img src="none.png" alt="A picture">', "no such file: none.png"),
        ('<p id="one">again</p>', "the anchor #one is there 2 times"),
        ('<script src="https://a.org/b.js"></script>', "loads from another site"),
        ('<link rel="stylesheet" href="none.css">', "no such file: none.css"),
        ('<a href="file:///a">a</a>', "unknown kind of address"),
    ],
)
def test_each_fault_is_found(site, text, fault):
    (site / "index.html").write_text(GOOD.replace("</body>", f"{text}</body>"))
    (found,) = faults(site)
    assert found.startswith("index.html") and fault in found


def test_faults_of_titles_and_styles(site):
    (site / "sub/other.html").write_text(OTHER.replace("Other", ""))
    (site / "_static/font.woff").unlink()
    title, style = faults(site)
    assert title == "sub/other.html: no title"
    assert style == "_static/style.css: no such file in the site: font.woff?v=1"


def test_the_program_ends_with_its_result(site):
    command = [sys.executable, check_site.__file__, str(site)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "3 pages" in done.stdout, done.stdout
    (site / "index.html").write_text(GOOD.replace("#one", "#none"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "no such anchor: #none" in done.stdout


WIDE = '<div style="width: 700px">wide</div><img src="none.png" alt="none">'
BOX = '<div style="overflow-x: auto"><div style="width: 700px">wide</div></div>'


def test_pictures_of_pages(site, tmp_path):
    """On a phone, a wide part is a fault, unless it scrolls by itself."""
    program = next(filter(None, map(shutil.which, screenshots.PROGRAMS)), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    page = "<meta name=viewport content='width=device-width'><main>{}</main>"
    for name, content in (("wide", WIDE), ("box", BOX)):
        (site / f"{name}.html").write_text(page.format(content))
    with screenshots.start_browser(program) as browser:
        views = {
            (name, screen): browser.view(site / f"{name}.html", *size)
            for name in ("wide", "box")
            for screen, size in screenshots.SCREENS.items()
        }
    assert all(view.picture.startswith(b"\x89PNG") for view in views.values())
    texts = {key: "\n".join(view.faults) for key, view in views.items()}
    assert not texts["box", "phone"] + texts["box", "desktop"]
    assert "wider than the screen" in texts["wide", "phone"]
    assert "wider" not in texts["wide", "desktop"]
    assert "none.png" in texts["wide", "desktop"]
