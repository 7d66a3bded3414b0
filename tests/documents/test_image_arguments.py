"""Examples and pages pass images by name, because the order of arguments differs."""

import ast

from pages import ROOT, list_pages, read_page
import pytest

#: Functions of two images, whose order of arguments differs.
IMAGE_FUNCTIONS = {
    "affine_registration",
    "deep_affine_registration",
    "deep_registration",
    "optimize",
    "syn_registration",
}


def images_by_position(source):
    """Calls that pass images by position; calls with landmarks are left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            words = ast.unparse(node)
            keywords = {keyword.arg for keyword in node.keywords}
            if name in IMAGE_FUNCTIONS and "static_shape" not in keywords:
                yield words


SCRIPTS = [*sorted((ROOT / "doc" / "examples").glob("*/*.py")), ROOT / "tools/demo.py"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_examples_pass_images_by_name(path):
    """The order of the arguments differs between functions."""
    points = ("spline.optimize",)  # takes landmarks
    calls = images_by_position(path.read_text())
    assert not [call for call in calls if not call.startswith(points)]


#: Blocks of this page are parts of files; tests/test_extending.py assembles them.
PARTS = "doc/extending.rst"


@pytest.mark.parametrize("page", [page for page in list_pages() if page != PARTS])
def test_pages_pass_images_by_name(page):
    for block in read_page(page):
        if block.language == "python":
            assert not list(images_by_position(block.text)), block
