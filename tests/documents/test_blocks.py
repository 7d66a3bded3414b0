"""The code blocks of README and documentation are executed.

tests/pages.py says what is replaced and what is only checked. A block is executed, or
marked with a reason (pages.py describes how) and counted in MARKED, or says by its
language that it is no code.
"""

from pages import list_pages, read_page, read_rst
import pytest

#: Languages of blocks that are executed or parsed; literal blocks have none.
EXECUTED = ("python", "bash", "console", "json", "toml", "")
#: Languages of output, of folders and of files that other programs read.
NO_CODE = ("text", "none", "bibtex", "html", "yaml", "ini", "rst", "output")
#: Pages whose blocks are executed by tests of their own.
ELSEWHERE = {
    "doc/clients.rst": "tests/clients/test_clients_page.py",
    "doc/extending.rst": "tests/test_extending.py",
}
#: Number of blocks of each page that are not executed.
MARKED = {
    "doc/commands.rst": 3,
    "doc/exchange.rst": 1,
    "doc/get_started.rst": 1,
}
#: Packages that the blocks of a page import, besides those that this one needs.
IMPORTS = {
    "README.md": ["jinja2"],
    "doc/index.rst": ["jinja2"],
    "doc/get_started.rst": ["jinja2"],
    "doc/exchange.rst": ["SimpleITK", "h5py", "nitransforms"],
    "doc/cohorts.rst": ["jinja2"],
    "doc/verdict.rst": ["jinja2"],
    "doc/recipes.rst": ["jinja2"],
}
#: Files that the code blocks of a page must create.
CREATED = {
    "README.md": ["warped.nii.gz", "mapping.npz", "out/report.html", "out/fa.nii.gz",
                  "out/labels.nii.gz"],
    "doc/index.rst": ["mapping.npz", "out/report.html"],
    "doc/get_started.rst": ["warped.nii.gz", "mapping.npz", "out/report.html",
                            "out/fa.nii.gz", "out/labels.nii.gz"],
    "doc/diffusion.rst": ["bundle_in_template.trk"],
    "doc/exchange.rst": ["from_fsl.npz", "shell/sub_1Warp.nii.gz", "premat.mat",
                         "shell/transformed.nii.gz", "sub_0GenericAffine.mat",
                         "sub.h5", "fsl_inverse.nii.gz", "mrtrix.nii.gz", "iy_sub.nii",
                         "sub_inverse.m3z", "warp.mgz", "sub.x5"],
    "doc/cohorts.rst": ["registered/space-MNI_measures.tsv",
                        "registered/sub-subject/sub-subject_space-MNI_measures.json"],
    "doc/verdict.rst": ["report.html"],
    "doc/recipes.rst": ["subject_labels.nii.gz", "atlas/subject_labels.nii.gz",
                        "t1_space/fa_t1.nii.gz", "fa_template.nii.gz",
                        "head/report.html", "lesion/mapping.npz",
                        "bundle_template.trk", "bundle_back.trk",
                        "series_template.nii.gz", "from_bids/space-MNI_index.html",
                        "from_pattern/space-MNI_measures.tsv",
                        "from_table/space-MNI_index.html", "section_warped.png",
                        "slices/report.html", "own/warped_moved.nii.gz", "other.html"],
    "doc/networks.rst": ["mine.npz", "model.npz", "out/warped_moved.nii.gz"],
}  # fmt: skip


#: Blocks of all pages that are not executed elsewhere.
BLOCKS = {page: read_page(page) for page in list_pages() if page not in ELSEWHERE}


def is_executed(block):
    return block.reason is None and block.language in EXECUTED


@pytest.mark.parametrize(
    "page", [p for p in BLOCKS if any(map(is_executed, BLOCKS[p]))]
)
def test_blocks_run_as_printed(page, files, run):
    for name in IMPORTS.get(page, ()):
        pytest.importorskip(name)
    for block in filter(is_executed, BLOCKS[page]):
        run(block)
    for name in CREATED.get(page, ()):
        assert (files / name).is_file(), name


@pytest.mark.parametrize("page", BLOCKS)
def test_languages_are_known(page):
    """A language that is neither executed nor output needs a mark."""
    for block in BLOCKS[page]:
        if block.reason is None:
            assert block.language in EXECUTED + NO_CODE, block


@pytest.mark.parametrize("page", list_pages())
def test_commands_do_not_pass_for_output(page):
    """A block of output that begins with a command would not be executed."""
    for block in read_page(page):
        first = block.text.split(maxsplit=1)[:1]
        if block.language in NO_CODE and first:
            assert not first[0].startswith(("dipy_", "pip", "python", ">>>", "$")), (
                block
            )


def test_marked_blocks_are_counted():
    """Each has a reason; a new one is added to MARKED on purpose."""
    marked = [block for blocks in BLOCKS.values() for block in blocks if block.reason]
    pages = [block.page for block in marked]
    assert {page: pages.count(page) for page in pages} == MARKED
    assert all(len(block.reason.split()) > 2 for block in marked)


def test_pages_of_the_tables_exist():
    assert {*ELSEWHERE, *MARKED, *CREATED, *IMPORTS} <= set(list_pages())


PAGE = """
Text::

   first

.. not-executed: it would
   take hours

.. code-block:: bash
   :caption: A caption

   second \\
       --option

   :third: line

.. tab-set::

   .. tab-item:: One

      .. not-executed: no such image

      .. code-block:: python

         fourth

.. code-block:: text

   fifth
"""


def test_blocks_are_found():
    """Literal blocks, options, empty lines, blocks in tabs, and marks."""
    blocks = list(read_rst("page.rst", PAGE))
    languages = ["", "bash", "python", "text"]
    assert [block.language for block in blocks] == languages
    assert blocks[1].text == "second \\\n    --option\n\n:third: line\n"
    reasons = [None, "it would take hours", "no such image", None]
    assert [block.reason for block in blocks] == reasons
    assert [block.text for block in blocks][2:] == ["fourth\n", "fifth\n"]
    assert [block.line for block in blocks] == [2, 9, 23, 27]
