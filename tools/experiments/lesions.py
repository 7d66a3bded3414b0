r"""How far a lesion bends the map of healthy tissue around it, without and with mask.

    python -m tools.experiments.lesions --brains FOLDER --patients FOLDER \
        --output FILE.txt [--rows FILE.jsonl]

Drawn lesions: FOLDER contains labelled brains, see tools/benchmarks/deformable.py. In
the moving image a region of the left white matter of 5, 15 and 30 ml with a ragged edge
gets the intensity of grey matter, with noise. Registered at 2 mm from the affines of
the folder. 1000:1001 is a pair on which options may be chosen, 1107:1122 is reported.

Real lesions: FOLDER contains NAME_t1, NAME_flair and NAME_lesions (.nii.gz) of patients
with multiple sclerosis, stripped, in the space of MNI152: open MS data of the
University of Ljubljana (Lesjak et al. 2018, Neuroinformatics 16, 51-63), CC BY. Each
image is registered to the MNI152 template of nilearn. "Without lesion" is the same
image whose lesions are filled with white matter: the mean around each, with noise.

Each image is registered with its lesion, without it, and with the lesion and a
moving_mask that leaves out the lesion and 2 mm around it. The figures compare a map
with that of the image without lesion, on the brain of static: root mean square and
largest distance, mm, at 6 mm and more from the lesion (outside), and within these
6 mm (rim). "noise" is the change of the map without lesion if noise of 2 % is added to
moving: what any small change of an image does. Dice is the mean over labels that are
not white matter, for the map without lesion, and the change of it.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    gaussian_filter,
    label,
    map_coordinates,
)

from tools.benchmarks.cases import labelled_case, warp_labels
from tools.benchmarks.measures import dice, to_world
from tools.experiments.contrast_cases import CORTEX, WHITE
from tools.experiments.saved_rows import SavedRows, describe_machine
from tools.experiments.verdict_cases import load_template

PAIRS = ("1000:1001", "1107:1122")
#: Volumes of drawn lesions, ml; noise of the control; margins in mm.
VOLUMES, NOISE = (5, 15, 30), 0.02
MASK_MARGIN, RIM = 2.0, 6.0
LEFT_WHITE = 45


def draw_lesion(shape, grid2world, white, volume, rng):
    """A ragged region of white matter of a volume in ml, about its deepest point."""
    depth = distance_transform_edt(white)
    centre = np.unravel_index(gaussian_filter(depth, 2).argmax(), shape)
    spacing = np.linalg.norm(grid2world[:3, :3], axis=0)
    away = np.linalg.norm(
        (np.indices(shape).T - centre) * spacing, axis=-1
    ).T  # mm from the centre
    ragged = gaussian_filter(rng.normal(size=shape), 2)
    away = np.where(white, away + 3 * ragged / ragged.std(), np.inf)
    count = int(volume * 1000 / spacing.prod())
    return away <= np.sort(away, axis=None)[count]


def register(images, mask=None, prealign=None):
    """The map from static to moving."""
    from dipy_dl_reg import DeepRegistration

    options = {} if mask is None else {"moving_mask": mask}
    return DeepRegistration(progress=False).optimize(**images, **options, num_threads=1)


def leave_out(lesion, grid2world):
    """Mask of everything but the lesion and a margin."""
    spacing = np.linalg.norm(grid2world[:3, :3], axis=0)
    away = distance_transform_edt(~lesion, sampling=spacing)
    return (away > MASK_MARGIN).astype(np.uint8)


def measure_change(mapping, reference, static, lesion, moving_grid2world):
    """Distance of two maps on static's brain, outside the lesion and in its rim."""
    voxels = np.argwhere(static > 0.05 * static.max())[::5]
    points = to_world(voxels, reference.codomain_grid2world)
    ends = reference.transform_points(points), mapping.transform_points(points)
    away = np.linalg.norm(ends[0] - ends[1], axis=1)
    spacing = np.linalg.norm(moving_grid2world[:3, :3], axis=0)
    distance = distance_transform_edt(~lesion, sampling=spacing)
    at = to_world(ends[0], np.linalg.inv(moving_grid2world))
    distance = map_coordinates(distance, at.T, order=1, mode="nearest")
    row = {}
    for name, part in (
        ("outside", distance >= RIM),
        ("rim", (distance > 0) & (distance < RIM)),
    ):
        row[f"{name}_rms"] = float(np.sqrt(np.square(away[part]).mean()))
        row[f"{name}_max"] = float(away[part].max())
    return row


def compare(images, with_lesion, lesion, labels=None):
    """Rows with the lesion, with the mask, and of the control, by name."""
    moving_matrix = images["moving_grid2world"]
    reference = register(images)
    rng = np.random.default_rng(1)
    moving = images["moving"]
    noise = NOISE * moving.max() * rng.normal(size=moving.shape)
    noisy = np.where(moving > 0, moving + noise, 0).clip(0).astype(np.float32)
    ill = images | {"moving": with_lesion}
    mask = leave_out(lesion, moving_matrix)
    maps = {
        "noise": register(images | {"moving": noisy}),
        "no mask": register(ill),
        "mask": register(ill, mask),
    }
    before = None if labels is None else score(labels, reference)
    rows = {}
    for name, mapping in maps.items():
        args = mapping, reference, images["static"], lesion, moving_matrix
        rows[name] = measure_change(*args)
        if labels is not None:
            rows[name] |= {"dice": before, "gain": score(labels, mapping) - before}
    return rows


def score(labels, mapping):
    """Mean Dice over the labels that are not white matter."""
    common = np.intersect1d(labels["static"], labels["moving"])
    common = common[(common > 0) & ~np.isin(common, WHITE)]
    warped = np.asarray(warp_labels(labels, mapping))
    return float(dice(labels["static"], warped, common).mean())


def drawn_case(folder, pair, volume):
    """Compare the maps with and without a drawn lesion."""
    case = labelled_case(folder, 2.0, pair)
    image, matrix = case.images["moving"], case.images["moving_grid2world"]
    at = np.linalg.inv(case.labels["moving_grid2world"]) @ matrix
    places = to_world(np.moveaxis(np.indices(image.shape), 0, -1), at)
    near = map_coordinates(
        case.labels["moving"], np.moveaxis(places, -1, 0), order=0, mode="nearest"
    )
    rng = np.random.default_rng(0)
    lesion = draw_lesion(image.shape, matrix, near == LEFT_WHITE, volume, rng)
    grey = float(np.median(image[near >= CORTEX]))
    values = grey * (1 + 0.05 * rng.normal(size=image.shape))
    soft = gaussian_filter(lesion.astype(np.float32), 0.5)
    ill = ((1 - soft) * image + soft * values).astype(np.float32)
    return compare(case.images, ill, lesion, case.labels)


def fill_lesions(image, lesions, rng):
    """Replace each lesion by the mean of the brightest half around it, with noise."""
    filled = image.copy()
    parts, count = label(binary_dilation(lesions))
    for number in range(1, count + 1):
        part = parts == number
        around = binary_dilation(part, iterations=3) & (parts == 0) & (image > 0)
        values = image[around]
        if not values.size:
            continue
        bright = values[values >= np.median(values)]
        noise = bright.std() * rng.normal(size=int(part.sum()))
        filled[part] = bright.mean() + noise
    return filled


def fill_dark(image, lesions, rng):
    """The same where lesions are brighter than white matter (FLAIR)."""
    filled = image.copy()
    parts, count = label(binary_dilation(lesions))
    for number in range(1, count + 1):
        part = parts == number
        around = binary_dilation(part, iterations=3) & (parts == 0) & (image > 0)
        values = image[around]
        if values.size:
            noise = 0.5 * values.std() * rng.normal(size=int(part.sum()))
            filled[part] = np.median(values) + noise
    return filled


def real_case(folder, name, contrast):
    """Compare the maps of a patient's image and of the same with lesions filled."""
    image = nib.load(folder / f"{name}_{contrast}.nii.gz")
    lesions = np.asarray(nib.load(folder / f"{name}_lesions.nii.gz").dataobj) > 0
    data, template = image.get_fdata(dtype=np.float32), load_template()
    fill = fill_lesions if contrast == "t1" else fill_dark
    images = {
        "static": template.data, "static_grid2world": template.grid2world,
        "moving": fill(data, lesions, np.random.default_rng(0)),
        "moving_grid2world": image.affine, "prealign": np.eye(4),
    }  # fmt: skip
    rows = compare(images, data, lesions)
    volume = float(lesions.sum() * np.abs(np.linalg.det(image.affine[:3, :3])) / 1000)
    return {key: row | {"volume": volume} for key, row in rows.items()}


def format_row(key, rows):
    """The lines of a case."""
    lines = []
    for name, row in rows.items():
        cells = "".join(
            f"{row[k]:9.3f}"
            for k in ("outside_rms", "outside_max", "rim_rms", "rim_max")
        )
        volume = f"{row['volume']:.0f}" if "volume" in row else key[2]
        labels = f"   {row['dice']:.4f} {row['gain']:+.4f}" if "dice" in row else ""
        lines.append(f"{key[0]:7s}{key[1]:12s}{volume:>4s}  {name:9s}{cells}{labels}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--brains", type=Path)
    add("--patients", type=Path)
    add("--volumes", type=int, nargs="+", default=list(VOLUMES))
    add("--output", type=Path)
    add("--rows", type=Path, help="rows that are computed already")
    given = parser.parse_args()
    from dipy.utils.logging import logger  # DIPY sets the level when it is imported

    logger.setLevel("ERROR")
    saved, cases = SavedRows(given.rows), {}
    if given.brains:
        for pair in PAIRS:
            for volume in given.volumes:
                key = ("drawn", pair, str(volume))
                cases[key] = (drawn_case, given.brains, pair, volume)
    if given.patients:
        for path in sorted(given.patients.glob("*_lesions.nii.gz")):
            name = path.name.removesuffix("_lesions.nii.gz")
            for contrast in ("t1", "flair"):
                key = ("real", f"{name} {contrast}", "")
                cases[key] = (real_case, given.patients, name, contrast)
    names = "outside rms    max  rim rms      max"
    lines = [
        describe_machine(1),
        "",
        f"{'case':20s}ml   image      {names}   Dice, change",
    ]
    print(*lines, sep="\n")
    for key, (function, *args) in cases.items():
        rows = saved.get(key, lambda: function(*args))  # noqa: B023
        print(*format_row(key, rows), sep="\n", flush=True)
        lines += format_row(key, rows)
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
