"""Affine transforms of ITK and ANTs: ``.mat`` (MATLAB 4) and text (``.tfm``).

In LPS, from the world of the output image (static) to that of the input image (moving):
``y = M (x - c) + c + t``.  The parameters are `M`, row by row, and `t`; the centre `c`
is the fixed parameter.  This package writes ``c = 0``.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path

import numpy as np

from dipy_dl_reg.grid import Grid

#: First characters of ITK's text files.
_TEXT = b"#Insight Transform File V1.0"


def matches(start: bytes, path: Path) -> bool:
    """Tell whether a file is one of ITK's transforms.

    Parameters
    ----------
    start : bytes
        Its first bytes.
    path : Path
        The file.

    Returns
    -------
    matches : bool
        Whether it begins as they do.
    """
    return start.startswith(_TEXT) or b"Transform_" in start[:80]


def read(
    path: str | os.PathLike, static: Grid | None, moving: Grid | None
) -> np.ndarray:
    """Read an affine.

    Parameters
    ----------
    path : str or Path
        The file.
    static, moving : Grid or None
        Not needed.

    Returns
    -------
    matrix : ndarray, shape (D + 1, D + 1)
        Static world to moving world, RAS.

    Raises
    ------
    ValueError
        If the file is damaged, or holds a transform that is not affine.
    """
    with open(path, "rb") as file:
        is_text = file.read(len(_TEXT)) == _TEXT
    return affine_of_parameters(*(_read_text(path) if is_text else _read_mat(path)))


def _read_text(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray, str]:
    """Parameters, fixed parameters and type in a text file of one transform."""
    lines = Path(path).read_text().splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line and line[0] != "#"]
    if [key for key, _ in pairs].count("Transform") != 1:
        raise ValueError("it must hold one transform")
    found = {key: text.strip() for key, text in pairs}
    numbers = [
        np.array(found[key].split(), dtype=float)
        for key in ("Parameters", "FixedParameters")
    ]
    return numbers[0], numbers[1], found["Transform"]


def _read_mat(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray, str]:
    """Parameters, fixed parameters and type in a file of MATLAB 4."""
    from scipy.io import loadmat

    found = loadmat(os.fspath(path))
    (kind,) = (key for key in found if "Transform_" in key)
    return found[kind].ravel().astype(float), found["fixed"].ravel().astype(float), kind


def write(
    matrix: np.ndarray,
    path: str | os.PathLike,
    static: Grid | None,
    moving: Grid | None,
) -> None:
    """Write an affine.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Static world to moving world, RAS.
    path : str or Path
        The file: text if it ends in ``.tfm`` or ``.txt``, else MATLAB 4.
    static, moving : Grid or None
        Not needed.
    """
    dim = len(matrix) - 1
    kind = f"AffineTransform_double_{dim}_{dim}"
    parameters = parameters_of_affine(matrix)
    if os.fspath(path).lower().endswith((".tfm", ".txt")):
        lines = [
            _TEXT.decode(),
            "#Transform 0",
            f"Transform: {kind}",
            f"Parameters: {' '.join(repr(float(p)) for p in parameters)}",
            f"FixedParameters: {' '.join(['0'] * dim)}",
        ]
        Path(path).write_text("\n".join(lines) + "\n")
        return
    from scipy.io import savemat

    entries = {kind: parameters[:, None], "fixed": np.zeros((dim, 1))}
    with open(path, "wb") as file:  # to a path, `savemat` may append a suffix
        savemat(file, entries, format="4")


def parameters_of_affine(matrix: np.ndarray) -> np.ndarray:
    """Convert a matrix to ITK's parameters, for a centre of 0.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        In RAS.

    Returns
    -------
    parameters : ndarray, shape (D * D + D,)
        The linear part, row by row, and the translation, in LPS.
    """
    dim = len(matrix) - 1
    lps = np.diag([-1.0, -1.0, 1.0, 1.0][:dim] + [1.0])
    turned = lps @ matrix @ lps
    return np.concatenate([turned[:dim, :dim].ravel(), turned[:dim, dim]])


def affine_of_parameters(
    parameters: np.ndarray, fixed: np.ndarray, kind: str
) -> np.ndarray:
    """Convert ITK's parameters to a matrix.

    Parameters
    ----------
    parameters : ndarray
        Those of a transform of the type `kind`.
    fixed : ndarray
        The centre, in LPS.
    kind : str
        Type of the transform, such as "AffineTransform_double_3_3".

    Returns
    -------
    matrix : ndarray, shape (D + 1, D + 1)
        In RAS.

    Raises
    ------
    ValueError
        If the type is not an affine, an Euler or a translation transform.
    """
    name = kind.partition("_")[0]
    dim = int(kind.rpartition("_")[2])
    if name not in _LINEAR_PARTS:
        raise ValueError(
            f"it must hold one of {', '.join(_LINEAR_PARTS)}, got {kind}: convert it "
            "to an affine"
        )
    linear = _LINEAR_PARTS[name](parameters, fixed, dim)
    centre = fixed[:dim] if len(fixed) >= dim else np.zeros(dim)
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim] = linear
    matrix[:dim, dim] = parameters[-dim:] + centre - linear @ centre
    lps = np.diag([-1.0, -1.0, 1.0, 1.0][:dim] + [1.0])
    return lps @ matrix @ lps


def _affine_part(parameters: np.ndarray, fixed: np.ndarray, dim: int) -> np.ndarray:
    """The linear part of an affine."""
    return parameters[: dim * dim].reshape(dim, dim)


def _translation_part(
    parameters: np.ndarray, fixed: np.ndarray, dim: int
) -> np.ndarray:
    """The linear part of a translation."""
    return np.eye(dim)


def _euler_part(parameters: np.ndarray, fixed: np.ndarray, dim: int) -> np.ndarray:
    """Rotation by angles about the axes: ``Rz Rx Ry``, or ``Rz Ry Rx`` if so marked."""
    if dim == 2:
        cosine, sine = np.cos(parameters[0]), np.sin(parameters[0])
        return np.array([[cosine, -sine], [sine, cosine]])
    turns = []
    for axis, angle in enumerate(parameters[:3]):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    x, y, z = turns
    is_zyx = len(fixed) > 3 and fixed[3] != 0
    return z @ y @ x if is_zyx else z @ x @ y


#: The linear part from parameters, fixed parameters and dimension, by ITK's types.
_LINEAR_PARTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "AffineTransform": _affine_part,
    "MatrixOffsetTransformBase": _affine_part,
    "Euler3DTransform": _euler_part,
    "Euler2DTransform": _euler_part,
    "TranslationTransform": _translation_part,
}
