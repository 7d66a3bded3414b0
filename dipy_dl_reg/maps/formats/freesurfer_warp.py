r"""FreeSurfer's warps in images (``.nii.gz``, ``.mgz``).

A NIfTI file has shape (X, Y, Z, 1, 3), intent 1006 and the grid of the output image:
the displacement :math:`y - x` in mm, RAS.  A header extension holds the geometries of
both images, which FreeSurfer needs to apply it: ``mri_convert -at warp.nii.gz
moving.mgz warped.mgz``.  ITK writes the same shape in LPS, with intent 1007.

An ``.mgz`` file (`freesurfer_mgz`) also holds one of three other kinds of vectors.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import nibabel as nib

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.maps.formats import freesurfer_mgz
from dipy_dl_reg.maps.formats.dense_field import DenseField, grid_points
from dipy_dl_reg.maps.formats.freesurfer_geometry import pack_geometry, unpack_geometry
from dipy_dl_reg.maps.formats.vector_images import (
    DISPLACEMENT,
    make_vector_image,
    read_vectors,
)

#: NIfTI's code of FreeSurfer's header extension.
_EXTENSION = 14
#: FreeSurfer's code of maps between images.
_WARP = 3
_GEOMETRY, _KIND, _SHEARED_GEOMETRY, _END = 10, 13, 15, -1


def matches(image: Any) -> bool:
    """Tell from the header whether an image is a warp of FreeSurfer.

    Parameters
    ----------
    image : nibabel image
        The image; its values are not read.

    Returns
    -------
    matches : bool
        True for 5D images with intent 1006.
    """
    header = image.header
    if not isinstance(header, nib.Nifti1Header) or image.shape[3:] != (1, 3):
        return False
    return int(header["intent_code"]) == DISPLACEMENT


def write(field: DenseField, path: str | os.PathLike) -> None:
    """Write one direction of a map.

    Parameters
    ----------
    field : DenseField
        The positions, with the grid of the input image.
    path : str or Path
        The file, ending in ``.nii``, ``.nii.gz`` or ``.mgz``.

    Raises
    ------
    ValueError
        If the grid of the input image is unknown, or the axes of a grid are not
        perpendicular.
    """
    if field.input_grid is None:
        raise ValueError(
            "static and moving must be given for FreeSurfer's warps, which hold both "
            f"grids, got none for {path}"
        )
    if freesurfer_mgz.has_suffix(path):
        freesurfer_mgz.write(field, path)
        return
    image = make_vector_image(
        field.positions - grid_points(field.grid),
        field.grid.affine,
        axes=5,
        intent=DISPLACEMENT,
    )
    content = _pack_extension(field.input_grid, field.grid)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_EXTENSION, content))
    nib.save(image, path)


def read(path: str | os.PathLike, input_grid: Grid | None = None) -> DenseField:
    """Read one direction of a map.

    Parameters
    ----------
    path : str or Path
        The file.
    input_grid : Grid, optional
        Grid of the image that the field warps; by default that in the file, if there is
        one.

    Returns
    -------
    field : DenseField
        The positions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no warp of FreeSurfer.
    """
    if freesurfer_mgz.has_suffix(path):
        return freesurfer_mgz.read(path, input_grid)
    vectors, affine, header = read_vectors(
        path, axes=5, kind="FreeSurfer's warps in NIfTI files"
    )
    grid = Grid(vectors.shape[:3], affine)
    input_grid = input_grid or _unpack_extension(header)
    return DenseField(grid_points(grid) + vectors, grid, input_grid)


def _pack_extension(input_grid: Grid, grid: Grid) -> bytes:
    """FreeSurfer's header extension of a warp: tags, each with its length."""

    def tag(number: int, content: bytes) -> bytes:
        return struct.pack(">iq", number, len(content)) + content

    both = (input_grid, grid)
    plain = b"".join(pack_geometry(g, name=False) for g in both)
    sheared = b"".join(pack_geometry(g, name=False, sheared=True) for g in both)
    kind = struct.pack(">2if", freesurfer_mgz.DISPLACEMENT_RAS, 1, 0.0)
    return (
        struct.pack(">cHB", b">", _WARP, 1)
        + tag(_GEOMETRY, plain)
        + tag(_SHEARED_GEOMETRY, sheared)
        + tag(_KIND, kind)
        + tag(_END, b"*")  # NIfTI readers remove zeros from the end
    )


def _unpack_extension(header: nib.Nifti1Header) -> Grid | None:
    """Grid of the input image from FreeSurfer's header extension, if it is there."""
    for extension in header.extensions:
        content = bytes(extension.get_content())
        if extension.get_code() != _EXTENSION:
            continue
        start = 4
        while start + 12 <= len(content):
            number, length = struct.unpack_from(">iq", content, start)
            if number == _GEOMETRY:
                return unpack_geometry(content[start + 12 :])
            start += 12 + length
    return None
