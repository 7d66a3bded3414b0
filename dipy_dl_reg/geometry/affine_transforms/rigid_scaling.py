"""Rotation, translation and a scale for each axis."""

from dipy_dl_reg.geometry.affine_transforms.composed import ComposedTransform


class RigidScaling(ComposedTransform):
    """Rotation, translation and a scale for each axis.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "rigid_scaling"
    meaning = "rigid, and a scale for each axis"
    rotates = True
    scaling = "each"
