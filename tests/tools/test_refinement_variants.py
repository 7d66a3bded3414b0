"""The experiment with variants of the refinement: its variants, its table."""

import json
from pathlib import Path
from unittest import mock

from maps import affine
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tools.benchmarks.cases import known_field_case
from tools.experiments import refinement_variants as variants

PAGES = Path(__file__).parents[2] / "doc" / "benchmark"


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_constants_exist(name):
    """Each constant that a variant replaces is one of the package, of its type."""
    for target, value in variants.VARIANTS[name].get("constants", {}).items():
        with mock.patch(target, value):
            module, _, attribute = target.rpartition(".")
            before = mock.patch(target).get_original()[0]
            assert type(before) is type(value), f"{module}, {attribute}"


def test_constants_are_restored():
    noise = gaussian_filter(np.random.default_rng(0).random((20, 20, 20)), 2)
    image = (noise - noise.min()) / np.ptp(noise)
    case = known_field_case(image, affine([2.0, 2, 2]), np.zeros((20, 20, 20, 3)))
    case = case._replace(judge=lambda mapping: {"dice_of": {}, "hd95_of": {}})
    original = mock.patch(variants.BETAS).get_original()[0]
    row = variants.measure_variant(
        case, {"level_iters": [2], "constants": {variants.BETAS: (0.5, 0.5)}}
    )
    assert row["iterations"] == 2 and row["seconds"] > 0
    assert mock.patch(variants.BETAS).get_original()[0] == original


def test_table_of_the_documentation():
    """The table is the one that the tool makes of the rows beside it.

    The rows are of an earlier default, as the page says; the variants of today differ.
    """
    rows = json.loads((PAGES / "experiments_2mm.json").read_text())["rows"]
    names = list(dict.fromkeys(row["method"] for row in rows))
    assert "default" in names and "default" in variants.VARIANTS
    lines = [variants.table_line("")]
    lines += [
        variants.table_line(name, variants.summarize(rows, name)) for name in names
    ]
    stored, *table = (PAGES / "experiments_2mm.txt").read_text().splitlines()
    assert stored.startswith("Stored with commit") and table == lines
