"""Compare the files of a source distribution with those that git keeps.

    python -m tools.sdist_files dist/dipy_dl_reg-0.1.0.tar.gz

prints the size of the distribution, and fails if a file of the repository is missing in
it or if it has a file that git does not keep.  Without a path it compares the list that
setuptools would pack (MANIFEST.in), which takes seconds.
"""

from collections.abc import Iterable
from pathlib import Path
import subprocess
import sys
import tarfile
import tempfile

ROOT = Path(__file__).parents[1]
#: What setuptools adds.
_ADDED = ("PKG-INFO", "setup.cfg")


def find_differences(packed: Iterable[str], kept: Iterable[str]) -> list[str]:
    """Describe the files that a distribution lacks, and those it should not have.

    Parameters
    ----------
    packed : iterable of str
        Files of the distribution.
    kept : iterable of str
        Files of the repository.

    Returns
    -------
    lines : list of str
        One line for each difference.
    """
    packed = {
        name
        for name in packed
        if name not in _ADDED and not name.startswith("dipy_dl_reg.egg-info/")
    }
    missing = set(kept) - packed
    return [
        *(f"missing in the distribution: {name}" for name in sorted(missing)),
        *(f"not in the repository: {name}" for name in sorted(packed - set(kept))),
    ]


def list_repository(*, new: bool = False) -> list[str]:
    """List the files that git keeps.

    Parameters
    ----------
    new : bool, optional
        Also list new files that git does not ignore.

    Returns
    -------
    names : list of str
        Paths from the root, with slashes.
    """
    options = ["--cached", "--others", "--exclude-standard"] if new else []
    done = subprocess.run(
        ["git", "ls-files", "-z", *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    names = (name for name in done.stdout.split("\0") if name)
    return [name for name in names if (ROOT / name).exists()]


def list_manifest() -> list[str]:
    """List the files that setuptools would pack.

    Returns
    -------
    names : list of str
        Paths from the root, with slashes.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        (found,) = Path(folder).rglob("SOURCES.txt")
        names = found.read_text(encoding="utf-8").splitlines()
    inside = (name.replace("\\", "/") for name in names)
    return [name for name in inside if not Path(name).is_absolute()]


def list_archive(path: Path) -> list[str]:
    """List the files of a source distribution.

    Parameters
    ----------
    path : Path
        The ``.tar.gz`` file.

    Returns
    -------
    names : list of str
        Paths below the folder that the archive contains.
    """
    with tarfile.open(path) as archive:
        return [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]


def main(arguments: list[str]) -> int:
    """Compare, print the differences, and return the exit status."""
    if arguments:
        path = Path(arguments[0])
        packed = list_archive(path)
        size = path.stat().st_size / 1e6
        print(f"{path.name}: {size:.1f} MB, {len(packed)} files")
    else:
        packed = list_manifest()
    differences = find_differences(packed, list_repository())
    print("\n".join(differences) or "The same files as in the repository.")
    return bool(differences)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
