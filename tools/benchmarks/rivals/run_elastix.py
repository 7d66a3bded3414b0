"""elastix (itk-elastix): cubic B-splines, its default parameters. See job.py.

elastix composes the maps in the opposite order, x -> spline(prealign(x)). The field
that is saved is this map followed by the inverse of the prealign. elastix computes no
inverse. Its time includes warping the moving image.
"""

from importlib.metadata import version

from job import convert_matrix, convert_vectors, main, measure_call, remove_prealign
import numpy as np


def number_words(values):
    return [str(float(value)) for value in np.ravel(values)]


def grid_parameters(image):
    """Describe a grid by elastix' parameters: where transformix samples."""
    import itk

    direction = itk.array_from_matrix(image.GetDirection())
    return {
        "Size": [str(int(n)) for n in itk.size(image)],
        "Index": ["0", "0", "0"],
        "Spacing": number_words(image.GetSpacing()),
        "Origin": number_words(image.GetOrigin()),
        "Direction": number_words(direction.T),  # column after column
    }


def affine_parameters(prealign, image):
    """Describe the prealign by elastix' parameters."""
    matrix = convert_matrix(prealign)
    return grid_parameters(image) | {
        "Transform": ["AffineTransform"],
        "NumberOfParameters": ["12"],
        "TransformParameters": number_words([*matrix[:3, :3].flat, *matrix[:3, 3]]),
        "CenterOfRotationPoint": number_words([0, 0, 0]),
        "InitialTransformParameterFileName": ["NoInitialTransform"],
        "HowToCombineTransforms": ["Compose"],
        "FixedImageDimension": ["3"],
        "MovingImageDimension": ["3"],
    }


def make_parameter_object(*maps):
    import itk

    whole = itk.ParameterObject.New()
    for values in maps:
        whole.AddParameterMap(values)
    return whole


def set_sampling_grid(found, image):
    """Change the parameters of the transforms to sample labels on an image's grid."""
    whole = make_parameter_object(
        *(found.GetParameterMap(i) for i in range(found.GetNumberOfParameterMaps()))
    )
    last = whole.GetNumberOfParameterMaps() - 1
    for name, value in grid_parameters(image).items():
        whole.SetParameter(last, name, value)
    whole.SetParameter(last, "FinalBSplineInterpolationOrder", ["0"])
    whole.SetParameter(last, "ResultImagePixelType", ["float"])
    return whole


def warp_labels(job, found):
    import itk

    grid, labels = (
        itk.imread(job.path(f"{role}_labels"), itk.F) for role in ("static", "moving")
    )
    warped = itk.transformix_filter(labels, set_sampling_grid(found, grid))
    itk.imwrite(warped, job.path("warped_labels"))


def register(job):
    import itk

    static, moving = (
        itk.imread(job.path(role), itk.F) for role in ("static", "moving")
    )
    # elastix can crash if the number of threads is also passed to the call below.
    itk.set_nthreads(job.threads)
    chosen = itk.ParameterObject.New().GetDefaultParameterMap("bspline")
    for name, value in job.options.items():
        chosen[name] = [value]
    (_, found), result = measure_call(
        itk.elastix_registration_method,
        static,
        moving,
        parameter_object=make_parameter_object(chosen),
        initial_transform_parameter_object=make_parameter_object(
            affine_parameters(job.prealign, static)
        ),
        log_to_console=False,
    )
    total = itk.transformix_deformation_field(moving, found)
    total = convert_vectors(itk.array_from_image(total).transpose(2, 1, 0, 3))
    job.save_array("field", remove_prealign(total, job.grid2world(), job.prealign))
    if job.has_labels:
        warp_labels(job, found)
    call = "elastix_registration_method(default bspline parameter map"
    return result | {"call": f"{call}, changed: {job.options or 'none'})"}


if __name__ == "__main__":
    main(register, lambda: f"itk-elastix {version('itk-elastix')}")
