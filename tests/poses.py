"""An object in two poses, for calls that take images."""

import numpy as np
import phantom

WHOLE = ["center_of_mass", "rigid", "deform"]

SHORT = {"level_iters": [3, 2]}

TRUTH = phantom.rigid(phantom.rotation((1, 2, 3), 50), [30.0, -20, 10])


def make_poses():
    """Make an object, and the same turned and far away, on other voxels.

    Returns
    -------
    pair : dict
        Arguments of `deep_registration`.
    """
    static_affine = phantom.grid((34, 40, 30), 5.0)
    moving_affine = phantom.grid((36, 38, 36), 5.0, centre=np.array([30.0, -20, 10]))
    return {
        "static": phantom.image((34, 40, 30), static_affine),
        "moving": phantom.image((36, 38, 36), moving_affine, TRUTH),
        "static_affine": static_affine,
        "moving_affine": moving_affine,
    }
