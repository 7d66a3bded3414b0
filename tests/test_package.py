"""What a user meets before anything runs: names, version, commands, light imports."""

import ast
from importlib import import_module
from importlib.metadata import entry_points, version
import inspect
import os
from pathlib import Path
import re
import subprocess
import sys
import tomllib

from numpydoc.docscrape import ClassDoc, FunctionDoc
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

import dipy_dl_reg
from dipy_dl_reg.workflows.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PUBLIC = {
    "CCMetric",
    "CRMetric",
    "ChannelsMetric",
    "DeepAffineRegistration",
    "DeepMap",
    "DeepRegistration",
    "MIMetric",
    "MINDMetric",
    "MappingUncertainty",
    "NCCMetric",
    "RegistrationRecord",
    "SSDMetric",
    "ThinPlateSplineRegistration",
    "Verdict",
    "apply_epi_correction",
    "apply_mapping",
    "assess_mapping",
    "compose_mappings",
    "convert_harmonics",
    "deep_affine_registration",
    "deep_epi_correction",
    "deep_epi_to_t1",
    "deep_motion_correction",
    "deep_register_dwi_series",
    "deep_register_series",
    "deep_registration",
    "brain_mask",
    "build_template",
    "register_all_pairs",
    "fit",
    "list_models",
    "load_mapping",
    "load_model",
    "load_network",
    "local_rotations",
    "make_network",
    "mapping_uncertainty",
    "measure_motion",
    "plot_motion",
    "plot_registration",
    "read_affine",
    "read_dipy_mapping",
    "read_landmarks",
    "read_mapping",
    "register_cohort",
    "register_dwi_to_template",
    "register_fods",
    "register_tensors",
    "reorient_gradients",
    "rotate_gradients",
    "save_local_rotations",
    "save_mapping",
    "save_network",
    "tensor_components",
    "tensor_matrices",
    "transform_dwi",
    "transform_fods",
    "transform_peaks",
    "transform_streamlines",
    "transform_tensor_fit",
    "transform_tensors",
    "transform_tractogram",
    "transform_vectors",
    "uncertainty_along_streamlines",
    "write_affine",
    "write_dipy_mapping",
    "write_mapping",
    "write_motion_table",
    "segment_anatomy",
    "write_report",
    "write_study_report",
}
HEAVY = ("torch", "dipy", "nibabel", "scipy", "numpy", "matplotlib")


def loaded_after(code):
    """Return which heavy packages a fresh interpreter has loaded after ``code``."""
    code += f"\nimport sys\nprint('loaded', *(m for m in {HEAVY} if m in sys.modules))"
    environment = {k: v for k, v in os.environ.items() if k != "EAGER_IMPORT"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    return done.stdout.splitlines()[-1].split()[1:]


def test_import_is_light():
    assert loaded_after("import dipy_dl_reg; dir(dipy_dl_reg)") == []


def test_reading_a_map_loads_no_torch():
    """Programs that apply maps need no torch."""
    loaded = loaded_after("from dipy_dl_reg import load_mapping")
    assert "dipy" in loaded and "torch" not in loaded


def test_use_loads_torch():
    """The tests above can fail: a metric does load torch."""
    assert "torch" in loaded_after("from dipy_dl_reg import CCMetric")


def wait_policy(code, **variables):
    """What ``OMP_WAIT_POLICY`` is for OpenMP and for the process after `code`."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport os; print(dict(os.environ))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"} | variables,
    )
    found = re.search(r"OMP_WAIT_POLICY': '(\w+)'", done.stdout)
    said = re.findall(r"OMP_WAIT_POLICY *= *'(\w+)'", done.stderr)
    return found and found[1], [policy.lower() for policy in said]


def test_waiting_threads_sleep_unless_told_otherwise():
    """OpenMP itself says so; a setting of the user's stays, and a loaded torch's."""
    own, said = wait_policy("from dipy_dl_reg import CCMetric")
    assert own == "passive" and set(said) <= {"passive"}
    own, said = wait_policy(
        "from dipy_dl_reg import CCMetric", OMP_WAIT_POLICY="active"
    )
    assert own == "active" and set(said) <= {"active"}
    own, _ = wait_policy("import torch, dipy_dl_reg")
    assert own is None


def test_public_names():
    assert set(dipy_dl_reg.__all__) == PUBLIC
    assert PUBLIC <= set(dir(dipy_dl_reg))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dipy_dl_reg.no_such_name


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_resolves(name):
    item = getattr(dipy_dl_reg, name)
    assert item.__name__ == name
    assert item.__module__.startswith("dipy_dl_reg.")


@pytest.mark.parametrize(
    "module, name", [("report", "plot_registration"), ("verdict", "Verdict")]
)
def test_former_module_still_works(module, name):
    """Of the modules that the documentation named in release 0.1.0."""
    sys.modules.pop(f"dipy_dl_reg.{module}", None)
    with pytest.warns(DeprecationWarning, match=f"import {name} from dipy_dl_reg"):
        former = import_module(f"dipy_dl_reg.{module}")
    assert getattr(former, name) is getattr(dipy_dl_reg, name)


def test_version_is_said_once():
    assert version("dipy_dl_reg") == dipy_dl_reg.__version__
    for name in ("CHANGELOG.md", "CITATION.cff"):
        assert dipy_dl_reg.__version__ in (ROOT / name).read_text(), name


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_installed(name):
    (entry,) = entry_points(group="console_scripts", name=name)
    assert callable(entry.load())


#: Prints the help of commands, until one has loaded torch.
HELP = """
import importlib, sys
for name, module, function in {entries}:
    sys.argv = [name, "--help"]
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as end:
        assert not end.code, end.code
    if "torch" in sys.modules:
        sys.exit(f"{{name}} --help has loaded torch")
"""


def test_help_loads_no_torch():
    """In one process for all commands: each starts as the one before has ended."""
    entries = []
    for name in COMMANDS:
        (entry,) = entry_points(group="console_scripts", name=name)
        entries.append((name, *entry.value.split(":")))
    assert "torch" not in loaded_after(HELP.format(entries=entries))


def test_tested_versions_are_within_the_ranges():
    """What constraints.txt pins is what pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(item for extra in extras for item in extra)]
    pins = {}
    for line in (ROOT / "tools" / "constraints.txt").read_text().splitlines():
        name, found, pin = line.partition("==")
        if found:
            pins[name] = pin
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "dipy-dl-reg":
            continue
        assert name in pins, f"constraints.txt does not pin {name}"
        assert pins[name] in requirement.specifier, requirement


def test_readme_names_what_exists():
    """Its Python parses, its imports are public, its commands and pages are there."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    imported = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "dipy_dl_reg"
        for alias in node.names
    }
    assert imported and imported <= PUBLIC
    for path in set(re.findall(r"\b(?:tools|doc)/[\w/]+\.\w+", readme)):
        assert (ROOT / path).is_file(), path
    for name in set(re.findall(r"\bdipy_\w+_deep\b", readme)):
        assert name in COMMANDS


def test_api_page_lists_every_public_name():
    page = (ROOT / "doc" / "api.rst").read_text()
    listed = re.findall(r"^   ([\w.]+)$", page, re.MULTILINE)
    assert sorted(name for name in listed if name in PUBLIC) == sorted(PUBLIC)


@pytest.mark.parametrize("table", ["NETWORKS", "METRICS", "REGULARIZERS", "FORMATS"])
def test_help_and_docstrings_list_what_there_is(table):
    """Names of members and their descriptions, wherever a user reads them."""
    networks = import_module("dipy_dl_reg.networks").NETWORKS
    registry = import_module("dipy_dl_reg.metrics.registry")
    metrics = registry.METRICS
    phrases = [text for _, text in metrics.values()]
    formats = import_module("dipy_dl_reg.maps.formats.table").FORMATS
    apply = import_module("dipy_dl_reg.workflows.apply").ApplyDeepFlow.run
    train = import_module("dipy_dl_reg.workflows.train").TrainDeepFlow.run
    align = import_module("dipy_dl_reg.workflows.align").AlignDeepFlow.run
    for item, parameter, names in {
        "NETWORKS": [
            (train, "network", networks),
            (dipy_dl_reg.fit, "network", networks),
        ],
        "METRICS": [
            (train, "metric", [*metrics, *phrases]),
            (dipy_dl_reg.fit, "metric", [*metrics, *phrases]),
            (align, "metric", ["auto", *map(str.lower, metrics), *phrases]),
            (dipy_dl_reg.DeepRegistration, "metric", ["auto", *metrics, *phrases]),
        ],
        "REGULARIZERS": [
            (item, "regularizer", registry.REGULARIZERS)
            for item in (train, dipy_dl_reg.fit, dipy_dl_reg.DeepRegistration)
        ],
        "FORMATS": [
            (apply, "mapping_file", [entry.description, *entry.suffixes])
            for entry in formats.values()
        ],
    }[table]:
        doc = FunctionDoc(item) if inspect.isroutine(item) else ClassDoc(item)
        (said,) = [p.desc for p in doc["Parameters"] if p.name == parameter]
        text = " ".join(" ".join(said).split())
        for name in names:
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), (
                item,
                name,
            )


def test_hooks_are_the_tested_versions():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pins = (ROOT / "tools" / "constraints.txt").read_text().split()
    for name in ("ruff", "codespell"):
        (pin,) = (p.partition("==")[2] for p in pins if p.startswith(f"{name}=="))
        assert f"rev: v{pin}\n" in hooks
