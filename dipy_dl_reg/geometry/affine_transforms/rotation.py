"""Rotation about the origin."""

from dipy_dl_reg.geometry.affine_transforms.composed import ComposedTransform


class Rotation(ComposedTransform):
    """Rotation about the origin.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "rotation"
    meaning = "rotation about the origin"
    rotates = True
    has_translation = False
