"""Tractogram files transformed by a map, in chunks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.spaces import (
    HALF_VOXEL,
    Spaces,
    check_first_points,
    check_grid,
    find_spaces,
    make_grid,
)
from dipy_dl_reg.diffusion.streamlines import transform_points
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.io.atomic_files import write_atomically
from dipy_dl_reg.io.images import open_image
from dipy_dl_reg.io.tractograms.chunks import TractogramFile
from dipy_dl_reg.io.tractograms.table import open_tractogram
from dipy_dl_reg.maps.dipy_map import as_mapping
from dipy_dl_reg.progress import Progress
from dipy_dl_reg.validation import check_affine, check_whole_number, wrong_value

#: Approximate number of points by which it is checked that a tractogram lies in the
#: right space.
_FIRST_POINTS = 200_000


class TractogramCounts(NamedTuple):
    """Numbers of streamlines and points that were transformed.

    Attributes
    ----------
    streamlines, points : int
        All of them.
    streamlines_outside : int
        Streamlines with one or more points outside the displacement field.
    points_outside : int
        Points outside the displacement field, which the prealign alone transforms.
    """

    streamlines: int = 0
    points: int = 0
    streamlines_outside: int = 0
    points_outside: int = 0

    def add(self, lengths: np.ndarray, inside: np.ndarray) -> TractogramCounts:
        """Add the streamlines of a chunk.

        Parameters
        ----------
        lengths : ndarray of int, shape (M,)
            Number of points of each streamline.
        inside : ndarray of bool, shape (N,)
            Whether each point lies in the displacement field.

        Returns
        -------
        counts : TractogramCounts
            The sums.
        """
        outside = np.repeat(np.arange(len(lengths)), lengths)[~inside]
        return TractogramCounts(
            self.streamlines + len(lengths),
            self.points + len(inside),
            self.streamlines_outside + len(np.unique(outside)),
            self.points_outside + len(outside),
        )


def transform_tractogram(
    mapping: DiffeomorphicMap | AffineMap,
    in_file: str | os.PathLike,
    out_file: str | os.PathLike,
    *,
    inverse: bool = False,
    reference: Any = None,
    chunk_size: int = 20_000,
    progress: bool | None = None,
    overwrite: bool = False,
) -> TractogramCounts:
    """Transform moving's tractogram file to static's space, or static's to moving's.

    By default the streamlines of moving come to lie where ``mapping.transform`` puts
    the image of moving: in static's space.  The file is read and written in chunks, so
    that memory does not depend on its size.  Streamlines, their order, and all data per
    point, per streamline and per group are kept as they are; only coordinates and the
    header's grid change.

    Parameters
    ----------
    mapping : DiffeomorphicMap or AffineMap
        The map of a registration of moving to static, with the grids of both.
    in_file : str or Path
        Tractogram in moving's world (in static's with `inverse`): a .trk, .tck or .trx
        file.
    out_file : str or Path
        Tractogram to write, in the same format.
    inverse : bool, optional
        Transform static's tractogram to moving's space.
    reference : str, Path or nibabel image, optional
        Image whose grid the header of `out_file` describes (.trk and .trx); by default
        static's grid, with `inverse` moving's.
    chunk_size : int, optional
        Number of points that are transformed together. Larger chunks need more memory
        and are not faster.
    progress : bool, optional
        Show a progress bar; by default only at a terminal.
    overwrite : bool, optional
        Replace `out_file` if it exists.

    Returns
    -------
    counts : TractogramCounts
        Numbers of streamlines and points, and of those outside the displacement field,
        which covers static's field of view.  Outside of it the displacement is 0: the
        prealign alone transforms these points.  They are also logged.

    Raises
    ------
    OSError
        If `in_file` does not exist, or `out_file` exists or cannot be written.
    ValueError
        If a file's format is unknown, `in_file` is damaged, a coordinate is not
        finite, or the tractogram is in another space: its header describes the other
        image's grid, or most of its first points lie outside the image.

    See Also
    --------
    transform_streamlines : for streamlines and tractograms in memory; describes the
        method.
    dipy.io.stateful_tractogram.StatefulTractogram : a tractogram in memory.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from dipy.align.imwarp import DiffeomorphicMap
    >>> from dipy.data import get_fnames
    >>> import numpy as np
    >>> from dipy_dl_reg import transform_tractogram
    >>> mapping = DiffeomorphicMap(
    ...     3,
    ...     (128, 128, 128),
    ...     disp_grid2world=np.eye(4),
    ...     domain_grid2world=np.eye(4),
    ...     codomain_grid2world=np.eye(4),
    ... )
    >>> mapping.allocate()
    >>> fornix = get_fnames(name="fornix")
    >>> out_file = Path(mkdtemp(), "fornix_in_template.trk")
    >>> counts = transform_tractogram(mapping, fornix, out_file)
    >>> counts.streamlines, counts.points_outside
    (300, 0)
    """
    check_whole_number("chunk_size", chunk_size, low=1)
    mapping = as_mapping(mapping)
    return transform_opened_tractogram(
        mapping,
        _open_checked(in_file, find_spaces(mapping, inverse)),
        out_file,
        inverse=inverse,
        reference=reference,
        chunk_size=chunk_size,
        progress=progress,
        overwrite=overwrite,
    )


def transform_opened_tractogram(
    mapping: DiffeomorphicMap,
    file: TractogramFile,
    out_file: str | os.PathLike,
    *,
    inverse: bool = False,
    reference: Any = None,
    chunk_size: int = 20_000,
    progress: bool | None = None,
    overwrite: bool = False,
) -> TractogramCounts:
    """Transform a tractogram whose space was checked before, by `check_tractogram`.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    file : TractogramFile
        The tractogram.
    out_file : str or Path
        Tractogram to write, in the same format.
    inverse, reference, chunk_size, progress, overwrite : optional
        As in `transform_tractogram`.

    Returns
    -------
    counts : TractogramCounts
        As of `transform_tractogram`.

    Raises
    ------
    OSError, ValueError
        As `transform_tractogram`, except about the space of the tractogram.
    """
    spaces = find_spaces(mapping, inverse)
    grid = spaces.target if reference is None else _read_grid(reference)
    suffix = Path(file.path).suffix.lower()
    if Path(out_file).suffix.lower() != suffix:
        raise wrong_value("out_file", f"a {suffix} file, as in_file", str(out_file))
    with write_atomically(out_file, overwrite=overwrite) as path:
        counts = _transform_file(
            mapping, file, path, spaces, grid, chunk_size, progress
        )
    _log_counts(counts)
    return counts


def check_tractogram(
    mapping: DiffeomorphicMap, in_file: str | os.PathLike, *, inverse: bool = False
) -> None:
    """Check that a tractogram file lies in moving's space, or in static's.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map.
    in_file : str or Path
        The file.
    inverse : bool, optional
        Whether it should lie in static's space.

    Raises
    ------
    OSError, ValueError
        As `transform_tractogram`.
    """
    _open_checked(in_file, find_spaces(mapping, inverse))


def _open_checked(in_file: str | os.PathLike, spaces: Spaces) -> TractogramFile:
    """Open a tractogram file, and check by its first points that its space is right."""
    file = open_tractogram(in_file, name="in_file")
    check_grid(file.grid, spaces, f"in_file: {file.path}")
    for chunk in file.read_chunks(_FIRST_POINTS):
        check_first_points(chunk.points, spaces, f"in_file: {file.path}")
        break
    return file


def _transform_file(
    mapping: DiffeomorphicMap,
    file: TractogramFile,
    target: Path,
    spaces: Spaces,
    grid: Grid,
    chunk_size: int,
    progress: bool | None,
) -> TractogramCounts:
    """Transform all chunks of a file, and write them to another."""
    counts, inverse = TractogramCounts(), spaces.names[0] == "static"
    total = file.n_streamlines or None
    with (
        file.write_copy(target, grid) as write,
        Progress("Tractogram", total, unit="streamline", shown=progress) as counted,
    ):
        for chunk in file.read_chunks(chunk_size):
            if not np.isfinite(chunk.points).all():
                raise ValueError(
                    f"in_file: coordinates must be finite, but some in {file.path} "
                    "are not"
                )
            write(chunk, transform_points(mapping, chunk.points, inverse))
            inside = spaces.field.contains(chunk.points, margin=HALF_VOXEL)
            counts = counts.add(chunk.lengths, inside)
            counted.update(len(chunk.lengths))
    return counts


def _read_grid(reference: Any) -> Grid:
    """Read the grid of an image."""
    if isinstance(reference, (str, os.PathLike)):
        reference = open_image(reference, name="reference")
    if len(reference.shape) < 3:
        raise ValueError(f"reference must be 3D, got shape {reference.shape}")
    matrix = check_affine(reference.affine, 3, "reference's affine")
    return make_grid(reference.shape[:3], matrix)


def _log_counts(counts: TractogramCounts) -> None:
    """Log how many points the displacement field does not reach."""
    text = f"{counts.streamlines} streamlines ({counts.points} points) transformed"
    if not counts.points_outside:
        logger.info(f"{text}; all lie in the displacement field")
        return
    share = counts.points_outside / counts.points
    logger.warning(
        f"{text}; {counts.points_outside} points ({share:.2%}) of "
        f"{counts.streamlines_outside} streamlines lie outside the displacement field "
        "(static's field of view): they are transformed by the prealign alone"
    )
