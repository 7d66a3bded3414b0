"""Structures and brain masks that the network `anatomy` finds, on real images.

    python -m tools.experiments.anatomy --data FOLDER

FOLDER contains t1_labels (skull-stripped T1 brains at 1 mm with manual labels),
t1_labels_2mm (whole heads with automatic labels), diffusion/subject_a and subject_b,
and t1_free_2mm (skull-stripped adults). The contrasts "b0-like" and "FA-like" are drawn
as in contrasts.py.

Structures: mean Dice of `segment_anatomy(mirror=False)` and the labels, joined to the
structures of the network, on the grid of the labels, left and right together. Vermis
and cerebellar cortex are one structure; the cortex is compared with all cortical
labels. The fluid around the brain, which no parcellation has, is left out.

Masks: Dice of `brain_mask` and the given mask, and the ratio of their volumes. Given
are the voxels above 0 of stripped images, the mask of subject_a, the filled labels of
the whole heads, and the tissues of subject_b.

The threshold of the mask and the other choices were made on the images marked "tuning".
Then follow the time of a prediction, the difference between tiles and the whole image,
heads whose header is wrong, and what a longer training is expected to give, from the
curve of the log, ``dice(t) = a - b t**c``.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import csv
import logging
from pathlib import Path
import platform
import time
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes
from scipy.optimize import curve_fit

from tools.experiments.contrast_cases import contrast_case, read_image

LOG = Path(__file__).parents[2] / "doc" / "training" / "anatomy.csv"
#: Subjects and groups on which the test-time choices were made.
TUNING = {"1000", "1001", "1006", "1012", "heads T1", "real FA", "real MD"}
#: Parts of the report.
PARTS = ("images", "time", "headers", "training")
#: Pairs of subjects whose second one is the image that is drawn anew.
PAIRS = ("1001:1000", "1000:1001", "1012:1006", "1006:1012", "1122:1107", "1107:1122")
#: Words in the names of Neuromorphometrics' labels, and the structure.
WORDS = {
    "accumbens": "accumbens",
    "amygdala": "amygdala",
    "caudate": "caudate",
    "pallidum": "pallidum",
    "putamen": "putamen",
    "hippocampus": "hippocampus",
    "thalamus": "thalamus",
    "cerebral white matter": "cerebral white matter",
    "cerebellum white matter": "cerebellar white matter",
    "cerebellum exterior": "cerebellar cortex",
    "vermal": "cerebellar cortex",
    "inf lat vent": "inferior lateral ventricle",
    "lateral ventricle": "lateral ventricle",
    "ventral dc": "ventral diencephalon",
    "3rd": "third ventricle",
    "4th": "fourth ventricle",
    "brain stem": "brain stem",
}
#: Labels of FreeSurfer that belong to a structure of the network, besides its own.
FREESURFER = {
    "cerebral white matter": (*range(251, 256), 77, 78, 79),
    "cerebral cortex": (*range(1000, 1036), *range(2000, 2036)),
    "lateral ventricle": (31, 63),
    "putamen": (30, 62),
    "third ventricle": (72,),
    "ventral diencephalon": (85,),
}
#: Headers that are wrong, and the matrix before the affine.
WRONG = {
    "half a turn, left-right axis": np.diag([1.0, -1, -1, 1]),
    "half a turn, vertical axis": np.diag([-1.0, -1, 1, 1]),
    "slices reversed": np.diag([1.0, 1, -1, 1]),
    "front and back reversed": np.diag([1.0, -1, 1, 1]),
    "left and right reversed": np.diag([-1.0, 1, 1, 1]),
}


class Sample(NamedTuple):
    """An image, its given mask, and its labels as structures (0 where unknown)."""

    group: str
    name: str
    image: np.ndarray
    affine: np.ndarray
    mask: np.ndarray
    mask_affine: np.ndarray
    labels: np.ndarray | None = None
    label_affine: np.ndarray | None = None


def structure_numbers():
    """Number of each structure, from 1."""
    from dipy_dl_reg.anatomy.classes import CLASSES

    names = dict.fromkeys(of.structure for of in CLASSES)
    return {name: number for number, name in enumerate(names)}


def neuromorphometrics_table(folder):
    """Structure of each label of Neuromorphometrics; labels from 100 on are cortex."""
    numbers = structure_numbers()
    table = np.zeros(300, int)
    table[100:] = numbers["cerebral cortex"]
    with open(folder / "t1_labels" / "labels.csv") as file:
        for row in csv.DictReader(file):
            label, name = int(row["Label Number"]), row["Label Name"].lower()
            for word, structure in WORDS.items():
                if word in name and label < 300 and (label < 100 or word == "vermal"):
                    table[label] = numbers[structure]
                    break
    table[:2] = 0
    return table


def freesurfer_table():
    """Structure of each label of FreeSurfer."""
    from dipy_dl_reg.anatomy.classes import CLASSES

    numbers = structure_numbers()
    table = np.zeros(3000, int)
    for of in CLASSES:
        if of.structure != "cerebrospinal fluid":
            table[of.label] = numbers[of.structure]
    for structure, labels in FREESURFER.items():
        table[list(labels)] = numbers[structure]
    return table


def labelled_brains(folder, table):
    """The stripped brains in three contrasts."""
    for pair in PAIRS:
        name = pair.partition(":")[2]
        files = [
            folder / "t1_labels" / f"subject_{name}_{k}.nii.gz"
            for k in ("t1", "labels")
        ]
        (t1, affine), (labels, label_affine) = map(read_image, files)
        for kind in ("T1", "b0", "FA"):
            image, matrix = t1, affine
            if kind != "T1":
                drawn = contrast_case(folder / "t1_labels", pair, kind).images
                image, matrix = drawn["moving"], drawn["moving_grid2world"]
            group = kind if kind == "T1" else f"{kind}-like"
            yield Sample(
                group, name, image, matrix, image > 0, matrix,
                table[labels.astype(int)], label_affine,
            )  # fmt: skip


def whole_heads(folder, table):
    """The whole heads; their given mask is that of their labels, filled."""
    for path in sorted((folder / "t1_labels_2mm").glob("*_t1.nii.gz")):
        image, affine = read_image(path)
        labels, _ = read_image(str(path).replace("_t1.", "_labels."))
        mask = binary_fill_holes(labels > 0)
        name = path.name.removesuffix("_t1.nii.gz")
        yield Sample(
            "heads T1", name, image, affine, mask, affine, table[labels.astype(int)],
            affine,
        )  # fmt: skip


def diffusion_images(folder):
    """Diffusion images and T1 of one subject, and of a slab of a child."""
    first, second = folder / "diffusion/subject_a", folder / "diffusion/subject_b"
    mask, mask_affine = read_image(first / "mask.nii.gz")
    table = freesurfer_table()
    for kind in ("b0", "FA", "MD", "T1"):
        image, affine = read_image(first / f"{kind.lower()}.nii.gz")
        suffix = "_t1" if kind == "T1" else ""
        labels, label_affine = read_image(first / f"parcellation{suffix}.nii.gz")
        given = (image, affine) if kind == "T1" else (mask, mask_affine)
        yield Sample(
            f"real {kind}", "subject_a", image, affine, given[0] > 0, given[1],
            table[labels.astype(int)], label_affine,
        )  # fmt: skip
    tissues, matrix = read_image(second / "tissues.nii.gz")
    for kind in ("b0", "FA", "T1"):
        image, affine = read_image(second / f"{kind.lower()}.nii.gz")
        yield Sample(f"slab {kind}", "subject_b", image, affine, tissues > 0, matrix)


def adults(folder, count):
    """Some of the adults without labels."""
    for path in sorted((folder / "t1_free_2mm").glob("adult_*_t1.nii.gz"))[:count]:
        image, affine = read_image(path)
        name = path.name.removesuffix("_t1.nii.gz")
        yield Sample("adults T1", name, image, affine, image > 0, affine)


def measure(sample):
    """Dice of the mask, ratio of the volumes, and Dice of each structure."""
    from dipy_dl_reg.anatomy.prediction import predict_anatomy
    from dipy_dl_reg.anatomy.segmentation import label_voxels, mask_brain
    from dipy_dl_reg.grid import Grid

    maps = predict_anatomy(sample.image, Grid(sample.image.shape, sample.affine))
    mask = mask_brain(maps, Grid(sample.mask.shape, sample.mask_affine))
    given = sample.mask
    both = 2 * (mask & given).sum() / (mask.sum() + given.sum())
    if sample.labels is None:
        return both, mask.sum() / given.sum(), {}
    grid = Grid(sample.labels.shape, sample.label_affine)
    labels = freesurfer_table()[label_voxels(maps, grid)]
    dice = {}
    for structure, number in structure_numbers().items():
        a, b = labels == number, sample.labels == number
        if number and b.any():
            dice[structure] = 2 * (a & b).sum() / (a.sum() + b.sum())
    return both, mask.sum() / given.sum(), dice


def report_images(folder, count):
    """Print the table of masks, and the mean Dice of the structures by group."""
    table = neuromorphometrics_table(folder)
    print("Masks\ngroup       image      use      Dice   volume", flush=True)
    groups = {}
    for samples in (
        labelled_brains(folder, table),
        whole_heads(folder, table),
        diffusion_images(folder),
        adults(folder, count),
    ):
        for sample in samples:
            use = "tuning" if {sample.name, sample.group} & TUNING else "report"
            both, ratio, dice = measure(sample)
            row = f"{sample.group:11s} {sample.name:10s} {use:8s}"
            print(f"{row} {both:.3f}  {ratio:.3f}", flush=True)
            groups.setdefault(f"{sample.group}, {use}", []).append(dice)
    print_structures({k: v for k, v in groups.items() if any(v)})


def print_structures(groups):
    """Print mean Dice by structure and group."""
    print("\nStructures, mean Dice; columns:")
    for number, (name, rows) in enumerate(groups.items(), 1):
        print(f"  {number}: {name} ({len(rows)} images)")
    for structure in structure_numbers():
        cells = []
        for rows in groups.values():
            values = [row[structure] for row in rows if structure in row]
            cells.append(f"{np.mean(values):.3f}" if values else "  -  ")
        if any(cell.strip() != "-" for cell in cells):
            print(f"{structure:27s} {'  '.join(cells)}")
    means = [
        np.mean([v for row in rows for v in row.values()]) for rows in groups.values()
    ]
    print(f"{'mean':27s} {'  '.join(f'{m:.3f}' for m in means)}", flush=True)


def report_time(folder):
    """Print the time of a prediction, and the error of tiles."""
    from dipy_dl_reg.anatomy import tiles
    from dipy_dl_reg.anatomy.prediction import predict_anatomy
    from dipy_dl_reg.anatomy.resampling import resample_maps
    from dipy_dl_reg.grid import Grid

    drawn = contrast_case(folder / "t1_labels", PAIRS[0], "T1").images
    brain = drawn["moving"], drawn["moving_grid2world"]
    head = read_image(
        next(iter(sorted((folder / "t1_labels_2mm").glob("*_t1.nii.gz"))))
    )
    print("\nTime of predict_anatomy, seconds of the CPU, least of 3")
    for name, (image, affine) in {"brain": brain, "whole head": head}.items():
        times = []
        for _ in range(3):
            begin = time.process_time()
            maps = predict_anatomy(image, Grid(image.shape, affine))
            times.append(time.process_time() - begin)
        shape = " x ".join(map(str, maps.grid.shape))
        print(f"{name:11s} {shape} voxels of 2 mm: {min(times):.2f}", flush=True)
    grid = Grid(head[0].shape, head[1])
    whole, tiles._LARGEST = tiles._LARGEST, 0
    tiled = predict_anatomy(head[0], grid)
    tiles._LARGEST = whole
    expected = resample_maps(maps, tiled.grid)[0]
    away = (tiled.probabilities - expected).abs()
    other = tiled.probabilities.argmax(0) != expected.argmax(0)
    print(
        "Tiles instead of the whole head, around the brain: mean difference of the "
        f"probabilities {away.mean():.1e}, voxels of another class "
        f"{other.float().mean():.2%}",
        flush=True,
    )


def report_headers(folder):
    """Print how a head with a wrong header is judged."""
    from dipy_dl_reg.anatomy.plausibility import fit_mean_brain
    from dipy_dl_reg.anatomy.prediction import predict_anatomy
    from dipy_dl_reg.grid import Grid

    cases = {
        "T1 brain": read_image(folder / "t1_labels" / "subject_1107_t1.nii.gz"),
        "b0 head": read_image(folder / "diffusion/subject_a/b0.nii.gz"),
    }
    print("\nHeaders: mm from a mean brain, and whether the head counts as upright")
    for name, (image, affine) in cases.items():
        for wrong, turn in {"right": np.eye(4), **WRONG}.items():
            fit = fit_mean_brain(
                predict_anatomy(image, Grid(image.shape, turn @ affine))
            )
            judged = "yes" if fit is not None and fit.is_plausible() else "no"
            away = "    -" if fit is None else f"{fit.residual:5.2f}"
            print(f"{name:9s} {wrong:29s} {away}  {judged}", flush=True)


def report_training():
    """Print what the curve of the training promises."""
    with open(LOG) as file:
        rows = [(float(r["seconds"]), float(r["dice"])) for r in csv.DictReader(file)]
    seconds, dice = np.array(rows).T
    late = seconds > 200

    def curve(t, a, b, c):
        return a - b * (t / 1000) ** c

    (a, b, c), _ = curve_fit(curve, seconds[late], dice[late], p0=(0.7, 0.05, -1))
    print(
        f"\nTraining: Dice of drawn held-out images, after {seconds[-1]:.0f} s:", end=""
    )
    print(f" {dice[-1]:.3f}")
    for hours in (0.5, 1, 4):
        print(f"expected after {hours:g} h: {curve(3600 * hours, a, b, c):.3f}")
    print(f"limit of the curve: {a:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    folder = os.environ.get("DIPY_DL_REG_DATA")
    parser.add_argument("--data", type=Path, default=folder, required=folder is None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adults", type=int, default=2, help="number of adults")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    given = parser.parse_args()
    import torch

    import dipy_dl_reg

    logging.getLogger("dipy").setLevel(logging.ERROR)
    torch.set_num_threads(given.threads)
    versions = f"dipy_dl_reg {dipy_dl_reg.__version__}, torch {torch.__version__}"
    print(f"{platform.machine()}, {given.threads} thread; {versions}")
    print("(cores shared with other programs; settings: all options at their defaults)")
    if "images" in given.parts:
        report_images(given.data, given.adults)
    if "time" in given.parts:
        report_time(given.data)
    if "headers" in given.parts:
        report_headers(given.data)
    if "training" in given.parts:
        report_training()


if __name__ == "__main__":
    main()
