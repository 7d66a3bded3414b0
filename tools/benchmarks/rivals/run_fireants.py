"""FireANTs: greedy diffeomorphic registration in torch, here on the CPU. See job.py.

It composes the affine first, x -> affine(x) + v(x), and saves the whole as a field in
ITK's form; the one kept is that of the inverse prealign after it. FireANTs itself warps
no label maps to the nearest neighbour on a grid of their own, so ITK applies the field
and the affine. A small registration before the clock starts lets torch get ready; the
clock is on `optimize` alone. It can look for an inverse by a second optimization as
long as the first; it is not asked to.
"""

from importlib.metadata import version

from job import before_prealign, clocked, main, read_vectors, turned, vectors_turned
import numpy as np


def prepared(job, static, moving, **options):
    """FireANTs' object for two SimpleITK images."""
    from fireants.io.image import BatchedImages, Image
    from fireants.registration.greedy import GreedyRegistration
    import torch

    images = [BatchedImages([Image(x, device="cpu")]) for x in (static, moving)]
    affine = torch.from_numpy(turned(job.prealign)).float()[None]
    return GreedyRegistration(
        fixed_images=images[0],
        moving_images=images[1],
        init_affine=affine,
        progress_bar=False,
        **job.options | options,
    )


def warp_labels(job, field):
    """By ITK: the field, then the prealign."""
    import SimpleITK

    static = SimpleITK.ReadImage(job.path("static"))
    vectors = vectors_turned(field).transpose(2, 1, 0, 3).astype(np.float64)
    warp = SimpleITK.GetImageFromArray(vectors, isVector=True)
    warp.CopyInformation(static)
    matrix = turned(job.prealign)
    affine = SimpleITK.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel())
    affine.SetTranslation(matrix[:3, 3])
    # The last one added is the first to be applied.
    whole = SimpleITK.CompositeTransform(
        [affine, SimpleITK.DisplacementFieldTransform(warp)]
    )
    grid, labels = (
        SimpleITK.ReadImage(job.path(f"{role}_labels")) for role in ("static", "moving")
    )
    warped = SimpleITK.Resample(labels, grid, whole, SimpleITK.sitkNearestNeighbor, 0)
    SimpleITK.WriteImage(warped, job.path("warped_labels"))


def register(job):
    import SimpleITK
    import torch

    torch.set_num_threads(job.threads)
    images = [
        SimpleITK.ReadImage(job.path(role), SimpleITK.sitkFloat32)
        for role in ("static", "moving")
    ]
    prepared(job, *images, scales=[4], iterations=[2]).optimize()
    registration = prepared(job, *images)
    _, result = clocked(registration.optimize)
    path = str(job.folder / "total.nii.gz")
    registration.save_as_ants_transforms(path)
    field = before_prealign(read_vectors(path), job.grid2world(), job.prealign)
    job.keep("field", field)
    if job.has_labels:
        warp_labels(job, field)
    words = ", ".join(f"{k}={v!r}" for k, v in job.options.items())
    return result | {"call": f"GreedyRegistration(init_affine=prealign, {words}), CPU"}


if __name__ == "__main__":
    main(register, lambda: f"fireants {version('fireants')}")
