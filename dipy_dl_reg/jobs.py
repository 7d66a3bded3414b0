"""One registration, or one image carried, from files to files.

`dipy_dl_reg.workflows` says what the commands are; this is what they do.
"""

from pathlib import Path
import time
import warnings

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.dipy_format import dipy_field_image, read_dipy_mapping
from dipy_dl_reg.files import (
    check_affine,
    image_on,
    open_image,
    open_volume,
    read_image,
)
from dipy_dl_reg.mapping import apply_mapping, load_mapping, save_mapping
from dipy_dl_reg.prealign import find_prealign
from dipy_dl_reg.report import plot_registration


class FilePair:
    """Two images on their way through a registration.

    Parameters
    ----------
    static, moving : Path
        The images' files.
    static_mask, moving_mask : str or Path, optional
        Files of masks on the images' grids.
    """

    def __init__(self, static, moving, *, static_mask=None, moving_mask=None):
        self.names = f"{Path(moving).name} to {Path(static).name}"
        self.images = [open_volume(static, "static"), open_volume(moving, "moving")]
        self.static, self.moving = (
            _values(image, name)
            for image, name in zip(self.images, ("static", "moving"))
        )
        masks = {"static_mask": static_mask, "moving_mask": moving_mask}
        self.masks = {name: _read_mask(path, name) for name, path in masks.items()}

    def find_prealign(self, pipeline, starting_affine, num_threads):
        """The affine part, see `dipy_dl_reg.prealign`.

        Parameters
        ----------
        pipeline : list of str
            Its steps.
        starting_affine : ndarray, shape (4, 4), or None
            Where they begin.
        num_threads : int or None
            Threads on the CPU.

        Returns
        -------
        prealign : ndarray, shape (4, 4)
            Static world to moving world.
        """
        logger.info(f"Affine registration of {self.names}")
        affines = [image.affine for image in self.images]
        return find_prealign(
            self.static,
            self.moving,
            *affines,
            pipeline=pipeline,
            starting_affine=starting_affine,
            num_threads=num_threads,
            **self.masks,
        )

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
        mapping = registration.optimize(
            self.static,
            self.moving,
            static_grid2world=self.images[0].affine,
            moving_grid2world=self.images[1].affine,
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
        logger.info(f"Registered in {time.perf_counter() - start:.1f} s")
        return mapping

    def write(self, mapping, prealign, files):
        """Write all that a registration gives.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        prealign : ndarray or None
            What it was given.
        files : dict of Path
            Where to, by the names of the workflow's parameters; a picture if there
            is `out_report`.
        """
        static, moving = self.images
        warped = apply_mapping(mapping, self.moving)
        nib.save(image_on(static, warped), files["out_warped"])
        warped = apply_mapping(mapping, self.static, inverse=True)
        nib.save(image_on(moving, warped), files["out_inv_static"])
        nib.save(dipy_field_image(mapping), files["out_field"])
        save_mapping(mapping, files["out_mapping"], overwrite=True)
        matrix = np.eye(4) if prealign is None else prealign
        np.savetxt(files["out_prealign"], matrix, header="static world to moving world")
        if "out_report" in files:
            plot_registration(
                files["out_report"],
                self.static,
                self.moving,
                mapping,
                title=self.names,
            )


def check_pair(static, moving, masks):
    """Raise if two images cannot be registered, as far as their headers say.

    Parameters
    ----------
    static, moving : Path
        The images' files.
    masks : dict
        Paths or None, by `static_mask` and `moving_mask`.

    Raises
    ------
    ValueError
        If one is no 3D volume, or a mask is on another grid.
    """
    for path, name in ((static, "static"), (moving, "moving")):
        image = open_volume(path, name)
        mask = masks[f"{name}_mask"]
        if mask is None:
            continue
        other = open_volume(mask, f"{name}_mask")
        if other.shape != image.shape or not np.allclose(
            other.affine, image.affine, atol=1e-2
        ):
            raise ValueError(f"{name}_mask: {mask} is not on the grid of {path}")


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
    """A mask as booleans, or None."""
    if path is None:
        return None
    data, _ = read_image(open_volume(path, name), name=name, dtype=np.float32)
    mask = data > 0
    if not mask.any():
        raise ValueError(f"{name}: {path} is empty")
    return mask


def read_prealign(path):
    """Read a 4x4 matrix from a text file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
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
    return check_affine(matrix, 3, f"prealign: {path}")


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
            if len(self.reference.shape) < 3:
                raise ValueError(f"reference: {reference} must have 3 axes")
            check_affine(self.reference.affine, 3, "reference's affine")

    def write(self, mapping, image, path, interpolation):
        """Carry one image, and write it.

        Parameters
        ----------
        mapping : DiffeomorphicMap
            The map.
        image : Path
            The image's file.
        path : Path
            Where to.
        interpolation : {"linear", "nearest"}
            As in `apply_mapping`.
        """
        image = open_image(image)
        dtype = np.float32 if interpolation == "linear" else None
        data, own = read_image(image, dtype=dtype)
        reference = self.reference
        if reference is None:
            side = "domain" if self.inverse else "codomain"
            shape = tuple(int(n) for n in getattr(mapping, f"{side}_shape"))
            affine = getattr(mapping, f"{side}_grid2world")
            reference = nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)
        warped = apply_mapping(
            mapping,
            data,
            image_grid2world=own,
            out_shape=reference.shape[:3],
            out_grid2world=reference.affine,
            interpolation=interpolation,
            inverse=self.inverse,
        )
        nib.save(image_on(reference, warped, series=image), path)


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
        A 3D map with affines.

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
    if mapping.dim != 3:
        raise ValueError(f"mapping: {path} is 2D, and images in files are 3D")
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
    return read_dipy_mapping(path, static, static, prealign=prealign)


def check_carried(path):
    """Raise if a file cannot be carried, as far as its header says.

    Parameters
    ----------
    path : Path
        The image's file.

    Raises
    ------
    ValueError
        If it is neither a volume nor a series of them.
    """
    image = open_image(path)
    if len(image.shape) not in (3, 4):
        raise ValueError(
            f"image: {path} must be a volume or a series of them, got {image.shape}"
        )
    check_affine(image.affine, 3, f"image: the affine of {path}")
