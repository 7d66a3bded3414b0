"""Registers the cases of uncertainty_cases.py once and again, and keeps the fields."""

from pathlib import Path
import time

import numpy as np

from dipy_dl_reg import DeepRegistration, load_mapping, save_mapping
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.registration.repeated_registration import (
    PairOfImages,
    Repetition,
    repeat_registration,
)
from dipy_dl_reg.registration.uncertainty_measures import (
    Window,
    measure_precision,
    measure_structure,
    measure_unexplained,
)
from tools.benchmarks.cases import labelled_case
from tools.experiments import uncertainty_cases as cases

#: Repetitions that are compared.
REPETITIONS = {
    "swap": Repetition(swaps=True),
    "change": Repetition(False, True, True, True, seed=1),
    "swap and change": Repetition(True, True, True, True, seed=2),
    "no network": Repetition(False, True, True, True, seed=3),
}


def make_case(kind, name, data, cache, spacing):
    """Make a case of uncertainty_cases.py by its kind and name."""
    seed = sum(map(ord, kind + name))
    if kind == "labels":
        return cases.label_case(data / "t1_labels", name, spacing)
    if kind == "heads":
        return cases.label_case(cache / "heads", name, spacing)
    if kind == "t1":
        residual = find_residual(name, data / "t1_labels", cache, spacing)
        return cases.deformed_case(data / "t1_labels", name, spacing, seed, residual)
    if kind == "slice":
        subject, _, number = name.partition(":")
        return cases.slice_case(data / "t1_labels", subject, float(number), seed)
    if kind == "motion":
        contrast, _, number = name.partition(":")
        return cases.motion_case(data / "diffusion/subject_a", contrast, int(number))
    path = data / f"label_maps/anatomy_{name}.nii.gz"
    return cases.drawn_case(path, spacing, seed, kind.partition("-")[2] or "T1")


def register(images, cache, name):
    """Map of a pair with default options, from the cache if it is there."""
    path = cache / f"{name}.map.npz"
    if not path.is_file():
        registration = DeepRegistration()
        registration.verbosity = 0
        save_mapping(registration.optimize(**images), path)
    return load_mapping(path)


def find_residual(subject, folder, cache, spacing):
    """What registration of two other people left, brought to a person's space."""
    others = [n for n in ("1000", "1001", "1006", "1012") if n != subject]
    second, third = others[0], others[1]
    left, there = f"{second}:{third}", f"{subject}:{second}"
    pair = labelled_case(folder, spacing, left).images
    mapping = register(pair, cache, f"labels_{left}_{spacing:g}")
    warped = mapping.transform(pair["moving"])
    factor = np.median(pair["static"][pair["static"] > 0])
    factor /= np.median(warped[warped > 0])
    both = (warped > 0) & (pair["static"] > 0)
    residual = np.where(both, pair["static"] - factor * warped, 0).astype(np.float32)
    pair = labelled_case(folder, spacing, there).images
    mapping = register(pair, cache, f"labels_{there}_{spacing:g}")
    own = mapping.transform(residual)
    scale = np.median(pair["static"][pair["static"] > 0])
    scale /= np.median(pair["moving"][pair["moving"] > 0])
    return own * scale, pair["static_grid2world"]


def measure_locally(static, warped, inside, displacement, spacing):
    """Measures that might predict the error, at each voxel."""
    window = Window(spacing)
    static = np.asarray(static, np.float32)
    trace = measure_structure(static, inside, window).trace
    strain = sum(
        np.square(slope)
        for component in np.moveaxis(displacement, -1, 0)
        for slope in window.gradient(component)
    )
    return {
        "precision": measure_precision(static, warped, inside, window),
        "mismatch": np.sqrt(measure_unexplained(static, warped, inside, window)[1]),
        "blankness": np.sqrt(trace[inside].mean() / trace),
        "strain": np.sqrt(window.mean(strain)),
    }


def run_case(kind, name, data, cache, spacing, repetitions=tuple(REPETITIONS)):
    """Register a case and its repetitions; store what analysis needs; return the path.

    Stored: displacement differences of the repetitions (mm, in static's world), local
    measures, the object, the error vectors or the points and distances of boundaries.
    """
    path = cache / f"{kind}_{name}_{spacing:g}.npz"
    stored = dict(np.load(path)) if path.is_file() else {}
    missing = [r for r in repetitions if f"d {r}" not in stored]
    if stored and not missing:
        return path
    began = time.time()
    case = make_case(kind, name, data, cache, spacing)
    images = dict(case.images)
    dim = images["static"].ndim
    if images["prealign"] is None:
        images["prealign"] = np.eye(dim + 1)
    mapping = register(images, cache, f"{kind}_{name}_{spacing:g}")
    pair = PairOfImages(
        images["static"],
        images["moving"],
        Grid(images["static"].shape, images["static_grid2world"]),
        Grid(images["moving"].shape, images["moving_grid2world"]),
        images["prealign"],
    )
    points = cases.voxel_points(images["static"].shape, images["static_grid2world"])
    flat = points.reshape(-1, dim)
    mapped = mapping.transform_points(flat)
    back = np.linalg.inv(images["prealign"][:dim, :dim]).T
    shape = points.shape
    if not stored:
        warped = mapping.transform(np.asarray(images["moving"], np.float32))
        grid = pair.static_grid
        local = measure_locally(
            images["static"], warped, case.inside, mapping.backward, grid.spacing
        )
        stored = {f"m {k}": v.astype(np.float32) for k, v in local.items()}
        stored["inside"], stored["affine"] = case.inside, grid.affine
        stored["u"] = mapping.backward.astype(np.float16)
        if case.truth is not None:
            error = (mapped - case.truth.reshape(-1, dim)) @ back
            stored["error"] = error.reshape(shape).astype(np.float16)
        else:
            stored |= case.boundary(mapping.transform_points)
    for each in missing:
        options = {"model": None} if each == "no network" else {}
        other = repeat_registration(pair, REPETITIONS[each], flat, **options)
        change = ((other - mapped) @ back).reshape(shape)
        stored[f"d {each}"] = change.astype(np.float16)
    np.savez_compressed(path, **stored)
    print(kind, name, f"{spacing:g} mm, {time.time() - began:.0f} s", flush=True)
    return path


def run_all(
    data, cache, spacing, kinds, parts, repetitions=tuple(REPETITIONS), most=99
):
    """Run cases of some kinds and parts (0: to calibrate on, 1: to report)."""
    cache.mkdir(parents=True, exist_ok=True)
    listed = cases.list_cases(Path(data))
    return {
        (kind, part): [
            run_case(kind, name, data, cache, spacing, repetitions)
            for name in listed[kind][part][:most]
        ]
        for part in parts
        for kind in kinds
    }
