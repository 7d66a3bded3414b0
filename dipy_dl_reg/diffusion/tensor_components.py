"""Orders of the six components of tensors, in DIPY, FSL and MRtrix3."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dipy_dl_reg.geometry.tensor_elements import TENSOR_ELEMENTS
from dipy_dl_reg.validation import check_choice

#: Row and column of each of the six components in each program's files.
ORDERS = {
    "dipy": TENSOR_ELEMENTS,
    "fsl": ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)),
    "mrtrix": ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)),
}
#: Frame in which each program's tensors are given (see `frame_to_world`).
FRAME_OF_ORDER = {"dipy": "voxel", "fsl": "fsl", "mrtrix": "world"}
#: Largest difference of D and its transpose, as a fraction of the largest component.
_ASYMMETRY = 1e-3


class TensorImage(NamedTuple):
    """Tensors of an image as six components, and the form they had.

    Attributes
    ----------
    components : ndarray, shape (X, Y, Z, 6)
        Tensors in DIPY's order.
    order : {"dipy", "fsl", "mrtrix"}
        Order of six components before.
    tail : tuple of int
        Last axes of the array before: (6,), (1, 6) or (3, 3).
    """

    components: np.ndarray
    order: str
    tail: tuple[int, ...]

    @property
    def default_frame(self) -> str:
        """Frame in which the tensors are unless another is given."""
        return "voxel" if self.tail == (3, 3) else FRAME_OF_ORDER[self.order]


def tensor_matrices(tensors: np.ndarray, order: str = "dipy") -> np.ndarray:
    """Convert six components of tensors to matrices, DIPY's quadratic form.

    Parameters
    ----------
    tensors : ndarray, shape (..., 6)
        The components.
    order : {"dipy", "fsl", "mrtrix"}, optional
        Their order. "dipy", and NIfTI and ANTs: Dxx, Dxy, Dyy, Dxz, Dyz, Dzz. "fsl":
        Dxx, Dxy, Dxz, Dyy, Dyz, Dzz. "mrtrix": Dxx, Dyy, Dzz, Dxy, Dxz, Dyz.

    Returns
    -------
    matrices : ndarray, shape (..., 3, 3)
        Symmetric matrices, as ``TensorFit.quadratic_form``.
        :func:`dipy.reconst.dti.decompose_tensor` gives their eigenvalues and
        eigenvectors.

    Raises
    ------
    ValueError
        If there are not six components, or the order is unknown.

    See Also
    --------
    tensor_components : the opposite.
    transform_tensors : takes both forms.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.reconst.dti import decompose_tensor
    >>> from dipy_dl_reg import tensor_matrices
    >>> matrices = tensor_matrices(np.array([[1.7, 0, 0.3, 0, 0, 0.3]]) * 1e-3)
    >>> evals, evecs = decompose_tensor(matrices)
    >>> np.abs(evecs[0, :, 0])
    array([1., 0., 0.])
    """
    tensors = np.asarray(tensors)
    places = ORDERS[check_choice("order", order, ORDERS)]
    if tensors.ndim < 1 or tensors.shape[-1] != 6:
        raise ValueError(f"tensors must have the shape (..., 6), got {tensors.shape}")
    matrices = np.empty((*tensors.shape[:-1], 3, 3), dtype=tensors.dtype)
    for k, (row, column) in enumerate(places):
        matrices[..., row, column] = matrices[..., column, row] = tensors[..., k]
    return matrices


def tensor_components(matrices: np.ndarray, order: str = "dipy") -> np.ndarray:
    """Convert matrices, DIPY's quadratic form, to six components of tensors.

    Parameters
    ----------
    matrices : ndarray, shape (..., 3, 3)
        Symmetric matrices; from eigenvalues and eigenvectors,
        :func:`dipy.reconst.dti.vec_val_vect` makes them.
    order : {"dipy", "fsl", "mrtrix"}, optional
        Order of the components; see `tensor_matrices`.

    Returns
    -------
    tensors : ndarray, shape (..., 6)
        The components.

    Raises
    ------
    ValueError
        If the last two axes are not 3x3 matrices, they are not symmetric, or the order
        is unknown.

    See Also
    --------
    tensor_matrices : the opposite; lists the orders.
    transform_tensors : takes both forms.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.reconst.dti import vec_val_vect
    >>> from dipy_dl_reg import tensor_components
    >>> tensor_components(vec_val_vect(np.eye(3), np.array([3.0, 2, 1])), "mrtrix")
    array([3., 2., 1., 0., 0., 0.])
    """
    matrices = np.asarray(matrices)
    places = ORDERS[check_choice("order", order, ORDERS)]
    if matrices.shape[-2:] != (3, 3):
        raise ValueError(
            f"matrices must have the shape (..., 3, 3), got {matrices.shape}"
        )
    _check_symmetry(matrices)
    return np.stack([matrices[..., row, column] for row, column in places], axis=-1)


def split_tensors(tensors: np.ndarray, order: str) -> TensorImage:
    """Read tensors in any form as six components in DIPY's order.

    Parameters
    ----------
    tensors : ndarray, shape (X, Y, Z, 6), (X, Y, Z, 1, 6) or (X, Y, Z, 3, 3)
        The tensors.
    order : {"dipy", "fsl", "mrtrix"}
        Order of six components; matrices have none.

    Returns
    -------
    image : TensorImage
        The components and the form.

    Raises
    ------
    ValueError
        If the array holds no tensors.
    """
    check_choice("order", order, ORDERS)
    tail = tensors.shape[3:]
    if tail not in ((6,), (1, 6), (3, 3)) or tensors.dtype.kind not in "iuf":
        raise ValueError(
            "tensors must be real numbers of shape (X, Y, Z, 6) or (X, Y, Z, 3, 3), "
            f"got {tensors.dtype} of shape {tensors.shape}"
        )
    if tail == (3, 3):
        components = tensor_components(tensors)
    elif order == "dipy":
        components = tensors.reshape(*tensors.shape[:3], 6)
    else:
        flat = tensors.reshape(*tensors.shape[:3], 6)
        components = tensor_components(tensor_matrices(flat, order))
    return TensorImage(components, order, tail)


def join_tensors(components: np.ndarray, image: TensorImage) -> np.ndarray:
    """Give tensors the form that others had.

    Parameters
    ----------
    components : ndarray, shape (X, Y, Z, 6)
        Tensors in DIPY's order.
    image : TensorImage
        Tensors that have the form.

    Returns
    -------
    tensors : ndarray, shape (X, Y, Z, 6), (X, Y, Z, 1, 6) or (X, Y, Z, 3, 3)
        The tensors.
    """
    if image.tail == (3, 3):
        return tensor_matrices(components)
    if image.order != "dipy":
        components = tensor_components(tensor_matrices(components), image.order)
    return components.reshape(*components.shape[:3], *image.tail)


def _check_symmetry(matrices: np.ndarray) -> None:
    """Matrices that are not symmetric are not tensors; eigenvectors, for example."""
    if not matrices.size:
        return
    with np.errstate(invalid="ignore"):
        off = np.nanmax(np.abs(matrices - matrices.swapaxes(-1, -2)), initial=0)
        largest = np.nanmax(np.abs(matrices), initial=0)
    if off > _ASYMMETRY * largest:
        raise ValueError(
            "tensors must be symmetric 3x3 matrices, but one differs from its "
            f"transpose by {off:.3g}; eigenvectors are no tensors"
        )
