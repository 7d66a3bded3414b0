"""Rotation and translation."""

from dipy_dl_reg.geometry.affine_transforms.composed import ComposedTransform


class Rigid(ComposedTransform):
    """Rotation and translation.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "rigid"
    meaning = "rotation and translation"
    rotates = True
