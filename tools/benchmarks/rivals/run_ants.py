"""ANTs (antspyx): SyN. See job.py.

`ants.registration` writes the transforms to files and warps both images before it
returns: both are in its seconds, as a user gets them.
"""

from importlib.metadata import version

from job import clocked, main, read_vectors, turned


def affine_file(job):
    """The prealign as ANTs reads it."""
    import ants

    matrix = turned(job.prealign)
    transform = ants.create_ants_transform(
        transform_type="AffineTransform",
        dimension=3,
        matrix=matrix[:3, :3],
        translation=matrix[:3, 3],
        center=[0, 0, 0],
    )
    path = str(job.folder / "prealign.mat")
    ants.write_transform(transform, path)
    return path


def warp_labels(job, transforms):
    import ants

    grid, labels = (
        ants.image_read(job.path(f"{x}_labels")) for x in ("static", "moving")
    )
    warped = ants.apply_transforms(
        grid, labels, transforms, interpolator="nearestNeighbor"
    )
    ants.image_write(warped, job.path("warped_labels"))


def register(job):
    import ants

    static, moving = (ants.image_read(job.path(role)) for role in ("static", "moving"))
    found, result = clocked(
        ants.registration,
        static,
        moving,
        initial_transform=affine_file(job),
        outprefix=str(job.folder / "ants"),
        **job.options,
    )
    warp, affine = found["fwdtransforms"]
    job.keep("field", read_vectors(warp))
    job.keep("inverse", read_vectors(found["invtransforms"][-1]))
    if job.has_labels:
        warp_labels(job, [warp, affine])
    words = ", ".join(f"{k}={v!r}" for k, v in job.options.items())
    return result | {"call": f"ants.registration(initial_transform=prealign, {words})"}


if __name__ == "__main__":
    main(register, lambda: f"antspyx {version('antspyx')}")
