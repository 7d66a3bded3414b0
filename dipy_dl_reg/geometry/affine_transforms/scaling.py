"""One scale for all axes, about the origin."""

from dipy_dl_reg.geometry.affine_transforms.composed import ComposedTransform


class Scaling(ComposedTransform):
    """One scale for all axes, about the origin.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "scaling"
    meaning = "one scale, about the origin"
    has_translation = False
    scaling = "one"
