"""elastix (itk-elastix): cubic B-splines, its default parameters. See job.py.

elastix composes the other way round, x -> spline(prealign(x)), so the field is that of
the inverse prealign after both. It gives no inverse. The moving image's
warp, which its call returns, is in its seconds.
"""

from importlib.metadata import version

from job import before_prealign, clocked, main, turned, vectors_turned
import numpy as np


def words(values):
    return [str(float(value)) for value in np.ravel(values)]


def grid_words(image):
    """A grid as elastix writes it: where transformix samples."""
    import itk

    direction = itk.array_from_matrix(image.GetDirection())
    return {
        "Size": [str(int(n)) for n in itk.size(image)],
        "Index": ["0", "0", "0"],
        "Spacing": words(image.GetSpacing()),
        "Origin": words(image.GetOrigin()),
        "Direction": words(direction.T),  # column after column
    }


def affine_map(prealign, image):
    """The prealign as elastix reads it."""
    matrix = turned(prealign)
    return grid_words(image) | {
        "Transform": ["AffineTransform"],
        "NumberOfParameters": ["12"],
        "TransformParameters": words([*matrix[:3, :3].flat, *matrix[:3, 3]]),
        "CenterOfRotationPoint": words([0, 0, 0]),
        "InitialTransformParameterFileName": ["NoInitialTransform"],
        "HowToCombineTransforms": ["Compose"],
        "FixedImageDimension": ["3"],
        "MovingImageDimension": ["3"],
    }


def parameters(*maps):
    import itk

    whole = itk.ParameterObject.New()
    for values in maps:
        whole.AddParameterMap(values)
    return whole


def resampled_on(found, image):
    """The transforms found, set to sample labels on the image's grid."""
    whole = parameters(
        *(found.GetParameterMap(i) for i in range(found.GetNumberOfParameterMaps()))
    )
    last = whole.GetNumberOfParameterMaps() - 1
    for name, value in grid_words(image).items():
        whole.SetParameter(last, name, value)
    whole.SetParameter(last, "FinalBSplineInterpolationOrder", ["0"])
    whole.SetParameter(last, "ResultImagePixelType", ["float"])
    return whole


def warp_labels(job, found):
    import itk

    grid, labels = (
        itk.imread(job.path(f"{role}_labels"), itk.F) for role in ("static", "moving")
    )
    warped = itk.transformix_filter(labels, resampled_on(found, grid))
    itk.imwrite(warped, job.path("warped_labels"))


def register(job):
    import itk

    static, moving = (
        itk.imread(job.path(role), itk.F) for role in ("static", "moving")
    )
    # Given to the call as well, elastix has been seen to crash while it starts.
    itk.set_nthreads(job.threads)
    chosen = itk.ParameterObject.New().GetDefaultParameterMap("bspline")
    for name, value in job.options.items():
        chosen[name] = [value]
    (_, found), result = clocked(
        itk.elastix_registration_method,
        static,
        moving,
        parameter_object=parameters(chosen),
        initial_transform_parameter_object=parameters(affine_map(job.prealign, static)),
        log_to_console=False,
    )
    total = itk.transformix_deformation_field(moving, found)
    total = vectors_turned(itk.array_from_image(total).transpose(2, 1, 0, 3))
    job.keep("field", before_prealign(total, job.grid2world(), job.prealign))
    if job.has_labels:
        warp_labels(job, found)
    call = "elastix_registration_method(default bspline parameter map"
    return result | {"call": f"{call}, {job.options or 'nothing'} changed)"}


if __name__ == "__main__":
    main(register, lambda: f"itk-elastix {version('itk-elastix')}")
