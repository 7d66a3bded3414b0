"""Keeping a map, and using it: one file, and other images.

The map is DIPY's :class:`~dipy.align.imwarp.DiffeomorphicMap`. `save_mapping` and
`load_mapping` keep the whole of it; `apply_mapping` carries any image through it.

Directions: `mapping.transform(moving)` is moving on static's grid,
`mapping.transform_inverse(static)` is static on moving's grid, and a `prealign`
takes static world to moving world.
"""

import math
import os
from pathlib import Path
import warnings
import zipfile

from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.image_kinds import declares_labels, looks_like_labels
from dipy_dl_reg.io.images import (
    FIELDS,
    check_mapping,
    open_image,
    read_image,
    write_beside,
)
from dipy_dl_reg.maps.formats.dipy import read_dipy_mapping, write_dipy_mapping
from dipy_dl_reg.validation import check_affine

__all__ = [
    "apply_mapping",
    "load_mapping",
    "read_dipy_mapping",
    "save_mapping",
    "write_dipy_mapping",
]

#: Written into each file.  It must not change, or older files could not be read.
FORMAT = "dipy_dl_reg.mapping"
VERSION = 1

# What `DiffeomorphicMap` derives from its affines is kept beside them, so that the map
# is the same bit for bit on a machine whose linear algebra rounds differently.
MATRICES = (
    "disp_grid2world",
    "disp_world2grid",
    "domain_grid2world",
    "domain_world2grid",
    "codomain_grid2world",
    "codomain_world2grid",
    "prealign",
    "prealign_inv",
)
SHAPES = ("disp_shape", "domain_shape", "codomain_shape")

#: Largest ratio of compression by deflate.
_MOST_PACKED = 1032

#: What is said of series, which may be diffusion data.
SERIES = (
    "Each volume was transformed by itself: gradient directions (b-vectors), vectors "
    "and tensors are not reoriented, and stay in the frame of the subject"
)


def save_mapping(mapping, path, *, overwrite=False):
    """Write a map to one file, from which `load_mapping` gives the same map.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        Any map of DIPY, 2D or 3D.
    path : str or Path
        The file, ending in `.npz`: NumPy's archive without pickles, with the
        entries `forward`, `backward` (mm, float32), the shapes and matrices of all
        grids, the prealign as the map holds it, `is_inverse`, `dim`, and the name
        and version of this format.
    overwrite : bool, optional
        Replace the file where it exists.

    Raises
    ------
    ValueError
        If `mapping` is no map or has no fields, or `path` does not end in `.npz`.
    FileExistsError
        If the file exists and `overwrite` is False.

    See Also
    --------
    load_mapping, write_dipy_mapping
    """
    check_mapping(mapping)
    if Path(path).suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    with write_beside(path, overwrite=overwrite) as temporary:
        np.savez(temporary, **_entries(mapping))


def _entries(mapping):
    """Everything a map holds, as arrays by name; what is None has no entry."""
    entries = {"format": FORMAT, "version": VERSION}
    entries.update(dim=mapping.dim, is_inverse=bool(mapping.is_inverse))
    for name in SHAPES:
        entries[name] = np.asarray(getattr(mapping, name), dtype=np.int32)
    for name in FIELDS:
        entries[name] = np.ascontiguousarray(getattr(mapping, name), dtype=np.float32)
    for name in MATRICES:
        if getattr(mapping, name) is not None:
            entries[name] = np.asarray(getattr(mapping, name))
    return entries


def load_mapping(path):
    """Read a map that `save_mapping` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    mapping : DiffeomorphicMap
        The same map: images, points and inverse come out bit for bit the same. Its
        fields are float32, contiguous and writable, as DIPY needs them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is empty, cut off, damaged, of another kind, of a later version
        of this format, or declares larger arrays than it can hold.

    See Also
    --------
    save_mapping, read_dipy_mapping
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: no such file: {path}")
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive may raise nearly anything
        raise ValueError(
            f"path: {path} is no map of save_mapping, or is damaged ({error})"
        ) from error
    return _mapping(_checked(entries, path))


def _check_sizes(path):
    """Raise unless each array of an archive is as large as it says, before reading."""
    there = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                major = 1 if version == (1, 0) else 2
                read = getattr(np.lib.format, f"read_array_header_{major}_0")
                shape, _, dtype = read(file)
                declared = file.tell() + math.prod(shape) * dtype.itemsize
            packed = info.compress_size
            if info.compress_type != zipfile.ZIP_STORED:
                packed *= _MOST_PACKED
            if declared != info.file_size or info.file_size > packed:
                raise ValueError(f"{info.filename} is not as large as it says")
            if info.compress_size > there:
                raise ValueError(f"{info.filename} is larger than the file")


def _checked(entries, path):
    """The entries of a file, or the error that says what is wrong with them."""
    if str(entries.get("format")) != FORMAT:
        raise ValueError(f"path: {path} is an archive, but no map of save_mapping")
    version = entries.get("version")
    if version is None or version.shape or version.dtype.kind not in "iu":
        raise ValueError(f"path: {path} is damaged: no version")
    if version > VERSION:
        raise ValueError(
            f"path: {path} has version {version} of this format, and this release "
            f"reads up to {VERSION}; use the release that wrote it"
        )
    missing = {"dim", "is_inverse", *SHAPES, *FIELDS} - entries.keys()
    if missing:
        raise ValueError(f"path: {path} is damaged: {', '.join(sorted(missing))} gone")
    dim = int(entries["dim"])
    for name in SHAPES:
        if entries[name].shape != (dim,):
            raise ValueError(f"path: {path} is damaged: {name} is not of {dim} numbers")
    for name in FIELDS:
        if entries[name].shape != (*entries["disp_shape"], dim):
            raise ValueError(f"path: {path} is damaged: {name} is not on its grid")
    for name in MATRICES:
        if name in entries and entries[name].shape != (dim + 1, dim + 1):
            raise ValueError(f"path: {path} is damaged: {name} is no affine matrix")
    return entries


def _mapping(entries):
    """A map from its entries."""
    mapping = DiffeomorphicMap(int(entries["dim"]), entries["disp_shape"])
    for name in SHAPES:
        setattr(mapping, name, entries[name])
    for name in FIELDS:
        field = np.require(entries[name], np.float32, ["C", "W", "O"])
        setattr(mapping, name, field)
    for name in MATRICES:
        setattr(mapping, name, entries.get(name))
    mapping.is_inverse = bool(entries["is_inverse"])
    return mapping


def apply_mapping(
    mapping,
    image,
    *,
    image_grid2world=None,
    out_shape=None,
    out_grid2world=None,
    interpolation="auto",
    inverse=False,
):
    """Carry an image through a map, onto any grid.

    .. math:: warped(x) = image(W y(S x))

    with :math:`S` the out grid's matrix, :math:`W` the inverse of the image's, and
    :math:`y` the map from static world to moving world (from moving to static with
    `inverse`), prealign included. The image is interpolated once.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    image : ndarray, nibabel image, str or Path
        An image in moving's world (in static's with `inverse`), on any grid, of any
        type, 2D or 3D as the map; with one axis more, each volume along the last
        axis is carried by itself: in diffusion data, vectors and tensors are not
        reoriented, and b-vectors stay in the frame of the subject (a line of the
        log says so).
    image_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        The image's grid-to-world matrix. By default the file's; for an array,
        moving's (static's), and then the array must have moving's shape.
    out_shape : tuple of int, optional
        Shape of the result; static's (moving's) by default.
    out_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Grid-to-world matrix of the result; static's (moving's) by default, and
        required for another shape than that.
    interpolation : {"auto", "linear", "nearest"}, optional
        Use "nearest" for labels and masks. "auto" does so for NIfTI images whose
        intent is labels (code 1002); it is "linear" for all others, with a warning
        where they look like labels: whole numbers, most of which equal their
        neighbours.
    inverse : bool, optional
        Carry from static to moving.

    Returns
    -------
    warped : ndarray
        The image on the out grid, 0 outside the image. "nearest" keeps the type and
        the very values. "linear" gives float32; there, NaN and infinities are
        missing data: each result is the mean of the known neighbours by their
        weights, and NaN where the known ones have less than half of the weight.

    Raises
    ------
    ValueError
        If the interpolation is unknown, a matrix is not affine and invertible, or a
        shape and a grid do not go together.

    Warns
    -----
    UserWarning
        If "auto" interpolates linearly what looks like labels.

    Notes
    -----
    Unlike ``mapping.transform`` this takes any type (unsigned bytes, booleans, long
    integers, big-endian, read-only or strided memory), and does not let one NaN
    blank out its neighbours. For a finite image it gives the same numbers.
    """
    check_mapping(mapping)
    if interpolation not in ("auto", "linear", "nearest"):
        raise ValueError(
            'interpolation must be "auto", "linear" or "nearest", got '
            f"{interpolation!r}"
        )
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image)
    automatic = interpolation == "auto"
    if automatic:
        interpolation = "nearest" if declares_labels(image) else "linear"
    image, image_grid2world = read_image(image, image_grid2world)
    warped = transform_array(
        mapping,
        image,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        interpolation=interpolation,
        inverse=inverse,
    )
    series = image.ndim > mapping.dim
    if automatic and interpolation == "linear":
        if looks_like_labels(image[..., 0] if series else image):
            warnings.warn(
                "image looks like labels or a mask, and was interpolated linearly: "
                'give interpolation="nearest", or "linear" if that is wanted',
                UserWarning,
                stacklevel=2,
            )
    if series and mapping.dim == 3:
        logger.info(f"{SERIES}.")
    return warped


def transform_array(
    mapping,
    image,
    *,
    image_grid2world=None,
    out_shape=None,
    out_grid2world=None,
    interpolation="linear",
    inverse=False,
):
    """`apply_mapping` for an array, without messages about labels and series.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    image : ndarray
        The values.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    interpolation : {"linear", "nearest"}, optional
        As in `apply_mapping`.
    inverse : bool, optional
        As in `apply_mapping`.

    Returns
    -------
    warped : ndarray
        The image on the out grid.

    Raises
    ------
    ValueError
        If the image is none for this map, or a shape and a grid do not go together.
    """
    _check_image(image, mapping.dim)
    grids = _grids(mapping, image, image_grid2world, out_shape, out_grid2world, inverse)
    transform = mapping.transform_inverse if inverse else mapping.transform
    if interpolation == "nearest":
        return _nearest(transform, image, mapping.dim, grids)
    if image.ndim == mapping.dim:
        return interpolated(transform, image, **grids)
    warped = np.empty((*grids["out_shape"], image.shape[-1]), dtype=np.float32)
    for k in range(image.shape[-1]):
        warped[..., k] = interpolated(transform, image[..., k], **grids)
    return warped


def _check_image(image, dim):
    """Raise unless an array is an image, or a series of them, for the map."""
    if image.ndim not in (dim, dim + 1):
        raise ValueError(
            f"image must have {dim} axes, or {dim + 1} for a series, as the map is "
            f"{dim}D; got shape {image.shape}"
        )
    if 0 in image.shape[:dim]:
        raise ValueError(f"image must have voxels, got shape {image.shape}")
    if image.dtype.kind not in "biuf":
        raise ValueError(f"image must hold real numbers, got {image.dtype}")


def _grids(mapping, image, image_grid2world, out_shape, out_grid2world, inverse):
    """The grids of an image and of its result, as `transform` takes them."""
    dim = mapping.dim
    sides = ["domain", "codomain"]
    if bool(mapping.is_inverse) == inverse:
        sides.reverse()
    shapes = [tuple(int(n) for n in getattr(mapping, f"{s}_shape")) for s in sides]
    image_side, out_side = (getattr(mapping, f"{s}_grid2world") for s in sides)
    if image_grid2world is None and image.shape[:dim] != shapes[0]:
        raise ValueError(
            f"image has shape {image.shape}, and the map's own image {shapes[0]}: "
            "give its image_grid2world"
        )
    out_shape = shapes[1] if out_shape is None else _checked_shape(out_shape, dim)
    if out_grid2world is None and out_shape != shapes[1]:
        raise ValueError(
            f"out_shape {out_shape} is not the map's own {shapes[1]}: give "
            "out_grid2world too"
        )
    own = image_side if image_grid2world is None else image_grid2world
    out = out_side if out_grid2world is None else out_grid2world
    own = np.eye(dim + 1) if own is None else own
    out = np.eye(dim + 1) if out is None else out
    return {
        "image_world2grid": np.linalg.inv(check_affine(own, dim, "image_grid2world")),
        # a tuple is too much for transform_inverse of a map that is not SyN's
        "out_shape": np.array(out_shape, dtype=np.int32),
        "out_grid2world": check_affine(out, dim, "out_grid2world"),
    }


def _checked_shape(shape, dim):
    """`shape` as `dim` positive ints."""
    numbers = np.atleast_1d(np.asarray(shape))
    if numbers.shape != (dim,) or numbers.dtype.kind not in "iu" or numbers.min() < 1:
        raise ValueError(f"out_shape must be {dim} positive integers, got {shape}")
    return tuple(int(n) for n in numbers)


def _nearest(transform, image, dim, grids):
    """Carry the voxels' numbers instead of their values, so any type comes through."""
    shape = image.shape[:dim]
    count = int(np.prod(shape, dtype=np.int64))
    if count > np.iinfo(np.int32).max:  # the integers that DIPY's maps carry
        raise ValueError(
            f'image must have fewer than 2**31 voxels for interpolation="nearest", got '
            f"{count} of shape {shape}."
        )
    numbers = np.arange(1, count + 1, dtype=np.int32).reshape(shape)
    numbers = transform(numbers, interpolation="nearest", **grids)
    voxels = np.unravel_index(np.maximum(numbers - 1, 0), shape)
    warped = image[voxels]
    warped[numbers == 0] = 0
    return warped


def interpolated(transform, volume, **grids):
    """One volume, interpolated linearly between the voxels that are known.

    Parameters
    ----------
    transform : callable
        A map's: of a float32 volume, which it interpolates.
    volume : ndarray
        The image; NaN and infinities are missing data.
    **grids : dict
        Passed to `transform`.

    Returns
    -------
    warped : ndarray
        The mean of the known neighbours by their weights, NaN where these have less
        than half of the weight.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # invalid: NaN that signals
        volume = np.require(volume, np.float32, ["C", "W"])
    known = np.isfinite(volume)
    if known.all():
        return transform(volume, **grids)
    warped = transform(np.where(known, volume, np.float32(0)), **grids)
    missing = transform((~known).astype(np.float32), **grids)
    # beyond the image is known, and 0, as in an image without missing voxels
    few = missing > 0.5 + 1e-6
    warped /= np.where(few, np.float32(1), 1 - missing)
    warped[few] = np.nan
    return warped
