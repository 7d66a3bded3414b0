"""Tables that are made from the registries have all members, and pages show them."""

import re

from pages import ROOT
import pytest


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
