"""What a kind of file must define, and what the kinds have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.image_kinds import check_no_colour, plane_axes
from dipy_dl_reg.io.images import make_nifti, open_image
from dipy_dl_reg.options import join_words
from dipy_dl_reg.validation import check_affine, check_suffix

#: How certain it is that a file is of a kind.
Match: TypeAlias = Literal["certain", "possible", "no"]


class Request(NamedTuple):
    """How a file is transformed.

    Attributes
    ----------
    mapping : DiffeomorphicMap
        The map.
    reference : nibabel image or None
        Image with the grid of the result; by default the map's own image.
    inverse : bool
        Transform from static to moving.
    options : mapping
        The options of the kind that were given, by name.
    """

    mapping: DiffeomorphicMap
    reference: Any = None
    inverse: bool = False
    options: Mapping[str, Any] = {}


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes
    ----------
    match : callable
        Says of a file, given the options that the user gave, by name, whether it is
        "certain" or "possible" that it is of this kind, or "no".
    check : callable
        Raises a ValueError if a file cannot be transformed as a `Request` says.
    transform : callable
        Transforms a file as a `Request` says, and writes the results to one or more
        paths: the output, and the files beside it.
    choices : mapping
        Options of the command that apply, and their values; None for any.
    suffixes : tuple of str
        Suffixes that the output may have; the first is used if the user chose no name.
    keeps_suffix : bool
        Whether the output must have the suffix of the input.
    beside : tuple of str
        Suffixes of the files that are written beside the output.
    """

    match: Callable[[Path, Mapping[str, object]], Match]
    check: Callable[[Path, Request], None]
    transform: Callable[[Path, Sequence[Path], Request], None]
    choices: Mapping[str, Collection[str] | None] = field(default_factory=dict)
    suffixes: tuple[str, ...] = (".nii.gz", ".nii")
    keeps_suffix: bool = False
    beside: tuple[str, ...] = ()

    def name_outputs(self, path: Path, output: Path, *, is_default: bool) -> list[Path]:
        """Name the output, and the files beside it.

        Parameters
        ----------
        path : Path
            The input.
        output : Path
            The output as DIPY names it.
        is_default : bool
            Whether the user chose no name: then the suffix is changed.

        Returns
        -------
        paths : list of Path
            The output, with a suffix that fits, and the files beside it.

        Raises
        ------
        ValueError
            If the user chose a name whose suffix does not fit.
        """
        own = path.suffix.lower()
        suffixes = self.suffixes
        if self.keeps_suffix and own in suffixes:
            suffixes = (own,)
        stem = output.name.removesuffix(".gz").rpartition(".")[0]
        if is_default:
            output = output.with_name(stem + suffixes[0])
        check_suffix(output.name, suffixes, "out_file")
        return [output, *(output.with_name(stem + suffix) for suffix in self.beside)]


def is_nifti(path: Path) -> bool:
    """Whether a file may be an image, by its name.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    image : bool
        False for tractograms and peaks.
    """
    return path.suffix.lower() not in (".trk", ".tck", ".trx", ".pam5")


def count_components(path: Path) -> int:
    """Number of values in each voxel of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    number : int
        Product of the axes after the third; 0 if the file is not an image, 1 if it is
        a single volume.
    """
    if not is_nifti(path):
        return 0
    return int(np.prod(open_image(path).shape[3:]))


def find_intent(path: Path) -> int:
    """The intent code in the header of a NIfTI file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    code : int
        0 if it has none.
    """
    header = open_image(path).header
    return int(header["intent_code"]) if isinstance(header, nib.Nifti1Header) else 0


def check_directions(path: Path, request: Request) -> None:
    """Check that an image of directions can be transformed.

    Parameters
    ----------
    path : Path
        The file.
    request : Request
        How it will be transformed.

    Raises
    ------
    ValueError
        If the map is 2D, or the file is not an image with several values in a voxel.
    """
    image = open_image(path)
    check_no_colour(image.get_data_dtype(), f"image: {path}")
    if request.mapping.dim != 3:
        raise ValueError(
            f"kind: the map is 2D, and the directions in {path} need a 3D map"
        )
    if len(image.shape) < 4:
        raise ValueError(
            f"kind: {path} must have several values in a voxel, got {image.shape}"
        )
    check_affine(image.affine, 3, f"image: the affine of {path}")


def require(
    option: str, request: Request, path: Path, choices: Collection[str]
) -> None:
    """Check that an option was given that no file stores.

    Parameters
    ----------
    option : str
        Its name.
    request : Request
        How the file will be transformed.
    path : Path
        The file.
    choices : collection of str
        The option's values.

    Raises
    ------
    ValueError
        If it was not given.
    """
    if option not in request.options:
        raise ValueError(
            f"{option} must be given for {path}, because the file does not store it: "
            f"one of {join_words(choices)}"
        )


def check_frame(path: Path, affine: np.ndarray, request: Request) -> None:
    """Check that the frame of directions of DIPY is given where it is in doubt.

    DIPY leaves b-vectors as they are, so that what it fits with FSL's is in FSL's
    frame.  That is the frame of the voxels unless the affine's determinant is positive.

    Parameters
    ----------
    path : Path
        The file.
    affine : ndarray, shape (4, 4)
        Its affine.
    request : Request
        How it will be transformed.

    Raises
    ------
    ValueError
        If the two frames differ, and none was given.
    """
    if "frame" not in request.options and np.linalg.det(affine) > 0:
        raise ValueError(
            f"frame must be given for {path}: voxel, or fsl if FSL's b-vectors were "
            "used (the two differ because its affine's determinant is positive), or "
            "world"
        )


def output_grid(image: Any, request: Request) -> tuple[Any, dict[str, Any]]:
    """The grid of a result.

    Parameters
    ----------
    image : nibabel image
        The input.
    request : Request
        How it is transformed.

    Returns
    -------
    reference : nibabel image
        Image with this grid.
    arguments : dict
        `inverse`, `out_shape` and `out_grid2world` of a function that transforms.
    """
    reference = request.reference
    if reference is None:
        reference = make_reference(request.mapping, image, request.inverse)
    return reference, {
        "inverse": request.inverse,
        "out_shape": reference.shape[:3],
        "out_grid2world": reference.affine,
    }


def make_reference(
    mapping: DiffeomorphicMap, image: Any, inverse: bool
) -> nib.Nifti1Image:
    """An image with the map's own grid for the result.

    A 2D map does not hold the position of its plane: it is taken from the image.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    image : nibabel image
        The image that is transformed.
    inverse : bool
        Whether it is transformed from static to moving.

    Returns
    -------
    reference : nibabel image
        An image whose values have no meaning.
    """
    side = "domain" if inverse else "codomain"
    shape = tuple(int(n) for n in getattr(mapping, f"{side}_shape"))
    affine = getattr(mapping, f"{side}_grid2world")
    if mapping.dim == 2:
        plane, affine = affine, np.array(image.affine)
        affine[np.ix_([*plane_axes(affine), 3], [0, 1, 3])] = plane
    return nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)


def save_directions(target: Path, reference: Any, data: np.ndarray, image: Any) -> None:
    """Write an image of directions, with the intent code of the input.

    Parameters
    ----------
    target : Path
        The file to write.
    reference : nibabel image
        Image with the grid.
    data : ndarray
        The values.
    image : nibabel image
        The input.
    """
    result = make_nifti(reference, data, series=image)
    if isinstance(image.header, nib.Nifti1Header):
        result.header["intent_code"] = image.header["intent_code"]
        result.header["intent_name"] = image.header["intent_name"]
    nib.save(result, target)
