"""Landmark files with all separators, and errors for invalid files."""

import numpy as np
import pytest

from dipy_dl_reg import (
    read_landmarks,
)


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3\n4 5 6.5\n",
        "1,2,3\r\n4,5,6.5\r\n",
        "x,y,z\n1,2,3\n4,5,6.5",
        "# mm\n1;2;3\n\n4;5;6.5 # the last\n",
        "\ufeffx\ty\tz\n1\t2\t3\n4\t5\t6.5\n",
    ],
)
def test_points_are_read(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_landmarks(path), [[1, 2, 3], [4, 5, 6.5]])
    np.testing.assert_array_equal(read_landmarks(str(path)), read_landmarks(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no points"),
        ("x y z\n", "no points"),
        ("1 2 3\n4 5\n", "line 2 must hold"),
        ("1 2 3\nfour 5 6\n", "line 2 must hold"),
        ("x y z\nmm mm mm\n1 2 3", "line 2 must hold"),
        ("1 2 3 4\n", "line 1 must hold"),
        ("1 2 nan\n", "must be finite"),
    ],
)
def test_files_of_something_else(tmp_path, text, message):
    path = tmp_path / "points.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"landmarks: .*points.txt.*{message}"):
        read_landmarks(path)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="mine: no such file"):
        read_landmarks(tmp_path / "none.csv", name="mine")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="not a text file"):
        read_landmarks(tmp_path / "binary.csv")
