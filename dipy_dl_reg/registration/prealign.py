"""The affine part of two images, as the training finds it."""

import numpy as np

from dipy_dl_reg.maps.verdict import log_verdict
from dipy_dl_reg.registration.affine import find_affine
from dipy_dl_reg.validation import check_affine


def find_prealign(
    static,
    moving,
    static_affine,
    moving_affine,
    *,
    static_mask=None,
    moving_mask=None,
    pipeline=None,
    starting_affine=None,
    num_threads=None,
):
    """Where one image lies in the world of another, with a search over rotations.

    Parameters
    ----------
    static, moving : ndarray, 3D or 2D
        The images; NaN is missing data.
    static_affine, moving_affine : ndarray, shape (dim + 1, dim + 1)
        Voxels to world, mm.
    static_mask, moving_mask : ndarray of bool, optional
        Where the images count.
    pipeline : sequence of str, optional
        Steps of `deep_affine_registration`; by default its own: centre of mass,
        translation, rigid, affine, by mutual information.
    starting_affine : ndarray, shape (dim + 1, dim + 1), optional
        Where they begin.
    num_threads : int, optional
        Threads on the CPU.

    Returns
    -------
    prealign : ndarray, shape (dim + 1, dim + 1)
        Static world to moving world.

    Raises
    ------
    ValueError
        If what is found is no invertible matrix.
    """
    found = find_affine(
        moving=moving,
        static=static,
        moving_affine=moving_affine,
        static_affine=static_affine,
        static_mask=static_mask,
        moving_mask=moving_mask,
        pipeline=pipeline,
        starting_affine=starting_affine,
        num_threads=num_threads,
    )
    if found.verdict is not None:
        log_verdict(found.verdict, "affine registration", quiet=True)
    return check_affine(found.matrix, np.ndim(static), "the affine found")
