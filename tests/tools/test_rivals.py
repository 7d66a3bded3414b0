"""Other programs in the benchmark: their geometry, and rows of those that fail."""

import json
from pathlib import Path
import sys
from types import SimpleNamespace

from maps import affine, make_map
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tools.benchmarks import cases, measures, methods
from tools.benchmarks import rival_programs as rivals

ADAPTERS = Path(__file__).parents[2] / "tools" / "benchmarks" / "rivals"
# Adapters are plain scripts that import `job` from their own folder.
sys.path.insert(0, str(ADAPTERS))

import job  # noqa: E402
import run_ants  # noqa: E402

STATIC = affine([2.0, -1.5, 2.5], (0.1, -0.2, 0.05), [5.0, -9.0, 3.0])
MOVING = affine([-1.8, 2.2, 1.6], (-0.15, 0.1, 0.2), [40.0, -20, 5.0])
PREALIGN = affine([1.05, 0.95, 1.02], (0.05, 0.1, -0.05), [1.0, 2.0, 3.0])
LPS = np.array([-1.0, -1.0, 1.0])

# An adapter that reads its results from files instead of registering.
FAKE = """
from job import main, measure_call
import numpy as np
import nibabel as nib

def register(job):
    if job.options["fail"]:
        raise MemoryError("too large for the rival")
    field, result = measure_call(np.load, job.options["field"])
    job.save_array("field", field)
    if job.options["inverse"]:
        job.save_array("inverse", np.load(job.options["inverse"]))
    if job.has_labels:
        grid = nib.load(job.path("static_labels"))
        warped = np.load(job.options["warped"]).astype(np.float32)
        nib.save(nib.Nifti1Image(warped, grid.affine), job.path("warped_labels"))
    return result | {"call": f"{job.threads} threads"}

main(register, lambda: "fake 1.0")
"""


@pytest.fixture
def case_and_map(rng):
    """Images on two grids, labels on a third one, and a known map."""
    shapes = (17, 20, 15), (19, 16, 22)
    mapping = make_map(
        *shapes,
        static_grid2world=STATIC,
        moving_grid2world=MOVING,
        prealign=PREALIGN,
        amplitude=3.0,
    )
    noise = gaussian_filter(rng.random(shapes[1]), 2)
    labels = {"moving": np.digitize(noise, np.quantile(noise, [0.4, 0.7]))}
    labels |= {"static": np.zeros((30, 32, 33), int), "moving_grid2world": MOVING}
    labels["static_grid2world"] = STATIC @ affine([0.5, 0.6, 0.4])
    labels["static"] = np.asarray(cases.warp_labels(labels, mapping)).astype(int)
    images = {"static": rng.random(shapes[0]), "moving": noise, "prealign": PREALIGN}
    images |= {"static_grid2world": STATIC, "moving_grid2world": MOVING}
    points = measures.to_world(rng.uniform(4, 10, size=(30, 3)), STATIC)
    judge = cases.partial(cases.judge_by_labels, labels)
    return cases.Case(images, points, judge, labels), mapping


@pytest.fixture
def fake(tmp_path, monkeypatch, case_and_map):
    """Add the fake program with its results; return its options."""
    case, mapping = case_and_map
    folder = tmp_path / "rivals"
    folder.mkdir()
    (folder / "job.py").write_text((ADAPTERS / "job.py").read_text())
    (folder / "run_fake.py").write_text(FAKE)
    options = {"fail": False, "inverse": str(tmp_path / "inverse.npy")}
    for name, array in (
        ("field", mapping.backward),
        ("inverse", mapping.forward),
        ("warped", case.labels["static"]),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        options[name] = str(tmp_path / f"{name}.npy")
    monkeypatch.setattr(rivals, "ADAPTERS", folder)
    monkeypatch.setitem(rivals.RIVALS, "fake-fast", ("fake", options))
    monkeypatch.setitem(rivals.MODULES, "fake", "numpy")
    return options


def test_rival_is_measured_like_other_methods(fake, case_and_map):
    """Its row contains the measures of its map, and its own labels and facts."""
    case, mapping = case_and_map
    row = methods.measure("fake-fast", case, methods.Setup(2))
    assert row["dice"] == 1 and row["hd95"] == 0
    assert row["version"] == "fake 1.0" and row["call"] == "2 threads"
    assert row["seconds"] > 0 and "peak_mib" in row
    expected = measures.regularity(mapping, STATIC, case.points)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-5), name
    # The map made of its field is the one that it was, too.
    setup = methods.Setup(1)
    own, has_inverse, _, _ = rivals.register_with_rival("fake-fast", case, setup)
    assert has_inverse and case.judge(own)["dice"] == 1


def test_rival_without_inverse(fake, case_and_map):
    fake["inverse"] = None
    row = methods.measure("fake-fast", case_and_map[0], methods.Setup(1))
    assert row["minimum_jacobian"] > 0
    assert "minimum_jacobian_inverse" not in row and "round_trip_max" not in row


def test_rival_on_a_known_field(fake, case_and_map):
    case = case_and_map[0]._replace(labels=None, judge=lambda mapping, warped: {})
    row = methods.measure("fake-fast", case, methods.Setup(1))
    assert "failed" not in row and row["minimum_jacobian"] > 0


def test_error_of_a_rival_is_in_its_row(fake, case_and_map):
    fake["fail"] = True
    row = methods.measure("fake-fast", case_and_map[0], methods.Setup(1))
    assert row["failed"] == "fake: MemoryError: too large for the rival"
    assert "seconds" not in row


def test_missing_rivals_are_left_out(fake, monkeypatch, capsys):
    monkeypatch.setitem(rivals.RIVALS, "gone", ("gone", {}))
    monkeypatch.setitem(rivals.MODULES, "gone", "no_such_module")
    kept, versions = rivals.find_available(["deep", "gone", "fake-fast"], {})
    assert kept == ["deep", "fake-fast"] and versions == {"fake": "fake 1.0"}
    assert "Left out: gone: no --python gone=PATH" in capsys.readouterr().out
    kept, _ = rivals.find_available(
        ["gone"], {"gone": sys.executable}
    )  # has no adapter
    assert kept == [] and "Left out: gone" in capsys.readouterr().out


def test_every_rival_has_an_adapter():
    for program, _ in rivals.RIVALS.values():
        assert (ADAPTERS / f"run_{program}.py").is_file()
        assert program in rivals.MODULES


# --- between the worlds of NIfTI and ITK


def test_remove_prealign(case_and_map):
    """Removing the prealign from the field of prealign(x + u(x)) gives u."""
    field = case_and_map[1].backward
    voxels = np.moveaxis(np.indices(field.shape[:3]), 0, -1)
    world = measures.to_world(voxels, STATIC)
    total = measures.to_world(world + field, PREALIGN) - world
    back = job.remove_prealign(total, STATIC, PREALIGN)
    np.testing.assert_allclose(back, field, atol=1e-5)


def test_convert_matrix_and_vectors(rng):
    points = rng.normal(size=(10, 3))
    there = measures.to_world(points * LPS, job.convert_matrix(PREALIGN)) * LPS
    np.testing.assert_allclose(there, measures.to_world(points, PREALIGN))


def test_geometry_of_ants(tmp_path, monkeypatch, case_and_map):
    """A fake ANTs writes its fields as ITK does: 5D, opposite signs of x and y."""
    case, mapping = case_and_map
    options = {"reg_iterations": [1], "syn_metric": "CC"}
    rivals.write_job(tmp_path, options, case, 1)
    seen = {}

    def registration(static, moving, initial_transform, outprefix, **others):
        seen.update(others, initial_transform=initial_transform)
        files = []
        for field, name in ((mapping.backward, "1Warp"), (mapping.forward, "1Inv")):
            files.append(f"{outprefix}{name}.nii.gz")
            vectors = (field * LPS)[:, :, :, None, :]
            nib.save(nib.Nifti1Image(vectors, STATIC), files[-1])
        affine = initial_transform
        return {
            "fwdtransforms": [files[0], affine],
            "invtransforms": [affine, files[1]],
        }

    def create(transform_type, dimension, matrix, translation, center):
        seen["matrix"] = np.eye(4)
        seen["matrix"][:3] = np.c_[matrix, translation]
        assert transform_type == "AffineTransform" and not np.any(center)

    fake = SimpleNamespace(
        registration=registration,
        create_ants_transform=create,
        write_transform=lambda transform, path: None,
        image_read=lambda path: path,
        apply_transforms=lambda grid, labels, files, interpolator: seen.update(
            applied=files, interpolator=interpolator
        ),
        image_write=lambda image, path: None,
    )
    monkeypatch.setitem(sys.modules, "ants", fake)
    result = run_ants.register(job.Job(tmp_path))
    np.testing.assert_allclose(
        np.load(tmp_path / "field.npy"), mapping.backward, atol=1e-6
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "inverse.npy"), mapping.forward, atol=1e-6
    )
    point = np.array([3.0, -4.0, 5.0, 1.0])
    turned = np.array([*LPS, 1.0])
    np.testing.assert_allclose(
        (seen["matrix"] @ (point * turned)) * turned, PREALIGN @ point
    )
    assert seen["syn_metric"] == "CC" and seen["interpolator"] == "nearestNeighbor"
    assert seen["applied"][1] == seen["initial_transform"]
    assert "reg_iterations=[1]" in result["call"] and json.dumps(result)
