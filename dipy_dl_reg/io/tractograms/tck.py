"""MRtrix3's track files (.tck).

A file is a header of text and triplets of 32-bit numbers: the world coordinates of the
points, NaN after each streamline, and infinity at the end.  The header is copied: it
describes no image, and its time stamp links the file to MRtrix3's files of track
scalars (.tsf), which remain valid because no point is added or left out.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.tractograms.chunks import (
    Chunk,
    WriteChunk,
    damaged,
    read_header,
    read_records,
)

#: Bytes of a triplet.
_ROW = 12


class TckFile:
    """A track file of MRtrix3 whose header was read.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    grid : None
        The format describes no image.
    n_streamlines : int
        Number of streamlines by the header; 0 if it is unknown.

    Raises
    ------
    ValueError
        If the file is damaged.
    """

    grid: Grid | None = None

    def __init__(self, path: Path):
        self.path = path
        header = read_header(path)
        self._offset, self._dtype = int(header["_offset_data"]), header["_dtype"]
        count = str(header.get("count", "0")).split()[-1]
        self.n_streamlines = int(count) if count.isdigit() else 0

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
        ended, size = False, n_points * _ROW
        for block, edges in read_records(
            self.path, self._offset, size, self._find_edges
        ):
            if ended:
                raise damaged(self.path, "there is data after the end marker")
            rows, ends = self._rows(block), edges[1:] // _ROW - 1
            ended = bool(np.isinf(rows[ends[-1]]).all())
            lengths = np.diff(edges) // _ROW - 1
            if np.isinf(rows[ends[:-1]]).any() or (ended and lengths[-1]):
                raise damaged(self.path, "an end marker is not at its end")
            at = np.ones(len(rows), dtype=bool)
            at[ends] = False
            lengths = lengths[:-1] if ended else lengths
            yield Chunk(rows[at].astype(np.float64), lengths, (block, at))
        if not ended:
            raise damaged(self.path, "its end marker is missing")

    @contextlib.contextmanager
    def write_copy(self, target: Path, grid: Grid) -> Iterator[WriteChunk]:
        """Open a file that will be the same with other points.

        Parameters
        ----------
        target : Path
            The file to write.
        grid : Grid
            Not used: the format describes no image.

        Yields
        ------
        write : callable
            Writes a chunk with new points.
        """
        with open(self.path, "rb") as source:
            header = source.read(self._offset)
        with open(target, "wb") as file:
            file.write(header)

            def write(chunk: Chunk, points: np.ndarray) -> None:
                block, at = chunk.content
                self._rows(block)[at] = points
                file.write(block)

            yield write

    def _find_edges(self, block: bytearray) -> np.ndarray:
        """Find the edges of the complete streamlines in a block, in bytes.

        Each ends with a triplet of NaN, or of infinity at the end of the file.
        """
        rows = self._rows(block, len(block) // _ROW)
        ends = np.flatnonzero(~np.isfinite(rows[:, 0]))
        # A triplet that is finite in part is left for the check of the points.
        ends = ends[~np.isfinite(rows[ends]).any(axis=1)]
        return np.append(0, (ends + 1) * _ROW)

    def _rows(self, block: bytearray, n: int = -1) -> np.ndarray:
        """The first triplets of a block; all by default."""
        return np.frombuffer(block, self._dtype, 3 * n if n >= 0 else -1).reshape(-1, 3)
