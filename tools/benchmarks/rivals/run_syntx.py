"""syntx: symmetric normalization in torch, here on the CPU. See job.py.

Its maps are files for ANTs, which also warps the labels; the files and both warped
images are in its seconds, as a user gets them. A small registration before the clock
starts lets torch get ready.
"""

from importlib.metadata import version

from job import clocked, main, read_vectors
from run_ants import affine_file, warp_labels


def register(job):
    import ants
    import syntx
    import torch

    torch.set_num_threads(job.threads)
    images = [ants.image_read(job.path(role)) for role in ("static", "moving")]
    options = {"device": "cpu", "initial_transform": affine_file(job)}
    options["outprefix"] = str(job.folder / "syntx")
    small = [ants.resample_image(x, [n * 4 for n in x.spacing]) for x in images]
    syntx.syn(*small, reg_iterations=[2], **options)
    found, result = clocked(syntx.syn, *images, **options, **job.options)
    warp, affine = found["fwdtransforms"]
    job.keep("field", read_vectors(warp))
    job.keep("inverse", read_vectors(found["invtransforms"][-1]))
    if job.has_labels:
        warp_labels(job, [warp, affine])
    words = ", ".join(f"{k}={v!r}" for k, v in job.options.items())
    return result | {"call": f"syntx.syn(initial_transform=prealign, {words}), CPU"}


if __name__ == "__main__":
    main(register, lambda: f"syntx {version('syntx')}")
