"""Translation alone."""

from dipy_dl_reg.geometry.affine_transforms.composed import ComposedTransform


class Translation(ComposedTransform):
    """Translation alone.

    Attributes
    ----------
    dim : {2, 3}
        Dimension of space.
    """

    kind = "translation"
    meaning = "translation alone"
