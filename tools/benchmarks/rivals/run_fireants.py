"""FireANTs: greedy diffeomorphic registration in torch, here on the CPU. See job.py.

FireANTs applies the affine first, x -> affine(x) + v(x), and saves the whole map as a
field in ITK's format. The field that is saved here is this map followed by the inverse
of the prealign. FireANTs cannot warp labels by nearest neighbour to another grid, so
ITK applies the field and the affine. A small registration runs first, so that torch is
initialized; only `optimize` is timed. FireANTs can compute an inverse by a second
optimization, which takes as long as the first and is not used here.
"""

from importlib.metadata import version

from job import (
    convert_matrix,
    convert_vectors,
    main,
    measure_call,
    read_vectors,
    remove_prealign,
)
import numpy as np


def make_registration(job, static, moving, **options):
    """FireANTs' registration object for two SimpleITK images."""
    from fireants.io.image import BatchedImages, Image
    from fireants.registration.greedy import GreedyRegistration
    import torch

    images = [BatchedImages([Image(x, device="cpu")]) for x in (static, moving)]
    affine = torch.from_numpy(convert_matrix(job.prealign)).float()[None]
    return GreedyRegistration(
        fixed_images=images[0],
        moving_images=images[1],
        init_affine=affine,
        progress_bar=False,
        **job.options | options,
    )


def warp_labels(job, field):
    """Warp the moving labels with ITK by the field, then the prealign."""
    import SimpleITK

    static = SimpleITK.ReadImage(job.path("static"))
    vectors = convert_vectors(field).transpose(2, 1, 0, 3).astype(np.float64)
    warp = SimpleITK.GetImageFromArray(vectors, isVector=True)
    warp.CopyInformation(static)
    matrix = convert_matrix(job.prealign)
    affine = SimpleITK.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel())
    affine.SetTranslation(matrix[:3, 3])
    # The last transform of the list is applied first.
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
    make_registration(job, *images, scales=[4], iterations=[2]).optimize()
    registration = make_registration(job, *images)
    _, result = measure_call(registration.optimize)
    path = str(job.folder / "total.nii.gz")
    registration.save_as_ants_transforms(path)
    field = remove_prealign(read_vectors(path), job.grid2world(), job.prealign)
    job.save_array("field", field)
    if job.has_labels:
        warp_labels(job, field)
    words = ", ".join(f"{k}={v!r}" for k, v in job.options.items())
    return result | {"call": f"GreedyRegistration(init_affine=prealign, {words}), CPU"}


if __name__ == "__main__":
    main(register, lambda: f"fireants {version('fireants')}")
