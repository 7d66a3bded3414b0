"""All affine transforms, by their names in DIPY's pipelines.

A transform is added by one file with a subclass of `AffineTransform` (or of
`ComposedTransform`) and one line here.
"""

from dipy_dl_reg.geometry.affine_transforms.affine import Affine
from dipy_dl_reg.geometry.affine_transforms.base import AffineTransform
from dipy_dl_reg.geometry.affine_transforms.rigid import Rigid
from dipy_dl_reg.geometry.affine_transforms.rigid_isoscaling import RigidIsoscaling
from dipy_dl_reg.geometry.affine_transforms.rigid_scaling import RigidScaling
from dipy_dl_reg.geometry.affine_transforms.rotation import Rotation
from dipy_dl_reg.geometry.affine_transforms.scaling import Scaling
from dipy_dl_reg.geometry.affine_transforms.translation import Translation
from dipy_dl_reg.validation import check_choice

#: Affine transforms by name.
TRANSFORMS: dict[str, type[AffineTransform]] = {
    "translation": Translation,
    "rotation": Rotation,
    "rigid": Rigid,
    "scaling": Scaling,
    "rigid_isoscaling": RigidIsoscaling,
    "rigid_scaling": RigidScaling,
    "affine": Affine,
}


def transform_names() -> list[str]:
    """List the names of all affine transforms.

    Returns
    -------
    names : list of str
        In the order of `TRANSFORMS`.
    """
    return list(TRANSFORMS)


def make_transform(name: str, dim: int) -> AffineTransform:
    """Make an affine transform from its name.

    Parameters
    ----------
    name : str
        One of `TRANSFORMS`.
    dim : {2, 3}
        Dimension of space.

    Returns
    -------
    transform : AffineTransform
        A new object.

    Raises
    ------
    ValueError
        If there is no such transform, or the dimension is neither 2 nor 3.
    """
    return TRANSFORMS[check_choice("transform", name, TRANSFORMS)](dim)
