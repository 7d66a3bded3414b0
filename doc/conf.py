"""Sphinx configuration; tools/docs.sh builds the site."""

from pathlib import Path
import re
import socket
import sys

import dipy_dl_reg

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cross_references import write_inventories
from registry_tables import write_tables

project = "dipy_dl_reg"
author = "the dipy_dl_reg developers"
copyright = f"2026, {author}"
release = version = dipy_dl_reg.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "cross_references",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "examples"]
# Text in single backticks is a link or code; a link that leads nowhere fails the build.
default_role = "py:obj"
nitpicky = True
intersphinx_mapping = write_inventories(HERE / "generated")
intersphinx_disabled_reftypes = []
add_module_names = False

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

html_theme = "pydata_sphinx_theme"
html_title = f"dipy_dl_reg {release}"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    # The page of a public name shows the examples that use it.
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("dipy_dl_reg",),
    "filename_pattern": "/plot_",
    "within_subsection_order": "ExampleTitleSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "capture_repr": (),
    "show_memory": False,
    "min_reported_time": 1,
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
