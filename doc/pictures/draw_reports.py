"""Pictures of the page "Reading a report": reports of bundled images.

    python doc/pictures/draw_reports.py [--chromium PROGRAM]

The MNI152 template, bundled with nilearn, without skull at 3 mm, is registered to
itself after a smooth random deformation: from the right place ("good"), from a prealign
that is 20 mm off ("doubtful"), turned by 90 degrees ("failed"), and turned by 40
degrees, which the default network mends ("alarm"). Chromium takes pictures of the
reports, which are written beside this script.
"""

import argparse
from pathlib import Path
import subprocess
import tempfile

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
WIDTH = 1000
#: Size of a file, bytes.
LARGEST = 150e3
SLICE = '<figure class="slice">'
#: Name of the picture: the case, the headings of the parts that are shown, the height.
PICTURES = {
    "report_good": ("good", (), 1700),
    "report_doubtful": ("doubtful", (), 1700),
    "report_failed": ("failed", (), 1700),
    "report_alarm": ("alarm", (), 1700),
    "report_deformation": ("good", ("Deformation",), 1108),
    "report_measures": ("doubtful", ("Measures and limits",), 2000),
    "report_how": ("good", ("How the map was computed",), 2000),
}


def make_images():
    """Static, moving, their matrix and labels of both."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
    from scipy.ndimage import gaussian_filter, map_coordinates

    template = load_mni152_template(resolution=3)
    brain = load_mni152_brain_mask(resolution=3).get_fdata() > 0
    static = np.where(brain, template.get_fdata(dtype=np.float32), 0)
    static /= static.max()
    rng = np.random.default_rng(3)
    field = np.stack([gaussian_filter(rng.normal(size=static.shape), 3) for _ in "xyz"])
    field *= 3 / np.linalg.norm(field, axis=0)[brain].max()  # 9 mm
    moving = map_coordinates(static, np.indices(static.shape) + field, order=1)
    noisy = moving + 0.02 * rng.normal(size=moving.shape)
    moving = np.where(moving > 0.02, noisy, 0).clip(0)
    return static, moving.astype(np.float32), template.affine


def make_prealigns():
    """The prealign of each case."""
    shift = np.eye(4)
    shift[1:3, 3] = 12, 16
    return {"good": np.eye(4), "doubtful": shift, "failed": nod(90), "alarm": nod(40)}


def nod(angle):
    """Matrix of a turn about the axis from left to right."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.eye(4)
    turn[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    return turn


def write_reports(folder):
    """Write the report of each case that has none; print its verdict."""
    from dipy_dl_reg import DeepRegistration, write_report

    static, moving, affine = make_images()
    images = {"static": static, "moving": moving}
    images |= {"static_grid2world": affine, "moving_grid2world": affine}
    for name, prealign in make_prealigns().items():
        if (folder / f"{name}.html").exists():
            continue
        registration = DeepRegistration(progress=False)
        mapping = registration.optimize(**images, prealign=prealign)
        summary = write_report(
            folder / f"{name}.html",
            **images,
            mapping=mapping,
            record=registration.record,
            verdict=registration.verdict,
            title=f"sub-{name} to template",
            command=f"dipy_align_deep template.nii.gz sub-{name}.nii.gz --report",
        )
        print(f"{name}: {registration.verdict}; {summary.measures}")


def select_parts(html, headings):
    """The page with some of its parts only; its head and middle slices if none."""
    head, main = html.split("<main>")
    parts = main.split("<h2>")
    chosen = [p for p in parts[1:] if p.startswith(headings or "Before and after")]
    if headings:  # the heading of the page is left out
        head = head[: head.index("<header>")]
    else:
        chosen = ["<h3>".join(map(keep_middle_slice, chosen[0].split("<h3>")))]
    return head + "<main>" + "".join(f"<h2>{part}" for part in chosen)


def keep_middle_slice(html):
    """The slices of one orientation without all but the middle one."""
    first, *slices = html.split(SLICE)
    if not slices:
        return html
    ends = [each.rpartition("</figure>") for each in slices]
    return first + SLICE + ends[len(ends) // 2][0] + "</figure>" + ends[-1][2]


def take_picture(path, target, height, chromium):
    """A picture by Chromium, without the empty lower part."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--window-size={WIDTH},{height}", f"--screenshot={target}"]
    command = [chromium, *options, path.absolute().as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    picture = Image.open(target).convert("RGB")
    pixels = np.asarray(picture).astype(int)
    rows = np.flatnonzero(np.abs(pixels - pixels[-1, -1]).sum((1, 2)))
    picture = picture.crop((0, 0, WIDTH, min(height, int(rows.max()) + 16)))
    target.unlink()
    for quality in range(92, 40, -4):
        picture.save(target.with_suffix(".jpg"), quality=quality, optimize=True)
        if target.with_suffix(".jpg").stat().st_size < LARGEST:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--reports", type=Path, help="Folder of the reports.")
    arguments = parser.parse_args()
    folder = arguments.reports or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    write_reports(folder)
    for name, (case, headings, height) in PICTURES.items():
        html = (folder / f"{case}.html").read_text()
        page = folder / f"{name}.html"
        page.write_text(select_parts(html, headings))
        take_picture(page, HERE / f"{name}.png", height, arguments.chromium)
        print(name, (HERE / f"{name}.jpg").stat().st_size)


if __name__ == "__main__":
    main()
