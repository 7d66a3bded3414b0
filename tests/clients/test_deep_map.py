"""`DeepMap` with pyAFQ itself, which tools/test_clients.sh installs.

The template is static, the subject moving; their true map is known (`pairs`).
"""

import json
import logging
from pathlib import Path

from dipy.align.imwarp import DiffeomorphicMap
from dipy.tracking.streamline import Streamlines
from maps import affine
import nibabel as nib
import numpy as np
from pairs import bend, interpolate, make_pair, move, voxels
import pytest

from dipy_dl_reg import DeepMap, deep_registration

pytest.importorskip("AFQ")
from AFQ.api.participant import ParticipantAFQ  # noqa: E402
from AFQ.definitions.image import ImageFile  # noqa: E402
from AFQ.definitions.mapping import SynMap  # noqa: E402
from AFQ.utils.bin import arg_dict_formatted, pyafq_str_to_val  # noqa: E402
from AFQ.utils.streamlines import move_streamlines  # noqa: E402

OPTIONS = {"model": None, "level_iters": [20, 20], "device": "cpu"}
#: Largest displacement of the true map, mm.
BEND = 3.0
AFFINE = {"level_iters": [20, 10]}
FORWARD = "sub-01_desc-deepmapping_from-subject_to-mni_xform.nii.gz"
BACKWARD = "sub-01_desc-deepmapping_from-mni_to-subject_xform.nii.gz"


@pytest.fixture(scope="module")
def pair():
    """Template (static) and subject (moving), on different oblique grids."""
    turn = affine([1.05, 0.95, 1.02], (0.12, -0.06, 0.08), [8.0, -12.0, 4.0])
    grids = affine([-2, 2, 2.2], (0.1, 0.2, 0.1)), affine([2, 2, 2], (0, 0.2, -0.1))
    linear = [grid[:3, :3] for grid in grids]
    shapes = (22, 25, 20), (24, 21, 23)
    return make_pair(*linear, *shapes, turn, amplitude=BEND)


@pytest.fixture(scope="module")
def template(pair):
    return nib.Nifti1Image(pair.static.astype(np.float32), pair.static_grid2world)


@pytest.fixture(scope="module")
def subject(pair, tmp_path_factory):
    """Files of a subject: its b0 is the moving image, six directions follow."""
    folder = tmp_path_factory.mktemp("subject")
    b0 = np.clip(pair.moving, 0, None).astype(np.float32)
    series = np.stack([b0] + [0.5 * b0] * 6, -1)
    root = np.sqrt(0.5)
    signs = [[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]]
    paths = [str(folder / f"sub-01_{name}") for name in ("dwi.nii.gz", "T1w.nii.gz")]
    for path, data in zip(paths, (series, b0)):
        nib.save(nib.Nifti1Image(data, pair.moving_grid2world), path)
    mask = nib.Nifti1Image(np.ones(b0.shape, np.uint8), pair.moving_grid2world)
    nib.save(mask, folder / "mask.nii.gz")
    np.savetxt(folder / "bval", [[0] + [1000] * 6])
    np.savetxt(folder / "bvec", np.array([[0, 0, 0], *(root * np.array(signs))]).T)
    return [paths[0], str(folder / "bval"), str(folder / "bvec"), paths[1]]


def participant(subject, template, folder, definition=None):
    if definition is None:
        definition = DeepMap(affine_kwargs=AFFINE, deep_kwargs=OPTIONS)
    Path(folder).mkdir(exist_ok=True)
    return ParticipantAFQ(
        *subject,
        str(folder),
        logging_level=logging.WARNING,
        mapping_definition=definition,
        reg_subject_spec="b0",
        reg_template_spec=template,
        brain_mask_definition=ImageFile(
            path=str(Path(subject[0]).parent / "mask.nii.gz")
        ),
        bundle_info={"none": {}},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("derivatives")


@pytest.fixture(scope="module")
def exported(subject, template, folder):
    return participant(subject, template, folder)


@pytest.fixture(scope="module")
def mapping(exported):
    return exported.export("mapping")


def true_template_point(pair, voxel):
    """Voxels of the template that show what voxels of the subject show."""
    middle = np.array([11.0, -7.0, 5.0])
    prealigned = move(np.linalg.inv(pair.prealign) @ pair.moving_grid2world, voxel)
    origin = prealigned  # origin + bend(origin) = prealigned
    for _ in range(50):
        origin = prealigned - bend(origin, middle, BEND)
    return move(np.linalg.inv(pair.static_grid2world), origin)


def test_map_is_as_from_syn_map(mapping, pair):
    assert type(mapping) is DiffeomorphicMap and mapping.is_inverse is False
    assert mapping.forward.shape == (*pair.moving.shape, 3)
    assert mapping.backward.shape == (*pair.static.shape, 3)


def test_points_of_the_subject_go_to_the_template(mapping, pair):
    """The map is near the true one; the opposite direction would be far away."""
    inside = voxels(pair.moving.shape)[7:-7, 7:-7, 7:-7].reshape(-1, 3)
    truth = true_template_point(pair, inside)
    found = np.concatenate(list(mapping.transform_points(Streamlines([inside]))))
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.3
    back = mapping.transform_points_inverse(Streamlines([found]))
    assert np.linalg.norm(np.concatenate(list(back)) - inside, axis=1).max() < 0.1
    opposite = mapping.transform_points_inverse(Streamlines([inside]))
    opposite = np.concatenate(list(opposite))
    assert np.linalg.norm(opposite - truth, axis=1).mean() > 3


def test_images_in_both_directions(mapping, pair):
    """`transform` brings the template to the subject, `transform_inverse` the reverse.

    Compared with SciPy's interpolation at the points that the map gives.
    """
    for image, method, points, shape in (
        (pair.static, "transform", "transform_points", pair.moving.shape),
        (
            pair.moving,
            "transform_inverse",
            "transform_points_inverse",
            pair.static.shape,
        ),
    ):
        found = getattr(mapping, method)(image)
        place = getattr(mapping, points)(voxels(shape).reshape(-1, 3).copy())
        wanted = interpolate(image, place.reshape(*shape, 3))
        assert np.abs(found - wanted).max() < 1e-3 * np.ptp(image)
    warped = mapping.transform_inverse(pair.moving)
    assert np.corrcoef(warped.ravel(), pair.static.ravel())[0, 1] > 0.98
    resampled = mapping.transform(pair.static)
    assert np.corrcoef(resampled.ravel(), pair.moving.ravel())[0, 1] > 0.98


def test_map_equals_that_of_deep_registration(exported, mapping, pair, template):
    """The same registration by the function of this package, without pyAFQ."""
    subject = exported.export("reg_subject")
    steps = ["center_of_mass", "translation", "rigid", "affine", "deform"]
    options = {"pipeline": steps, "affine_options": AFFINE, **OPTIONS}
    _, own = deep_registration(subject, template, **options)
    wanted = own.transform(pair.moving)
    found = mapping.transform_inverse(pair.moving)
    assert np.abs(found - wanted).max() < 1e-4 * np.ptp(wanted)


def test_exports_of_pyafq(exported, mapping, pair, template):
    """pyAFQ's own exports: each image in the space of the other."""
    warped = nib.load(exported.export("b0_warped"))
    assert np.allclose(warped.affine, template.affine)
    same = np.corrcoef(warped.get_fdata().ravel(), pair.static.ravel())[0, 1]
    assert same > 0.98
    moved = nib.load(exported.export("template_xform"))
    assert np.allclose(moved.affine, pair.moving_grid2world)
    assert np.corrcoef(moved.get_fdata().ravel(), pair.moving.ravel())[0, 1] > 0.98


def test_bundles_move_to_the_template(mapping, pair, template):
    """`move_streamlines`, which combine_bundle uses."""
    from dipy.io.stateful_tractogram import Space, StatefulTractogram

    image = nib.Nifti1Image(pair.moving, pair.moving_grid2world)
    at = np.random.default_rng(3).uniform(8, 14, (30, 3)).astype(np.float32)
    lines = StatefulTractogram([at[:10], at[10:]], image, Space.VOX)
    lines.to_rasmm()
    moved = move_streamlines(lines, "template", mapping, template)
    moved.to_vox()
    truth = true_template_point(pair, at)
    found = np.concatenate(list(moved.streamlines))
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.3


def test_files_and_their_notes(folder, mapping):
    assert (folder / FORWARD).exists() and (folder / BACKWARD).exists()
    for name in (FORWARD, BACKWARD):
        meta = json.loads((folder / name.replace(".nii.gz", ".json")).read_text())
        assert meta["dependent"] == "dwi" and meta["verdict"]
        assert meta["definition"].startswith("__import__('dipy_dl_reg').DeepMap(")


def test_a_stored_map_is_used_again(subject, template, folder, mapping, monkeypatch):
    monkeypatch.setattr(DeepMap, "_register", None)  # would raise
    again = participant(subject, template, folder).export("mapping")
    assert np.array_equal(again.forward, mapping.forward)
    assert np.array_equal(again.backward, mapping.backward)


@pytest.fixture
def stored(monkeypatch, tmp_path, template):
    """Function that calls a definition as pyAFQ does, without a registration."""
    calls = []

    def register(self, subject, template):
        calls.append(self)
        still = DiffeomorphicMap(3, template.shape)
        still.forward = np.zeros((*subject.shape, 3), np.float32)
        still.backward = np.zeros((*template.shape, 3), np.float32)
        return still, {"type": "displacementfield", "dependent": "dwi"}

    def get(definition, *, template=template):
        names = str(tmp_path / "sub-01"), None, str(tmp_path / "sub-01_dwi.nii.gz")
        definition.get_for_subses(*names, template, template, "mni")
        return len(calls)

    monkeypatch.setattr(DeepMap, "_register", register)
    return get


@pytest.mark.parametrize("change", ["nothing", "options", "template", "note", "file"])
def test_a_map_of_other_origin_is_computed_again(
    change, stored, template, tmp_path, caplog
):
    definition = DeepMap()
    assert stored(definition) == 1
    if change == "options":
        definition = DeepMap(deep_kwargs={"metric": "CC"})
    elif change == "template":
        data = (2 * template.get_fdata()).astype(np.float32)
        template = nib.Nifti1Image(data, template.affine)
    elif change == "note":
        (tmp_path / FORWARD.replace(".nii.gz", ".json")).unlink()
    elif change == "file":
        (tmp_path / BACKWARD).unlink()
    assert stored(definition, template=template) == (1 if change == "nothing" else 2)
    warned = "other options or from other images" in caplog.text
    assert warned is (change in ("options", "template", "note"))


def test_map_of_syn_map_is_not_used(stored, tmp_path, caplog):
    """An old map of SyN lies in the folder; a warning names what was made with it."""
    base = str(tmp_path / "sub-01")
    name = SynMap.get_fnames(SynMap(), ".nii.gz", base, "subject", "mni")[0]
    assert name != str(tmp_path / FORWARD)
    Path(name).write_bytes(b"old")
    assert stored(DeepMap()) == 1 and "clobber" not in caplog.text
    (tmp_path / BACKWARD).unlink()
    (tmp_path / "sub-01_space-mni_b0ref.nii.gz").write_bytes(b"old")
    assert stored(DeepMap()) == 2
    assert "already contains 1 files" in caplog.text and "clobber" in caplog.text
    assert Path(name).read_bytes() == b"old"


def test_configuration_file():
    """What pyAFQ writes to its configuration is read back as the same definition."""
    tomllib = pytest.importorskip("tomllib")
    definition = DeepMap(False, None, {"metric": "CC", "level_iters": [5, 5]})
    text = arg_dict_formatted({"MAPPING": {"mapping_definition": definition}})
    stored = tomllib.loads(text)["MAPPING"]["mapping_definition"]
    again = pyafq_str_to_val(stored)
    assert type(again) is DeepMap and vars(again) == vars(definition)
    assert again.str_formal() == definition.str_formal() == stored


def test_init_has_no_local_variables():
    """pyAFQ reads the names of all variables of `__init__` as attributes."""
    names = DeepMap.__init__.__code__.co_varnames
    assert set(names) == {"self", *vars(DeepMap())}
