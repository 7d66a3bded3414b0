"""syntx: symmetric normalization in torch, here on the CPU. See job.py.

syntx writes its maps to files in ANTs' format, and ANTs warps the labels. The time
includes writing the files and warping both images. A small registration runs first, so
that torch is initialized.
"""

from importlib.metadata import version

from job import main, measure_call, read_vectors
from run_ants import warp_labels, write_affine


def register(job):
    import ants
    import syntx
    import torch

    torch.set_num_threads(job.threads)
    images = [ants.image_read(job.path(role)) for role in ("static", "moving")]
    options = {"device": "cpu", "initial_transform": write_affine(job)}
    options["outprefix"] = str(job.folder / "syntx")
    small = [ants.resample_image(x, [n * 4 for n in x.spacing]) for x in images]
    syntx.syn(*small, reg_iterations=[2], **options)
    found, result = measure_call(syntx.syn, *images, **options, **job.options)
    warp, affine = found["fwdtransforms"]
    job.save_array("field", read_vectors(warp))
    job.save_array("inverse", read_vectors(found["invtransforms"][-1]))
    if job.has_labels:
        warp_labels(job, [warp, affine])
    words = ", ".join(f"{k}={v!r}" for k, v in job.options.items())
    return result | {"call": f"syntx.syn(initial_transform=prealign, {words}), CPU"}


if __name__ == "__main__":
    main(register, lambda: f"syntx {version('syntx')}")
