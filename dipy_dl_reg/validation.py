"""Checks of the user's values, with a uniform message; with NumPy only.

Each message has the form ``NAME must be WANTED, got VALUE.``: `wrong_value` makes it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def wrong_value(name: str, wanted: str, got: object) -> ValueError:
    """Make the error for a value that cannot be used.

    Parameters
    ----------
    name : str
        Name of the parameter.
    wanted : str
        Description of valid values, such as "0 or more and finite".
    got : object
        The user's value; its ``repr`` is shown.

    Returns
    -------
    error : ValueError
        To be raised.
    """
    return ValueError(f"{name} must be {wanted}, got {got!r}.")


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Check that a value is one of a few names.

    Parameters
    ----------
    name : str
        Name of the parameter.
    value : object
        The user's value.
    choices : iterable of str
        The names allowed.

    Returns
    -------
    value : str
        The same value.

    Raises
    ------
    ValueError
        If the value is none of the names.
    """
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise wrong_value(name, f"one of {choices}", value)
    return value


def check_suffix(name: str, suffixes: tuple[str, ...], parameter: str) -> str:
    """Check the suffix of a file name.

    Parameters
    ----------
    name : str
        The name that the user gave.
    suffixes : tuple of str
        Suffixes of the file's format.
    parameter : str
        Name of the parameter, for the error message.

    Returns
    -------
    name : str
        The same name.

    Raises
    ------
    ValueError
        If it has none of the suffixes.
    """
    if not str(name).lower().endswith(suffixes):
        raise ValueError(f"{parameter} must end in {' or '.join(suffixes)}, got {name}")
    return name


def check_number(
    name: str,
    value: object,
    *,
    low: float = 0.0,
    high: float = float("inf"),
    above: bool = False,
    below: bool = False,
) -> float:
    """Check a real number against a range.

    Parameters
    ----------
    name : str
        Name of the parameter.
    value : object
        The user's value.
    low, high : float, optional
        Lower and upper limit of the range.
    above, below : bool, optional
        Whether `low` or `high`, respectively, is excluded.  Infinity is always
        excluded.

    Returns
    -------
    value : float
        The number.

    Raises
    ------
    ValueError
        If the value is not a number in this range.
    """
    number = _as_number(value)
    fits = number > low if above else number >= low
    fits &= number < high if below or high == float("inf") else number <= high
    if not fits:
        raise wrong_value(name, _describe_range(low, high, above, below), value)
    return number


def _as_number(value: object) -> float:
    """Convert a value to float; to NaN, which is in no range, if it is not real.

    Arrays and tensors without axes are also numbers.
    """
    is_number = hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if not is_number or kind not in "biuf":
        return float("nan")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _describe_range(low: float, high: float, above: bool, below: bool) -> str:
    """Describe a range in words."""
    start = f"above {low:g}" if above else f"{low:g} or more"
    if high == float("inf"):
        return f"{start} and finite"
    return f"{start} and {'below' if below else 'at most'} {high:g}"


def check_whole_number(name: str, value: object, *, low: int = 0) -> int:
    """Check a whole number.

    Parameters
    ----------
    name : str
        Name of the parameter.
    value : object
        The user's value.
    low : int, optional
        The smallest valid number.

    Returns
    -------
    value : int
        The number.

    Raises
    ------
    ValueError
        If the value is not a whole number of at least `low`.
    """
    number = _as_number(value)
    if not (np.isfinite(number) and number == int(number) and number >= low):
        raise wrong_value(name, f"a whole number from {low}", value)
    return int(number)


def check_affine(matrix: object, dim: int, name: str) -> np.ndarray:
    """Check an invertible affine matrix.

    Parameters
    ----------
    matrix : array_like
        The user's value.
    dim : int
        2 or 3.
    name : str
        Name of the parameter.

    Returns
    -------
    matrix : ndarray of float64, shape (dim + 1, dim + 1)
        The matrix.

    Raises
    ------
    ValueError
        If the matrix has another shape, is not finite, does not have the last row
        0 ... 0 1, or is singular.
    """
    try:
        matrix = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a matrix of numbers") from error
    if matrix.shape != (dim + 1, dim + 1):
        raise ValueError(
            f"{name} must have the shape {(dim + 1, dim + 1)}, got {matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite")
    if not np.allclose(matrix[dim], np.eye(dim + 1)[dim]):
        raise ValueError(f"{name} must have the last row 0 ... 0 1, got {matrix[dim]}")
    lengths = np.linalg.norm(matrix[:dim, :dim], axis=0)
    if abs(np.linalg.det(matrix[:dim, :dim])) <= 1e-9 * lengths.prod():
        raise ValueError(f"{name} must be invertible, got a singular matrix")
    return matrix


def check_points(points: object, name: str) -> np.ndarray:
    """Check points in 2D or 3D.

    Parameters
    ----------
    points : array_like, shape (N, 2) or (N, 3)
        The user's value.
    name : str
        Name of the parameter.

    Returns
    -------
    points : ndarray of float64, shape (N, 2) or (N, 3)
        The points.

    Raises
    ------
    ValueError
        If the points are not finite real numbers in 2 or 3 columns.
    """
    wanted = f"{name} must be an array of points of shape (N, 2) or (N, 3)"
    try:
        array = np.asarray(points)
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        raise ValueError(f"{wanted}, got shape {array.shape}.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{wanted} of real numbers, got dtype {array.dtype}.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise ValueError(f"{name} must be finite, but row {row} is {array[row]}.")
    return array


def check_shape(shape: object, dim: int, name: str) -> tuple[int, ...]:
    """Check the shape of an image.

    Parameters
    ----------
    shape : sequence of int
        The user's value.
    dim : int
        Number of axes.
    name : str
        Name of the parameter.

    Returns
    -------
    shape : tuple of int
        The shape.

    Raises
    ------
    ValueError
        If the shape is not `dim` positive whole numbers.
    """
    sizes = np.asarray(shape)
    whole = sizes.shape == (dim,) and sizes.dtype.kind in "iu"
    if not whole or sizes.min() < 1:
        raise wrong_value(name, f"{dim} positive whole numbers", shape)
    return tuple(int(n) for n in sizes)


def check_phase_encoding(value: object, dim: int = 3) -> tuple[int, int]:
    """Check the letter of an axis of phase encoding, as in BIDS.

    Parameters
    ----------
    value : object
        The user's value: "i", "j" or "k", the first, second or third axis of the
        image's array, with "-" behind it if the encoding runs towards lower indices.
    dim : int, optional
        Number of axes of the image.

    Returns
    -------
    axis : int
        Axis of the array, from 0.
    sign : int
        1, or -1 with "-".

    Raises
    ------
    ValueError
        If it is something else, or the image has no such axis.
    """
    letters = list("ijk"[:dim])
    names = [letter + sign for letter in letters for sign in ("", "-")]
    name = check_choice("phase_encoding", value, names)
    return letters.index(name[0]), -1 if name.endswith("-") else 1
