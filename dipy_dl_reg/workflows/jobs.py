"""One registration, or one image carried, from files to files.

`dipy_dl_reg.workflows.align` says what the commands are; this is what they do.
"""

import os
from pathlib import Path
import time
import warnings

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.image_kinds import (
    check_no_colour,
    check_planes,
    declares_labels,
    is_slice,
    looks_like_labels,
    plane_axes,
    slice_affine,
)
from dipy_dl_reg.io.images import make_nifti, open_image, open_volume, read_image
from dipy_dl_reg.maps.apply import SERIES_MESSAGE, transform_array
from dipy_dl_reg.maps.formats import dipy as dipy_format
from dipy_dl_reg.maps.report import plot_registration
from dipy_dl_reg.maps.storage import load_mapping, save_mapping
from dipy_dl_reg.registration.affine_call import find_affine
from dipy_dl_reg.validation import check_affine

try:  # DIPY 1.13 moves it
    from dipy.utils import VerbosityLevels
except ImportError:
    from dipy.align import VerbosityLevels

#: Verbosity of a registration that logs every iteration.
DIAGNOSE = VerbosityLevels.DIAGNOSE


class FilePair:
    """Two images on their way through a registration.

    Parameters
    ----------
    static, moving : Path
        The images' files: two volumes, or two slices, which are registered in 2D.
    static_mask, moving_mask : str or Path, optional
        Files of masks on the images' grids.

    Attributes
    ----------
    names : str
        What distinguishes the files, for messages and the picture.
    dim : {2, 3}
        Dimension of the registration.
    result : str or None
        Summary of the registration in one line, once it is done.
    verdict : Verdict or None
        Whether the result can be trusted, once it is done.
    """

    def __init__(self, static, moving, *, static_mask=None, moving_mask=None):
        self.names = " to ".join(distinct_names(moving, static))
        self.result = self.poses = self.verdict = None
        self.images = open_pair(static, moving)
        self.dim = _dimension(self.images)
        self.affines = [slice_affine(image.affine, self.dim) for image in self.images]
        self.static, self.moving = (
            self._drop_axis(_values(image, name))
            for image, name in zip(self.images, ("static", "moving"))
        )
        masks = {"static_mask": static_mask, "moving_mask": moving_mask}
        self.masks = {
            name: None if path is None else self._drop_axis(_read_mask(path, name))
            for name, path in masks.items()
        }

    def _drop_axis(self, data):
        """An array without the axis that a slice does not have."""
        return data.reshape(data.shape[: self.dim])

    def find_prealign(self, pipeline, starting_affine, num_threads):
        """The affine part, see `dipy_dl_reg.registration.affine_call`.

        Parameters
        ----------
        pipeline : list of str
            Its steps.
        starting_affine : ndarray, shape (dim + 1, dim + 1), or None
            Where they begin.
        num_threads : int or None
            Threads on the CPU.

        Returns
        -------
        prealign : ndarray, shape (dim + 1, dim + 1)
            Static world to moving world.
        """
        logger.info(f"Affine registration of {self.names}")
        found = find_affine(
            self.moving,
            self.static,
            static_affine=self.affines[0],
            moving_affine=self.affines[1],
            pipeline=pipeline,
            starting_affine=starting_affine,
            num_threads=num_threads,
            **self.masks,
        )
        self.poses = found.poses
        return check_affine(found.matrix, self.dim, "the affine found")

    def register(self, registration, prealign, num_threads):
        """Find the map.

        Parameters
        ----------
        registration : DeepRegistration
            What finds it.
        prealign : ndarray or None
            Static world to moving world.
        num_threads : int or None
            Threads on the CPU.

        Returns
        -------
        mapping : DiffeomorphicMap
            The map of moving to static.

        Raises
        ------
        RuntimeError
            If no refinement was asked for and no start was kept: the map would be the
            affine alone.
        """
        logger.info(f"Deformable registration of {self.names}")
        start = time.perf_counter()
        registration.poses = self.poses
        mapping = registration.optimize(
            self.static,
            self.moving,
            static_grid2world=self.affines[0],
            moving_grid2world=self.affines[1],
            prealign=prealign,
            num_threads=num_threads,
            **self.masks,
        )
        if registration.affine_only:
            raise RuntimeError(
                f"no deformation of {self.names}, nothing is written: --level_iters 0 "
                "asks for the network's field alone, which was not used (the reason is "
                "in the warning). Leave out --level_iters 0 to refine without it"
            )
        seconds = time.perf_counter() - start
        self.verdict = registration.verdict
        self.result = f"Registered {self.names} in {seconds:.1f} s"
        return mapping

    def write(self, mapping, prealign, files):
        """Write what is wanted of a registration, and say what is being written.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        prealign : ndarray or None
            What it was given.
        files : dict of pair of Path
            By the names of the workflow's parameters, the files: their final place
            and where to write for now.
        """
        matrix = np.eye(self.dim + 1) if prealign is None else prealign
        warped = None
        for parameter, (path, temporary) in files.items():
            logger.info(f"Writing {path}")
            if parameter == "out_warped":
                warped = transform_array(mapping, self.moving)
                _save_on(self.images[0], warped, temporary)
            elif parameter == "out_inv_static":
                back = transform_array(mapping, self.static, inverse=True)
                _save_on(self.images[1], back, temporary)
            elif parameter == "out_field":
                dipy_format.write(mapping, temporary)
            elif parameter == "out_mapping":
                save_mapping(mapping, temporary, overwrite=True)
            elif parameter == "out_prealign":
                np.savetxt(temporary, matrix, header="static world to moving world")
            elif parameter == "out_report":
                images = self.static, self.moving, mapping
                plot_registration(
                    temporary,
                    *images,
                    warped=warped,
                    title=self.names,
                    verdict=self.verdict,
                )


def distinct_names(first, second):
    """What distinguishes two files: the shortest ends of their paths that differ.

    Parameters
    ----------
    first, second : str or Path
        The files.

    Returns
    -------
    names : tuple of str
        The files' names; with as many of their folders as it takes to tell them
        apart, and that is none where they are the same file.
    """
    parts = [Path(os.path.abspath(path)).parts for path in (first, second)]
    if parts[0] == parts[1]:
        return parts[0][-1], parts[1][-1]
    ends = 1
    while parts[0][-ends:] == parts[1][-ends:]:
        ends += 1
    return tuple(str(Path(*part[-ends:])) for part in parts)


def open_pair(static, moving):
    """Open the files of two images, and check that they go together.

    Parameters
    ----------
    static, moving : str or Path
        The files: two volumes, or two slices of the same orientation.

    Returns
    -------
    images : list of nibabel image
        The images, their values still on the disk.

    Raises
    ------
    ValueError
        If one cannot be registered, or one is 2D and the other is not.
    """
    images = [
        open_volume(path, name, slices=True)
        for path, name in ((static, "static"), (moving, "moving"))
    ]
    shapes = [image.shape for image in images]
    if _dimension(images) == 3 and 2 in map(len, shapes):
        raise ValueError(
            f"static and moving must be both 2D or both 3D, got shapes {shapes[0]} "
            f"and {shapes[1]}"
        )
    if _dimension(images) == 2:
        check_planes(*(image.affine for image in images))
    return images


def _dimension(images):
    """2 if both images are slices, else 3: a slice goes with a volume in 3D."""
    return 2 if all(is_slice(image.shape) for image in images) else 3


def _save_on(reference, data, path):
    """Write values as an image of the grid, and the number of axes, of another."""
    if data.ndim == 2 and len(reference.shape) > 2:
        data = data[..., None]
    nib.save(make_nifti(reference, data), path)


def check_pair(static, moving, masks):
    """Raise if two images cannot be registered, as far as their headers say.

    Parameters
    ----------
    static, moving : Path
        The images' files.
    masks : dict
        Paths or None, by `static_mask` and `moving_mask`.

    Returns
    -------
    dim : {2, 3}
        Dimension of their registration.

    Raises
    ------
    ValueError
        If one is no volume and no slice, one is 2D and the other is not, or a mask is
        on another grid.
    """
    images = open_pair(static, moving)
    for path, name, image in zip((static, moving), ("static", "moving"), images):
        mask = masks[f"{name}_mask"]
        if mask is None:
            continue
        other = open_volume(mask, f"{name}_mask", slices=True)
        shapes = [(*i.shape, 1)[:3] for i in (other, image)]
        if shapes[0] != shapes[1] or not np.allclose(
            other.affine, image.affine, atol=1e-2
        ):
            raise ValueError(f"{name}_mask: {mask} is not on the grid of {path}")
    return _dimension(images)


def _values(image, name):
    """A volume's values as float32, if there is something to register."""
    data, _ = read_image(image, name=name, dtype=np.float32)
    where = f"{name}: {image.get_filename()}"
    if np.isinf(data).any():
        raise ValueError(f"{where} holds infinities")
    known = data[np.isfinite(data)]
    if not known.size:
        raise ValueError(f"{where} holds nothing but NaN")
    if known.min() == known.max():
        raise ValueError(f"{where} is constant: nothing to register")
    return data


def _read_mask(path, name):
    """A mask as booleans."""
    image = open_volume(path, name, slices=True)
    data, _ = read_image(image, name=name, dtype=np.float32)
    mask = data > 0
    if not mask.any():
        raise ValueError(f"{name}: {path} is empty")
    return mask


def read_prealign(path, dim=3):
    """Read a matrix from a text file.

    Parameters
    ----------
    path : str or Path
        The file.
    dim : {2, 3}, optional
        Dimension of the registration.

    Returns
    -------
    matrix : ndarray, shape (dim + 1, dim + 1)
        An invertible affine matrix.

    Raises
    ------
    ValueError
        If the file holds none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"prealign: no such file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file's shape says enough
            matrix = np.loadtxt(path)
    except ValueError as error:
        raise ValueError(f"prealign: {path} is no matrix in text: {error}") from error
    return check_affine(matrix, dim, f"prealign: {path}")


class Carrier:
    """Carries image files onto a grid.

    Parameters
    ----------
    reference : str, Path or None
        Image whose grid is meant; the map's own if None.
    inverse : bool
        Carry from static to moving.
    """

    def __init__(self, reference, inverse):
        self.reference, self.inverse = None, inverse
        if reference is not None:
            self.reference = open_image(reference, name="reference")
            if len(self.reference.shape) < 2:
                raise ValueError(f"reference: {reference} must have 2 axes or more")
            check_affine(self.reference.affine, 3, "reference's affine")

    def write(self, mapping, path, target, interpolation):
        """Carry one image, and write it.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        path : Path
            The image's file.
        target : Path
            Where to.
        interpolation : {"auto", "linear", "nearest"}
            As in `apply_mapping`.
        """
        image, dim = open_image(path), mapping.dim
        automatic = interpolation == "auto"
        if automatic:
            interpolation = "nearest" if declares_labels(image) else "linear"
        dtype = np.float32 if interpolation == "linear" else None
        data, _ = read_image(image, dtype=dtype)
        if dim == 2:
            data = data.reshape(*data.shape[:2], *data.shape[3:])
        if interpolation == "nearest" and automatic:
            logger.info(f"{path} says that it holds labels: nearest neighbour")
        elif automatic and looks_like_labels(data[..., 0] if data.ndim > dim else data):
            logger.warning(
                f"{path} looks like labels or a mask, and is interpolated linearly: "
                "give --interpolation nearest, or linear if that is wanted"
            )
        reference = self._grid_of(mapping, image)
        warped = transform_array(
            mapping,
            data,
            image_grid2world=slice_affine(image.affine, dim),
            out_shape=reference.shape[:dim],
            out_grid2world=slice_affine(reference.affine, dim),
            interpolation=interpolation,
            inverse=self.inverse,
        )
        if data.ndim > dim == 3:
            level = logger.warning if _is_directional(path, data) else logger.info
            level(f"{path}: {SERIES_MESSAGE[0].lower()}{SERIES_MESSAGE[1:]}")
        if dim == 2 and len(image.shape) > 2:
            warped = warped[:, :, None]
        nib.save(make_nifti(reference, warped, series=image), target)

    def _grid_of(self, mapping, image):
        """An image with the grid of the result.

        A 2D map does not hold the position of its plane: the image does.
        """
        if self.reference is not None:
            return self.reference
        side = "domain" if self.inverse else "codomain"
        shape = tuple(int(n) for n in getattr(mapping, f"{side}_shape"))
        affine = getattr(mapping, f"{side}_grid2world")
        if mapping.dim == 2:
            flat, affine = affine, np.array(image.affine)
            affine[np.ix_([*plane_axes(affine), 3], [0, 1, 3])] = flat
        return nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)


def _is_directional(path, data):
    """Whether a series seems to be vectors, tensors or volumes with b-vectors."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    return data.shape[-1] in (3, 6) or any(
        path.with_name(f"{stem}{ending}").exists() for ending in (".bvec", ".bvecs")
    )


def read_map(path, prealign, carrier):
    """Read the map in a file of either format.

    Parameters
    ----------
    path : Path
        A file of `save_mapping`, or a displacement field in DIPY's format.
    prealign : str, Path or None
        Text file of the prealign, for the latter.
    carrier : Carrier
        What the map is for.

    Returns
    -------
    mapping : DiffeomorphicMap
        A map with affines.

    Raises
    ------
    ValueError
        If the file holds no such map, or not all that is needed.
    """
    if path.suffix != ".npz":
        return _read_field(path, prealign, carrier)
    if prealign is not None:
        raise ValueError(f"prealign: {path} holds its own; leave it out")
    mapping = load_mapping(path)
    reference = carrier.reference
    if reference is not None and mapping.dim == 2 and not is_slice(reference.shape):
        raise ValueError(
            f"reference: the map in {path} is 2D, got shape {reference.shape}"
        )
    if reference is not None and len(reference.shape) < mapping.dim:
        raise ValueError(
            f"reference: the map in {path} is 3D, got shape {reference.shape}"
        )
    sides = (mapping.domain_grid2world, mapping.codomain_grid2world)
    if any(side is None for side in sides):
        raise ValueError(f"mapping: {path} was made without affines; use apply_mapping")
    return mapping


def _read_field(path, prealign, carrier):
    """A map in DIPY's format: static's grid is in it, and moving's is not needed."""
    if carrier.inverse and carrier.reference is None:
        raise ValueError(
            f"reference: {path} does not hold moving's grid; give moving, or another "
            "image, as --reference"
        )
    field = open_image(path, name="mapping")
    world2grid = check_affine(field.affine, 3, f"mapping: the affine of {path}")
    if prealign is None:
        logger.warning(f"{path} holds no prealign, and --prealign was not given: none")
    else:
        prealign = read_prealign(prealign)
    shape = (*field.shape[:3], *[1] * (3 - len(field.shape)))
    static = nib.Nifti1Image(
        np.broadcast_to(np.uint8(0), shape), np.linalg.inv(world2grid)
    )
    return dipy_format.read(path, static, static, prealign)


def check_carried(path, dim):
    """Raise if a file cannot be carried, as far as its header says.

    Parameters
    ----------
    path : Path
        The image's file.
    dim : {2, 3}
        Dimension of the map.

    Raises
    ------
    ValueError
        If it is neither an image of this dimension nor a series of them.
    """
    image = open_image(path)
    check_no_colour(image.get_data_dtype(), f"image: {path}")
    shape = image.shape
    if dim == 3 and len(shape) not in (3, 4):
        raise ValueError(
            f"image: {path} must be a volume or a series of them, got {shape}"
        )
    if dim == 2 and not (is_slice(shape[:3]) and len(shape) <= 4):
        raise ValueError(
            f"image: the map is 2D, and {path} must be a slice, got {shape}"
        )
    check_affine(image.affine, 3, f"image: the affine of {path}")
