"""Greedy (picsl-greedy): diffeomorphic demons on local correlation. See job.py.

The inverse is computed after the registration and timed apart: Greedy's own command
gives it only to those who ask. -wp 0: fields as they are, where it would round them to
0.1 voxel, which Jacobian determinants would feel. Where its inverse folded, on brains,
was the outermost layer of voxels. No two runs are the same.
"""

from importlib.metadata import version

from job import clocked, main, vectors_turned
import numpy as np


def words_of(options, threads):
    """Greedy's options as its command line has them."""
    words = [f"-{name} {value}" for name, value in options.items()]
    return " ".join([*words, f"-threads {threads}"])


def as_array(image):
    import SimpleITK

    field = SimpleITK.GetArrayFromImage(image)  # z first
    return vectors_turned(field.transpose(2, 1, 0, 3))


def register(job):
    from picsl_greedy import Greedy3D
    import SimpleITK

    # Its matrices are in NIfTI's world, its fields in ITK's.
    affine = job.folder / "prealign.mat"
    np.savetxt(affine, job.prealign, fmt="%.17g")
    call = f"-i static moving -it {affine} {words_of(job.options, job.threads)}"
    call = f"{call} -wp 0 -o warp"
    images = {
        role: SimpleITK.ReadImage(job.path(role), SimpleITK.sitkFloat32)
        for role in ("static", "moving")
    }
    greedy = Greedy3D()
    _, result = clocked(greedy.execute, call, **images, warp=None)
    job.keep("field", as_array(greedy["warp"]))
    # It inverts and applies fields that are files.
    warp = job.path("warp")
    SimpleITK.WriteImage(greedy["warp"], warp)
    _, inverse = clocked(greedy.execute, f"-wp 0 -iw {warp} inverse", inverse=None)
    job.keep("inverse", as_array(greedy["inverse"]))
    if job.has_labels:
        grid, labels, warped = map(
            job.path, ("static_labels", "moving_labels", "warped_labels")
        )
        greedy.execute(f"-rf {grid} -ri NN -rm {labels} {warped} -r {warp} {affine}")
    call = call.replace(str(affine), "prealign")
    return result | {"call": call, "inverse_seconds": inverse["seconds"]}


if __name__ == "__main__":
    main(register, lambda: f"picsl-greedy {version('picsl_greedy')}")
