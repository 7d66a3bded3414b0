"""What the readers of all tractogram formats return: chunks of whole streamlines.

Only the coordinates of a tractogram change when it is transformed.  A reader therefore
returns, beside the coordinates, the content of the file as it is, and writing puts new
coordinates into it: data per point and per streamline, groups, and the order of the
streamlines are the same bit for bit, and no Python code runs for each streamline
(nibabel's readers and writers do this; ``tools/experiments/tractograms.py`` compares
the times).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import nibabel as nib
import numpy as np

from dipy_dl_reg.grid import Grid


class Chunk(NamedTuple):
    """Consecutive streamlines of a file.

    Attributes
    ----------
    points : ndarray of float64, shape (N, 3)
        World coordinates (RAS, mm) of the points of all these streamlines.
    lengths : ndarray of int, shape (M,)
        Number of points of each streamline; their sum is N.
    content : Any
        What the file's format needs in order to write these streamlines again.
    """

    points: np.ndarray
    lengths: np.ndarray
    content: Any = None


#: A function that writes a chunk with new points.
WriteChunk: TypeAlias = Callable[[Chunk, np.ndarray], None]


class TractogramFile(Protocol):
    """A tractogram file whose header was read and checked.

    Attributes
    ----------
    path : Path
        The file.
    grid : Grid or None
        Grid of the image that the header describes; None if it describes none.
    n_streamlines : int
        Number of streamlines by the header; 0 if it is unknown.
    """

    path: Path
    grid: Grid | None
    n_streamlines: int

    def read_chunks(self, n_points: int) -> Iterator[Chunk]:
        """Read the streamlines from the first to the last.

        Parameters
        ----------
        n_points : int
            Number of points that a chunk has approximately.

        Yields
        ------
        chunk : Chunk
            Whole streamlines.

        Raises
        ------
        ValueError
            If the file is damaged.
        """

    def write_copy(
        self, target: Path, grid: Grid
    ) -> AbstractContextManager[WriteChunk]:
        """Open a file that will be the same, with other points and another grid.

        Parameters
        ----------
        target : Path
            The file to write.
        grid : Grid
            Grid of the image that its header will describe.

        Returns
        -------
        context : context manager
            It provides the function that writes one chunk after another.
        """


def read_records(
    path: Path, offset: int, n_bytes: int, find_edges: Callable[[bytearray], np.ndarray]
) -> Iterator[tuple[bytearray, np.ndarray]]:
    """Read a file in blocks that end where a record ends.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        Where its first record begins, in bytes.
    n_bytes : int
        Size of a block, approximately.
    find_edges : callable
        Where the complete records of a block begin, and where the last of them ends, in
        bytes.

    Yields
    ------
    block : bytearray
        One or more complete records.
    edges : ndarray of int
        Their edges, from 0 to the length of the block.

    Raises
    ------
    ValueError
        If the file ends inside of a record.
    """
    rest = bytearray()
    with open(path, "rb") as file:
        file.seek(offset)
        while read := file.read(n_bytes):
            block = rest + read
            edges = find_edges(block)
            rest = block[edges[-1] :]
            del block[edges[-1] :]
            if block:
                yield block, edges
    if rest:
        raise damaged(path, "it ends inside of a streamline")


def transform_affinely(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Transform points by an affine matrix.

    Parameters
    ----------
    points : ndarray, shape (N, 3)
        The points.
    matrix : ndarray, shape (4, 4)
        The matrix.

    Returns
    -------
    transformed : ndarray of float64, shape (N, 3)
        ``matrix @ [x, y, z, 1]`` of each point.
    """
    return points @ matrix[:3, :3].T.astype(np.float64) + matrix[:3, 3]


def damaged(path: Path, what: str) -> ValueError:
    """Make the error for a damaged tractogram file.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What is wrong.

    Returns
    -------
    error : ValueError
        To be raised.
    """
    return ValueError(f"tractogram: {path} is damaged: {what}")


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a .trk or .tck file by nibabel.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    header : dict
        As nibabel names its fields.

    Raises
    ------
    ValueError
        If nibabel cannot read it.
    """
    try:
        return dict(nib.streamlines.load(path, lazy_load=True).header)
    except Exception as error:  # a damaged header can raise errors of any type
        raise damaged(path, str(error)) from error


def header_grid(shape: Any, matrix: Any) -> Grid | None:
    """Make the grid that a header describes.

    Parameters
    ----------
    shape : sequence of int
        Dimensions of the image by the header.
    matrix : array_like, shape (4, 4)
        Voxel to world.

    Returns
    -------
    grid : Grid or None
        None for one voxel, which programs write that know no image: the coordinates
        are valid, but the header describes nothing.
    """
    if np.prod(shape, dtype=np.int64) <= 1:
        return None
    matrix = np.array(matrix, dtype=np.float64).reshape(4, 4)
    return Grid(tuple(int(n) for n in shape), matrix)
