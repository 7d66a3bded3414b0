"""The code blocks of README and documentation are executed as they are printed."""

import ast
from dataclasses import replace
from functools import wraps
from importlib.metadata import entry_points
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
import warnings

import nibabel as nib
import numpy as np
import phantom
import pytest
from recipe_files import make_recipe_files

from dipy_dl_reg.registration.affine.poses import StartingPose, choose_starting_pose
from dipy_dl_reg.training.loop.train_network import train_network

ROOT = Path(__file__).parents[1]
SHAPE = (18, 20, 17)
#: The phantom is as large as a head; a smaller copy is registered faster.
PART = 4.0


def code_blocks(page):
    """Language and text of all code blocks of a page, in their order."""
    text = (ROOT / page).read_text()
    if page.endswith(".md"):
        return re.findall(r"^```(python|bash)\n(.*?)^```", text, re.M | re.S)
    pattern = r"^\.\. code-block:: (\w+)\n(?:   :.*\n)*\n((?:   .*\n|\n)+)"
    return [
        (language, re.sub("^   ", "", body, flags=re.M))
        for language, body in re.findall(pattern, text, re.M)
    ]


def save(name, data, grid):
    Path(name).parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(data, grid), name)


def save_bundle(name, grid):
    """Save one streamline, on a grid of the shape of the phantom."""
    line = nib.affines.apply_affine(grid, [[8, 8, 8], [9, 10, 9]])
    tractogram = nib.streamlines.Tractogram([line], affine_to_rasmm=np.eye(4))
    header = nib.streamlines.trk.TrkFile.create_empty_header()
    header["voxel_to_rasmm"] = grid
    header["dimensions"] = SHAPE
    header["voxel_sizes"] = nib.affines.voxel_sizes(grid)
    header["voxel_order"] = "".join(nib.aff2axcodes(grid)).encode()
    nib.streamlines.save(tractogram, name, header=header)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Create the files that the pages name, and make their folder the current one."""
    monkeypatch.chdir(tmp_path)
    grids = {
        "template": phantom.grid(SHAPE, 2.2),
        "subject": phantom.grid(SHAPE, [-2.2, 2.2, 2.2], centre=[1.0, -2, 1]),
    }
    images = {}
    for name, grid in grids.items():
        scaled = np.diag([PART, PART, PART, 1]) @ grid
        bent = phantom.rigid(phantom.rotation([0, 0, 1], 5), np.zeros(3))
        pose = None if name == "template" else bent
        images[name] = phantom.image(SHAPE, scaled, pose)
        save(f"{name}.nii.gz", images[name], grid)
    labels = (images["template"] > 0.4).astype(np.uint8)
    save("template_labels.nii.gz", labels, grids["template"])
    save("subject_fa.nii.gz", images["subject"], grids["subject"])
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[8:11, 9:12, 8:11] = 1
    save("subject_lesion.nii.gz", lesion, grids["subject"])
    bvecs = np.array([[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1]])
    bvecs = np.vstack([np.zeros((2, 3)), [[0, 0, 1]], bvecs / np.sqrt(2)])
    weights = np.where(np.arange(8) < 2, 1, 0.5)
    save("dwi.nii.gz", images["subject"][..., None] * weights, grids["subject"])
    np.savetxt("dwi.bval", [np.where(np.arange(8) < 2, 0, 1000)])
    np.savetxt("dwi.bvec", bvecs.T)
    save_bundle("bundle.trk", grids["subject"])
    for name, image in images.items():
        save(f"folder_of_images/{name}.nii.gz", image, grids[name])
    make_recipe_files(images, grids)
    return tmp_path


def replace_everywhere(monkeypatch, function, replacement):
    """Replace a function of the package in every module that has imported it."""
    for module in [m for n, m in sys.modules.items() if n.startswith("dipy_dl_reg.")]:
        for name, value in list(vars(module).items()):
            if value is function:
                monkeypatch.setattr(module, name, replacement)


@pytest.fixture
def run(monkeypatch):
    """Run a code block with one training step and without a search over rotations."""

    @wraps(train_network)
    def short(*arguments, options, **others):
        return train_network(*arguments, options=replace(options, steps=1), **others)

    def no_search(pair, start, starts):
        return StartingPose(start, None, None)

    replace_everywhere(monkeypatch, choose_starting_pose, no_search)
    replace_everywhere(monkeypatch, train_network, short)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    names = {}

    def run(language, text):
        if language == "python":
            exec(compile(text, "<page>", "exec"), names)
            return
        if language != "bash":
            return
        lines = text.replace("\\\n", " ").splitlines()
        for words in filter(None, map(shlex.split, lines)):
            if words[0].startswith("dipy_"):
                monkeypatch.setattr(sys, "argv", words)
                (entry,) = entry_points(group="console_scripts", name=words[0])
                entry.load()()
            elif words[0] in PROGRAMS and shutil.which(words[0]):
                subprocess.run(words, check=True, capture_output=True)

    return run


#: Other programs, whose commands are executed where they are installed.
PROGRAMS = {
    "antsApplyTransforms",
    "applywarp",
    "mri_convert",
    "mri_synthmorph",
    "mrtransform",
    "wb_command",
}
#: Packages that the blocks of a page import, besides those that this one needs.
IMPORTS = {
    "doc/exchange.rst": ["SimpleITK", "h5py", "nitransforms"],
    "doc/cohorts.rst": ["jinja2"],
    "doc/verdict.rst": ["jinja2"],
    "doc/recipes.rst": ["jinja2"],
}
#: Files that the code blocks of a page must create.
CREATED = {
    "README.md": ["warped.nii.gz", "mapping.npz", "mine.npz", "out/report.html",
                  "out/fa.nii.gz", "out/labels.nii.gz", "trained/model.npz",
                  "out_network/warped_moved.nii.gz"],
    "doc/index.rst": [],
    "doc/diffusion.rst": ["bundle_in_template.trk"],
    "doc/exchange.rst": ["from_fsl.npz", "shell/sub_1Warp.nii.gz", "premat.mat",
                         "shell/transformed.nii.gz", "sub_0GenericAffine.mat",
                         "sub.h5", "fsl_inverse.nii.gz", "mrtrix.nii.gz", "iy_sub.nii",
                         "sub_inverse.m3z", "warp.mgz", "sub.x5"],
    "doc/cohorts.rst": ["registered/space-MNI_measures.tsv",
                        "registered/sub-subject/sub-subject_space-MNI_measures.json"],
    "doc/verdict.rst": ["report.html"],
    "doc/uncertainty.rst": [],
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


@pytest.mark.parametrize("page", CREATED)
def test_blocks_run_as_printed(page, files, run):
    for name in IMPORTS.get(page, ()):
        pytest.importorskip(name)
    found = code_blocks(page)
    assert found and "python" in dict(found)
    for language, text in found:
        run(language, text)
    for name in CREATED[page]:
        assert (files / name).is_file(), name


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


@pytest.mark.parametrize("page", CREATED)
def test_pages_pass_images_by_name(page):
    for language, text in code_blocks(page):
        if language == "python":
            assert not list(images_by_position(text))


def test_all_pages_with_code_are_tested():
    """A page with blocks of code is in the table above, or in test_extending.py."""
    pages = [*(ROOT / "doc").glob("*.rst"), ROOT / "README.md"]
    with_code = {
        str(path.relative_to(ROOT))
        for path in pages
        if code_blocks(str(path.relative_to(ROOT)))
    }
    elsewhere = {"doc/extending.rst", "doc/clients.rst"}
    assert with_code == {*CREATED, *elsewhere}


# --- tables that are made from the registries


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The tables of the documentation, by name."""
    monkeypatch.syspath_prepend(ROOT / "doc")
    import registry_tables

    registry_tables.write_tables(tmp_path / "generated")
    return {p.stem: p.read_text() for p in (tmp_path / "generated").iterdir()}


def test_tables_have_all_members(tables):
    from dipy_dl_reg.geometry.affine_transforms.registry import TRANSFORMS
    from dipy_dl_reg.maps.formats.table import FORMATS
    from dipy_dl_reg.metrics.registry import METRICS, REGULARIZERS
    from dipy_dl_reg.networks import NETWORKS
    from dipy_dl_reg.workflows.commands import COMMANDS

    members = {
        "metrics": METRICS,
        "regularizers": REGULARIZERS,
        "networks": NETWORKS,
        "transforms": TRANSFORMS,
    }
    for name, registry in members.items():
        for member in registry:
            assert f'``"{member}"``' in tables[name]
    for entry in FORMATS.values():
        assert entry.description in tables["formats"]
    for command in COMMANDS:
        assert f"``{command}``" in tables["commands"]
        assert f"\n{command}\n---" in tables["command_pages"]
    for option in ("``--quiet``", "``--log_file <path>``", "- 130\n"):
        assert option in tables["common_options"]


def test_tables_link_only_to_what_has_a_page(tables):
    """A class that is not public has none: its name is printed without a link."""
    from dipy_dl_reg.metrics.registry import METRICS

    api = (ROOT / "doc" / "api.rst").read_text()
    linked = re.findall(r":class:`~dipy_dl_reg\.(\w+)`", "".join(tables.values()))
    assert linked
    for name in linked:
        assert f"\n   {name}\n" in api
    for entry in METRICS.values():
        assert f"{entry.location.rpartition('.')[2]}`" in tables["metrics"]


def test_tables_are_included(tables):
    pages = "".join(path.read_text() for path in (ROOT / "doc").glob("*.rst"))
    for name in tables:
        assert f".. include:: generated/{name}.inc" in pages


def test_pages_describe_all_members():
    """What is typed in a page: when to use which network."""
    from dipy_dl_reg.networks import NETWORKS

    networks = (ROOT / "doc" / "networks.rst").read_text()
    for name in NETWORKS:
        assert f"\n- ``{name}``" in networks
