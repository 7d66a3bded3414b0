"""Measures of motion, their table and their figure."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dipy_dl_reg.diffusion.motion_plot import plot_motion
from dipy_dl_reg.diffusion.motion_table import measure_motion, write_motion_table

SHAPE = (21, 21, 11)
GRID = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -10], [0, 0, 3, 5], [0, 0, 0, 1]])
CENTRE = np.array([10.0, 10, 20])


def moves():
    """Three volumes: the reference, a translation, a rotation about the centre."""
    affines = np.repeat(np.eye(4)[None], 3, axis=0)
    affines[1, :3, 3] = [1, -2, 0.5]
    turn = Rotation.from_euler("xyz", (1, -2, 3), degrees=True).as_matrix()
    affines[2, :3, :3], affines[2, :3, 3] = turn, CENTRE - turn @ CENTRE
    return np.moveaxis(affines, 0, -1)


def test_closed_forms():
    motion = measure_motion(moves(), (*SHAPE, 3), GRID)
    np.testing.assert_allclose(motion.translations[1], [1, -2, 0.5])
    np.testing.assert_allclose(motion.translations[2], 0, atol=1e-12)
    np.testing.assert_allclose(motion.rotations[2], [1, -2, 3])
    power = motion.framewise_displacement
    assert np.isnan(power[0]) and np.isclose(power[1], 3.5)
    assert np.isclose(power[2], 3.5 + 50 * np.radians(6))
    np.testing.assert_allclose(motion.rms[1], np.sqrt(1 + 4 + 0.25))


def test_rms_is_the_mean_over_a_sphere():
    """Jenkinson's formula against points drawn in a sphere of 80 mm."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200_000, 3))
    points *= (80 * rng.random(200_000) ** (1 / 3) / np.linalg.norm(points, axis=1))[
        :, None
    ]
    points += CENTRE
    motion = measure_motion(moves(), SHAPE, GRID)
    before, after = (moves()[..., k] for k in (1, 2))
    step = after @ np.linalg.inv(before)
    for matrix, found in ((after, motion.rms[2]), (step, motion.rms_step[2])):
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        wanted = np.sqrt(((moved - points) ** 2).sum(1).mean())
        assert abs(found / wanted - 1) < 0.005


def test_table(tmp_path):
    motion = measure_motion(moves(), SHAPE, GRID)
    path = tmp_path / "motion.tsv"
    write_motion_table(path, motion, bvals=np.array([0, 1000, 2500]))
    head, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert head[:3] == ["volume", "bval", "trans_x_mm"] and len(rows) == 3
    assert {len(row) for row in rows} == {len(head)}
    columns = dict(zip(head, zip(*rows)))
    assert columns["framewise_displacement_mm"][:2] == ("n/a", "3.5000")
    assert columns["bval"] == ("0", "1000", "2500")
    np.testing.assert_allclose(
        np.array(columns["rot_z_deg"], float), motion.rotations[:, 2], atol=1e-4
    )
    with pytest.raises(FileExistsError):
        write_motion_table(path, motion)


def test_figure(tmp_path):
    pytest.importorskip("matplotlib")
    motion = measure_motion(moves(), SHAPE, GRID)
    path = tmp_path / "motion.png"
    for bvals in (None, np.array([0, 1000, 1005])):
        plot_motion(path, motion, bvals=bvals, title="a title", overwrite=True)
        assert path.stat().st_size > 10_000
    with pytest.raises(FileExistsError):
        plot_motion(path, motion)
    with pytest.raises(ValueError, match="bvals must be of shape"):
        plot_motion(path, motion, bvals=np.zeros(2))


def test_wrong_affines():
    with pytest.raises(ValueError, match="affines must be of shape"):
        measure_motion(np.eye(4), SHAPE, GRID)
