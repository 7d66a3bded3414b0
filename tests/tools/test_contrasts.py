"""The experiment across contrasts: simulated contrasts, real images, tables."""

import json
import sys
from types import SimpleNamespace

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from tools.experiments import contrast_cases as cases
from tools.experiments import contrasts

T1 = np.array([[-3.0, 0, 0, 30], [0, 3, 0, -30], [0, 0, 3, -20], [0, 0, 0, 1]])
DIFFUSION = np.diag([4.0, 4, 4, 1])


@pytest.fixture(autouse=True)
def restore_log_level():
    """Restore the level of the log, which the tool sets."""
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("kind, order", [("b0", [2, 1, 0]), ("FA", [0, 1, 2])])
def test_simulated_contrasts(kind, order):
    """Tissues have the order of the contrast, with blur and noise; 0 stays 0."""
    labels = np.repeat([0, 51, 100, 44], 10)[:, None, None] * np.ones((1, 12, 12), int)
    image = np.repeat([0, 0.2, 0.5, 0.8], 10)[:, None, None] * np.ones((1, 12, 12))
    seen = cases.simulate_contrast(kind, image.astype("f4"), labels, np.eye(4))
    assert not seen[:10].any()
    means = [seen[first + 3 : first + 7].mean() for first in (10, 20, 30)]
    assert np.argsort(means).tolist() == order
    np.testing.assert_allclose(means, cases.LOOKS[kind], atol=0.03)
    assert cases.simulate_contrast("T1", image, labels, np.eye(4)) is image


@pytest.fixture
def subject(tmp_path, rng, monkeypatch):
    """A folder for --real: an object in two worlds, with NaN around the maps."""
    shape = np.array([18, 20, 16])
    away = np.indices(shape) - (shape[:, None, None, None] - 1) / 2
    brain = np.square(away / 6).sum(0) < 1
    noise = gaussian_filter(rng.random(shape), 1.5)
    for name in ("b0", "fa", "md"):
        image = np.where(brain, noise, np.nan if name != "b0" else 5).astype("f4")
        nib.save(nib.Nifti1Image(image, DIFFUSION), tmp_path / f"{name}.nii.gz")
    labels = np.where(brain, 1 + (noise > np.median(noise)), 0)
    for name, array in (("mask", brain), ("parcellation", labels)):
        array = array.astype(np.uint8)
        nib.save(nib.Nifti1Image(array, DIFFUSION), tmp_path / f"{name}.nii.gz")
    prealign = np.array(
        [[1, 0.1, 0, 20], [-0.1, 1, 0, 40], [0, 0, 1, 30], [0, 0, 0, 1]]
    )
    at = np.indices((24, 24, 24)).reshape(3, -1).T
    voxels = cases.to_world(cases.to_world(at, T1), prealign) / 4
    for name, array, order in (
        ("t1", noise * brain, 1),
        ("parcellation_t1", labels, 0),
    ):
        seen = map_coordinates(array, voxels.T, order=order).reshape(24, 24, 24)
        nib.save(nib.Nifti1Image(seen.astype("f4"), T1), tmp_path / f"{name}.nii.gz")
    monkeypatch.setattr(cases, "find_affine_of_unmoved", lambda folder: prealign)
    return tmp_path


class Known:
    """A map with known images of points, and labels transformed by it."""

    def __init__(self, way):
        self.transform_points = way

    def transform(self, image, *, interpolation, image_world2grid, out_shape,
                  out_grid2world):  # fmt: skip
        at = np.indices(out_shape).reshape(3, -1).T
        found = self.transform_points(cases.to_world(at, out_grid2world))
        voxels = cases.to_world(found, image_world2grid)
        return map_coordinates(image, voxels.T, order=0).reshape(out_shape)


def test_unmoved_is_only_the_affine(subject):
    case = cases.real_case(subject, "FA", None)
    assert np.isfinite(case.images["moving"]).all()
    assert case.images["moving"].max() <= 1
    found = case.judge(Known(lambda p: cases.to_world(p, case.images["prealign"])))
    assert found["mm off"] == pytest.approx(0, abs=1e-9) and found["Dice"] == 1


def test_inverse_of_the_motion_has_no_error(subject, monkeypatch):
    """The inverse of the motion is computed point by point, after the affine."""
    monkeypatch.setattr(cases, "WIDTH", 24.0)
    case = cases.real_case(subject, "MD", 3)
    assert case.images["moving"].max() > 100  # times 1000
    prealign = case.images["prealign"]
    before = case.judge(Known(lambda p: cases.to_world(p, prealign)))
    assert 2 < before["mm off"] < 12
    motion = cases.Motion(cases.read_real_image(subject, "MD")[0] > 0, DIFFUSION, 3)

    def undone(points):
        goal = cases.to_world(points, prealign).T / 4
        found = goal.copy()
        for _ in range(30):  # contracts, for the motion is nearly a shift
            found -= motion(found) - goal
        return 4 * found.T

    after = case.judge(Known(undone))
    assert after["mm off"] < 1e-3
    # Nearest neighbours are taken twice, of a blob of twelve voxels.
    assert after["Dice"] > 0.87 > before["Dice"] + 0.1
    # The image moved as its labels did.
    moved = case.labels["moving"][1::2, 1::2, 1::2] > 0
    assert (moved == (case.images["moving"] > 200)).mean() > 0.97


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["contrasts.py", *map(str, arguments)])
    contrasts.main()


def test_table_of_real_images(subject, monkeypatch, tmp_path, capsys):
    """Each method has a line with its measures; the means follow."""
    monkeypatch.setattr(cases, "WIDTH", 24.0)
    monkeypatch.setitem(contrasts.SYN, "syn-short", ("CCMetric", [1], False))
    output = tmp_path / "table.txt"
    methods = ["affine", "syn-short", "refined-10"]
    run(
        monkeypatch, "--real", subject, "--model", "pyramid-brain", "--seeds", 2,
        "--kinds", "b0", "--metrics", "MI", "--methods", *methods, "--threads", 1,
        "--output", output,
    )  # fmt: skip
    heading, lines = (x.splitlines() for x in output.read_text().split("\n\n"))
    assert "commit" in heading[0]
    assert lines[0].split()[-4:] == ["Dice", "mm", "off", "s"]
    rows = [line.split() for line in lines[1:]]
    stored = json.loads(output.with_suffix(".json").read_text())
    assert stored["code"]["commit"] and len(stored["rows"]) == 3 * len(methods)
    assert {"moving", "metric", "method", "pair", "dice", "mm_off"} <= set(
        stored["rows"][0]
    )
    assert str(subject) not in stored["command"]
    unmoved = [row for row in rows if row[0] == "unmoved"]
    assert [row[3] for row in unmoved] == methods
    assert unmoved[0][2] == "-" and float(unmoved[0][5]) < 1e-4
    assert sum(row[0] == "seed" for row in rows) == 2 * len(methods)
    mean = [row for row in rows if row[0] == "mean"]
    assert [row[5] for row in mean] == ["affine", "syn-short", "refined-10"]


def test_rows_of_other_programs_are_kept(tmp_path):
    """An earlier table gives the rows of other programs, and no others."""
    row = {"Dice": 0.5, "mm off": 1.25, "s": 2.0, "used": 1.0}
    names = [
        ("seed 0", "b0", "-", "ants-mi"),
        ("seed 0", "b0", "default", "network"),
        ("mean of 1", "b0", "-", "ants-mi"),
    ]
    path = tmp_path / "table.txt"
    path.write_text("\n".join(contrasts.format_row(name, row) for name in names))
    earlier = contrasts.read_earlier_rows(path, ["Dice", "mm off"])
    assert earlier == {names[0]: row}
    merged = contrasts.merge_rows(
        {names[1]: row, ("p", "FA", "-", "affine"): row}, earlier
    )
    assert list(merged) == [names[0], names[1], ("p", "FA", "-", "affine")]


def test_differences_are_paired():
    row = {"Dice": 0.5, "s": 1.0, "used": 1.0}
    rows = {
        ("p", "b0", "MI", "network"): row | {"Dice": 0.7},
        ("p", "b0", "-", "ants-mi"): row | {"Dice": 0.6},
        ("q", "b0", "MI", "network"): row,
        ("q", "FA", "-", "ants-mi"): row,
        ("q", "b0", "-", "affine"): row,
        ("q", "b0", "MIND", "network-10"): row,
    }
    rival, start = contrasts.compare_methods(rows)
    assert rival.startswith("b0 MI: Dice, network less ants-mi: +0.1000")
    assert rival.endswith("pairs: 1")
    assert start.startswith("b0 MI: Dice, network less affine: +0.0000")


def test_failure_of_a_rival_is_reported(monkeypatch, capsys):
    def fail(method, case, setup):
        raise RuntimeError("too large")

    monkeypatch.setattr(contrasts, "register_with_rival", fail)
    monkeypatch.setattr(contrasts, "generate_cases", lambda _: [("p", "b0", [None])])
    arguments = SimpleNamespace(methods=["ants-mi"], metrics=["CC"])
    assert not list(contrasts.measure_rows(arguments, None))
    assert "p b0 ants-mi failed: too large" in capsys.readouterr().out


def test_invalid_arguments(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--model", "pyramid-brain")
    assert "--real" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "--real", "x", "--model", "y", "--kinds", "T1")
    assert "['b0', 'FA', 'MD']" in capsys.readouterr().err
