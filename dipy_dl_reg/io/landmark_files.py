"""Read landmarks from text files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dipy_dl_reg.validation import check_points


def read_landmarks(path: str | PathLike[str], *, name: str = "landmarks") -> np.ndarray:
    r"""Read points from a text file.

    Parameters
    ----------
    path : str or Path
        One point on each line: its world coordinates (mm), separated by commas,
        semicolons, tabs or spaces.  Empty lines, comments that begin with ``#``, and a
        first line of column titles are ignored.
    name : str, optional
        Name of the landmarks in error messages.

    Returns
    -------
    points : ndarray, shape (N, 2) or (N, 3)
        float64.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file has another content.

    See Also
    --------
    ThinPlateSplineRegistration : a map from landmarks alone.
    DeepRegistration : takes landmarks together with images (`landmarks`).

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from dipy_dl_reg import read_landmarks
    >>> path = Path(mkdtemp(), "landmarks.csv")
    >>> _ = path.write_text("x,y,z\n10.5,-20,3\n-11,-19.5,4\n")
    >>> read_landmarks(path)
    array([[ 10.5, -20. ,   3. ],
           [-11. , -19.5,   4. ]])
    """
    path = Path(path)
    rows = _parse_lines(_read_lines(path, name))
    if not rows:
        raise ValueError(f"{name}: {path} holds no points")
    dim = len(rows[0].numbers or ())
    for row in rows:
        count = 0 if row.numbers is None else len(row.numbers)
        if count not in (2, 3) or count != dim:
            raise ValueError(
                f"{name}: {path}, line {row.line} must hold 2 or 3 numbers, as many as "
                f"the other lines, got {row.text!r}"
            )
    points = np.array([row.numbers for row in rows])
    return check_points(points.reshape(len(rows), dim), f"{name}: {path}")


def read_landmark_pair(
    static: str | PathLike[str] | None, moving: str | PathLike[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read the landmarks of two images from two text files.

    Parameters
    ----------
    static, moving : str, Path or None
        The files, see `read_landmarks`.  Line i of one file and line i of the other
        are the same anatomical point.

    Returns
    -------
    static_points, moving_points : ndarray, shape (N, 3) or (N, 2)
        World coordinates, mm; two coordinates for slices.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If only one file is given, or the two do not hold pairs of points.
    """
    points = []
    for name, path in (("static_landmarks", static), ("moving_landmarks", moving)):
        if path is None:
            raise ValueError(
                f"static_landmarks and moving_landmarks: {name} is missing"
            )
        points.append((path, name))
    first, second = (read_landmarks(path, name=name) for path, name in points)
    if first.shape != second.shape:
        raise ValueError(
            "static_landmarks and moving_landmarks must have equal numbers of points "
            f"and coordinates, got {first.shape} and {second.shape}"
        )
    return first, second


class _Row(NamedTuple):
    """A line of a file that is not empty."""

    line: int  # its number, from 1
    text: str
    numbers: list[float] | None  # None where it holds something else


def _read_lines(path: Path, name: str) -> list[str]:
    """Lines of a text file."""
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not a text file") from None


def _parse_lines(lines: list[str]) -> list[_Row]:
    """Rows of numbers, without empty lines, comments and column titles."""
    rows: list[_Row] = []
    may_be_titles = True
    for line, text in enumerate(lines, start=1):
        words = text.split("#")[0].replace(",", " ").replace(";", " ").split()
        numbers = _parse_numbers(words)
        if words and (numbers is not None or not may_be_titles):
            rows.append(_Row(line, text.strip(), numbers))
        may_be_titles = may_be_titles and not words
    return rows


def _parse_numbers(words: list[str]) -> list[float] | None:
    """Words as numbers, or None if one of them is no number."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return None
