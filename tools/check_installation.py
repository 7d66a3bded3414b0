"""Check an installed package in seconds, without the tests and without their packages.

    python tools/check_installation.py [--loops compiled | --loops missing]

registers two small images by the installed package (not by the folder that this script
lies in), compares the compiled loops with torch, and runs each command's help.  With
`--loops missing` it requires the warning of an installation without a C compiler.
"""

import argparse
from importlib.metadata import entry_points, version
from pathlib import Path
import platform
import subprocess
import sys
import warnings

import numpy as np


def make_images():
    """Return two ellipsoids of different shape, with some structure."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"), axis=-1)
    radii = [np.linalg.norm(at / axes, axis=-1) for axes in ((0.8, 0.6, 0.7), 0.7)]
    return [np.exp(-(r**4)) * (2 + np.cos(5 * r)) for r in radii]


def register(static, moving):
    """Return the warped image and the texts of the warnings."""
    from dipy_dl_reg import DeepRegistration

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registration = DeepRegistration(level_iters=[20, 20], device="cpu")
        mapping = registration.optimize(static, moving)
    return mapping.transform(moving), [str(w.message) for w in caught]


def check_registration(loops):
    """Register with and without the loops; return lines for the user."""
    from dipy_dl_reg.geometry.kernels import dispatch

    found = "compiled" if dispatch.available() else "missing"
    if loops not in (None, found):
        raise SystemExit(f"The loops are {found}, and should be {loops}.")
    static, moving = make_images()
    warped, texts = register(static, moving)
    said = [text for text in texts if "compiled loops" in text]
    if len(said) != (found == "missing"):
        raise SystemExit(f"The loops are {found}, but the warnings were {said}.")
    with dispatch.without_kernels():
        plain, _ = register(static, moving)
    before, after = (np.square(static - image).sum() for image in (moving, warped))
    apart = np.abs(warped - plain).max() / np.ptp(static)
    if not after < 0.2 * before or apart > 0.05:
        raise SystemExit(f"squared difference {before} to {after}, torch: {apart}")
    return [
        f"loops: {found}",
        f"squared difference: {before:.1f} before, {after:.1f} after",
        f"largest difference between loops and torch: {apart:.1e} of the range",
        *said,
    ]


def check_commands():
    """Run the help of each command; return their number."""
    commands = [
        entry
        for entry in entry_points(group="console_scripts")
        if entry.value.startswith("dipy_dl_reg.")
    ]
    for entry in commands:
        module, name = entry.value.split(":")
        code = (
            f"import sys; sys.argv[1:] = ['--help']; import {module} as m; m.{name}()"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return len(commands)


def main():
    """Check, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", choices=["compiled", "missing"])
    arguments = parser.parse_args()
    import dipy_dl_reg

    names = ("dipy_dl_reg", "torch", "dipy", "numpy", "scipy", "nibabel")
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print(Path(dipy_dl_reg.__file__).parent)
    print("\n".join(check_registration(arguments.loops)))
    print(f"commands: {check_commands()}")


if __name__ == "__main__":
    main()
