"""The affine part, found by DIPY on coarse copies of two images."""

from dipy.align import affine_registration
from nibabel.affines import voxel_sizes
import numpy as np
from scipy.ndimage import gaussian_filter

from dipy_dl_reg.files import check_affine

_PIPELINE = ["center_of_mass", "translation", "rigid", "affine"]


def find_prealign(
    static,
    moving,
    static_affine,
    moving_affine,
    *,
    static_mask=None,
    moving_mask=None,
):
    """DIPY's affine registration, on images of about 3 mm: it needs no finer.

    By mutual information: centre of mass, translation, rigid, affine.

    Parameters
    ----------
    static, moving : ndarray, 3D
        The images; NaN is missing data.
    static_affine, moving_affine : ndarray, shape (4, 4)
        Voxels to world, mm.
    static_mask, moving_mask : ndarray of bool, optional
        Where the images count.

    Returns
    -------
    prealign : ndarray, shape (4, 4)
        Static world to moving world.

    Raises
    ------
    ValueError
        If what is found is no invertible matrix.
    """
    static, static_mask, static_affine = _coarse(static, static_mask, static_affine)
    moving, moving_mask, moving_affine = _coarse(moving, moving_mask, moving_affine)
    _, prealign = affine_registration(
        moving,
        static,
        static_affine=static_affine,
        moving_affine=moving_affine,
        pipeline=_PIPELINE,
        level_iters=[1000, 500, 100],
        static_mask=static_mask,
        moving_mask=moving_mask,
    )
    return check_affine(prealign, 3, "the affine found")


def _coarse(data, mask, affine):
    """An image and its mask at about 3 mm, as DIPY's affine registration takes them."""
    stride = np.rint(3 / voxel_sizes(affine)).astype(int)
    # no axis below 16 voxels, which DIPY shrinks four times more
    stride = np.clip(stride, 1, np.maximum(1, np.array(data.shape) // 16))
    smooth = gaussian_filter(np.nan_to_num(data), 0.4 * stride * (stride > 1))
    chosen = tuple(slice(None, None, s) for s in stride)
    if mask is not None:
        mask = mask[chosen].astype(np.int32)  # the only type it takes
    return smooth[chosen], mask, affine @ np.diag([*stride, 1])
