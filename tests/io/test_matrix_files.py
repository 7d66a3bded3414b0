"""Matrices in text files."""

import numpy as np
from numpy.testing import assert_array_equal
import pytest

from dipy_dl_reg.io.matrix_files import read_matrix


@pytest.mark.parametrize("dim", [2, 3])
def test_matrix_is_read(tmp_path, dim):
    matrix = np.eye(dim + 1)
    matrix[0, -1] = 3.5
    np.savetxt(tmp_path / "matrix.txt", matrix)
    found = read_matrix(tmp_path / "matrix.txt", dim, name="prealign")
    assert_array_equal(found, matrix)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "prealign: .*must have the shape"),
        ("no matrix", "prealign: .*is no matrix in text"),
        ("1 0 0\n0 1 0\n0 0 1", "prealign: .*must have the shape"),
        ("1 0 0 0\n" * 4, "prealign: .*must have the last row"),
    ],
)
def test_other_files_are_errors(tmp_path, text, message):
    path = tmp_path / "matrix.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_matrix(path, name="prealign")
    with pytest.raises(FileNotFoundError, match="prealign: no such file"):
        read_matrix(tmp_path / "none.txt", name="prealign")
