"""Warning of a head that is turned or mirrored against its header."""

from __future__ import annotations

import numpy as np

from dipy_dl_reg.anatomy.brain_view import can_show_brain
from dipy_dl_reg.anatomy.plausibility import is_plausible
from dipy_dl_reg.anatomy.prediction import predict_anatomy
from dipy_dl_reg.grid import Grid, rotation_angle
from dipy_dl_reg.io.input_image import InputImage
from dipy_dl_reg.registration.user_warnings import warn_user

#: Rotation of a registration (degrees) from which the headers are doubted.
_TURNED = 60.0


def warn_if_turned(matrix: np.ndarray, static: InputImage, moving: InputImage) -> None:
    """Warn if a registration turned a head far, and its header is wrong.

    The network `anatomy` decides which of the two heads is not upright in its own
    world.  Images of other objects are not judged.

    Parameters
    ----------
    matrix : ndarray, shape (dim + 1, dim + 1)
        Result of the registration, static's world to moving's.
    static, moving : InputImage
        The images.

    Warns
    -----
    UserWarning
        If the rotation exceeds 60 degrees, and exactly one image shows an upright head.
    """
    angle = rotation_angle(matrix[:-1, :-1])
    if angle <= _TURNED or len(matrix) != 4:
        return
    images = {"static": static, "moving": moving}
    upright = [name for name, image in images.items() if _shows_upright_head(image)]
    if len(upright) != 1:
        return
    (wrong,) = set(images) - set(upright)
    warn_user(
        f"{wrong} shows no upright head in the orientation of its header, and the "
        f"registration rotated it by {angle:.0f} degrees. If the axes of the image are "
        "reversed, not rotated, left and right are exchanged: the registration cannot "
        f"find this out. Check the orientation of {wrong} in the file."
    )


def _shows_upright_head(image: InputImage) -> bool:
    """Whether the network finds a brain in an image."""
    affine = np.eye(4) if image.grid2world is None else np.asarray(image.grid2world)
    grid = Grid(np.shape(image.values), affine)
    if not can_show_brain(grid, whole=True):
        return False
    maps = predict_anatomy(np.asarray(image.values), grid, mask=image.mask)
    return is_plausible(maps)
