"""Segmentation of a head or a brain of any contrast, and its brain mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.anatomy.brain_view import explain_wrong_size
from dipy_dl_reg.anatomy.classes import CLASSES
from dipy_dl_reg.anatomy.plausibility import is_plausible
from dipy_dl_reg.anatomy.prediction import AnatomyMaps, predict_anatomy
from dipy_dl_reg.anatomy.segmentation import (
    BRAIN_THRESHOLD,
    label_voxels,
    mask_brain,
    sample_probability,
)
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.input_image import read_input_image
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.registration.image_checks import check_affine_or_none, check_image
from dipy_dl_reg.validation import check_choice, check_number

if TYPE_CHECKING:
    from os import PathLike

#: Names of the structures.
_NAMES = [of.name for of in CLASSES]
#: Fewest slices of a volume along each axis.
_LEAST_SLICES = 3


@dataclass(frozen=True)
class AnatomySegmentation:
    """Structures of a head on the grid of its image.

    Parameters
    ----------
    labels : ndarray of int16, shape (X, Y, Z)
        The most probable structure of each voxel, in FreeSurfer's numbering; 0 is air.
    grid2world : ndarray, shape (4, 4)
        Voxels to world, mm.
    maps : AnatomyMaps
        Probabilities of all structures, on a grid of 2 mm.
    """

    labels: np.ndarray
    grid2world: np.ndarray
    maps: AnatomyMaps = field(repr=False)

    @property
    def names(self) -> dict[int, str]:
        """Names of the structures by their labels."""
        return {of.label: of.name for of in CLASSES}

    def probability(self, name: str) -> np.ndarray:
        """Compute the probability of one structure.

        Parameters
        ----------
        name : str
            One of `names`, such as "left thalamus".

        Returns
        -------
        probability : ndarray of float32, shape (X, Y, Z)
            Interpolated linearly; 0 outside the maps' field of view.

        Raises
        ------
        ValueError
            If there is no such structure.
        """
        number = _NAMES.index(check_choice("name", name, _NAMES))
        return sample_probability(
            self.maps.probabilities[number], self.maps.grid, self._grid
        )

    def brain_mask(
        self, *, fluid: bool = True, threshold: float = BRAIN_THRESHOLD
    ) -> np.ndarray:
        """Make a mask of the brain from these maps.

        `dipy_dl_reg.brain_mask` predicts without the mirrored image, so that its mask
        differs a little from that of `segment_anatomy` with ``mirror=True``.

        Parameters
        ----------
        fluid : bool, optional
            Whether the fluid around the brain belongs to the mask.
        threshold : float, optional
            Probability above which a voxel belongs to the brain, between 0 and 1, see
            `dipy_dl_reg.brain_mask`.

        Returns
        -------
        mask : ndarray of bool, shape (X, Y, Z)
            The largest connected part, with its holes filled.

        Raises
        ------
        ValueError
            If the threshold is not between 0 and 1.
        """
        check_threshold(threshold)
        return mask_brain(self.maps, self._grid, fluid=fluid, threshold=threshold)

    @property
    def _grid(self) -> Grid:
        return Grid(self.labels.shape, self.grid2world)


def segment_anatomy(
    image: str | PathLike[str] | Any,
    *,
    grid2world: np.ndarray | None = None,
    mask: str | PathLike[str] | Any | None = None,
    mirror: bool = True,
    device: Any = "auto",
    num_threads: int | None = None,
) -> AnatomySegmentation:
    """Segment a head or a brain of any contrast in coarse structures.

    A small network that comes with the package finds 32 structures of the brain, bone
    and soft tissue, at 2 mm.  It was trained on images drawn from label maps of heads,
    with and without skull, as by :footcite:t:`Billot2023`, of random contrasts and
    those of T1, T2, FLAIR, b0, FA and MD, thick slices and slabs among them.  Slabs
    thinner than about 30 mm fail.

    Parameters
    ----------
    image : str, Path, nibabel image or array
        A 3D image; NaN and masked values of a masked array are missing data.
    grid2world : array, shape (4, 4), optional
        Voxels to world, mm; required for arrays, by default the affine in the file.
        The world's axes go to the right, to the front and upwards, as in nibabel.
    mask : str, Path, nibabel image or array, optional
        Only voxels other than 0 are seen; all others are background.
    mirror : bool, optional
        Also segment the mirrored image, and average both: a little more accurate, in
        twice the time.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    segmentation : AnatomySegmentation
        Labels and probabilities on the grid of the image.

    Raises
    ------
    ValueError
        If the image is not a 3D image of real numbers with at least 3 slices, if it is
        constant, if its field of view is shorter than 34 mm or longer than 2.2 m (its
        voxel size is then not in mm), or an array is given without its matrix.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    brain_mask : a mask of the brain.
    DeepRegistration : uses the maps for images of opposite contrasts (`anatomy`).
    assess_mapping : compares the structures of two registered images (`anatomy`).

    Notes
    -----
    The result is the same in every call.  The head must be upright in the world, with
    the nose to the front: images with wrong headers are not segmented correctly.  If
    the structures do not lie as in a brain, a warning is logged.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> from dipy_dl_reg import segment_anatomy
    >>> segmentation = segment_anatomy("t1.nii.gz")  # doctest: +SKIP
    >>> thalamus = segmentation.labels == 10  # doctest: +SKIP

    A drawn ball of 36 mm in place of a head:

    >>> import numpy as np
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> ball = np.exp(-4 * (x**2 + y**2 + z**2))
    >>> segmentation = segment_anatomy(
    ...     ball, grid2world=np.diag([3.0, 3, 3, 1]), mirror=False
    ... )
    >>> segmentation.labels.shape, segmentation.names[10]
    ((12, 12, 12), 'left thalamus')
    """
    with threads(num_threads):
        maps, grid = _predict(image, grid2world, mask, device, mirror=mirror)
        return AnatomySegmentation(label_voxels(maps, grid), grid.affine, maps)


def brain_mask(
    image: str | PathLike[str] | Any,
    *,
    grid2world: np.ndarray | None = None,
    fluid: bool = True,
    threshold: float = BRAIN_THRESHOLD,
    device: Any = "auto",
    num_threads: int | None = None,
) -> np.ndarray:
    """Make a mask of the brain in an image of any contrast.

    Parameters
    ----------
    image : str, Path, nibabel image or array
        A 3D image of a head or a brain, see `segment_anatomy`.
    grid2world : array, shape (4, 4), optional
        Voxels to world, mm; required for arrays, by default the affine in the file.
    fluid : bool, optional
        Whether the cerebrospinal fluid around the brain belongs to the mask, as in most
        programs that remove the skull.  Ventricles always belong to it.
    threshold : float, optional
        Probability above which a voxel belongs to the brain, between 0 and 1.  The
        default gives masks like those of usual programs, which are a little wider than
        the brain.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    mask : ndarray of bool
        On the grid of the image: the largest connected part, with its holes filled.

    Raises
    ------
    ValueError
        If the image or the threshold cannot be used, see `segment_anatomy`.
    FileNotFoundError
        If a file is missing.

    See Also
    --------
    segment_anatomy : the structures of which the mask consists.
    DeepRegistration : takes masks; it finds those of two whole heads itself.

    Notes
    -----
    The mask is the largest connected part of the voxels in which the summed probability
    of brain (and fluid) in `segment_anatomy`'s maps exceeds `threshold`.

    Examples
    --------
    >>> from dipy_dl_reg import brain_mask
    >>> mask = brain_mask("t1.nii.gz")  # doctest: +SKIP

    A drawn ball of 36 mm, in which the network sees a brain:

    >>> import numpy as np
    >>> x, y, z = np.mgrid[-1:1:12j, -1:1:12j, -1:1:12j]
    >>> ball = np.exp(-4 * (x**2 + y**2 + z**2))
    >>> mask = brain_mask(ball, grid2world=np.diag([3.0, 3, 3, 1]))
    >>> mask.shape, mask.dtype
    ((12, 12, 12), dtype('bool'))
    """
    check_threshold(threshold)
    with threads(num_threads):
        maps, grid = _predict(image, grid2world, None, device)
        return mask_brain(maps, grid, fluid=fluid, threshold=threshold)


def check_threshold(threshold: object) -> float:
    """Check a threshold of probabilities.

    Parameters
    ----------
    threshold : object
        The user's value.

    Returns
    -------
    threshold : float
        The number.

    Raises
    ------
    ValueError
        If it is not between 0 and 1.
    """
    return check_number("threshold", threshold, high=1, above=True, below=True)


def _predict(
    image: Any,
    grid2world: np.ndarray | None,
    mask: Any | None,
    device: Any,
    *,
    mirror: bool = False,
) -> tuple[AnatomyMaps, Grid]:
    """Check an image, and predict its maps."""
    device = find_device(device)
    read = read_input_image(image, grid2world, mask, name="image")
    shape = np.shape(read.values)
    if len(shape) != 3 or min(shape) < _LEAST_SLICES:
        raise ValueError(
            f"image must be one 3D volume with at least {_LEAST_SLICES} slices along "
            f"each axis, got shape {shape}."
        )
    values = check_image(read.values, "image")
    if read.mask is not None and np.shape(read.mask) != shape:
        got = np.shape(read.mask)
        raise ValueError(f"mask must have the shape of image, {shape}, got {got}.")
    if read.mask is not None and not np.any(read.mask):
        raise ValueError("mask must not be 0 in all voxels.")
    if read.grid2world is None:
        raise ValueError("grid2world is required if image is an array.")
    if not np.nanmax(values) > np.nanmin(values):
        raise ValueError(f"image must not be constant, got {np.nanmax(values)} only.")
    grid = Grid(values.shape, check_affine_or_none(read.grid2world, "grid2world", 3))
    if reason := explain_wrong_size(grid):
        raise ValueError(f"image cannot be segmented: {reason}.")
    maps = predict_anatomy(values, grid, device=device, mask=read.mask, mirror=mirror)
    if not is_plausible(maps):
        logger.warning(
            "No upright head of a usual size was found in the image: it may show "
            "something else or a small part of a head, or its header may have a wrong "
            "orientation. Check the result."
        )
    return maps, grid
