"""Registrations are checked by the anatomy maps of their images."""

from brain_image import load_brain
from good_measures import GOOD
import maps
import numpy as np
import phantom
import pytest

from dipy_dl_reg import assess_mapping, write_report
from dipy_dl_reg.anatomy.overlap import AnatomyOverlap
from dipy_dl_reg.maps.verdict import judge
from dipy_dl_reg.registration import anatomy_check

SHAPE = (20, 22, 18)


@pytest.fixture
def overlaps(monkeypatch):
    """Images and a map; the network and the overlap are replaced."""
    predicted = []

    def predict(images, grids, prealign):
        predicted.extend((i.shape, grid.shape) for i, grid in zip(images, grids))
        return [1, 2], measure.turned

    def measure(static, moving, *, prealign, displacement, grid):
        assert (static, moving) == (1, 2) and displacement.shape[2:] == grid.shape
        return measure.result

    measure.turned = None
    measure.result, measure.predicted = AnatomyOverlap(0.2, 0.8, 0.9), predicted
    monkeypatch.setattr(anatomy_check, "predict_registered", predict)
    monkeypatch.setattr(anatomy_check, "measure_anatomy_overlap", measure)
    return measure


def make_pair(spacing=6.0, dim=3):
    matrix = np.diag([spacing] * dim + [1.0])
    grids = {"static_grid2world": matrix, "moving_grid2world": matrix}
    mapping = maps.make_map(SHAPE[:dim], SHAPE[:dim], **grids)
    image = np.random.default_rng(0).random(SHAPE[:dim]).astype(np.float32)
    return mapping, image, image


@pytest.mark.parametrize(
    "overlap, words",
    [
        (AnatomyOverlap(0.2, 0.8, 0.9), ""),
        (AnatomyOverlap(0.2, 0.88, 0.85), "falls from 0.88 to 0.85"),
        (AnatomyOverlap(0.2, 0.3, 0.4), "only 0.40 at the end"),
    ],
)
def test_assess_mapping(overlaps, overlap, words):
    overlaps.result = overlap
    plain = assess_mapping(*make_pair())
    assert not overlaps.predicted and plain.measures.anatomy is None
    verdict = assess_mapping(*make_pair(), anatomy=True)
    assert overlaps.predicted == [(SHAPE, SHAPE)] * 2
    measures = verdict.measures
    assert (measures.anatomy_affine, measures.anatomy) == overlap[1:]
    assert verdict.reasons[: len(plain.reasons)] == plain.reasons
    added = "".join(verdict.reasons[len(plain.reasons) :])
    assert words in added and bool(words) == bool(added)
    assert not (words and verdict.grade == "good")


@pytest.mark.parametrize(
    "angle, doubt", [(180, True), (170, True), (90, True), (140, False)]
)
def test_heads_that_are_turned_against_their_header(overlaps, caplog, angle, doubt):
    """A warning; a doubt where reversed axes may be the reason."""
    mapping, *images = make_pair()
    mapping.prealign_inv = phantom.rigid(
        phantom.rotation((1, 0, 0), angle), np.zeros(3)
    )
    overlaps.turned = 1
    known = judge(GOOD)
    with caplog.at_level("WARNING", logger="dipy"):
        verdict = anatomy_check.check_anatomy(known, mapping, *images)
    assert verdict.grade == ("doubtful" if doubt else "good")
    assert "moving shows no upright head in the orientation of its header (the " in (
        caplog.text
    )
    assert f"{angle} degrees" in "".join(verdict.reasons) or not doubt


@pytest.mark.parametrize("pair", [make_pair(spacing=2.0), make_pair(dim=2)])
def test_no_maps_where_no_brain_fits(overlaps, pair):
    assert assess_mapping(*pair, anatomy=True).measures.anatomy is None
    assert not overlaps.predicted


def test_a_right_map_of_a_turned_head():
    """With the network: the overlap is high, and the turn is a reason of its own."""
    template = load_brain(resolution=4)
    image, matrix = template.get_fdata(dtype=np.float32), template.affine
    turn = phantom.rigid(phantom.rotation((1, 0, 0), 180), np.zeros(3))
    mapping = maps.make_map(
        image.shape, image.shape, amplitude=0,
        static_grid2world=matrix, moving_grid2world=turn @ matrix, prealign=turn,
    )  # fmt: skip
    verdict = anatomy_check.check_anatomy(judge(GOOD), mapping, image, image)
    assert verdict.measures.anatomy > 0.98 > verdict.measures.anatomy_before
    assert verdict.grade == "doubtful" and len(verdict.reasons) == 1
    assert "180 degrees" in verdict.reasons[0]


def test_report_has_the_figure(overlaps, tmp_path):
    mapping, static, moving = make_pair()
    path = tmp_path / "report.html"
    summary = write_report(path, static, moving, mapping)
    assert summary.measures["anatomy_affine"] == 0.8
    assert summary.measures["anatomy_deformed"] == 0.9
    assert "0.80 → 0.90" in path.read_text(encoding="utf-8")


def test_known_figure_is_not_computed_again(overlaps):
    known = judge(GOOD._replace(anatomy_before=0.1, anatomy_affine=0.5, anatomy=0.8))
    assert anatomy_check.check_anatomy(known, *make_pair()) is known
    assert not overlaps.predicted
