r"""A template of twelve brains by ANTs' recipe, for comparison.

    python -m tools.experiments.template_ants BRAINS OUT

BRAINS is the folder that `tools.experiments.template_brains` wrote, OUT a folder for
the template (``template.nii.gz``), the transforms of each brain to it and
``seconds.json``. Needs ``antspyx`` (and no module of this package), which pins other
versions of NumPy: run it in an environment of its own.

The recipe is ``ants.build_template`` with its default options: three iterations of SyN
(mutual information, 40 iterations at 8 mm and 20 at 4 mm), gradient step 0.2,
sharpening with blending weight 0.75. As in ANTs' script, intensities are divided by
their mean first, and the first template is the mean of the brains after a rigid
registration, here to the first brain on a grid with a margin. A last registration to
the template, with the same options, gives the transforms.
"""

import os

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import json
from pathlib import Path
import shutil
import sys
import time

import ants
import numpy as np

#: Voxels added to each side of the first brain's grid.
MARGIN = 10


def read(path):
    """A brain whose mean intensity is 1."""
    image = ants.image_read(str(path))
    values = image.numpy()
    return image / float(values[values > 0].mean())


def first_template(images):
    """The mean of the brains after a rigid registration to the first."""
    fixed = ants.pad_image(images[0], pad_width=[(MARGIN, MARGIN)] * 3)
    moved = [
        ants.registration(fixed, image, type_of_transform="Rigid")["warpedmovout"]
        for image in images
    ]
    return fixed.new_image_like(np.mean([m.numpy() for m in moved], axis=0))


def keep_transforms(found, folder):
    """Copy the transforms of a registration to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    affine, warp = found["fwdtransforms"][1], found["fwdtransforms"][0]
    inverse = next(f for f in found["invtransforms"] if f.endswith(".nii.gz"))
    for source, name in (
        (affine, "affine.mat"),
        (warp, "warp.nii.gz"),
        (inverse, "inverse_warp.nii.gz"),
    ):
        shutil.copy(source, folder / name)


def main():
    brains, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    paths = sorted(brains.glob("*.nii.gz"))
    images = [read(path) for path in paths]
    begin, cpu = time.perf_counter(), time.process_time()
    template = ants.build_template(first_template(images), images)
    seconds = {"template": time.perf_counter() - begin}
    seconds["template_cpu"] = time.process_time() - cpu
    ants.image_write(template, str(out / "template.nii.gz"))
    begin = time.perf_counter()
    for path, image in zip(paths, images):
        found = ants.registration(template, image, type_of_transform="SyN")
        keep_transforms(found, out / path.name.removesuffix(".nii.gz"))
        print(path.name, flush=True)
    seconds["registration"] = time.perf_counter() - begin
    seconds["version"] = ants.__version__
    (out / "seconds.json").write_text(json.dumps(seconds, indent=2) + "\n")


if __name__ == "__main__":
    main()
