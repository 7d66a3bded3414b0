"""TRX files (.trx).

A file is a ZIP archive: header.json, the positions of all points in world coordinates
(positions.3.float32, for example), the offsets of the streamlines, and one file for
each set of data per streamline, per point and per group.  Positions and header are
written anew, and everything else is copied.  The archive is read and written as a
stream, because trx-python would copy the whole tractogram to a temporary folder, twice,
and does not read streamlines without points.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
from pathlib import Path
import shutil
from typing import IO, Any
import zipfile
import zlib

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.tractograms.chunks import Chunk, WriteChunk, damaged, header_grid

#: Name of the archive's header.
_HEADER = "header.json"


class TrxFile:
    """A TRX file whose header was read.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    grid : Grid or None
        Of the header; None if it is a default that describes no image.
    n_streamlines : int
        Number of streamlines by the header.

    Raises
    ------
    ValueError
        If the file is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._header = json.loads(archive.read(_HEADER))
                self._positions = _find_member(archive, "positions")
                offsets = _find_member(archive, "offsets")
                values = archive.read(offsets)
            self.n_streamlines = int(self._header["NB_STREAMLINES"])
            self._n_points = int(self._header["NB_VERTICES"])
            self.grid = header_grid(
                self._header["DIMENSIONS"], self._header["VOXEL_TO_RASMM"]
            )
            self._dtype = _find_dtype(self._positions)
            starts = np.frombuffer(values, _find_dtype(offsets)).astype(np.int64)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise damaged(path, str(error)) from error
        self._edges = np.append(starts[: self.n_streamlines], self._n_points)
        self._check_sizes(self._positions.file_size)

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
        edges = self._edges
        wanted = np.append(0, np.arange(n_points, self._n_points, n_points))
        cuts = np.unique(np.append(np.searchsorted(edges, wanted), len(edges) - 1))
        with zipfile.ZipFile(self.path) as archive, archive.open(self._positions) as f:
            for first, last in zip(cuts[:-1], cuts[1:]):
                points = self._read_points(f, int(edges[last] - edges[first]))
                yield Chunk(points, np.diff(edges[first : last + 1]))

    @contextlib.contextmanager
    def write_copy(self, target: Path, grid: Grid) -> Iterator[WriteChunk]:
        """Open a file that will be the same, with other points and another grid.

        Parameters
        ----------
        target : Path
            The file to write.
        grid : Grid
            Grid of the image that its header will describe.

        Yields
        ------
        write : callable
            Writes a chunk with new points.
        """
        header = self._header | {
            "VOXEL_TO_RASMM": grid.affine.tolist(),
            "DIMENSIONS": list(grid.shape),
        }
        with (
            zipfile.ZipFile(self.path) as source,
            zipfile.ZipFile(target, "w") as archive,
        ):
            archive.writestr(_HEADER, json.dumps(header))
            for member in source.infolist():
                if member.filename not in (_HEADER, self._positions.filename):
                    with source.open(member) as old, _add(archive, member) as new:
                        shutil.copyfileobj(old, new)
            with _add(archive, self._positions) as file:

                def write(chunk: Chunk, points: np.ndarray) -> None:
                    file.write(points.astype(self._dtype).tobytes())

                yield write

    def _read_points(self, file: IO[bytes], n: int) -> np.ndarray:
        """Read the next points from the file of positions."""
        try:
            block = file.read(n * 3 * self._dtype.itemsize)
            values = np.frombuffer(block, self._dtype).reshape(n, 3)
        except (ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise damaged(self.path, str(error)) from error
        return values.astype(np.float64)

    def _check_sizes(self, n_bytes: int) -> None:
        """Check that the header, the positions and the offsets fit each other."""
        if n_bytes != self._n_points * 3 * self._dtype.itemsize:
            raise damaged(self.path, f"it does not contain {self._n_points} positions")
        if (
            len(self._edges) != self.n_streamlines + 1
            or self._edges[0] != 0
            or (np.diff(self._edges) < 0).any()
        ):
            raise damaged(self.path, "its offsets do not fit its header")


def _add(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Open a new member of an archive, compressed as the one that it replaces."""
    info = zipfile.ZipInfo(member.filename, member.date_time)
    info.compress_type, info.external_attr = member.compress_type, member.external_attr
    return archive.open(info, "w", force_zip64=member.file_size > zipfile.ZIP64_LIMIT)


def _find_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Find the file of an archive whose name has no folder and begins with a word."""
    for member in archive.infolist():
        if member.filename.partition(".")[0] == name:
            return member
    raise ValueError(f"it contains no {name}")


def _find_dtype(member: zipfile.ZipInfo) -> np.dtype:
    """The type of the numbers in a file, which is the last suffix of its name."""
    return np.dtype(member.filename.rpartition(".")[2]).newbyteorder("<")
