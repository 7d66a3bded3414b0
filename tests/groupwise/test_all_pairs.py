"""Registration of each image to each other one."""

import json

import numpy as np
import pytest
from template_images import DIRECTIONS, displacement, image, points, truth

from dipy_dl_reg import load_mapping, register_all_pairs
from dipy_dl_reg.groupwise import template_jobs

OPTIONS = {
    "transform": "rigid",
    "affine_iterations": 0,
    "level_iters": [30, 20],
    "metric": "CC",
    "device": "cpu",
}


def test_pairs_go_on_and_lead_to_each_other(tmp_path, monkeypatch):
    """Two images: both maps are found, also after an interruption."""
    images = [image(direction) for direction in DIRECTIONS[:2]]
    original, calls = template_jobs.make_registration, []

    def stop(*given, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given, **options)

    monkeypatch.setattr(template_jobs, "make_registration", stop)
    with pytest.raises(KeyboardInterrupt):
        register_all_pairs(images, tmp_path, names=["a", "b"], **OPTIONS)
    assert not (tmp_path / "pairs.tsv").exists()
    pairs = register_all_pairs(images, tmp_path, names=["a", "b"], **OPTIONS)
    assert len(calls) == 3
    assert [(p.static, p.moving) for p in pairs] == [("a", "b"), ("b", "a")]
    table = (tmp_path / "pairs.tsv").read_text().splitlines()
    assert len(table) == 3 and table[0].startswith("static\tmoving\tgrade")
    assert len(json.loads((tmp_path / "pairs.json").read_text())["SubjectDigests"]) == 2
    places = points().reshape(-1, 3)
    known = [displacement(places, direction) for direction in DIRECTIONS[:2]]
    clear = (truth(places) > 0.5) & (np.linalg.norm(known[0], axis=-1) > 1.5)
    there = load_mapping(pairs[0].mapping_file).transform_points(
        (places + known[0])[clear]
    )
    error = np.linalg.norm(there - (places + known[1])[clear], axis=-1)
    assert (
        error.mean()
        < 0.5 * np.linalg.norm((known[0] - known[1])[clear], axis=-1).mean()
    )
    with pytest.raises(FileExistsError):
        register_all_pairs(images, tmp_path, names=["a", "b"], **OPTIONS)
    other = OPTIONS | {"level_iters": [1, 1], "overwrite": True}
    again = register_all_pairs(images, tmp_path, names=["a", "b"], **other)
    assert len(calls) == 5, "results of other options are not taken over"
    assert again[0].measures["energy"] != pairs[0].measures["energy"]
