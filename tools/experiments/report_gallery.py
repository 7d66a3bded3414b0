"""Reports of good and bad registrations, and what grade each gets.

    python -m tools.experiments.report_gallery --out reports > table.txt

Two real T1 brains at 2 mm (``t1_free_2mm`` in the folder ``DIPY_DL_REG_DATA``) are
registered; then the pose of moving is wrong, the map is folded on purpose, the moving
image is an unrelated one, one direction of the map is lost, and the field of view shows
another part. Further reports show an oblique anisotropic grid, two channels, a slice,
a whole map without record. The table states the grade, the first reason, the size of
the page and the processor time of the report. `--screenshots` also writes pictures by
Chromium, without any network, at the widths of a desktop and of a telephone.
"""

import argparse
import logging
import os
from pathlib import Path
import platform
import shutil
import subprocess
import time

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
from nibabel.processing import resample_from_to
import numpy as np

from dipy_dl_reg import DeepRegistration, write_report, write_study_report
from dipy_dl_reg.maps.record import list_versions
from dipy_dl_reg.registration.affine.call import find_affine

STEPS = ["center_of_mass", "rigid", "affine"]
#: Width and height of the screenshots.
SIZES = {"desktop": (1280, 5200), "phone": (390, 9000)}


def load(name):
    """Image and matrix of a brain."""
    path = Path(os.environ["DIPY_DL_REG_DATA"]) / "t1_free_2mm" / f"{name}_t1.nii.gz"
    image = nib.load(path)
    return image.get_fdata(dtype=np.float32), image.affine


def register(static, moving, *, steps=STEPS, prealign=None, **options):
    """Register two images; return the map and the arguments of its report."""
    record_seconds, poses = 0.0, None
    if steps:
        began = time.perf_counter()
        found = find_affine(
            moving[0][..., 0] if moving[0].ndim > 3 else moving[0],
            static[0][..., 0] if static[0].ndim > 3 else static[0],
            static_affine=static[1],
            moving_affine=moving[1],
            pipeline=list(steps),
        )
        prealign, poses = found.matrix, found.poses
        record_seconds = time.perf_counter() - began
    metric = options.pop("metric", None)
    registration = DeepRegistration(metric, progress=False, **options)
    registration.poses = poses
    mapping = registration.optimize(
        static[0],
        moving[0],
        static_grid2world=static[1],
        moving_grid2world=moving[1],
        prealign=prealign,
    )
    record = registration.record
    if steps:
        record = record.with_affine(steps, record_seconds)
    return mapping, {"record": record, "verdict": registration.verdict}


def copy_map(mapping):
    """A copy whose fields may be changed."""
    copy = mapping.shallow_copy()
    copy.forward, copy.backward = mapping.forward.copy(), mapping.backward.copy()
    return copy


def make_cases():
    """Yield name, images, map and the arguments of the report."""
    static, moving = load("adult_01"), load("adult_02")
    good, options = register(static, moving)
    yield "good", static, moving, good, options
    yield "without record", static, moving, good, {}

    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    wrong = moving[0], turn @ moving[1]
    yield "wrong pose", static, wrong, *register(static, wrong, steps=())

    shifted = moving[0], moving[1].copy()
    shifted[1][2, 3] += 60
    yield "shifted by 60 mm", static, shifted, *register(static, shifted, steps=())

    rng = np.random.default_rng(0)
    folded = copy_map(good)
    noise = rng.normal(0, 2.5, folded.backward.shape).astype(np.float32)
    folded.backward[20:70, 20:70, 20:70] += noise[20:70, 20:70, 20:70]
    yield "folded on purpose", static, moving, folded, options

    lost = copy_map(good)
    lost.forward[:] = 0
    yield "inverse lost", static, moving, lost, options

    speckle = rng.random(moving[0].shape).astype(np.float32) * (moving[0] > 0)
    other = speckle, moving[1]
    yield "wrong contrast (noise)", static, other, *register(static, other, steps=())

    slab = moving[0][:, :, :20], moving[1]
    yield "another field of view", static, slab, *register(static, slab, steps=())

    oblique = np.array(moving[1])
    tilt = np.deg2rad(25)
    turn = np.eye(4)
    turn[:3, :3] = [
        [np.cos(tilt), 0, np.sin(tilt)],
        [0, 1, 0],
        [-np.sin(tilt), 0, np.cos(tilt)],
    ]
    grid = turn @ oblique @ np.diag([1, 1, 2.5, 1])
    shape = (*moving[0].shape[:2], int(moving[0].shape[2] / 2))
    middle = oblique @ [*(np.array(moving[0].shape) / 2), 1]
    grid[:3, 3] += (middle - grid @ [*(np.array(shape) / 2), 1])[:3]
    image = resample_from_to(nib.Nifti1Image(*static), (shape, grid), order=1)
    tilted = image.get_fdata(dtype=np.float32), grid
    yield "oblique, anisotropic static", tilted, moving, *register(tilted, moving)

    both = [
        (np.stack([image, np.sqrt(image)], -1), matrix)
        for image, matrix in (static, moving)
    ]
    yield "two channels", *both, *register(*both, metric=["auto", "auto"])

    slices = [
        (image[:, :, image.shape[2] // 2], np.diag([2.0, 2, 1]))
        for image, _ in (static, moving)
    ]
    yield "a slice", *slices, *register(*slices, steps=())


def take_screenshots(path, out):
    """Pictures of a page by Chromium, which finds no host."""
    for name, (width, height) in SIZES.items():
        # Chromium's window is never narrower than 500 pixels: a frame is.
        page, target = path, out / f"{path.stem}_{name}.png"
        if width < 500:
            page = out / "frame.html"
            page.write_text(
                f'<body style="margin:0"><iframe src="{path.name}" style="border:0;'
                f'width:{width}px;height:{height}px"></iframe>'
            )
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--host-resolver-rules=MAP * ~NOTFOUND"]
        options += [f"--window-size={width},{height}", f"--screenshot={target}"]
        subprocess.run(
            ["chromium", *options, page.absolute().as_uri()],
            check=True,
            capture_output=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--screenshots", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    versions = ", ".join(f"{k} {v}" for k, v in list_versions().items())
    print(f"{platform.processor() or platform.machine()}; {versions}")
    print("two T1 brains at 2 mm; CPU s: processor time of the report\n")
    print(f"{'case':<28} {'grade':<9} {'MB':>5} {'CPU s':>6}  first reason")
    rows = []
    for name, static, moving, mapping, options in make_cases():
        assert isinstance(mapping, DiffeomorphicMap)
        path = (
            arguments.out
            / f"{name.split(' (')[0].replace(', ', '_').replace(' ', '_')}.html"
        )
        began = time.process_time()
        summary = write_report(
            path,
            static[0],
            moving[0],
            mapping,
            static_grid2world=static[1],
            moving_grid2world=moving[1],
            title=name,
            **options,
        )
        seconds = time.process_time() - began
        size = path.stat().st_size / 1e6
        reason = summary.reasons[0][:90] if summary.reasons else ""
        print(f"{name:<28} {summary.grade:<9} {size:5.2f} {seconds:6.1f}  {reason}")
        rows.append(summary.as_row(name, path.name))
        if arguments.screenshots and shutil.which("chromium"):
            take_screenshots(path, arguments.out)
    failed = {"subject": "damaged file", "status": "failed", "reason": "it is damaged"}
    index = arguments.out / "index.html"
    write_study_report(index, [*rows, failed], title="Good and bad registrations")
    if arguments.screenshots and shutil.which("chromium"):
        take_screenshots(index, arguments.out)


if __name__ == "__main__":
    main()
