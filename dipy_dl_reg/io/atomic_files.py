"""Files that are written completely or not at all.

The content is first written to a temporary file in the same folder.  The temporary file
then replaces the final file in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def write_atomically(
    path: str | os.PathLike, *, overwrite: bool = False
) -> Iterator[Path]:
    """Provide a temporary file, which is renamed to `path` after it is written.

    Parameters
    ----------
    path : str or Path
        The file to be written, in a folder that exists.
    overwrite : bool, optional
        Replace `path` if it exists.

    Yields
    ------
    temporary : Path
        The path to write to, with the suffixes of `path`.  The temporary file is
        removed afterwards, even if an error occurs.

    Raises
    ------
    OSError
        If `path` cannot be written (see `check_writable`).
    """
    if not Path(path).parent.exists():
        raise FileNotFoundError(f"the folder of {path} does not exist")
    with write_all_or_none([path], overwrite=overwrite) as (temporary,):
        yield temporary


@contextlib.contextmanager
def write_all_or_none(
    paths: Sequence[str | os.PathLike], *, overwrite: bool = False
) -> Iterator[list[Path]]:
    """Provide temporary files, which are renamed to `paths` after all are written.

    Parameters
    ----------
    paths : sequence of str or Path
        The files to be written.  Missing folders are created, and removed again if an
        error occurs.
    overwrite : bool, optional
        Replace files that exist.

    Yields
    ------
    temporaries : list of Path
        The paths to write to, in the order of `paths`.  Empty files are created there
        first, to check that they can be written.

    Raises
    ------
    OSError
        If a file cannot be written (see `check_writable`); then no file is created.
    """
    targets = [Path(path) for path in paths]
    for path in targets:
        check_writable(path, overwrite=overwrite)
    folders: list[Path] = []
    temporaries: list[Path] = []
    try:
        for path in targets:
            folders += _make_folder(path.parent)
            temporaries.append(path.with_name(f".{os.getpid()}-{path.name}"))
            temporaries[-1].touch()
        yield temporaries
        for temporary, path in zip(temporaries, targets, strict=True):
            os.replace(temporary, path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        for folder in reversed(folders):
            with contextlib.suppress(OSError):  # not empty: the files were written
                folder.rmdir()


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return the new ones, outermost first."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()][::-1]
    for each in missing:
        each.mkdir()
    return missing


def check_writable(path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Check that a file can be written, before its content is computed.

    Parameters
    ----------
    path : str or Path
        The file, in a folder that exists or can be made.
    overwrite : bool, optional
        Whether `path` may exist already.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is False, or `path` is a folder.
    NotADirectoryError
        If its folder is a file.
    PermissionError
        If its folder does not permit writing.
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder, so that no file can be written")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists already; overwrite=True replaces it")
    folder = next(f for f in path.absolute().parents if f.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; cannot write {path}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write in {folder}")
