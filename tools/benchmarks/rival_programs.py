"""Other programs that the deformable benchmark runs, and how they are called.

Each program is run by an adapter, tools/benchmarks/rivals/run_NAME.py, in a separate
process with the Python of the environment where it is installed. The first lines of
tools/benchmarks/rivals/job.py describe the files that adapters read and write.
"""

from importlib.util import find_spec
import json
import os
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np

ADAPTERS = Path(__file__).parent / "rivals"
#: Name of the method: the program, and options other than its defaults.
RIVALS = {
    "ants": (
        "ants",
        {
            "type_of_transform": "SyNOnly",
            "syn_metric": "CC",
            "syn_sampling": 2,
            "reg_iterations": [100, 70, 20],
        },
    ),
    # For mutual information (Mattes), syn_sampling is the number of bins.
    "ants-mi": (
        "ants",
        {
            "type_of_transform": "SyNOnly",
            "syn_metric": "mattes",
            "syn_sampling": 32,
            "reg_iterations": [100, 70, 20],
        },
    ),
    "greedy": (
        "greedy",
        {"m": "NCC 2x2x2", "n": "100x100x50", "s": "1.0vox 0.5vox"},
    ),
    "greedy-fast": ("greedy", {"m": "NCC 2x2x2", "n": "100x50x10"}),
    "elastix": ("elastix", {}),
    "fireants": (
        "fireants",
        {
            "scales": [4, 2, 1],
            "iterations": [200, 100, 50],
            "cc_kernel_size": 5,
            "smooth_grad_sigma": 1.0,
        },
    ),
    "syntx": ("syntx", {"reg_iterations": [100, 100, 50]}),
}
#: Module by which an installed program is recognized.
MODULES = {
    "ants": "ants",
    "greedy": "picsl_greedy",
    "elastix": "itk",
    "fireants": "fireants",
    "syntx": "syntx",
}
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def describe_call(method):
    """Describe the program and options of a method."""
    program, options = RIVALS[method]
    return f"{program}({', '.join(f'{k}={v}' for k, v in options.items())})"


def find_python(program, pythons):
    """Python of the environment of a program, or None if it is unknown."""
    here = find_spec(MODULES[program]) and sys.executable
    return pythons.get(program, here)


def run_adapter(program, python, word, threads):
    """Run an adapter and return its output; RuntimeError with its last line."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    done = subprocess.run(
        [python, ADAPTERS / f"run_{program}.py", word],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RuntimeError(f"{program}: {last[-1][:300]}")
    return done.stdout


def find_available(methods, pythons):
    """Methods that can be run, and versions of the rivals; print what is missing."""
    versions, missing = {}, set()
    for program in dict.fromkeys(RIVALS[m][0] for m in methods if m in RIVALS):
        python = find_python(program, pythons)
        try:
            if python is None:
                raise RuntimeError(f"{program}: no --python {program}=PATH names it")
            versions[program] = query_version(program, python)
        except RuntimeError as error:
            print(f"Left out: {error}.")
            missing.add(program)
    methods = [m for m in methods if m not in RIVALS or RIVALS[m][0] not in missing]
    return methods, versions


def query_version(program, python):
    """Name and version of a program; RuntimeError if this Python cannot run it."""
    try:
        words = run_adapter(program, python, "--version", 1)
        return json.loads(words.splitlines()[-1])
    except OSError as error:
        raise RuntimeError(f"{program}: {error}") from error


def write_job(folder, options, case, threads):
    """Write the files that an adapter reads."""
    images = case.images
    words = {"threads": threads, "options": options}
    words["prealign"] = np.asarray(images.get("prealign", np.eye(4))).tolist()
    (folder / "job.json").write_text(json.dumps(words))
    for role in ("static", "moving"):
        image = np.asarray(images[role], np.float32)
        nifti = nib.Nifti1Image(image, images[f"{role}_grid2world"])
        nib.save(nifti, folder / f"{role}.nii")
        if case.labels:
            labels = np.asarray(case.labels[role], np.int32)
            nifti = nib.Nifti1Image(labels, case.labels[f"{role}_grid2world"])
            nib.save(nifti, folder / f"{role}_labels.nii")


def read_map(folder, images):
    """Make DIPY's map from an adapter's fields; and tell whether it has an inverse."""
    from dipy.align.imwarp import DiffeomorphicMap

    static, moving = images["static"], images["moving"]
    prealign = images.get("prealign")
    mapping = DiffeomorphicMap(
        static.ndim,
        static.shape,
        disp_grid2world=images["static_grid2world"],
        domain_shape=moving.shape,
        domain_grid2world=images["moving_grid2world"],
        codomain_shape=static.shape,
        codomain_grid2world=images["static_grid2world"],
        prealign=None if prealign is None else np.linalg.inv(prealign),
    )
    mapping.is_inverse = True  # as SyN returns it
    mapping.backward = np.load(folder / "field.npy")
    has_inverse = (folder / "inverse.npy").exists()
    mapping.forward = np.zeros_like(mapping.backward)
    if has_inverse:
        mapping.forward = np.load(folder / "inverse.npy")
    return mapping, has_inverse


def register_with_rival(method, case, setup):
    """Register with a rival: map, whether it has an inverse, labels, other results."""
    program, options = RIVALS[method]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder, options, case, setup.threads)
        python = find_python(program, setup.pythons)
        run_adapter(program, python, folder, setup.threads)
        mapping, has_inverse = read_map(folder, case.images)
        facts = json.loads((folder / "result.json").read_text())
        warped = None
        if case.labels:
            nifti = nib.load(folder / "warped_labels.nii")
            warped = np.rint(np.asarray(nifti.dataobj)).astype(np.int32)
            warped = warped.reshape(case.labels["static"].shape)
    return mapping, has_inverse, warped, facts
