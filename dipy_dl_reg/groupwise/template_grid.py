"""The grid of a template, chosen from the grids of all subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise.template_subjects import TemplateSubject

#: Space around the subjects on each side: this part of their extent.
_MARGIN = 0.08
#: Most voxels of a subject that are transformed to find its extent.
_MOST_POINTS = 20000


def choose_grid(
    subjects: Sequence[TemplateSubject],
    affines: Sequence[np.ndarray],
    voxel_size: float | None = None,
) -> Grid:
    """Choose a grid that contains the foreground of all subjects.

    Parameters
    ----------
    subjects : sequence of TemplateSubject
        The subjects.
    affines : sequence of ndarray, shape (D + 1, D + 1)
        World of the template to the world of each subject.
    voxel_size : float, optional
        Voxel size, mm; by default the median of those of the subjects (the D-th root
        of the volume of a voxel).

    Returns
    -------
    grid : Grid
        Isotropic, with axes along the axes of the world (RAS).  It is the same for any
        order of the subjects.
    """
    dim = subjects[0].grid.dim
    if voxel_size is None:
        sizes = [np.prod(subject.grid.spacing) ** (1 / dim) for subject in subjects]
        voxel_size = float(np.round(np.median(sizes), 4))
    ends = [_extent(*each) for each in zip(subjects, affines)]
    low = np.min([end[0] for end in ends], axis=0)
    high = np.max([end[1] for end in ends], axis=0)
    extent = (high - low) * (1 + 2 * _MARGIN)
    shape = np.ceil(extent / voxel_size).astype(int) + 1
    affine = np.diag([*[voxel_size] * dim, 1.0])
    affine[:dim, dim] = (low + high) / 2 - (shape - 1) / 2 * voxel_size
    return Grid(tuple(int(n) for n in shape), affine)


def _extent(
    subject: TemplateSubject, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the box around a subject's foreground in the template's world."""
    dim = subject.grid.dim
    voxels = np.argwhere(subject.foreground)
    voxels = voxels[:: max(1, len(voxels) // _MOST_POINTS)]
    matrix = np.linalg.inv(affine) @ subject.grid.affine
    points = voxels @ matrix[:dim, :dim].T + matrix[:dim, dim]
    return points.min(0), points.max(0)
