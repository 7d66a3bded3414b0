"""Files that the commands read in tests, and a registration that takes no time."""

from pathlib import Path
import re

from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import SSDMetric
from good_measures import GOOD
from maps import affine, blob
import nibabel as nib
import numpy as np
import pytest

from dipy_dl_reg.maps.record import LevelRecord, MetricRecord, RegistrationRecord
from dipy_dl_reg.maps.verdict import judge
from dipy_dl_reg.workflows.exit_codes import EXIT_CODES, CommandExit

GRIDS = {
    "static": ((18, 17, 16), affine([2.0, -2, 2.5], (0.1,), [3.0, 5, -9])),
    "moving": ((16, 19, 15), affine([-2.2, 2, 2.2], (-0.1,), [34.0, -30, -7])),
}

PREALIGN = affine([1.05, 1, 0.95], (0.05,), [1.0, -1, 0.5])

OUTPUTS = {"warped_moved.nii.gz", "mapping.npz", "prealign.txt"}

LARGE = ("--out_inv_static", "static.nii.gz", "--out_field", "field.nii.gz")


class Swift:
    """Stands in for DeepRegistration: DIPY's own, a few steps, and a record."""

    calls = []
    affine_only = False
    verdict = judge(GOOD)
    record = RegistrationRecord(
        *((MetricRecord("SSD", "squared difference", "Given."),), None, False, "None."),
        *((), (LevelRecord(0, 4, 0.1, (2.0, 1.0)),), {"refinement": 0.1}, "cpu"),
    )

    def __init__(
        self,
        metric=None,
        *,
        model="auto",
        level_iters=None,
        device="auto",
        landmarks=None,
        landmark_weight=None,
        initialization=None,
        max_memory=None,
        anatomy="auto",
    ):
        if metric.lower() not in ("auto", "cc", "ssd", "ncc", "mi"):
            raise ValueError(f"metric must be CC, SSD, NCC or MI, got {metric!r}")
        self.options = {"metric": metric, "model": model, "device": device}
        self.options["level_iters"] = level_iters
        self.options |= {"landmarks": landmarks, "landmark_weight": landmark_weight}
        self.options |= {"initialization": initialization, "max_memory": max_memory}

    def optimize(
        self, static, moving, *, static_mask, moving_mask, num_threads, **grids
    ):
        self.calls.append(
            {
                **self.options,
                "static_mask": static_mask,
                "moving_mask": moving_mask,
                "num_threads": num_threads,
                "prealign": grids["prealign"],
            }
        )
        syn = SymmetricDiffeomorphicRegistration(SSDMetric(3), level_iters=[4])
        return syn.optimize(np.nan_to_num(static), np.nan_to_num(moving), **grids)


def matrix_between(linear):
    """Static world to moving world: the middles onto each other, turned a little."""
    ends = [g @ np.append((np.array(s) - 1) / 2, 1) for s, g in GRIDS.values()]
    matrix = linear.copy()
    matrix[:3, 3] += ends[1][:3] - linear[:3, :3] @ ends[0][:3]
    return matrix


def fails(command, *arguments):
    """Run a command that must fail; what it says."""
    with pytest.raises(CommandExit) as end:
        command(*arguments)
    assert end.value.code in EXIT_CODES
    assert "\n" not in end.value.text
    return end.value.text


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


def save(path, data, grid=None):
    nib.save(nib.Nifti1Image(data, np.eye(4) if grid is None else grid), path)
    return path


def logged(text):
    """Levels and messages of a log, without times."""
    return re.findall(r"^\[[-\d: ]+\]\[dipy\] (\w+: .*)$", text, re.MULTILINE)


def slices(folder, *, axis=2, form="(X, Y, 1)"):
    """Files of two slices across a world axis, 12 mm apart in the plane."""
    shape, paths = (40, 36), []
    kept = [a for a in range(3) if a != axis]
    grid = np.eye(4)
    grid[:3, :3] = 0
    grid[kept[0], 0], grid[kept[1], 1], grid[axis, 2] = 1.5, -2.0, 3.0
    grid[:3, 3] = np.array([10.0, -20, 30])
    for name, shift in (("static", 0), ("moving", 4)):
        image = blob(shape, np.eye(3), [18 + shift, 17 - shift], 4 + shift / 4)
        image += 0.5 * blob(shape, np.eye(3), [24 + shift, 22], 3)
        data = image if form == "(X, Y)" else image[..., None]
        paths.append(save(folder / f"{name}.nii.gz", data, grid))
    return paths, grid[np.ix_([*kept, 3], [0, 1, 3])]


def finer(mapping, side="domain"):
    """A grid of another shape within that of one image."""
    return getattr(mapping, f"{side}_grid2world") @ affine([0.7] * 3, (), [1, 1, 1])
