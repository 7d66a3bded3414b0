"""Reading of the two images of a map, with their masks."""

from __future__ import annotations

from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.io.images import read_image
from dipy_dl_reg.io.masks import fill_masked, read_mask
from dipy_dl_reg.maps.dipy_map import check_mapping
from dipy_dl_reg.registration.image_checks import check_mask


class MappedImages(NamedTuple):
    """Two images that a map registers.

    Attributes
    ----------
    static, moving : ndarray
        The images; NaN is missing data.
    static_grid2world, moving_grid2world : ndarray or None
        The matrices in the map.
    static_mask, moving_mask : ndarray or None
        Only voxels other than 0 are compared.
    """

    static: np.ndarray
    moving: np.ndarray
    static_grid2world: np.ndarray | None
    moving_grid2world: np.ndarray | None
    static_mask: np.ndarray | None
    moving_mask: np.ndarray | None


def read_mapped_images(
    mapping: DiffeomorphicMap,
    static: Any,
    moving: Any,
    static_mask: Any = None,
    moving_mask: Any = None,
) -> MappedImages:
    """Read the images that a map registers, and check that they have its grids.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map that a registration returned.
    static, moving : array, nibabel image, str or Path
        The images.
    static_mask, moving_mask : array, nibabel image, str or Path, optional
        Their masks.

    Returns
    -------
    images : MappedImages
        The images, with the dimension of the map.

    Raises
    ------
    ValueError
        If `mapping` is not a map in SyN's form, or the shape of an image differs from
        that of its grid in the map.
    """
    check_mapping(mapping)
    if not mapping.is_inverse:
        raise ValueError(
            "mapping must be the map that a registration returns (is_inverse=True), "
            "got one with is_inverse=False."
        )
    read: dict[str, Any] = {}
    given = {"static": (static, static_mask), "moving": (moving, moving_mask)}
    sides = {"static": "codomain", "moving": "domain"}
    for role, (image, mask) in given.items():
        data = fill_masked(read_image(image, name=role)[0])
        shape = getattr(mapping, f"{sides[role]}_shape")
        wanted = tuple(int(n) for n in shape)
        if data.shape == (*wanted, 1):
            data = data[..., 0]
        if data.shape != wanted:
            raise ValueError(f"{role} must have shape {wanted}, got {data.shape}.")
        grid2world = getattr(mapping, f"{sides[role]}_grid2world")
        name = f"{role}_mask"
        read[name] = read_mask(mask, image, wanted, grid2world, name=name)
        check_mask(read[name], data, role)
        read[role], read[f"{role}_grid2world"] = data, grid2world
    return MappedImages(**read)
