"""Imports go down only, read from the source, those inside functions too.

The folders of the package, from the top, stand in `LAYERS`; doc/where_things_are.rst
says what each holds.  A folder may import those below it, and its own modules as long
as they form no ring.  Torch, DIPY and nibabel are imported only where `TORCH` and
`FILES` say so; ``dipy_dl_reg/__init__.py`` imports nothing but lazy_loader, os and sys.
"""

import ast
from pathlib import Path

import pytest

import dipy_dl_reg

PACKAGE = "dipy_dl_reg"
ROOT = Path(dipy_dl_reg.__file__).parent

#: From the top.  A new folder takes its place here.
LAYERS = [
    "workflows",
    "clients",
    "groupwise",
    "training",
    "diffusion",
    "registration",
    "maps",
    "initialization",
    "anatomy",
    "networks",
    "optimization",
    "metrics",
    "geometry",
    "io",
    "grid",
    "options",
    "validation",
    "progress",
]
LEVEL = {unit: -place for place, unit in enumerate(LAYERS)}
# Former modules, which import what took their place.
LEVEL |= {"report": 1, "verdict": 1}
#: Where torch may be imported, in part or in whole: folders and modules.
TORCH = {
    *("geometry", "metrics", "optimization", "networks", "anatomy", "initialization"),
    *("training.loop", "training.examples"),
    *("training.training_set", "training.image_tensors"),
    *("maps.measures", "registration.dipy_adapter", "registration.devices"),
}
#: Where DIPY and nibabel may be imported.
FILES = {
    *("workflows", "clients", "groupwise", "registration", "diffusion", "maps", "io"),
    *("training.fit", "training.pairing", "training.prealigns", "training.lazy_image"),
}
#: What the modules that stand on numpy alone may import besides it.
NUMPY_ONLY = {"dataclasses", "itertools", "numpy", "typing", "__future__", "numbers"}
NUMPY_ONLY |= {"collections", "inspect", "functools", "pathlib", "re", "types"}
# Functions that import what their first argument names.
IMPORTERS = {"__import__", "import_module", "optional_package"}


def stands_in(module, places):
    """Whether a module is one of some folders and modules, or inside one."""
    name = module.removeprefix(f"{PACKAGE}.")
    return any(name == place or name.startswith(f"{place}.") for place in places)


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
        ``from a import b`` gives ``a.b``, relative imports made absolute.  Imports for
        annotations alone, below ``if TYPE_CHECKING:``, are never executed and left out.
    """
    names = set()
    for node in executed_nodes(ast.parse(source)):
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


def executed_nodes(node):
    """Walk a syntax tree, without what stands below ``if TYPE_CHECKING:``."""
    yield node
    if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from executed_nodes(child)


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
    if "torch" in tops and not stands_in(module, TORCH):
        found.append(
            f"{module} imports torch; only registration/dipy_adapter.py converts to it"
        )
    for top in sorted(tops & {"dipy", "nibabel"}):
        if not stands_in(module, FILES):
            found.append(f"{module} imports {top}, which belongs above it")
    if unit in ("grid", "options", "validation") and tops - NUMPY_ONLY - {PACKAGE}:
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
        ("dipy_dl_reg.geometry.fields", "import dipy_dl_reg.registration.dipy_adapter"),
        ("dipy_dl_reg.geometry.fields", "from ..maps import storage"),
        ("dipy_dl_reg.geometry.__init__", "from .. import maps"),
        ("dipy_dl_reg.geometry.fields", "from dipy_dl_reg import networks"),
        ("dipy_dl_reg.geometry.fields", "def f():\n    import dipy.align"),
        ("dipy_dl_reg.training.training_set", "from nibabel import load"),
        ("dipy_dl_reg.training.loop.trainer", "import dipy"),
        ("dipy_dl_reg.networks.unet", "import_module('nibabel')"),
        ("dipy_dl_reg.maps.storage", "def f():\n    import torch.nn as nn"),
        ("dipy_dl_reg.maps.storage", "from ..registration.affine import find_affine"),
        (
            "dipy_dl_reg.registration.deformable",
            "from dipy_dl_reg import DeepRegistration",
        ),
        ("dipy_dl_reg.registration.deformable", "optional_package('torch')"),
        ("dipy_dl_reg.grid", "import scipy"),
        ("dipy_dl_reg.__init__", "import numpy"),
    ],
)
def test_breach_is_found(module, source):
    assert len(breaches(source, module)) == 1


@pytest.mark.parametrize(
    "module, source",
    [
        ("dipy_dl_reg.geometry.fields", "import torch\nfrom ..grid import Grid"),
        ("dipy_dl_reg.geometry.__init__", "from . import fields"),
        (
            "dipy_dl_reg.registration.dipy_adapter",
            "import torch, dipy\nfrom ..geometry.fields import warp",
        ),
        ("dipy_dl_reg.workflows.align", "from dipy_dl_reg import registration"),
        ("dipy_dl_reg.grid", "if TYPE_CHECKING:\n    import torch"),
        ("dipy_dl_reg.diffusion.streamlines", "from ..maps.storage import check"),
    ],
)
def test_way_down_is_free(module, source):
    assert breaches(source, module) == []
