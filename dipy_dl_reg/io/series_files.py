"""Series of volumes (4D images) that are read and written volume by volume.

The memory needed is that of single volumes.  A compressed file cannot be read from the
middle; it is unpacked to a temporary file first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any, NamedTuple

import nibabel as nib
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
import numpy as np

from dipy_dl_reg.io.image_kinds import check_no_colour, replace_signalling_nan
from dipy_dl_reg.io.images import ImageLike, make_nifti, open_image
from dipy_dl_reg.validation import check_affine

#: Suffixes of compressed files.
_PACKED = (".gz", ".bz2", ".zst")
#: Suffixes of compressed images: one file, or a header beside its data.
_COMPRESSED = (
    ".mgz",
    *(f"{kind}{end}" for kind in (".nii", ".hdr", ".img") for end in _PACKED),
)
#: Bytes that are unpacked at a time.
_BLOCK = 2**17


class VolumeSeries(NamedTuple):
    """A series of volumes, read one by one.

    Attributes
    ----------
    values : array_like, shape (X, Y, Z, N)
        An array, or a proxy of nibabel that reads slices of an uncompressed file.
    grid2world : ndarray, shape (4, 4)
        Voxel-to-world matrix.
    image : nibabel image or None
        Image with the header of the series; None for an array.
    name : str
        Name of the series in error messages.
    """

    values: Any
    grid2world: np.ndarray
    image: Any
    name: str

    @property
    def volume_count(self) -> int:
        """Number of volumes."""
        return int(self.values.shape[3])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a volume."""
        return tuple(int(n) for n in self.values.shape[:3])

    def read(self, k: int) -> np.ndarray:
        """Read one volume.

        Parameters
        ----------
        k : int
            Number of the volume, from 0.

        Returns
        -------
        volume : ndarray of float32, shape (X, Y, Z)
            A copy of its values.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                volume = replace_signalling_nan(np.asanyarray(self.values[..., k]))
                if np.ma.isMaskedArray(volume):
                    volume = np.ma.filled(volume.astype(np.float32), np.nan)
                return np.array(volume, dtype=np.float32)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can raise errors of any type
            raise ValueError(
                f"{self.name} is damaged at volume {k}: {error}"
            ) from error


def open_series(
    data: ImageLike,
    grid2world: np.ndarray | None = None,
    *,
    name: str = "data",
    affine_name: str = "affine",
) -> VolumeSeries:
    """Open a series of volumes without reading its values.

    Parameters
    ----------
    data : array, nibabel image, str or Path
        The series, 4D.
    grid2world : ndarray, shape (4, 4), optional
        Voxels to world; by default the affine in the file.  Required for an array.
    name : str, optional
        Name of the series in error messages.
    affine_name : str, optional
        Name of the argument `grid2world` in error messages.

    Returns
    -------
    series : VolumeSeries
        The series; a volume of a compressed file is read slowly (`unpack_series`).

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is not a series of volumes of real numbers, or its matrix is missing or
        cannot be used.
    """
    image: Any = data
    if isinstance(data, (str, os.PathLike)):
        image = open_image(data, name=name)
    if not hasattr(image, "dataobj"):
        values, image = np.asanyarray(image), None
        check_no_colour(values.dtype, name)
        if values.ndim == 4 and grid2world is None:
            raise ValueError(f"{affine_name} is required if {name} is an array.")
    else:
        check_no_colour(image.get_data_dtype(), name)
        grid2world = image.affine if grid2world is None else grid2world
        values = image.dataobj
    _check_values(values, name)
    matrix = check_affine(grid2world, 3, f"{name}: its affine")
    return VolumeSeries(values, matrix, image, name)


@contextmanager
def unpack_series(
    series: VolumeSeries, folder: str | os.PathLike | None = None
) -> Iterator[VolumeSeries]:
    """Unpack a compressed file, so that single volumes can be read.

    Parameters
    ----------
    series : VolumeSeries
        From `open_series`.
    folder : str or Path, optional
        Folder of the temporary file; by default that of the system.

    Yields
    ------
    series : VolumeSeries
        The same series if its file is not compressed; else one that can be read until
        the end of the ``with`` block.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = None
    if series.image is not None and isinstance(series.values, ArrayProxy):
        path = series.image.get_filename()
    if path is None or not str(path).lower().endswith(_COMPRESSED):
        yield series
        return
    # Windows does not remove a file that nibabel still maps into memory.
    with tempfile.TemporaryDirectory(
        prefix=".unpacked-", dir=folder, ignore_cleanup_errors=os.name == "nt"
    ) as place:
        try:
            unpacked: Any = nib.load(_unpack_files(series.image, Path(place)))
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can raise errors of any type
            raise ValueError(f"{series.name}: {path} is damaged: {error}") from error
        yield series._replace(values=unpacked.dataobj)


def _unpack_files(image: Any, folder: Path) -> Path:
    """Unpack all files of an image into a folder; return one that nibabel loads."""
    targets = []
    for holder in image.file_map.values():
        path = holder.filename
        if path is None or not os.path.isfile(path):
            continue  # the file of SPM's matrix beside a header is optional
        place = Path(path)
        suffix = Path(place.stem).suffix if place.suffix in _PACKED else place.suffix
        target = folder / f"series{'.mgh' if suffix == '.mgz' else suffix}"
        with ImageOpener(path) as packed, open(target, "wb") as plain:
            shutil.copyfileobj(packed, plain, _BLOCK)
        targets.append(target)
    return targets[0]


def _check_values(values: Any, name: str) -> None:
    """Check that an array or a proxy holds a series of volumes of real numbers."""
    if len(values.shape) != 4 or 0 in values.shape:
        raise ValueError(
            f"{name} must be a series of volumes, of shape (X, Y, Z, N), got shape "
            f"{tuple(values.shape)}"
        )
    if np.dtype(values.dtype).kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {values.dtype}")


def write_series(
    path: str | os.PathLike,
    volumes: Iterable[np.ndarray],
    series: VolumeSeries,
) -> None:
    """Write a series of volumes as NIfTI, one after the other.

    Parameters
    ----------
    path : str or Path
        The file, ``.nii`` or compressed as its suffix says.
    volumes : iterable of ndarray, shape (X, Y, Z)
        The volumes of the series, written as float32.
    series : VolumeSeries
        The series with the grid, the header and the number of volumes.

    Raises
    ------
    ValueError
        If the number of volumes or their shape is not that of `series`.
    """
    header = series_header(series)
    written = 0
    with ImageOpener(path, "wb") as file:
        header.write_to(file)
        file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
        for volume in volumes:
            if volume.shape != series.shape:
                raise ValueError(f"expected volumes {series.shape}, got {volume.shape}")
            file.write(volume.astype("<f4").tobytes(order="F"))
            written += 1
    if written != series.volume_count:
        raise ValueError(f"expected {series.volume_count} volumes, got {written}")


def series_header(series: VolumeSeries) -> nib.Nifti1Header:
    """Make the header of a series of float32 volumes on the grid of another one.

    Parameters
    ----------
    series : VolumeSeries
        The series with the grid, the units and the number of volumes.

    Returns
    -------
    header : nibabel.Nifti1Header
        Little-endian, for data that begin directly after it.
    """
    reference = nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), series.grid2world)
    if series.image is not None and isinstance(series.image.header, nib.Nifti1Header):
        reference.header.set_xyzt_units(series.image.header.get_xyzt_units()[0])
        code = 2  # aligned to another image
        if np.allclose(series.image.affine, series.grid2world, atol=1e-4):
            codes = [int(series.image.header[f"{k}form_code"]) for k in "sq"]
            code = codes[0] or codes[1] or code
        reference.set_sform(series.grid2world, code)
    nothing = np.broadcast_to(np.float32(0), (*series.shape, series.volume_count))
    image = make_nifti(reference, nothing, series=series.image)
    header = image.header.as_byteswapped("<")
    header["vox_offset"] = 352
    header.set_slope_inter(1, 0)
    return header
