"""Sphinx configuration; tools/docs.sh builds the site."""

from importlib.util import find_spec
from pathlib import Path
import re
import socket
import sys
import tomllib

from sphinx.util import logging

import dipy_dl_reg

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "examples")]  # the latter: example_figures

from cross_references import type_links, write_inventories
from gallery import SECTION_ORDER
from registry_tables import write_tables

project = "dipy_dl_reg"
author = "the dipy_dl_reg developers"
copyright = f"2026, {author}"
release = version = dipy_dl_reg.__version__

# The links to the repository and its issues are of pyproject.toml's table
# [project.urls] ("Repository", "Issues"). While it has none, they are left out, and the
# build says so; this is no warning, because warnings fail the build.
PYPROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
URLS = PYPROJECT["project"].get("urls", {})
if missing := {"Repository", "Issues"} - URLS.keys():
    logging.getLogger(__name__).info(
        "note: the site has no links to %s: pyproject.toml, [project.urls]",
        " and ".join(sorted(missing)),
    )

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "myst_parser",  # CHANGELOG.md and CONTRIBUTING.md are pages too
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "cross_references",
    "measured_pages",
    "card_pages",
    "source_links",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_templates",
    "examples",
    "sg_execution_times.rst",
    "**/sg_execution_times.rst",
]
# Text in single backticks is a link or code; a link that leads nowhere fails the build.
default_role = "py:obj"
nitpicky = True
intersphinx_mapping = write_inventories(HERE / "generated")
intersphinx_disabled_reftypes = []
add_module_names = False
toc_object_entries_show_parents = "hide"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # but these
numpydoc_xref_aliases = type_links((HERE / "api.rst").read_text())

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

# One file of MathJax, with its fonts and extensions, beside the pages: formulae are
# shown without a network. The package has a hyphen in its name, and its own extension
# would copy 24 MB.
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
mathjax_path = "tex-svg-full.js"

# Copied without prompts; what an example has printed has no button.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.sphx-glr-script-out) > div.highlight pre"

html_theme = "pydata_sphinx_theme"
html_title = f"dipy_dl_reg {release}"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static", str(MATHJAX / mathjax_path)]
html_css_files = ["site.css", "api.css"]
html_theme_options = {
    "logo": {"text": "dipy_dl_reg"},
    "icon_links": [
        {"name": name, "url": URLS[name], "icon": icon}
        for name, icon in (
            ("Repository", "fa-solid fa-code-branch"),
            ("Issues", "fa-regular fa-circle-dot"),
        )
        if name in URLS
    ],
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    # A landing page needs no list of its headings.
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
# Pages that have no pages below them.
html_sidebars = {name: [] for name in ("index", "get_started")}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "ignore_pattern": "example_figures",
    "subsection_order": SECTION_ORDER,
    "within_subsection_order": "gallery.ExampleOrder",
    "image_scrapers": ("gallery",),
    # The page of a public name shows the examples that use it.
    "doc_module": ("dipy_dl_reg",),
    "backreferences_dir": "generated/backreferences",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "capture_repr": (),
    "show_memory": False,
    "min_reported_time": 3600,  # seconds of this machine say nothing to a reader
    "remove_config_comments": True,
}


def _no_network(self, address, *args):
    """Examples run on what the dependencies bundle: a download fails the build."""
    if self.family == socket.AF_UNIX:
        return _connect(self, address, *args)
    raise OSError(f"the documentation is built offline; asked for {address}")


_connect = socket.socket.connect
socket.socket.connect = _no_network

# The star of a shape such as (B, 1, *shape).
STAR = re.compile(r"(?<=[ (])\*(?=\w+[,)])")


def escape_stars(app, what, name, obj, options, lines):
    """Keep a shape's star from starting emphasis."""
    for number, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [STAR.sub(r"\\*", part) for part in parts[::2]]
        lines[number] = "``".join(parts)


def setup(app):
    """Write the tables of the registries; escape stars after numpydoc has run."""
    write_tables(HERE / "generated")
    app.connect("autodoc-process-docstring", escape_stars, priority=900)
