"""`dipy_apply_deep` recognizes the kind of each file, or asks."""

from dipy.data import default_sphere
import dipy.direction.peaks
from dipy.io.peaks import load_pam, save_pam
import h5py
from maps import oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest
from tractogram_files import grid_of, lines_in, save_any, save_trk
from workflow_files import fails, logged, names, save

from dipy_dl_reg.diffusion.dwi import transform_dwi
from dipy_dl_reg.diffusion.fods import transform_fods
from dipy_dl_reg.diffusion.kinds.base import Request
from dipy_dl_reg.diffusion.kinds.table import KINDS, find_kind
from dipy_dl_reg.diffusion.peaks import transform_peaks, transform_vectors
from dipy_dl_reg.diffusion.streamlines import transform_streamlines
from dipy_dl_reg.diffusion.tensors import transform_tensors
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.tractograms.table import FORMATS
from dipy_dl_reg.maps.apply import apply_mapping
from dipy_dl_reg.workflows.apply import apply_deep


def series(mapping, rng, *tail, folder, name="a.nii.gz", intent=None):
    """An image of moving with several values in a voxel."""
    data = rng.normal(size=(*mapping.domain_shape, *tail)).astype(np.float32)
    image = nib.Nifti1Image(data, mapping.domain_grid2world)
    if intent:
        image.header.set_intent(intent)
    nib.save(image, folder / name)
    return folder / name


def tensor_series(mapping, rng, folder, **options):
    """Positive definite tensors around a main direction."""
    path = series(mapping, rng, 6, folder=folder, **options)
    image = nib.load(path)
    roots = rng.normal(size=(*image.shape[:3], 3, 3)) * [1, 0.5, 0.3]
    tensors = roots @ roots.swapaxes(-1, -2) + 0.1 * np.eye(3)
    lower = tensors[..., [0, 0, 1, 0, 1, 2], [0, 1, 1, 2, 2, 2]].astype(np.float32)
    nib.save(nib.Nifti1Image(lower, image.affine, image.header), path)
    return path


def test_what_is_certain_and_what_is_asked(saved, tmp_path, rng):
    mapping, _ = saved
    for tail, intent, wanted in (
        ((), None, "image"),
        ((), "label", "labels"),
        ((4,), None, "image"),
        ((6,), "symmetric matrix", "tensors"),
        ((1, 6), "symmetric matrix", "tensors"),
    ):
        path = series(mapping, rng, *tail, folder=tmp_path, intent=intent)
        assert find_kind(path) == wanted
    for tail, possible in (
        ((3,), ["image", "vectors"]),
        ((1, 3), ["image", "vectors"]),
        ((6,), ["image", "tensors", "fods"]),
    ):
        path = series(mapping, rng, *tail, folder=tmp_path)
        with pytest.raises(ValueError, match="may be of several kinds") as error:
            find_kind(path)
        said = str(error.value).partition("--kind")[2]
        assert all(f"{kind} (" in said for kind in possible)
        assert not any(f"{kind} (" in said for kind in {*KINDS} - {*possible})
    for name, wanted in (("tensors", "tensor_order"), ("fods", "basis")):
        assert find_kind(path, **{wanted: "dipy"}) == name
    for suffix in FORMATS:
        assert find_kind(tmp_path / f"none{suffix}") == "tractogram"
    assert find_kind(tmp_path / "none.pam5") == "peaks"


def test_tensors(saved, tmp_path, rng, command):
    mapping, path = saved
    out = tmp_path / "out" / "transformed.nii.gz"
    for more, options in (
        ((), {}),
        (("--method", "finite_strain"), {"method": "finite_strain"}),
        (("--tensor_order", "mrtrix"), {"order": "mrtrix"}),
        (("--frame", "fsl"), {"frame": "fsl"}),
    ):
        image = tensor_series(mapping, rng, tmp_path, intent="symmetric matrix")
        command(apply_deep, path, image, "--out_dir", out.parent, "--force", *more)
        wanted = transform_tensors(mapping, nib.load(image), **options)
        found = nib.load(out)
        assert_allclose(found.get_fdata(), wanted, atol=1e-5)
        assert_allclose(found.affine, mapping.codomain_grid2world, atol=1e-5)
        assert int(found.header["intent_code"]) == 1005


def fod_series(mapping, rng, folder, count=15):
    """Lobes in random directions, plus noise; the mean is positive."""
    path = series(mapping, rng, count, folder=folder, name="fods.nii.gz")
    image = nib.load(path)
    data = 0.05 * image.get_fdata(dtype=np.float32)
    data[..., 0] = 0.3 + np.abs(data[..., 0])
    return save(path, data, image.affine)


def test_fods(saved, tmp_path, rng, command):
    mapping, path = saved
    image = fod_series(mapping, rng, tmp_path)
    assert find_kind(image) == "fods"
    out = tmp_path / "out" / "transformed.nii.gz"
    middle = mapping.codomain_grid2world @ [6, 6, 6, 1]
    affine = mapping.codomain_grid2world.copy()
    affine[:3, 3] = middle[:3]
    small = save(tmp_path / "small.nii", np.zeros((5, 4, 3)), affine)
    arguments = ["--reference", small, "--out_dir", out.parent, "--force"]
    said = fails(command, apply_deep, path, image, *arguments)
    assert "basis must be given" in said and not out.exists()
    for basis, options in (
        ("descoteaux07", {"basis": "descoteaux07", "legacy": True}),
        ("tournier07_nonlegacy", {"basis": "tournier07", "legacy": False}),
        ("mrtrix", {"basis": "mrtrix", "modulate": True}),
    ):
        more = ["--basis", basis] + ["--modulate"] * ("modulate" in options)
        command(apply_deep, path, image, *arguments, *more)
        grid = {"out_shape": (5, 4, 3), "out_grid2world": affine}
        wanted = transform_fods(mapping, nib.load(image), **grid, **options)
        assert np.abs(wanted).max() > 0.1
        assert_allclose(nib.load(out).get_fdata(), wanted, atol=1e-5)


def test_series_without_signs_are_no_fods(saved, tmp_path, rng):
    """Such as functional images of 15 volumes, which have no negative values."""
    mapping, _ = saved
    path = fod_series(mapping, rng, tmp_path)
    image = nib.load(path)
    save(path, np.abs(image.get_fdata()), image.affine)
    assert find_kind(path) == "image"
    save(path, image.get_fdata() - 0.5 * (np.arange(15) == 0), image.affine)
    with pytest.raises(ValueError, match="image .* or fods"):
        find_kind(path)


def dwi_series(mapping, rng, folder, count=10):
    """A series with FSL's files of the gradient table."""
    data = 100 + 50 * rng.random((*mapping.domain_shape, count)).astype(np.float32)
    path = save(folder / "dwi.nii.gz", data, mapping.domain_grid2world)
    bvecs = rng.normal(size=(count, 3))
    bvecs /= np.linalg.norm(bvecs, axis=1, keepdims=True)
    bvals = np.full(count, 1000.0)
    bvals[0], bvecs[0] = 0, 0
    np.savetxt(folder / "dwi.bval", bvals[None])
    np.savetxt(folder / "dwi.bvec", bvecs.T)
    return path


def test_diffusion_weighted_series(saved, tmp_path, rng, command):
    mapping, path = saved
    image = dwi_series(mapping, rng, tmp_path)
    table = [tmp_path / "dwi.bval", tmp_path / "dwi.bvec"]
    assert find_kind(image) == "dwi"
    out = tmp_path / "out" / "transformed.nii.gz"
    command(apply_deep, path, image, "--out_dir", out.parent)
    wanted = transform_dwi(mapping, nib.load(image), table, frame="fsl")
    assert_allclose(nib.load(out).get_fdata(), wanted, rtol=1e-4, atol=1e-3)
    assert names(out.parent) == {f"transformed.{s}" for s in ("nii.gz", "bval", "bvec")}
    assert (out.parent / "transformed.bvec").read_text() == table[1].read_text()
    (out.parent / "transformed.nii.gz").unlink()
    said = fails(command, apply_deep, path, image, "--out_dir", out.parent)
    assert "transformed.bval" in said and "--force" in said
    table[0].rename(tmp_path / "values.txt")
    arguments = [image, "--out_dir", out.parent, "--force", "--method", "finite_strain"]
    assert "give --bvals" in fails(command, apply_deep, path, *arguments)
    command(apply_deep, path, *arguments, "--bvals", tmp_path / "values.txt")
    table[0] = tmp_path / "values.txt"
    options = {"frame": "fsl", "method": "finite_strain"}
    wanted = transform_dwi(mapping, nib.load(image), table, **options)
    assert_allclose(nib.load(out).get_fdata(), wanted, rtol=1e-4, atol=1e-3)
    table[0].write_text("0 1000 1000")
    said = fails(command, apply_deep, path, *arguments, "--bvals", table[0])
    assert "gradient table of" in said


@pytest.mark.parametrize("kind", ["tensors", "fods", "peaks"])
def test_frames_that_differ_are_asked_for(kind, tmp_path, rng):
    """Where the affine's determinant is positive, voxel and FSL's axes differ."""
    mapping = oblique_map()
    turned = mapping.domain_grid2world @ np.diag([-1.0, 1, 1, 1])
    assert np.linalg.det(turned) > 0
    entry = KINDS[kind].load()
    if kind == "peaks":
        path = peaks_file(mapping, rng, tmp_path, turned)
    else:
        make = tensor_series if kind == "tensors" else fod_series
        path = make(mapping, rng, tmp_path)
        save(path, nib.load(path).get_fdata(), turned)
    options = {"tensors": {"tensor_order": "dipy"}, "fods": {"basis": "tournier07"}}
    request = Request(mapping, options=options.get(kind, {}))
    with pytest.raises(ValueError, match="frame must be given .* voxel, or fsl"):
        entry.check(path, request)
    entry.check(path, request._replace(options={**request.options, "frame": "fsl"}))


def test_vectors_and_reference(saved, tmp_path, rng, command):
    """With --inverse, on the grid of another image."""
    mapping, path = saved
    out = tmp_path / "out" / "v1_warped.nii.gz"
    data = rng.normal(size=(*mapping.codomain_shape, 3)).astype(np.float32)
    image = save(tmp_path / "v1.nii.gz", data, mapping.codomain_grid2world)
    grid = {"out_shape": (9, 8, 7), "out_grid2world": mapping.domain_grid2world}
    target = save(tmp_path / "ref.nii", np.zeros((9, 8, 7)), mapping.domain_grid2world)
    arguments = ["--kind", "vectors", "--frame", "world", "--inverse"]
    arguments += ["--reference", target, "--out_dir", out.parent]
    command(apply_deep, path, image, *arguments, "--out_file", out.name)
    options = {"frame": "world", "inverse": True}
    wanted = transform_vectors(mapping, nib.load(image), **options, **grid)
    assert_allclose(nib.load(out).get_fdata(), wanted, atol=1e-5)


def test_series_of_three_may_be_an_image(saved, tmp_path, rng, command, capsys):
    mapping, path = saved
    image = series(mapping, rng, 3, folder=tmp_path)
    out = tmp_path / "out"
    said = fails(command, apply_deep, path, image, "--out_dir", out)
    assert "give --kind: image" in said and not out.exists()
    command(apply_deep, path, image, "--out_dir", out, "--kind", "image")
    lines = [x for x in logged(capsys.readouterr().out) if "not reoriented" in x]
    assert len(lines) == 1 and lines[0].startswith("WARNING")
    found = nib.load(out / "transformed.nii.gz").get_fdata()
    assert_allclose(found, apply_mapping(mapping, nib.load(image)), atol=1e-5)


def test_labels_of_any_header(saved, tmp_path, rng, command):
    mapping, path = saved
    data = rng.integers(0, 9, mapping.domain_shape).astype(np.int16)
    image = save(tmp_path / "a.nii.gz", data, mapping.domain_grid2world)
    arguments = ["--kind", "labels", "--out_dir", tmp_path / "out"]
    command(apply_deep, path, image, *arguments)
    found = nib.load(tmp_path / "out" / "transformed.nii.gz")
    wanted = apply_mapping(mapping, nib.load(image), interpolation="nearest")
    assert found.get_data_dtype() == np.int16
    assert_allclose(np.asanyarray(found.dataobj), wanted)


@pytest.mark.parametrize("suffix", FORMATS)
def test_tractogram(suffix, saved, tmp_path, rng, command, capsys):
    mapping, path = saved
    grid = grid_of(mapping, "domain")
    lines = lines_in(grid, rng)
    source = save_any(tmp_path / f"a{suffix}", lines, grid)
    out = tmp_path / "out" / f"transformed{suffix}"
    command(apply_deep, path, source, "--out_dir", out.parent)
    shown = capsys.readouterr()
    assert "5 streamlines (24 points) transformed" in shown.out
    assert not shown.err  # the progress bar is for terminals
    command(apply_deep, path, out, "--inverse", "--out_dir", out.parent.parent)
    if suffix != ".trx":
        found = nib.streamlines.load(out).streamlines
        wanted = transform_streamlines(mapping, lines)
        assert_allclose(found.get_data(), np.concatenate(wanted), atol=1e-4)
        back = nib.streamlines.load(tmp_path / out.name).streamlines
        assert_allclose(back.get_data(), np.concatenate(lines), atol=0.1)


def peaks_file(mapping, rng, folder, affine):
    """DIPY's file of two peaks in each voxel of moving."""
    peaks = dipy.direction.peaks.PeaksAndMetrics()
    shape = (*mapping.domain_shape, 2)
    directions = rng.normal(size=(*shape, 3))
    peaks.peak_dirs = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    peaks.peak_values = np.sort(rng.random(shape))[..., ::-1]
    peaks.peak_indices = rng.integers(0, 9, shape)
    peaks.sphere, peaks.affine = default_sphere, affine
    peaks.B, peaks.shm_coeff, peaks.odf = None, None, None
    peaks.total_weight = peaks.ang_thr = 0.5
    peaks.gfa, peaks.qa = rng.random(shape[:3]), rng.random(shape)
    save_pam(str(folder / "a.pam5"), peaks, affine=affine)
    return folder / "a.pam5"


def test_peaks(saved, tmp_path, rng, command):
    mapping, path = saved
    peaks_file(mapping, rng, tmp_path, mapping.domain_grid2world)
    command(apply_deep, path, tmp_path / "a.pam5", "--out_dir", tmp_path / "out")
    found = load_pam(str(tmp_path / "out" / "transformed.pam5"))
    wanted = transform_peaks(mapping, tmp_path / "a.pam5")
    assert_allclose(found.peak_dirs, wanted.peak_dirs, atol=1e-6)
    assert_allclose(found.affine, mapping.codomain_grid2world, atol=1e-6)


def test_files_of_several_kinds_in_one_run(saved, tmp_path, rng, command):
    mapping, path = saved
    grid = grid_of(mapping, "domain")
    files = [
        save_trk(tmp_path / "a.trk", lines_in(grid, rng), grid),
        series(mapping, rng, folder=tmp_path, name="b.nii.gz"),
    ]
    out = tmp_path / "out"
    command(apply_deep, path, *files, "--out_dir", out, "--mix_names")
    assert names(out) == {
        "mapping_a__transformed.trk",
        "mapping_b__transformed.nii.gz",
    }
    command(
        apply_deep, path, *files, "--out_dir", out, "--mix_names", "--skip_existing"
    )


def test_what_is_wrong(saved, tmp_path, rng, command):
    mapping, path = saved
    grid, other = grid_of(mapping, "domain"), grid_of(mapping, "codomain")
    image = series(mapping, rng, folder=tmp_path, name="image.nii.gz")
    four = series(mapping, rng, 4, folder=tmp_path, name="four.nii.gz")
    three = series(mapping, rng, 3, folder=tmp_path, name="three.nii.gz")
    six = series(mapping, rng, 6, folder=tmp_path, name="six.nii.gz")
    tensors = tensor_series(mapping, rng, tmp_path, intent="symmetric matrix")
    lines = save_trk(tmp_path / "a.trk", lines_in(grid, rng), grid)
    wrong = save_trk(tmp_path / "wrong.trk", lines_in(other, rng), other)
    (tmp_path / "bad.pam5").write_text("no peaks")
    for arguments, message in (
        ((image, "--kind", "meshes"), "kind must be one of ['auto', 'image'"),
        ((image, "--frame", "world"), "frame does not apply"),
        ((lines, "--interpolation", "linear"), "interpolation does not apply"),
        ((image, "--method", "ppd"), "method does not apply"),
        ((tensors, "--method", "best"), "method must be one of"),
        ((tensors, "--interpolation", "dyadic"), "interpolation must be one of"),
        ((tensors, "--tensor_order", "itk"), "tensor_order must be one of"),
        (
            (image, "--kind", "labels", "--interpolation", "linear"),
            "interpolation must",
        ),
        ((six,), "may be of several kinds"),
        ((six, "--kind", "tensors"), "tensor_order must be given"),
        ((three, "--kind", "vectors"), "frame must be given"),
        ((four, "--kind", "fods", "--basis", "mrtrix"), "holds no harmonics"),
        ((four, "--kind", "dwi"), "there is no .bval or .bvals beside"),
        ((image, "--modulate"), "modulate does not apply"),
        ((tensors, "--kind", "tensors", "--bvecs", four), "bvecs does not apply"),
        ((image, "--kind", "tensors"), "must have several values in a voxel"),
        ((four, "--kind", "tensors"), "must have six values in a voxel"),
        ((four, "--kind", "vectors"), "3 values in a voxel for each vector"),
        ((image, "--kind", "tractogram"), "must be a tractogram file"),
        ((lines, "--kind", "image"), "not an image file"),
        ((lines, "--out_file", "b.nii.gz"), "out_file must end in .trk"),
        ((lines, "--out_file", "b.tck"), "out_file must end in .trk"),
        ((wrong,), "must be in the space of moving"),
        ((lines, "--inverse"), "must be in the space of static"),
        ((tmp_path / "bad.pam5",), "no file of peaks"),
    ):
        before = names(tmp_path)
        said = fails(command, apply_deep, path, *arguments, "--out_dir", tmp_path / "o")
        assert message in said, said
        assert names(tmp_path) == before


@pytest.mark.parametrize("inverse", [False, True])
def test_an_image_that_is_already_there(saved, tmp_path, rng, command, caplog, inverse):
    """A forgotten --inverse gives an image that looks plausible."""
    mapping, path = saved
    for side in ("domain", "codomain"):
        data = rng.normal(size=getattr(mapping, f"{side}_shape")).astype(np.float32)
        affine = getattr(mapping, f"{side}_grid2world")
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{side}.nii.gz")
        caplog.clear()
        flag = ["--inverse"] if inverse else []
        out = ["--out_dir", tmp_path / "out", "--force"]
        command(apply_deep, path, tmp_path / f"{side}.nii.gz", *flag, *out)
        warned = "is on" in caplog.text and "check that it is not" in caplog.text
        assert warned == (side == ("domain" if inverse else "codomain"))


def test_files_are_checked_before_any_is_transformed(saved, tmp_path, rng):
    """What a transformation would refuse, and an affine that is missing."""
    mapping, _ = saved
    request = Request(mapping, options={"frame": "voxel"})
    peaks = peaks_file(mapping, rng, tmp_path, None)
    with pytest.raises(ValueError, match="kind: .*a.pam5 has no affine"):
        KINDS["peaks"].load().check(peaks, request)
    with h5py.File(peaks, "a") as file:
        file["pam"]["affine"] = mapping.domain_grid2world
        file["pam"]["shm_coeff"] = np.ones((*mapping.domain_shape, 15))
        file["pam"]["B"] = np.ones((len(default_sphere.vertices), 15))
    with pytest.raises(ValueError, match="peaks must have a matrix B of one of DIPY"):
        KINDS["peaks"].load().check(peaks, request)
    series_file = dwi_series(mapping, rng, tmp_path, count=5)
    with pytest.raises(ValueError, match="gradient table of .*6 directions or more"):
        KINDS["dwi"].load().check(series_file, request)


def test_a_warning_about_a_tractogram_is_logged_once(
    saved, tmp_path, rng, command, capsys
):
    mapping, path = saved
    grid = grid_of(mapping, "domain")
    other = Grid((40, 40, 40), grid.affine)
    source = save_trk(tmp_path / "a.trk", lines_in(grid, rng), other)
    command(apply_deep, path, source, "--out_dir", tmp_path / "out")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("describes another grid") == 1
