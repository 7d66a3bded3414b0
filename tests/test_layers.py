"""Imports go down only, read from the source, those inside functions too.

    workflows > pipeline, learning > registration, affine, landmarks, report > bridge,
    mapping, diffusion > training > networks > engine, space

DIPY and nibabel stay above training, torch within the engine's side of bridge.py, and
``dipy_dl_reg/__init__.py`` imports nothing but lazy_loader, os and sys.
"""

import ast
from pathlib import Path

import pytest

import dipy_dl_reg

PACKAGE = "dipy_dl_reg"
ROOT = Path(dipy_dl_reg.__file__).parent

# From the ground up. A new module or folder takes its place here.
LAYERS = [
    {"space", "engine"},
    {"networks"},
    {"training"},
    {
        *("affine_options", "brain_masks", "bridge", "diffusion", "dipy_format"),
        *("files", "image_kinds", "mapping", "masks", "points", "registration_options"),
        *("scan", "subjects", "translate", "verdict"),
    },
    {
        "affine",
        "affine_start",
        "assess",
        "landmarks",
        "picture",
        "registration",
        "report",
    },
    {"cohort", "learning", "pipeline", "prealign"},
    {"command_log", "jobs", "strict", "train_workflow", "workflows"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
TORCH_ONLY = {"engine", "networks", "training"}
TORCH = TORCH_ONLY | {"bridge"}
# Functions that import what their first argument names.
IMPORTERS = {"__import__", "import_module", "optional_package"}


def imported_names(source, module):
    """Dotted names that a module's source imports, wherever the import stands.

    Parameters
    ----------
    source : str
        Python source.
    module : str
        Its dotted name; a package's ends in ``.__init__``.

    Returns
    -------
    names : set of str
        ``from a import b`` gives ``a.b``, relative imports made absolute.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join(parents + ([node.module] if node.module else []))
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = getattr(node.func, "attr", getattr(node.func, "id", None))
            argument = getattr(node.args[0], "value", None)
            if function in IMPORTERS and isinstance(argument, str):
                names.add(argument)
    return names


def breaches(source, module):
    """Say what a module imports that it must not.

    Parameters
    ----------
    source : str
        Python source.
    module : str
        Its dotted name; a package's ends in ``.__init__``.

    Returns
    -------
    found : list of str
        One line for each breach.
    """
    unit = module.split(".")[1]
    imported = {tuple(name.split(".")) for name in imported_names(source, module)}
    tops = {name[0] for name in imported}
    if unit == "__init__":
        wanted = tops - {"lazy_loader", "os", "sys"}
        return [f"{module} imports {top}; its names are lazy" for top in sorted(wanted)]
    found = []
    if "torch" in tops and unit not in TORCH:
        found.append(f"{module} imports torch; bridge.py is the one door to it")
    for top in sorted(tops & {"dipy", "nibabel"}):
        if LEVEL[unit] <= LEVEL["training"]:
            found.append(f"{module} imports {top}, which belongs above training")
    if unit == "space" and tops - {
        "dataclasses",
        "itertools",
        "numpy",
        "typing",
        "__future__",
    }:
        found.append(f"{module} imports {sorted(tops)}; it stands on numpy alone")
    for name in sorted(name for name in imported if name[0] == PACKAGE):
        other = name[1] if len(name) > 1 else PACKAGE
        if other not in LEVEL:
            found.append(f"{module} imports {'.'.join(name)}, not the module it is in")
        elif LEVEL[other] > LEVEL[unit]:
            found.append(f"{module} imports {other}, which is above it")
    return found


def modules():
    """List every module's dotted name and path."""
    return [
        (".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)), path)
        for path in sorted(ROOT.rglob("*.py"))
    ]


@pytest.mark.parametrize(
    "module, path", [pytest.param(*pair, id=pair[0]) for pair in modules()]
)
def test_imports_go_down(module, path):
    unit = module.split(".")[1]
    assert unit in LEVEL or unit == "__init__", f"give {unit} a place in LAYERS"
    assert breaches(path.read_text(), module) == []


def test_no_cycles():
    """Modules of one layer may use each other, but not in a ring."""
    sources = {name.removesuffix(".__init__"): (name, p) for name, p in modules()}
    waits = {}
    for name, (module, path) in sources.items():
        imported = imported_names(path.read_text(), module)
        used = imported | {i.rpartition(".")[0] for i in imported}
        waits[name] = {u for u in used if u in sources and u not in (name, PACKAGE)}
    while waits:
        free = {name for name, used in waits.items() if not used & waits.keys()}
        assert free, f"these import each other in a ring: {sorted(waits)}"
        waits = {name: used for name, used in waits.items() if name not in free}


@pytest.mark.parametrize(
    "module, source",
    [
        ("dipy_dl_reg.engine.fields", "import dipy_dl_reg.bridge"),
        ("dipy_dl_reg.engine.fields", "from ..bridge import Pair"),
        ("dipy_dl_reg.engine.__init__", "from .. import mapping"),
        ("dipy_dl_reg.engine.fields", "from dipy_dl_reg import networks"),
        ("dipy_dl_reg.engine.fields", "def f():\n    import dipy.align"),
        ("dipy_dl_reg.training.data", "from nibabel import load"),
        ("dipy_dl_reg.networks.unet", "import_module('nibabel')"),
        ("dipy_dl_reg.mapping", "def f():\n    import torch.nn as nn"),
        ("dipy_dl_reg.mapping", "from .registration import DeepRegistration"),
        ("dipy_dl_reg.registration", "from dipy_dl_reg import DeepRegistration"),
        ("dipy_dl_reg.registration", "optional_package('torch')"),
        ("dipy_dl_reg.space", "import scipy"),
        ("dipy_dl_reg.__init__", "import numpy"),
    ],
)
def test_breach_is_found(module, source):
    assert len(breaches(source, module)) == 1


@pytest.mark.parametrize(
    "module, source",
    [
        ("dipy_dl_reg.engine.fields", "import torch\nfrom ..space import Grid"),
        ("dipy_dl_reg.engine.__init__", "from . import fields"),
        ("dipy_dl_reg.bridge", "import torch, dipy\nfrom .engine.fields import warp"),
        ("dipy_dl_reg.workflows", "from dipy_dl_reg import registration"),
        ("dipy_dl_reg.diffusion.streamlines", "from ..mapping import check"),
    ],
)
def test_way_down_is_free(module, source):
    assert breaches(source, module) == []
