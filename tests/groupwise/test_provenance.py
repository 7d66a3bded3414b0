"""JSON files beside outputs."""

import hashlib
import json

import numpy as np
import pytest

from dipy_dl_reg.groupwise.provenance import (
    sidecar_path,
    write_json,
    write_provenance,
)


def test_provenance_names_call_versions_and_checksums(tmp_path):
    source = tmp_path / "in.txt"
    source.write_bytes(b"some values")
    path = write_provenance(
        tmp_path / "out" / "warped.nii.gz", "a call", [source], SpatialReference="T"
    )
    assert path == tmp_path / "out" / "warped.json"
    content = json.loads(path.read_text())
    assert content["Call"] == "a call" and content["SpatialReference"] == "T"
    assert {"python", "dipy", "torch"} <= set(content["Versions"])
    expected = hashlib.sha256(b"some values").hexdigest()
    assert content["SHA256"] == {str(source): expected}


@pytest.mark.parametrize(
    "name, sidecar",
    [("a.nii.gz", "a.json"), ("a.b.trk", "a.b.json"), ("m.npz", "m.json")],
)
def test_name_of_the_sidecar(name, sidecar):
    assert sidecar_path(name).name == sidecar


def test_values_of_numpy_and_numbers_that_are_not_finite(tmp_path):
    content = {"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), 3: {"x"}}
    write_json(tmp_path / "a.json", content)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == {"a": 0.5, "b": [0, 1], "c": None, "3": ["x"]}


def test_an_input_that_is_missing_leaves_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_provenance(tmp_path / "out.nii", "a call", [tmp_path / "none"])
    assert list(tmp_path.iterdir()) == []
