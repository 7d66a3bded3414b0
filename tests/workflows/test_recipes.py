"""Every command in the section "Examples" of a command's help runs as it is printed.

The files that the examples read are made by `RECIPE_FILES`, as small as possible; the
options in `SHORT` only shorten the computation.
"""

from pathlib import Path
import re
import shlex
import sys
import warnings

from epi_images import distort, make_image, make_shift
from maps import affine, make_map
import nibabel as nib
from nibabel.streamlines import Field, Tractogram, TrkFile
import numpy as np
import pytest

from dipy_dl_reg import save_mapping, workflows
from dipy_dl_reg.workflows.command_line import CommandParser
from dipy_dl_reg.workflows.commands import COMMANDS

GRID = affine([3.0, 3, 3], origin=[-24.0, -24, -18])
SHAPE = (16, 16, 12)
#: Options that shorten the computation of a command.
SHORT = {
    "dipy_align_deep": ["--level_iters", "2", "1"],
    "dipy_cohort_deep": ["--level_iters", "2", "1", "--engine", "serial"],
    "dipy_epi_deep": ["--iterations", "1"],
    "dipy_motion_deep": ["--iterations", "1", "--level_iters", "4"],
    "dipy_template_deep": ["--iterations", "1", "--affine_iterations", "0"],
    "dipy_train_deep": ["--steps", "1"],
}


#: Hidden files that belong to the outputs of a study.
KEPT = {".bidsignore", ".cohort"}


def save(path, data):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), GRID), path)


def make_images(folder):
    """Volumes of one head: several contrasts, a template and its labels."""
    for seed, names in enumerate((("t1", "fa"), ("template", "template_fa"))):
        image = make_image(SHAPE, seed)
        save(folder / f"{names[0]}.nii.gz", image)
        save(folder / f"{names[1]}.nii.gz", image**2)
    save(folder / "labels.nii.gz", (image > 0.5) + (image > 1))
    for name in ("mask", "t1_mask"):
        save(folder / f"{name}.nii.gz", image > 0.1)


def make_folders(folder):
    """Folders of images, label maps and bundles."""
    for seed in range(2):
        image = make_image(SHAPE, seed)
        save(folder / "subjects" / f"sub-{seed}.nii.gz", image)
        save(folder / "visits" / f"ses-{seed}.nii.gz", image)
        save(folder / "images" / f"sub-{seed}.nii.gz", image)
        save(folder / "labels" / f"sub-{seed}.nii.gz", image > 0.5)
    lines = [np.linspace([-9.0, -9, -9], [9, y, 6], 5) for y in (3.0, 6)]
    header = {Field.VOXEL_TO_RASMM: GRID, Field.DIMENSIONS: SHAPE}
    header[Field.VOXEL_SIZES], header[Field.VOXEL_ORDER] = (3, 3, 3), "RAS"
    (folder / "bundles").mkdir()
    for name in ("af_left", "cst_left"):
        tractogram = Tractogram(lines, affine_to_rasmm=np.eye(4))
        TrkFile(tractogram, header).save(folder / "bundles" / f"{name}.trk")


def make_cohort(folder):
    """A dataset in BIDS form, and a table of subjects."""
    for seed in range(2):
        path = folder / "study" / f"sub-{seed}" / "anat" / f"sub-{seed}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        save(path, make_image(SHAPE, seed))
    rows = ["subject\tT1w\tmask\tlabels", "01\tt1.nii.gz\tt1_mask.nii.gz\tn/a"]
    (folder / "subjects.tsv").write_text("\n".join(rows))


def make_series(folder):
    """A diffusion series with its gradient table, and b0 images of two encodings."""
    image, shift = make_image(SHAPE, 1), make_shift(SHAPE, 1, 1)
    ap, pa = distort(image, shift, 1), distort(image, -shift, 1)
    save(folder / "b0_ap.nii.gz", ap)
    save(folder / "b0_pa.nii.gz", pa)
    series = np.stack([ap, 0.5 * ap, 0.4 * ap, 0.3 * ap], -1)
    for name in ("dwi", "runs/run-1", "runs/run-2"):
        save(folder / f"{name}.nii.gz", series)
    np.savetxt(folder / "t1_to_b0.txt", np.eye(4))
    (folder / "dwi.bval").write_text("0 1000 1000 1000\n")
    (folder / "dwi.bvec").write_text("0 1 0 0\n0 0 1 0\n0 0 0 1\n")


def make_mapping(folder):
    """Maps between the grids of the images."""
    grids = {"static_grid2world": GRID, "moving_grid2world": GRID}
    for name in ("mapping", "b0_to_t1", "t1_to_template"):
        mapping = make_map(SHAPE, SHAPE, **grids, amplitude=1.0)
        save_mapping(mapping, folder / f"{name}.npz")


#: Functions that make files which the examples read.
RECIPE_FILES = [make_images, make_folders, make_cohort, make_series, make_mapping]


def recipes():
    """Yield each example of each command: its commands, with continued lines joined."""
    for name, command in COMMANDS.items():
        flow = getattr(workflows, command.workflow)()
        text = "\n".join(CommandParser(flow, name).examples)
        examples = re.findall(r"^\S.*::\n\n((?:    .*\n?)+)", text, re.M)
        for number, example in enumerate(examples):
            lines = re.sub(r"\\\n\s+", "", example).strip().splitlines()
            yield pytest.param([shlex.split(x) for x in lines], id=f"{name}-{number}")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_three_examples(name):
    assert len([1 for commands in recipes() if f"{name}-" in commands.id]) >= 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the examples read."""
    folder = tmp_path_factory.mktemp("recipes")
    for make in RECIPE_FILES:
        make(folder)
    return folder


@pytest.mark.parametrize("commands", [*recipes()])
def test_example_runs(commands, files, tmp_path, monkeypatch, capsys):
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if any("model.npz" in arguments for arguments in commands):
        train = "dipy_train_deep images --spacing 3".split()
        commands = [train, *commands]
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    for name, *arguments in commands:
        monkeypatch.setattr(sys, "argv", [name, *arguments, *SHORT.get(name, [])])
        getattr(workflows, COMMANDS[name].function)()
        new = set(tmp_path.rglob("*")) - before
        written = {path for path in new if path.is_file() and path.suffix != ".lock"}
        assert written and all(path.stat().st_size for path in written)
        hidden = {path.name for path in Path().rglob(".*")}
        assert hidden <= KEPT, "temporary files are left"
        last = capsys.readouterr().out.strip().splitlines()[-1]
        assert "WARNING" not in last and "ERROR" not in last
