"""Rotation, translation and one scale for all axes."""

from dipy_dl_reg.geometry.affine_transforms.composed import ComposedTransform


class RigidIsoscaling(ComposedTransform):
    """Rotation, translation and one scale for all axes.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "rigid_isoscaling"
    meaning = "rigid, and one scale"
    rotates = True
    scaling = "one"
