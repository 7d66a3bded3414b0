"""TrackVis files (.trk).

A file is a header of 1000 bytes and one record for each streamline: the number of
points, then for each point its coordinates and its scalars, then the properties of the
streamline.  All of them have 4 bytes.  Coordinates are in mm along the axes of the grid
of the header, from the corner of its first voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

from nibabel.orientations import aff2axcodes
from nibabel.streamlines.trk import get_affine_trackvis_to_rasmm, header_2_dtype
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.tractograms.chunks import (
    Chunk,
    WriteChunk,
    damaged,
    header_grid,
    read_header,
    read_records,
    transform_affinely,
)

#: Bytes of the header, and of each number after it.
_HEADER, _NUMBER = 1000, 4


class TrkFile:
    """A TrackVis file whose header was read.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    grid : Grid or None
        Of the header; None if it is a default that describes no image.
    n_streamlines : int
        Number of streamlines by the header; 0 if it is unknown.

    Raises
    ------
    ValueError
        If the file is damaged, or its header does not say where its grid lies.
    """

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            self._header = file.read(_HEADER)
        _check_matrix(path, self._header)
        header = read_header(path)
        self._order = header["endianness"]
        self._to_world = get_affine_trackvis_to_rasmm(header)
        self._step = 3 + int(header["nb_scalars_per_point"])
        self._n_properties = int(header["nb_properties_per_streamline"])
        self.n_streamlines = int(header["nb_streamlines"])
        self.grid = header_grid(header["dimensions"], header["voxel_to_rasmm"])

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
        n_read, size = 0, n_points * self._step * _NUMBER
        records = read_records(self.path, _HEADER, size, self._find_edges)
        for block, edges in records:
            n_read += len(edges) - 1
            yield self._read_chunk(block, edges)
        if self.n_streamlines not in (0, n_read):
            raise damaged(
                self.path,
                f"its header declares {self.n_streamlines} streamlines, and it "
                f"contains {n_read}",
            )

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
        fields = _grid_fields(grid)
        from_world = np.linalg.inv(get_affine_trackvis_to_rasmm(fields))
        with open(target, "wb") as file:
            file.write(self._make_header(fields))

            def write(chunk: Chunk, points: np.ndarray) -> None:
                block, at = chunk.content
                numbers = np.frombuffer(block, f"{self._order}f4")
                numbers[at] = transform_affinely(points, from_world)
                file.write(block)

            yield write

    def _find_edges(self, block: bytearray) -> np.ndarray:
        """Find the edges of the complete records in a block, in bytes."""
        numbers = np.frombuffer(block, f"{self._order}i4", len(block) // _NUMBER)
        # One number of a memory view is read faster than one of an array.
        counts, edges, at = numbers.astype(np.int32).data, [0], 0
        step, others, n = self._step, 1 + self._n_properties, len(numbers)
        while at < n:
            if counts[at] < 0:
                raise damaged(self.path, f"a streamline has {counts[at]} points")
            at += others + step * counts[at]
            if at <= n:
                edges.append(at)
        return np.array(edges) * _NUMBER

    def _read_chunk(self, block: bytearray, edges: np.ndarray) -> Chunk:
        """Find the coordinates of all points in the records of a block."""
        starts = edges[:-1] // _NUMBER
        lengths = np.frombuffer(block, f"{self._order}i4")[starts].astype(np.int64)
        before = np.cumsum(lengths) - lengths
        first = np.repeat(starts + 1 - before * self._step, lengths)
        at = first + np.arange(len(first)) * self._step
        at = at[:, None] + np.arange(3)
        points = np.frombuffer(block, f"{self._order}f4")[at]
        return Chunk(transform_affinely(points, self._to_world), lengths, (block, at))

    def _make_header(self, fields: dict) -> bytes:
        """The file's header with the fields of another grid."""
        dtype = header_2_dtype.newbyteorder(self._order)
        header = np.frombuffer(bytearray(self._header), dtype)
        for name, value in fields.items():
            header[name] = value
        # These describe the scanner's axes, which are not those of the new grid.
        for name in ("origin", "image_orientation_patient", "pad2"):
            header[name] = np.zeros_like(header[name])
        return header.tobytes()


def _check_matrix(path: Path, header: bytes) -> None:
    """Check that a header contains the matrix from voxels to world."""
    if len(header) < _HEADER:
        raise damaged(path, "its header is incomplete")
    for order in "<>":
        fields = np.frombuffer(header, header_2_dtype.newbyteorder(order))[0]
        if fields["hdr_size"] == _HEADER and (
            fields["version"] == 1 or fields["voxel_to_rasmm"][3, 3] == 0
        ):
            raise ValueError(
                f"tractogram: the header of {path} contains no matrix from voxels to "
                "world (vox_to_ras): the space of its streamlines is unknown"
            )


def _grid_fields(grid: Grid) -> dict:
    """The fields of a header that describe a grid."""
    return {
        "dimensions": np.array(grid.shape, dtype=np.int16),
        "voxel_sizes": grid.spacing.astype(np.float32),
        "voxel_to_rasmm": grid.affine.astype(np.float32),
        "voxel_order": "".join(aff2axcodes(grid.affine)).encode(),
    }
