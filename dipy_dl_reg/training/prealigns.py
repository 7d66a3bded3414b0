"""Affine registration of training images, on several processes, stored in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
import json
from pathlib import Path

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.registration.affine.call import find_prealign
from dipy_dl_reg.training.lazy_image import LazyImage
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.loop.distributed import Group
from dipy_dl_reg.training.training_images import TrainingImages

#: Static and moving image of a registration.
Pair = tuple[LazyImage, LazyImage]


def find_prealigns(
    images: TrainingImages,
    *,
    group: Group | None = None,
    path: str | Path | None = None,
    reuse: bool = False,
    limit: TimeLimit | None = None,
) -> TrainingImages:
    """Compute the affine matrices that are not known yet, if there are any.

    Parameters
    ----------
    images : TrainingImages
        Images with prealign "affine"; others are returned unchanged.
    group : Group, optional
        Processes among which the registrations are divided; all return the same
        matrices.
    path : str or Path, optional
        File to which the matrices are written, for a training that is resumed: if they
        were computed again, they might differ in the last digit.
    reuse : bool, optional
        Use the matrices of the file, if it has matrices for images on the same grids.
    limit : TimeLimit, optional
        Checked before each registration.

    Returns
    -------
    images : TrainingImages
        The images, with a matrix for each image.

    Raises
    ------
    TimeoutError
        If the time limit is reached before the end.
    """
    cases = images.cases + images.held_out
    if not isinstance(cases[0].prealign, str):
        return images
    pairs = images.registered_pairs()
    found = read_matrices(path, pairs) if reuse and path is not None else None
    if found is None:
        found = find_matrices(pairs, group, limit or TimeLimit())
        if path is not None and (group is None or group.leads):
            write_matrices(path, pairs, found)
    matrices = list(found)
    if len(matrices) > len(cases):
        to_atlas = matrices.pop()
        images = replace(images, atlas_prealign=to_atlas)
        matrices = [matrix @ to_atlas for matrix in matrices]
    return images.with_prealigns(matrices)


def find_matrices(
    pairs: Sequence[Pair], group: Group | None, limit: TimeLimit
) -> np.ndarray:
    """Register pairs of images affinely; each process registers a part of them.

    Parameters
    ----------
    pairs : sequence of (LazyImage, LazyImage)
        Static and moving image.
    group : Group or None
        The processes; None is only this process.
    limit : TimeLimit
        Checked before each registration.

    Returns
    -------
    matrices : ndarray of float64, shape (N, 4, 4)
        World of static to that of moving, the same in all processes.

    Raises
    ------
    TimeoutError
        If the time limit is reached in any process.
    """
    found = np.zeros((len(pairs), 4, 4))
    rank, size = (0, 1) if group is None else (group.rank, group.size)
    for i in range(rank, len(pairs), size):
        late = limit.exceeded()
        number = f"{i + 1} of {len(pairs)}"
        found[i] = np.nan if late else _register(*pairs[i], number)
    found = found if group is None else group.total(found)
    if np.isnan(found).any():  # in all processes, or in none
        limit.stop("all affine registrations were done")
    return found


def _register(static: LazyImage, moving: LazyImage, number: str) -> np.ndarray:
    """Compute the affine from static's world to moving's."""
    if static is moving:
        return np.eye(4)
    logger.info(f"Affine registration {number}: {moving.name} to {static.name}")
    return find_prealign(
        static.values(), moving.values(), static.grid.affine, moving.grid.affine
    )


def write_matrices(
    path: str | Path, pairs: Sequence[Pair], matrices: np.ndarray
) -> None:
    """Write matrices to a file.

    Parameters
    ----------
    path : str or Path
        The file, JSON; replaced if it exists.
    pairs : sequence of (LazyImage, LazyImage)
        Static and moving image of each matrix.
    matrices : ndarray, shape (N, 4, 4)
        The matrices.
    """
    text = json.dumps({"of": _digest(pairs), "matrices": matrices.tolist()})
    with write_all_or_none([path], overwrite=True) as (temporary,):
        Path(temporary).write_text(text)


def read_matrices(path: str | Path, pairs: Sequence[Pair]) -> np.ndarray | None:
    """Read matrices that `write_matrices` wrote.

    Parameters
    ----------
    path : str or Path
        The file.
    pairs : sequence of (LazyImage, LazyImage)
        The images.

    Returns
    -------
    matrices : ndarray of float64, shape (N, 4, 4), or None
        The matrices; None if the file is missing, or is for images on other grids.
    """
    try:
        stored = json.loads(Path(path).read_text())
        if stored["of"] == _digest(pairs):
            return np.array(stored["matrices"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError):
        logger.info(f"{path} contains no matrices; they are computed again")
    return None


def _digest(pairs: Sequence[Pair]) -> str:
    """Compute a checksum of the grids of the images."""
    grids = [
        [image.grid.shape, image.grid.affine.tolist()]
        for pair in pairs
        for image in pair
    ]
    return sha256(json.dumps(grids).encode()).hexdigest()
