"""What the tests of the commands have in common."""

from importlib import import_module
import sys
from types import ModuleType
import warnings

from maps import blob, oblique_map
import nibabel as nib
import numpy as np
import pytest
from workflow_files import GRIDS, PREALIGN, Swift, matrix_between

from dipy_dl_reg.maps.storage import save_mapping

#: Modules that hold DeepRegistration.  They are imported before it is replaced: else
#: they would hold the stand-in until the end of the process.
HOLDERS = ("registration.pipeline", "diffusion.epi_to_t1", "clients.pyafq")
HOLDERS += ("diffusion.reorienting_registration", "groupwise.template_jobs")
HOLDERS += ("registration.repeated_registration",)


@pytest.fixture
def swift(monkeypatch):
    """Registration that takes no time; its calls."""
    for name in HOLDERS:
        import_module(f"dipy_dl_reg.{name}")
    module = ModuleType("dipy_dl_reg.registration.deformable")
    module.DeepRegistration = Swift
    monkeypatch.setitem(sys.modules, "dipy_dl_reg.registration.deformable", module)
    monkeypatch.setattr(Swift, "calls", [])
    return Swift.calls


@pytest.fixture
def pair(tmp_path):
    """Files of two blobs on unlike grids, a hole of NaN, and an output folder."""
    paths = {"out": tmp_path / "out"}
    for name, (shape, grid) in GRIDS.items():
        middle = (grid @ [*(np.array(shape) - 1) / 2, 1])[:3]
        image = blob(shape, grid, middle, 8 if name == "static" else 7)
        image[5:7, 5:7, 5:7] = np.nan
        nifti = nib.Nifti1Image(image, grid)
        nifti.set_sform(grid, 4 if name == "static" else 1)
        nifti.header.set_xyzt_units("mm")
        paths[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nifti, paths[name])
    paths["prealign"] = tmp_path / "affine.txt"
    np.savetxt(paths["prealign"], matrix_between(PREALIGN))
    return paths


@pytest.fixture
def command(monkeypatch):
    """Run a command's entry point in this process."""

    def run(entry, *arguments):
        monkeypatch.setattr(sys, "argv", [entry.__name__, *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        entry()

    return run


@pytest.fixture
def saved(tmp_path):
    """A map with a prealign between unlike grids, in a file."""
    mapping = oblique_map()
    save_mapping(mapping, tmp_path / "mapping.npz")
    return mapping, tmp_path / "mapping.npz"
