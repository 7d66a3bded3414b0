"""The code of doc/clients.rst is executed as it is printed, package by package.

Sections whose package is not installed are skipped (tools/test_clients.sh).
"""

from functools import partial
from pathlib import Path
import re
import runpy

import nibabel as nib
import numpy as np
from pages import read_page
from pairs import make_pair
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "doc" / "clients.rst").read_text()
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.M)


def blocks(section):
    """Language and text of the code blocks of a section."""
    text = re.split(rf"^{re.escape(section)}\n-+\n", PAGE, flags=re.M)[1]
    text = re.split(r"^\S.*\n-{3,}\n", text, flags=re.M)[0]
    found = BLOCK.findall(text)
    return [(kind, re.sub("^   ", "", body, flags=re.M)) for kind, body in found]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the first block of a section, in a folder with the images it names."""
    monkeypatch.chdir(tmp_path)
    pair = make_pair(np.diag([2, 2, 2.2]), np.diag([-2, 2, 2]), (22, 24, 20),
                     (23, 21, 24), None)  # fmt: skip
    images = {"template": "static", "subject": "moving", "sub-01_T1w": "moving"}
    for name, role in images.items():
        values = np.clip(getattr(pair, role), 0, None).astype(np.float32)
        grid = getattr(pair, f"{role}_grid2world")
        nib.save(nib.Nifti1Image(values, grid), f"{name}.nii.gz")

    def run(section):
        (language, text), *_ = blocks(section)
        assert language == "python"
        Path("page.py").write_text(text)
        names = runpy.run_path("page.py")
        return names | {"pair": pair, "static": pair.static}

    return run


def similarity(image, other):
    return np.corrcoef(np.ravel(image), np.ravel(other))[0, 1]


def test_pyafq(run, monkeypatch):
    participant = pytest.importorskip("AFQ.api.participant")
    from AFQ.definitions.image import ImageFile

    b0 = nib.load("subject.nii.gz")
    series = np.stack([b0.get_fdata()] + [b0.get_fdata() / 2] * 6, -1)
    nib.save(nib.Nifti1Image(series.astype(np.float32), b0.affine), "sub-01_dwi.nii.gz")
    mask = nib.Nifti1Image(np.ones(b0.shape, np.uint8), b0.affine)
    nib.save(mask, "mask.nii.gz")
    turns = [[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]]
    bvecs = np.vstack([np.zeros(3), np.array(turns) / np.sqrt(2)])
    np.savetxt("sub-01_dwi.bvec", bvecs.T)
    np.savetxt("sub-01_dwi.bval", [[0] + [1000] * 6])
    Path("derivatives").mkdir()
    instead_of_downloads = {
        "reg_subject_spec": "b0",
        "reg_template_spec": "template.nii.gz",
        "brain_mask_definition": ImageFile(path="mask.nii.gz"),
        "bundle_info": {"none": {}},
    }
    small = partial(participant.ParticipantAFQ, **instead_of_downloads)
    monkeypatch.setattr(participant, "ParticipantAFQ", small)
    names = run("pyAFQ")
    found = nib.load(names["template_in_subject"])
    assert np.allclose(found.affine, b0.affine)
    assert similarity(found.get_fdata(), b0.get_fdata()) > 0.98


def test_pyafq_configuration():
    pytest.importorskip("AFQ")
    import tomllib

    from AFQ.utils.bin import pyafq_str_to_val

    from dipy_dl_reg import DeepMap

    _, (language, text) = blocks("pyAFQ")
    assert language == "toml"
    value = pyafq_str_to_val(tomllib.loads(text)["mapping_definition"])
    assert type(value) is DeepMap


def test_mne(run, monkeypatch):
    pytest.importorskip("mne")
    from dipy.align import imwarp

    syn = imwarp.SymmetricDiffeomorphicRegistration
    # restored after the test
    monkeypatch.setattr(imwarp, "SymmetricDiffeomorphicRegistration", syn)
    names = run("MNE-Python")
    assert similarity(names["warped"].get_fdata(), names["static"]) > 0.98
    from dipy_dl_reg import DeepRegistration

    assert imwarp.SymmetricDiffeomorphicRegistration is DeepRegistration


def test_nipype(run):
    pytest.importorskip("nipype")
    names = run("nipype")
    warped = nib.load("out/warped.nii.gz")
    assert np.allclose(warped.affine, names["pair"].static_grid2world)
    assert similarity(warped.get_fdata(), names["static"]) > 0.98


def test_qsiprep(run):
    pytest.importorskip("h5py")
    names = run("QSIPrep")
    mapping, again = names["mapping"], names["again"]
    moving = names["pair"].moving
    wanted = mapping.transform(moving)
    assert np.abs(again.transform(moving) - wanted).max() < 1e-3 * np.ptp(wanted)
    wanted = mapping.transform_inverse(names["static"])
    found = again.transform_inverse(names["static"])
    assert np.abs(found - wanted).max() < 1e-3 * np.ptp(wanted)
    assert similarity(mapping.transform(moving), names["static"]) > 0.98


def test_every_section_is_here():
    """A package that is added to the page needs a test."""
    sections = re.findall(r"^(\S.*)\n-{3,}\n", PAGE, flags=re.M)
    tested = ["pyAFQ", "MNE-Python", "nipype", "QSIPrep"]
    assert sections == [*tested, "TractoFlow and scilpy"]
    assert [name for name in sections if blocks(name)] == tested


def test_every_block_is_used():
    """The first of each section, and pyAFQ's configuration."""
    used = [len(blocks(section)) for section in ("pyAFQ", "MNE-Python", "nipype")]
    assert used == [2, 1, 1] and len(blocks("QSIPrep")) == 1
    assert len(read_page("doc/clients.rst")) == 5
