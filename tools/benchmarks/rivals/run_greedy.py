"""Greedy (picsl-greedy): diffeomorphic demons on local correlation. See job.py.

The inverse is computed after the registration and timed separately, because Greedy
computes it only on request. With -wp 0 fields are saved unchanged; by default they are
rounded to 0.1 voxel, which would change the Jacobian determinants. On brains, the folds
of Greedy's inverse are in the outermost layer of voxels. Results differ from run to
run.
"""

from importlib.metadata import version

from job import convert_vectors, main, measure_call
import numpy as np


def option_words(options, threads):
    """Options as words of Greedy's command line."""
    words = [f"-{name} {value}" for name, value in options.items()]
    return " ".join([*words, f"-threads {threads}"])


def read_field(image):
    import SimpleITK

    field = SimpleITK.GetArrayFromImage(image)  # z first
    return convert_vectors(field.transpose(2, 1, 0, 3))


def register(job):
    from picsl_greedy import Greedy3D
    import SimpleITK

    # Greedy's matrices are in RAS, its fields in LPS.
    affine = job.folder / "prealign.mat"
    np.savetxt(affine, job.prealign, fmt="%.17g")
    call = f"-i static moving -it {affine} {option_words(job.options, job.threads)}"
    call = f"{call} -wp 0 -o warp"
    images = {
        role: SimpleITK.ReadImage(job.path(role), SimpleITK.sitkFloat32)
        for role in ("static", "moving")
    }
    greedy = Greedy3D()
    _, result = measure_call(greedy.execute, call, **images, warp=None)
    job.save_array("field", read_field(greedy["warp"]))
    # Greedy can invert and apply only fields that are stored in files.
    warp = job.path("warp")
    SimpleITK.WriteImage(greedy["warp"], warp)
    _, inverse = measure_call(greedy.execute, f"-wp 0 -iw {warp} inverse", inverse=None)
    job.save_array("inverse", read_field(greedy["inverse"]))
    if job.has_labels:
        grid, labels, warped = map(
            job.path, ("static_labels", "moving_labels", "warped_labels")
        )
        greedy.execute(f"-rf {grid} -ri NN -rm {labels} {warped} -r {warp} {affine}")
    call = call.replace(str(affine), "prealign")
    return result | {"call": call, "inverse_seconds": inverse["seconds"]}


if __name__ == "__main__":
    main(register, lambda: f"picsl-greedy {version('picsl_greedy')}")
