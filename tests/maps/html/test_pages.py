"""Reports in HTML: what they show, what they request, and how their scripts work."""

from html.parser import HTMLParser
import json
import re
import shutil
import subprocess

from maps import affine, blob, make_map, oblique_map
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg import (
    DeepRegistration,
    assess_mapping,
    write_report,
    write_study_report,
)
from dipy_dl_reg.maps.html import rendering
from dipy_dl_reg.maps.html.planes import choose_planes, obliqueness
from dipy_dl_reg.maps.html.volumes import ReportImages, make_volumes
from dipy_dl_reg.maps.record import RegistrationRecord
from dipy_dl_reg.maps.regularity import jacobian_determinant, measure_regularity
from dipy_dl_reg.maps.verdict import Verdict

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
CHROMIUM = shutil.which("chromium")
GOOD = Verdict("good", ())


def images_of(mapping):
    """A blob in the middle of each image of a map."""
    found = []
    for side in ("codomain", "domain"):
        shape = tuple(getattr(mapping, f"{side}_shape"))
        grid = getattr(mapping, f"{side}_grid2world")
        grid = np.eye(mapping.dim + 1) if grid is None else grid
        dim = mapping.dim
        centre = grid[:dim, :dim] @ ((np.array(shape) - 1) / 2) + grid[:dim, dim]
        found.append(blob(shape, grid, centre, 8))
    return found


class Page(HTMLParser):
    """Elements of a page, with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.source = [], "", path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def assert_requests_nothing(page):
    """No element loads anything but data in the page itself."""
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster"):
            value = attributes.get(name)
            if value is not None and tag != "a":
                assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
    (policy,) = [m["content"] for m in page.find("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy
    style = page.source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


@pytest.mark.parametrize("dim", [2, 3])
def test_report_of_a_map(tmp_path, dim):
    mapping = oblique_map(dim)
    path = tmp_path / "report.html"
    hostile = "<script>alert(1)</script> & \"quotes'"
    summary = write_report(
        path, *images_of(mapping), mapping, verdict=GOOD, title=hostile, command=hostile
    )
    page = Page(path)
    assert_requests_nothing(page)
    assert page.source.count("<script>") == 1 and "alert(1)" in page.text
    assert all(image["alt"] for image in page.find("img"))
    assert path.stat().st_size < 3e6
    regularity = measure_regularity(mapping)
    assert f"mean {regularity.round_trip_mean:.3f}" in page.text
    assert summary.measures["folds_percent"] == regularity.folds_percent
    row = summary.as_row("01", "report.html")
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    with pytest.raises(FileExistsError):
        write_report(path, *images_of(mapping), mapping, overwrite=False)


def test_pictures_have_true_proportions(tmp_path):
    """Also of anisotropic voxels: the pixels are isotropic."""
    grid = affine([1.0, 2.0, 4.0])
    shape = (32, 16, 8)
    mapping = make_map(shape, shape, static_grid2world=grid, moving_grid2world=grid)
    image = np.ones(shape) + blob(shape, grid, [16.0, 16, 16], 6)
    write_report(tmp_path / "a.html", image, image, mapping, verdict=GOOD)
    ratios = {
        round(int(i["width"]) / int(i["height"]), 2)
        for i in Page(tmp_path / "a.html").find("img")
        if "slice" in i["alt"]
    }
    assert ratios == {1.0}  # the field of view is a cube


def test_slices_lie_where_their_labels_say():
    """On a flipped, permuted, shifted grid."""
    grid = affine([2.0, 2.0, 2.0], origin=[30.0, -20, 7])[:, [1, 0, 2, 3]]
    grid[:3, 0] *= -1
    shape = (15, 17, 13)
    mapping = make_map(shape, shape, static_grid2world=grid, moving_grid2world=grid)
    world = np.moveaxis(np.indices(shape), 0, -1) @ grid[:3, :3].T + grid[:3, 3]
    for axis, kind in enumerate(("sagittal", "coronal", "axial")):
        coordinate = world[..., axis]
        images = ReportImages([coordinate], [coordinate], [None], [None], [None])
        jacobian = jacobian_determinant(mapping.backward, grid)
        volumes = make_volumes(images, mapping, jacobian)
        assert obliqueness(volumes) == 0
        for plane in choose_planes(volumes)[kind]:
            found = plane.cut(volumes.channels[0]["static"])
            said = float(re.search(r"= (\S+) mm", plane.coordinate)[1])
            assert_allclose(found, said, atol=0.051)


def test_left_is_on_the_left():
    """In axial planes x grows to the right, and y towards the top."""
    mapping = oblique_map(3)
    shape, grid = tuple(mapping.codomain_shape), mapping.codomain_grid2world
    world = np.moveaxis(np.indices(shape), 0, -1) @ grid[:3, :3].T + grid[:3, 3]
    jacobian = jacobian_determinant(mapping.backward, grid)
    for axis, kind, letters in ((0, "axial", "LRPA"), (1, "sagittal", "PAIS")):
        images = ReportImages(
            [world[..., axis]], [np.ones(shape)], [None], [grid], [None]
        )
        volumes = make_volumes(images, mapping, jacobian)
        plane = choose_planes(volumes)[kind][0]
        assert plane.letters == letters
        cut = plane.cut(volumes.channels[0]["static"])
        assert (np.diff(cut, axis=1) > 0).all()


def test_record_is_in_the_report(tmp_path):
    """Of a registration of two channels, with masks and labels."""
    rng = np.random.default_rng(0)
    x, y = np.mgrid[-1:1:32j, -1:1:32j]
    static, moving = (np.exp(-8 * (x**2 + f * y**2)) for f in (1, 2))
    pairs = [
        np.stack([i, 1 - i + 0.01 * rng.random(i.shape)], -1) for i in (static, moving)
    ]
    registration = DeepRegistration(["ssd", "auto"], level_iters=[5, 5])
    mapping = registration.optimize(*pairs)
    record = registration.record
    stored = json.loads(json.dumps(record.as_dict(), allow_nan=False))
    assert RegistrationRecord.from_dict(stored) == record
    assert sum(level.iterations for level in record.levels) == len(
        registration.full_energy_profile
    )
    labels = [(i > 0.5).astype(np.uint8) for i in (static, moving)]
    summary = write_report(
        tmp_path / "a.html",
        *pairs,
        mapping,
        record=record,
        verdict=registration.verdict,
        static_mask=np.ones((32, 32)),
        static_labels=labels[0],
        moving_labels=labels[1],
    )
    text = Page(tmp_path / "a.html").text
    for wanted in ("Channel 1", "Channel 2", "Given by the user", record.device):
        assert wanted in text
    assert record.metrics[1].reason in text and record.network_reason in text
    assert summary.measures["dice_after"] > summary.measures["dice_before"]


def test_bad_maps_do_not_pass(tmp_path):
    mapping = oblique_map(3)
    static, moving = images_of(mapping)
    mapping.backward[8:10, 8, 8] += 9
    folded = write_report(tmp_path / "a.html", static, moving, mapping, verdict=GOOD)
    assert folded.grade != "good" and "folds" in folded.reasons[0]
    text = Page(tmp_path / "a.html").text
    assert "the map folds in" in text and "above 0 %: doubtful" in text
    assert folded.reasons[0] in assess_mapping(mapping, static, moving).reasons
    lost = oblique_map(3)
    lost.forward += np.float32(30)
    summary = write_report(tmp_path / "a.html", static, moving, lost, verdict=GOOD)
    assert summary.grade == "failed" and "no inverses" in summary.reasons[0]


def test_missing_packages_are_said(monkeypatch, tmp_path):
    rendering._load_environment.cache_clear()
    monkeypatch.setattr(rendering, "optional_package", lambda name: (None, False, 0))
    with pytest.raises(ImportError, match=r"dipy_dl_reg\[report\]"):
        write_report(tmp_path / "a.html", None, None, oblique_map(2))
    with pytest.raises(ImportError, match=r"dipy_dl_reg\[report\]"):
        write_study_report(tmp_path / "a.html", [])


ROWS = [
    {"subject": "a", "status": "done", "grade": "good", "similarity_deformed": 0.8},
    {"subject": "b", "status": "done", "grade": "good", "similarity_deformed": 0.6},
    {"subject": "c", "status": "done", "grade": "doubtful", "similarity_deformed": 0.9},
    {"subject": "<i>d", "status": "failed", "reason": "<b>damaged"},
]
ROWS[0] |= {"report": "sub a/report.html", "volume": 7.0}
ROWS[1] |= {"report": "javascript:alert(1)", "thumbnail": "javascript:alert(2)"}


def test_index_puts_the_bad_ones_first(tmp_path):
    path = tmp_path / "index.html"
    write_study_report(path, ROWS, title="A <study>")
    page = Page(path)
    assert_requests_nothing(page)
    subjects = re.findall(r"<td data-key=\"([^\"]*)\">(?:<a|[^<])", page.source)
    assert subjects == ["&lt;i&gt;d", "c", "b", "a"]
    links = [a["href"] for a in page.find("a")]
    assert links == ["javascript%3Aalert%281%29", "sub%20a/report.html"]
    assert "A <study>" in page.text and "<b>damaged" in page.text
    assert "volume" in page.text and not page.find("img")
    with pytest.raises(ValueError, match="status must be"):
        write_study_report(path, [{"subject": "a", "status": "?"}])
    with pytest.raises(ValueError, match="subject"):
        write_study_report(path, [{"status": "done"}])


def dump(path, tmp_path, script):
    """The page as Chromium has it after another script, whose hash is permitted."""
    page = path.read_text()
    policy = re.search(r"script-src &#39;[^;]*&#39;", page)[0]
    page = page.replace(policy, "script-src 'unsafe-inline'")
    test = tmp_path / "test.html"
    test.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=800"]
    command = [
        CHROMIUM,
        *options,
        f"--user-data-dir={tmp_path / 'c'}",
        f"file://{test}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_scripts_work_in_a_browser(tmp_path):
    """The slider and the sorting of the index, in two runs of Chromium."""
    mapping, path = oblique_map(2), tmp_path / "report.html"
    write_report(path, *images_of(mapping), mapping, verdict=GOOD)
    script = """
    const viewer = document.querySelector(".viewer");
    const slider = viewer.querySelector("input[type=range]");
    slider.value = 30; slider.dispatchEvent(new Event("input", {bubbles: true}));
    document.body.dataset.cut = viewer.style.getPropertyValue("--cut");
    document.body.dataset.shown = [...viewer.querySelectorAll(".layer")].filter(
      (l) => getComputedStyle(l).visibility === "visible").map((l) => l.dataset.layer);
    viewer.querySelector("[value=second]").click();
    document.body.dataset.after = viewer.querySelector(".shown").textContent;
    """
    found = dump(path, tmp_path, script)
    assert 'data-cut="30%"' in found and 'data-shown="static,after"' in found
    assert 'data-after="moving after"' in found
    index = tmp_path / "index.html"
    write_study_report(index, ROWS)
    script = """
    const heading = [...document.querySelectorAll("th")].find(
      (h) => h.textContent.includes("deformed"));
    const list = () => [...document.querySelectorAll("tbody tr")].map(
      (r) => r.cells[1].textContent).join();
    heading.firstChild.click(); document.body.dataset.once = list();
    heading.firstChild.click(); document.body.dataset.twice = list();
    """
    found = dump(index, tmp_path, script)
    assert 'data-once="&lt;i&gt;d,b,a,c"' in found or 'data-once="<i>d,b,a,c"' in found
    assert 'd,c,a,b"' in found
