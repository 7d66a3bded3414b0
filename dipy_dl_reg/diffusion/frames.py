"""Frames in which directions are given: b-vectors, eigenvectors, tensors, harmonics.

A direction has three components along some axes, and programs disagree about which:
those of the voxel array (DIPY), the same with the first axis reversed for some images
(FSL), or those of the world in mm (MRtrix3).  Which one is meant is not stored in
files.
"""

from __future__ import annotations

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.validation import check_affine, check_choice

#: Names of the frames.
FRAMES = ("voxel", "fsl", "world")


def frame_to_world(affine: np.ndarray, frame: str = "voxel") -> np.ndarray:
    r"""Matrix that turns directions of an image's frame to the axes of the world.

    With :math:`A` the linear part of the affine, and
    :math:`R = A (A^\top A)^{-1/2}` its orthogonal polar factor, which contains neither
    voxel sizes nor shears, a direction :math:`d` has the world components

    .. math::

        \text{voxel}: R\,d \qquad \text{fsl}: R\,\mathrm{diag}(\mp 1, 1, 1)\,d
        \qquad \text{world}: d

    where the sign is negative if :math:`\det A > 0`.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        Voxel-to-world matrix of the image.
    frame : {"voxel", "fsl", "world"}, optional
        The axes of the components. "voxel": the axes of the voxel array, in the
        direction of increasing index, as DIPY's tracking takes them. "fsl": the same,
        but the first is reversed if the affine has a positive determinant; FSL's
        b-vectors are given so, and what is fitted with them unchanged. "world": the
        axes of the world, right, anterior, superior for NIfTI; MRtrix3's.

    Returns
    -------
    rotation : ndarray, shape (3, 3)
        An orthogonal matrix; a reflection if the axes of the frame are left-handed. A
        direction ``d`` is ``rotation @ d`` in the world, a tensor ``D`` is
        ``rotation @ D @ rotation.T``.

    Raises
    ------
    ValueError
        If the affine is not an invertible matrix, or the frame is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.frames import frame_to_world
    >>> affine = np.diag([2.0, 2.0, 3.0, 1.0])
    >>> frame_to_world(affine, "voxel") @ [1, 0, 0]
    array([1., 0., 0.])
    >>> frame_to_world(affine, "fsl") @ [1, 0, 0]
    array([-1.,  0.,  0.])
    """
    linear = check_affine(affine, 3, "affine")[:3, :3]
    check_choice("frame", frame, FRAMES)
    if frame == "world":
        return np.eye(3)
    # Left and right singular vectors of round-off would turn 0 into -0.
    left, _, right = np.linalg.svd(linear / np.linalg.norm(linear, axis=0))
    rotation = left @ right + 0.0
    if frame == "fsl" and np.linalg.det(linear) > 0:
        rotation[:, 0] *= -1
    return rotation


def change_of_frame(
    from_affine: np.ndarray,
    from_frame: str,
    to_affine: np.ndarray,
    to_frame: str,
) -> np.ndarray:
    """Matrix that turns directions of one image's frame to that of another image.

    Parameters
    ----------
    from_affine : ndarray, shape (4, 4)
        Voxel-to-world matrix of the image before.
    from_frame : {"voxel", "fsl", "world"}
        The axes of the components before.
    to_affine : ndarray, shape (4, 4)
        Voxel-to-world matrix of the image after, in the same world.
    to_frame : {"voxel", "fsl", "world"}
        The axes of the components after.

    Returns
    -------
    rotation : ndarray, shape (3, 3)
        An orthogonal matrix.

    Raises
    ------
    ValueError
        If an affine is not an invertible matrix, or a frame is unknown.

    Examples
    --------
    FSL's b-vectors in the world's axes, as MRtrix3 takes them:

    >>> import numpy as np
    >>> from dipy_dl_reg.diffusion.frames import change_of_frame
    >>> affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    >>> change_of_frame(affine, "fsl", affine, "world") @ [1, 0, 0]
    array([-1.,  0.,  0.])
    """
    return frame_to_world(to_affine, to_frame).T @ frame_to_world(
        from_affine, from_frame
    )


def choose_frame(
    frame: str | None, *affines: np.ndarray, default: str = "voxel"
) -> str:
    """Return the frame that was given, or the default, with a warning if in doubt.

    Parameters
    ----------
    frame : {"voxel", "fsl", "world"} or None
        The user's value.
    *affines : ndarray, shape (4, 4)
        Voxel-to-world matrices of the image and of the result.
    default : {"voxel", "fsl", "world"}, optional
        The frame if none was given.  "voxel" is in doubt where "fsl" differs from it:
        DIPY's users often fit with FSL's b-vectors.

    Returns
    -------
    frame : {"voxel", "fsl", "world"}
        The frame.

    Raises
    ------
    ValueError
        If the frame is unknown.
    """
    if frame is not None:
        return check_choice("frame", frame, FRAMES)
    if default == "voxel" and any(np.linalg.det(a[:3, :3]) > 0 for a in affines):
        logger.warning(
            "frame was not given: directions are taken and returned along the voxel "
            "axes (frame='voxel'). An affine with a positive determinant is among the "
            "images: what was fitted with FSL's b-vectors has frame='fsl' there, with "
            "the first axis reversed. Give frame to choose."
        )
    return default
