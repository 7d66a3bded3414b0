"""ANTs (antspyx): SyN. See job.py.

`ants.registration` also writes the transforms to files and warps both images; its time
includes both.
"""

from importlib.metadata import version

from job import convert_matrix, main, measure_call, read_vectors


def write_affine(job):
    """Write the prealign in ANTs' format."""
    import ants

    matrix = convert_matrix(job.prealign)
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
    """Warp the moving labels by nearest neighbour."""
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
    found, result = measure_call(
        ants.registration,
        static,
        moving,
        initial_transform=write_affine(job),
        outprefix=str(job.folder / "ants"),
        **job.options,
    )
    warp, affine = found["fwdtransforms"]
    job.save_array("field", read_vectors(warp))
    job.save_array("inverse", read_vectors(found["invtransforms"][-1]))
    if job.has_labels:
        warp_labels(job, [warp, affine])
    words = ", ".join(f"{k}={v!r}" for k, v in job.options.items())
    return result | {"call": f"ants.registration(initial_transform=prealign, {words})"}


if __name__ == "__main__":
    main(register, lambda: f"antspyx {version('antspyx')}")
