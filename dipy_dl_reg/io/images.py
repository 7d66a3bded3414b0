"""Files and arguments: read and checked, and written without leaving halves."""

import contextlib
import os
from pathlib import Path

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
from nibabel.filebasedimages import ImageFileError
import numpy as np

from dipy_dl_reg.io.image_kinds import in_plane, quiet_nan, refuse_colour
from dipy_dl_reg.validation import check_affine

FIELDS = ("forward", "backward")

#: What nibabel reads, as far as users are likely to have it.
READABLE = "NIfTI (.nii, .nii.gz), MGH (.mgz), MINC (.mnc) or Analyze (.hdr)"


@contextlib.contextmanager
def write_beside(path, *, overwrite=False):
    """Give a temporary path beside `path`, and move it there once it is written.

    Parameters
    ----------
    path : str or Path
        The file to make, in a folder that exists.
    overwrite : bool, optional
        Replace `path` where it exists.

    Yields
    ------
    temporary : Path
        Where to write. It has `path`'s suffixes, and is gone afterwards, whether or
        not the writing went well.

    Raises
    ------
    OSError
        As `check_writable` does.
    """
    if not Path(path).parent.exists():
        raise FileNotFoundError(f"the folder of {path} does not exist")
    with write_together([path], overwrite=overwrite) as (temporary,):
        yield temporary


@contextlib.contextmanager
def write_together(paths, *, overwrite=False):
    """Give a temporary path beside each of `paths`, and move all there, or none.

    Parameters
    ----------
    paths : sequence of str or Path
        The files to make. Their folders are made if need be, and unmade if nothing
        was written.
    overwrite : bool, optional
        Replace files that exist.

    Yields
    ------
    temporaries : list of Path
        Where to write, in the order of `paths`. That they could be made shows that
        they can be written.

    Raises
    ------
    OSError
        As `check_writable` does, before anything is made.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        check_writable(path, overwrite=overwrite)
    folders, temporaries = [], []
    try:
        for path in paths:
            folders += _make_folder(path.parent)
            temporaries.append(path.with_name(f".{os.getpid()}-{path.name}"))
            temporaries[-1].touch()
        yield temporaries
        for temporary, path in zip(temporaries, paths, strict=True):
            os.replace(temporary, path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        for folder in reversed(folders):
            with contextlib.suppress(OSError):  # not empty: the writing went well
                folder.rmdir()


def _make_folder(folder):
    """Make a folder; returns what was made, outermost first."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()][::-1]
    for each in missing:
        each.mkdir()
    return missing


def check_writable(path, *, overwrite=False):
    """Raise the error that writing `path` would end with.

    Parameters
    ----------
    path : str or Path
        The file to be written later, in a folder that exists or can be made.
    overwrite : bool, optional
        Whether `path` may exist already.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is False, or is a folder.
    NotADirectoryError, PermissionError
        If its folder is a file, or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder, and a file was to be written there")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists already; overwrite=True replaces it")
    folder = next(f for f in path.absolute().parents if f.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; cannot write {path}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write in {folder}")


def read_image(image, grid2world=None, *, name="image", dtype=None):
    """Array and grid-to-world matrix of an array, a nibabel image or a file.

    Parameters
    ----------
    image : ndarray, nibabel image, str or Path
        The image.
    grid2world : ndarray, optional
        Its grid-to-world matrix; the file's own where None.
    name : str, optional
        What errors call the image.
    dtype : dtype, optional
        Read a file's values as this; as they are stored where None.

    Returns
    -------
    data : ndarray
        The values.
    grid2world : ndarray or None
        The matrix: None for an array that came without one.  For a 2D image a 4x4
        matrix, which is what files have, becomes that of its plane.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is empty, damaged, not an image, or a colour image.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image, name=name)
    if not hasattr(image, "dataobj"):
        data = np.asanyarray(image)
        refuse_colour(data.dtype, name)
        return data, in_plane(grid2world, data.ndim)
    where = image.get_filename() or "the image in memory"
    refuse_colour(image.get_data_dtype(), f"{name}: {where}")
    try:
        with np.errstate(invalid="ignore"):  # of NaN that signals, as FA maps hold
            if dtype is None:
                data = quiet_nan(np.asanyarray(image.dataobj))
            else:
                data = image.get_fdata(dtype=dtype, caching="unchanged")
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything
        raise ValueError(f"{name}: {where} is damaged: {error}") from error
    grid2world = image.affine if grid2world is None else grid2world
    return data, in_plane(grid2world, data.ndim)


def open_image(path, *, name="image"):
    """Open an image file without reading its values.

    Parameters
    ----------
    path : str or Path
        A file that nibabel reads.
    name : str, optional
        What errors call the image.

    Returns
    -------
    image : nibabel image
        The image, its values still on the disk.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is empty, or not an image.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    if not path.is_file():
        raise ValueError(f"{name}: {path} is not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{name}: {path} is empty")
    try:
        image = nib.load(path)
    except Exception as error:  # a damaged header may raise nearly anything
        what = "" if isinstance(error, ImageFileError) else f" ({error})"
        raise ValueError(
            f"{name}: {path} is not an image file that can be read: {READABLE}{what}"
        ) from error
    if not hasattr(image, "dataobj"):
        raise ValueError(f"{name}: {path} holds no image")
    return image


def open_volume(path, name, *, slices=False):
    """Open a file of one 3D image, and check what its header says.

    Parameters
    ----------
    path : str or Path
        The file.
    name : str
        What errors call the image.
    slices : bool, optional
        Accept a file of shape (X, Y), too.

    Returns
    -------
    image : nibabel image
        The image, 3D (further axes of length 1 are dropped) or (X, Y), its values
        still on the disk.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is no image, not 3D, not of real numbers, or its affine is singular.
    """
    image = open_image(path, name=name)
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        data, affine = read_image(image, name=name)
        image = type(image)(data.reshape(image.shape[:3]), affine, image.header)
        image.set_filename(path)
    if len(image.shape) not in ((2, 3) if slices else (3,)) or 0 in image.shape:
        wanted = "one 3D volume" + " or one slice" * slices
        raise ValueError(f"{name}: {path} must be {wanted}, got shape {image.shape}")
    refuse_colour(image.get_data_dtype(), f"{name}: {path}")
    if image.get_data_dtype().kind not in "biuf":
        raise ValueError(f"{name}: {path} must hold real numbers")
    check_affine(image.affine, 3, f"{name}: the affine of {path}")
    return image


def image_on(reference, data, *, series=None):
    """An image with the grid of another, for NIfTI.

    Parameters
    ----------
    reference : nibabel image
        Gives the affine, its meaning (scanner, template ...) and the unit of length.
    data : ndarray
        Values on that grid, perhaps a series.
    series : nibabel image, optional
        Where a series comes from: gives the step and unit of its last axis.

    Returns
    -------
    image : nibabel.Nifti1Image
        Of the type of `data`, in mm where the reference does not say.
    """
    image = nib.Nifti1Image(data, reference.affine, dtype=data.dtype)
    units, code = ["mm", "unknown"], 2
    if isinstance(reference.header, nib.Nifti1Header):
        length = reference.header.get_xyzt_units()[0]
        units[0] = "mm" if length == "unknown" else length
        codes = [int(reference.header[f"{k}form_code"]) for k in "sq"]
        code = codes[0] or codes[1] or code
    if data.ndim == 4 and series is not None and len(series.shape) == 4:
        zooms = (*image.header.get_zooms()[:3], *series.header.get_zooms()[3:4])
        image.header.set_zooms(zooms)
        if isinstance(series.header, nib.Nifti1Header):
            units[1] = series.header.get_xyzt_units()[1]
    image.header.set_xyzt_units(*units)
    image.set_sform(reference.affine, code)
    image.set_qform(reference.affine, code)
    return image


def check_mapping(mapping, *, name="mapping"):
    """Raise unless `mapping` is a DIPY map that has its fields.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        What the user gave.
    name : str, optional
        What the error calls it.

    Raises
    ------
    ValueError
        If it is something else, or its fields are not on its grid.
    """
    if not isinstance(mapping, DiffeomorphicMap):
        raise ValueError(
            f"{name} must be a DiffeomorphicMap, got {type(mapping).__name__}"
        )
    wanted = (*(int(n) for n in mapping.disp_shape), mapping.dim)
    for field in FIELDS:
        shape = np.shape(getattr(mapping, field))
        if shape != wanted:
            raise ValueError(
                f"{name}.{field} must have the shape {wanted} of the map's grid, "
                f"got {shape}"
            )
