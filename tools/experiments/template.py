r"""A template of twelve brains: the overlap of all pairs through it.

    python -m tools.experiments.template WORK --output doc/benchmark/template.txt

``DIPY_DL_REG_DATA`` names the folder of the data (`tools.experiments.template_brains`).
WORK is a folder for all results; what is there is not computed again. Steps:

- The brains are brought to 2 mm and stripped; `build_template` makes their template.
- For each of the 132 ordered pairs, the labels of A are carried to B through the
  template, with one interpolation by nearest neighbour
  (`tools.experiments.template_scores`), and compared with those of B.
- The same through single brains: each other brain is registered to the intermediate
  one, by the same function with the same options and affines (``--through NAME ...``;
  by default all twelve). A pair that contains the intermediate brain needs one map.
- The same through a template by ANTs' recipe, if WORK/ants has it
  (`tools.experiments.template_ants`), with ANTs' own registrations, and with
  registrations of this package to ANTs' template.

Labels only judge. Brains 1107 and 1122 took no part in the choice of any option; the
mean over pairs without them is given, too.
"""

import os

# Must be set before torch is imported, see tools/benchmarks/deformable.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from itertools import permutations
import json
from pathlib import Path
import platform
import time

import nibabel as nib
import numpy as np

from dipy_dl_reg import build_template, load_mapping, read_mapping
from dipy_dl_reg.groupwise.template_jobs import (
    Reference,
    SubjectJob,
    register_subject,
    write_reference,
)
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_subjects import read_subject, write_subject
from dipy_dl_reg.maps.record import list_versions
from tools.experiments.template_brains import data_folder, prepare_brains
from tools.experiments.template_scores import make_judged, score_pair

HELD_OUT = ("1107", "1122")
#: Number of ordered pairs of each group, see `describe`.
COUNTS = {"all": 132, "dev": 90, "oasis": 30, "ixi": 30, "mixed": 72}


def make_template(brains, work):
    """The affines and maps of the template's subjects, by name; builds it if needed."""
    out = work / "template"
    if not (out / "template.json").is_file():
        began, cpu = time.perf_counter(), time.process_time()
        build_template(
            [brain.image for brain in brains],
            out,
            names=[brain.name for brain in brains],
            device="cpu",
        )
        seconds = {"wall": time.perf_counter() - began}
        seconds["cpu"] = time.process_time() - cpu
        (work / "seconds.json").write_text(json.dumps(seconds))
    names = [brain.name for brain in brains]
    affines = {name: np.loadtxt(out / f"{name}_affine.txt") for name in names}
    maps = {name: load_mapping(out / f"{name}_mapping.npz") for name in names}
    return affines, maps


def store_subjects(brains, work):
    """Files of the brains as `register_subject` reads them, by name."""
    folder = work / "subjects"
    folder.mkdir(exist_ok=True)
    files = {brain.name: folder / f"{brain.name}.npz" for brain in brains}
    for brain in brains:
        if not files[brain.name].is_file():
            write_subject(
                read_subject(brain.image, None, brain.name), files[brain.name]
            )
    return files


def register_to(reference, files, affines, folder, static):
    """Maps of all brains to a reference image, as in an iteration of the template."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = {}
    for name, path in files.items():
        if path == reference:
            continue
        result = folder / f"static-{static}_moving-{name}_mapping.npz"
        register_subject(
            SubjectJob(path, reference, result, affines[name]),
            options=TemplateOptions(device="cpu"),
            fine=True,
        )
        maps[name] = load_mapping(result)
    return maps


def read_ants(brains, folder):
    """ANTs' own maps to its template, by name."""
    template = folder / "template.nii.gz"
    maps = {}
    for brain, name in ((b, file_stem(b)) for b in brains):
        if not (folder / name / "inverse_warp.nii.gz").is_file():
            continue
        maps[brain.name] = read_mapping(
            folder / name / "warp.nii.gz",
            inverse=folder / name / "inverse_warp.nii.gz",
            affine=folder / name / "affine.mat",
            like="ants",
            static=nib.load(template),
            moving=brain.image,
        )
    return maps


def file_stem(brain):
    """Name of a brain's file without its suffix."""
    return Path(brain.image.get_filename()).name.removesuffix(".nii.gz")


def score_all(judged, maps, stored):
    """Dice of all ordered pairs; the intermediate brain, if it is one, has no map.

    They are read from the file `stored`, or written there.
    """
    if stored.is_file():
        rows = json.loads(stored.read_text())
        return {(source, target): value for source, target, value in rows}
    scores, here = {}, {}
    for name, each in judged.items():
        mapping = maps.get(name)
        points = each.points
        here[name] = mapping.transform_points_inverse(points) if mapping else points
    for source, target in permutations(judged, 2):
        mapping = maps.get(source)
        points = here[target]
        points = mapping.transform_points(points) if mapping else points
        scores[source, target] = score_pair(judged[source], judged[target], points)
    stored.parent.mkdir(exist_ok=True)
    stored.write_text(json.dumps([[*pair, value] for pair, value in scores.items()]))
    return scores


def describe(label, scores):
    """One line of the table: means over all pairs and over groups of them."""
    groups = {
        "all": scores,
        "dev": {p: v for p, v in scores.items() if not set(p) & set(HELD_OUT)},
        "oasis": {p: v for p, v in scores.items() if not any("ixi" in n for n in p)},
        "ixi": {p: v for p, v in scores.items() if all("ixi" in n for n in p)},
    }
    groups["mixed"] = {
        p: v for p, v in scores.items() if sum("ixi" in n for n in p) == 1
    }
    cells = [
        f"{np.mean(list(each.values())):8.4f}"
        if len(each) == COUNTS[name]
        else "       -"
        for name, each in groups.items()
    ]
    return f"{label:36s}{''.join(cells)}"


def report(lines, given):
    """Print a line, and write all lines so far to the file of the results."""
    print(lines[-1], flush=True)
    if given.output is not None:
        given.output.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--through", nargs="*", default=None)
    parser.add_argument("--output", type=Path, default=None)
    given = parser.parse_args()
    brains = prepare_brains(data_folder(), given.work / "brains")
    judged = {brain.name: make_judged(brain.labels) for brain in brains}
    affines, maps = make_template(brains, given.work)
    lines = [*heading(given.work), ""]
    lines.append(f"{'mean Dice through':36s}" + "".join(
        f"{name:>8s}" for name in ("all", "no 11xx", "OASIS", "IXI", "mixed")
    ))  # fmt: skip
    lines.append(
        describe(
            "the template",
            score_all(judged, maps, given.work / "scores" / "template.json"),
        )
    )
    report(lines, given)
    files = store_subjects(brains, given.work)
    for name in list(files) if given.through is None else given.through:
        to_brain = {
            other: matrix @ np.linalg.inv(affines[name])
            for other, matrix in affines.items()
        }
        single = register_to(files[name], files, to_brain, given.work / "single", name)
        stored = given.work / "scores" / f"{name}.json"
        lines.append(describe(f"brain {name}", score_all(judged, single, stored)))
        report(lines, given)
    ants = given.work / "ants"
    own = read_ants(brains, ants)
    if own:
        part = {name: each for name, each in judged.items() if name in own}
        scores = score_all(part, own, given.work / "scores" / "ants.json")
        lines.append(describe("ANTs' template, ANTs' maps", scores))
        report(lines, given)
    if own and (ants / "seconds.json").is_file():
        crossed = register_to_ants(ants, files, own, given.work)
        scores = score_all(judged, crossed, given.work / "scores" / "to_ants.json")
        lines.append(describe("ANTs' template, maps of this package", scores))
        seconds = json.loads((ants / "seconds.json").read_text())
        minutes = seconds["template_cpu"] / 60
        took = f"{minutes:.1f} min of one processor for the template"
        lines += ["", f"ANTs (antspyx {seconds['version']}): {took}"]
        report(lines, given)


def register_to_ants(ants, files, own, work):
    """Maps of this package to ANTs' template, from ANTs' affines."""
    image = nib.load(ants / "template.nii.gz")
    subject = read_subject(image, None, "template")
    path = work / "ants_template.npz"
    write_reference(Reference(subject.values, subject.grid, None), path)
    affines = {name: np.linalg.inv(mapping.prealign) for name, mapping in own.items()}
    return register_to(path, files, affines, work / "to_ants", "ants")


def heading(work):
    """What was run, and the table of the iterations."""
    seconds = json.loads((work / "seconds.json").read_text())
    versions = ", ".join(f"{k} {v}" for k, v in list_versions().items())
    table = (work / "template" / "iterations.tsv").read_text().expandtabs(14)
    options = TemplateOptions(device="cpu").describe()
    return [
        "python -m tools.experiments.template",
        f"{platform.machine()}, one thread on a shared computer; {versions}",
        f"Options: {json.dumps(options)}",
        "12 brains at 2 mm: 6 of OASIS (stripped), 6 of IXI (whole heads, stripped by",
        "the MNI152 brain mask, which a registration to the MNI152 template carried).",
        f"The template took {seconds['cpu'] / 60:.1f} min of one processor "
        f"({seconds['wall'] / 60:.1f} min on the clock, shared with other work).",
        "",
        *(line.rstrip() for line in table.splitlines()),
    ]


if __name__ == "__main__":
    main()
