"""Fills the templates of the reports; no page requests another file."""

from __future__ import annotations

import base64
from functools import cache
import hashlib
from importlib import import_module
from importlib.resources import files
import os
from typing import Any

from dipy.utils.optpkg import optional_package

from dipy_dl_reg.maps.figure import load_matplotlib

#: The folder of the templates.
_FOLDER = files(__package__) / "templates"


@cache
def _load_environment() -> Any:
    """Load jinja2 with its escaping of everything that is inserted."""
    jinja2, found, _ = optional_package("jinja2")
    if not found:
        raise ImportError('reports need jinja2: pip install "dipy_dl_reg[report]"')
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_read),
        trim_blocks=True,
    )
    environment.filters["mm"] = lambda length: f"{length:.5g}"
    return environment


def check_packages(path: str | os.PathLike) -> None:
    """Check that the packages of a report or picture are installed.

    Parameters
    ----------
    path : str or Path
        The file: HTML needs jinja2 and matplotlib, a picture matplotlib alone.

    Raises
    ------
    ImportError
        If one of them is not.
    """
    load_matplotlib()
    if str(path).lower().endswith(".html"):
        check_templates()


def check_templates() -> None:
    """Check that jinja2 is installed, before anything is computed.

    Raises
    ------
    ImportError
        If it is not.
    """
    _load_environment()


def _read(name: str) -> str:
    """The text of a file of this package."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """Fill a template.

    The page has the style and the script of the package in it, and a policy that
    forbids the browser to request anything else, or to run any other script.

    Parameters
    ----------
    name : str
        Name of the template, such as "report", to which a script of the same name
        belongs.
    **values : dict
        The values that are inserted; text is escaped.

    Returns
    -------
    page : str
        HTML.
    """
    environment = _load_environment()
    markup = import_module("markupsafe").Markup  # jinja2 requires it
    script = _read(f"{name}.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(f"{name}.html").render(
        **values,
        style=markup(_read("style.css")),
        script=markup(script),
        policy=policy,
    )
