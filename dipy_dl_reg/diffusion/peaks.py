"""Vectors and peaks transformed by a map: several directions in each voxel."""

from __future__ import annotations

from collections.abc import Sequence

from dipy.align.imaffine import AffineMap
from dipy.align.imwarp import DiffeomorphicMap
from dipy.direction.peaks import PeaksAndMetrics
from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.diffusion.axis_interpolation import (
    average_axes,
    find_neighbours,
    take_axes,
)
from dipy_dl_reg.diffusion.fods import transform_fods
from dipy_dl_reg.diffusion.peak_files import PeaksLike, find_basis, read_peaks
from dipy_dl_reg.diffusion.resampling import Resampling, find_known, plan_resampling
from dipy_dl_reg.io.images import ImageLike, read_image
from dipy_dl_reg.validation import check_choice

INTERPOLATIONS = ("dyadic", "nearest")


def transform_vectors(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    vectors: ImageLike,
    *,
    scale: bool = False,
    frame: str | None = None,
    mask: np.ndarray | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "dyadic",
    inverse: bool = False,
) -> np.ndarray:
    r"""Transform an image of fibre directions by a map, with reorientation.

    .. math:: v'(x) \propto J(x)^{-1}\, v(T(x))

    with :math:`T` the map from the output to the input space, prealign included, and
    :math:`J` its Jacobian matrix: the direction of a fibre is that of the transformed
    streamline through it. For the first eigenvector of tensors, this is preservation
    of principal direction :footcite:p:`Alexander2001`.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map, in 3D. A matrix, from static's world to moving's, requires
        `image_grid2world`, `out_shape` and `out_grid2world`.
    vectors : ndarray, nibabel image, str or Path
        Vectors in moving's world (in static's with `inverse`): one, of shape
        (X, Y, Z, 3), or K in each voxel, of shape (X, Y, Z, K, 3) or (X, Y, Z, 3 K), as
        MRtrix3's peaks. Their signs have no meaning. Zero vectors and those that are
        not finite are absent.
    scale : bool, optional
        Multiply the length of each vector by the stretch of the map along it, as the
        length of the fibre is. By default lengths are kept.
    frame : {"voxel", "fsl", "world"}, optional
        Axes in which the components are given, those of the input and of the result;
        see :ref:`frames`. Use "fsl" for FSL's ``V1``, and "world" for MRtrix3's
        peaks. By default "voxel", with a warning where "fsl" differs.
    mask : ndarray, shape (X, Y, Z), optional
        Voxels of the input image where it is not 0 are used; others are background.
    image_grid2world, out_shape, out_grid2world : optional
        As in `apply_mapping`.
    interpolation : {"dyadic", "nearest"}, optional
        "dyadic" averages the dyads of the vectors, :math:`v v^\top / |v|`, of the eight
        neighbours. With several vectors in a voxel, those of the nearest voxel are
        matched with those of each neighbour. Lengths are averaged. "nearest" takes the
        vectors of the nearest voxel.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : ndarray of float32
        Vectors on the output grid, in the shape and the frame of the input, along the
        axes of the output grid; 0 where there is none.

    Raises
    ------
    ValueError
        If the map is not 3D, the vectors have another shape or are zero everywhere, the
        mask has another shape, a name is unknown, or a shape does not fit its grid.

    See Also
    --------
    transform_peaks : for DIPY's peaks.
    transform_tensors, transform_fods : for tensors and FODs.
    transform_streamlines : directions move as streamlines do.

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy_dl_reg import transform_vectors
    >>> shear = np.eye(4)
    >>> shear[0, 1] = -1
    >>> grids = dict(domain_grid_shape=(9, 9, 9), codomain_grid_shape=(9, 9, 9))
    >>> along_y = np.zeros((9, 9, 9, 3))
    >>> along_y[..., 1] = 1
    >>> warped = transform_vectors(AffineMap(shear, **grids), along_y)
    >>> np.round(warped[8, 4, 4], 3)
    array([0.707, 0.707, 0.   ], dtype=float32)
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    data, image_grid2world = read_image(vectors, image_grid2world, name="vectors")
    lists = _split_vectors(data)
    resampling = plan_resampling(
        mapping,
        data.shape,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        frame=frame,
        inverse=inverse,
    )
    axes, lengths = _axes_and_lengths(lists)
    known = find_known(np.any(lengths > 0, axis=-1), mask, "vectors")
    directions, values, inside = _resample(
        resampling, axes, lengths[..., None], known, interpolation, scale
    )
    warped = np.zeros((*inside.shape, *lists.shape[3:]), dtype=np.float32)
    warped[inside] = directions * values
    return warped.reshape(*inside.shape, *data.shape[3:])


def transform_peaks(
    mapping: DiffeomorphicMap | AffineMap | np.ndarray,
    peaks: PeaksLike,
    *,
    frame: str | None = None,
    mask: np.ndarray | None = None,
    image_grid2world: np.ndarray | None = None,
    out_shape: Sequence[int] | None = None,
    out_grid2world: np.ndarray | None = None,
    interpolation: str = "dyadic",
    inverse: bool = False,
) -> PeaksAndMetrics:
    r"""Transform DIPY's peaks by a map, with reorientation.

    Parameters
    ----------
    mapping : DiffeomorphicMap, AffineMap or ndarray of shape (4, 4)
        The map, in 3D. A matrix, from static's world to moving's, requires
        `image_grid2world`, `out_shape` and `out_grid2world`.
    peaks : PeaksAndMetrics, str or Path
        What `dipy.direction.peaks.peaks_from_model` returned, or a ``.pam5`` file, in
        moving's world (in static's with `inverse`).
    frame : {"voxel", "fsl", "world"}, optional
        Axes of the peaks, those of the input and of the result; see :ref:`frames`.
        By default "voxel", with a warning where "fsl" differs.
    mask : ndarray, shape (X, Y, Z), optional
        Voxels of the input image where it is not 0 are used; others are background.
    image_grid2world : ndarray, shape (4, 4), optional
        Grid-to-world matrix of the peaks; by default the affine stored with them, or
        that of moving (static with `inverse`).
    out_shape, out_grid2world : optional
        As in `apply_mapping`.
    interpolation : {"dyadic", "nearest"}, optional
        As in `transform_vectors`.
    inverse : bool, optional
        Transform from static to moving.

    Returns
    -------
    warped : PeaksAndMetrics
        On the output grid: ``peak_dirs``, reoriented; ``peak_values`` and ``qa``, not
        changed by reorientation, the largest first; ``peak_indices``, the nearest
        vertices of the sphere; ``shm_coeff``, by `transform_fods` in the basis of the
        matrix ``B``; ``gfa``; ``affine``, that of the output grid. ``odf`` is left out,
        which the log states: it is ``shm_coeff @ B``.
        :func:`dipy.io.peaks.save_pam` writes the file.

    Raises
    ------
    ValueError
        As `transform_vectors`, or if the object holds no peaks.

    See Also
    --------
    transform_vectors : the method, for vectors in an array or a file.
    transform_fods : transforms the FODs from which the peaks were found.
    dipy.direction.peaks.peaks_from_model : makes the peaks.

    Notes
    -----
    Directions are transformed as by `transform_vectors`: :math:`v'(x) \propto
    J(x)^{-1} v(T(x))`.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy.align.imaffine import AffineMap
    >>> from dipy.data import default_sphere
    >>> from dipy.direction.peaks import PeaksAndMetrics
    >>> from dipy_dl_reg import transform_peaks
    >>> peaks = PeaksAndMetrics()
    >>> peaks.sphere, peaks.affine = default_sphere, np.eye(4)
    >>> peaks.peak_dirs = np.zeros((5, 5, 5, 1, 3))
    >>> peaks.peak_dirs[..., 0] = 1  # along the first axis
    >>> peaks.peak_values = np.ones((5, 5, 5, 1))
    >>> peaks.peak_indices = np.zeros((5, 5, 5, 1), dtype=int)
    >>> quarter_turn = np.array(
    ...     [[0, 1, 0, 0], [-1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]
    ... )
    >>> grid = dict(domain_grid_shape=(5, 5, 5), codomain_grid_shape=(5, 5, 5))
    >>> warped = transform_peaks(AffineMap(quarter_turn, **grid), peaks)
    >>> np.abs(warped.peak_dirs[2, 2, 2, 0]).round(3)
    array([0., 1., 0.])
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    pam = read_peaks(peaks)
    if image_grid2world is None:
        image_grid2world = getattr(pam, "affine", None)
    resampling = plan_resampling(
        mapping,
        pam.peak_dirs.shape,
        image_grid2world=image_grid2world,
        out_shape=out_shape,
        out_grid2world=out_grid2world,
        frame=frame,
        inverse=inverse,
    )
    axes, lengths = _axes_and_lengths(pam.peak_dirs)
    known = find_known(np.any(lengths > 0, axis=-1), mask, "peaks")
    has_qa = getattr(pam, "qa", None) is not None
    scalars = [pam.peak_values, pam.qa] if has_qa else [pam.peak_values]
    stacked = np.nan_to_num(np.stack(scalars, -1), posinf=0, neginf=0)
    directions, values, inside = _resample(
        resampling, axes, stacked, known, interpolation, False
    )
    absent = ~(directions != 0).any(-1)
    keys = np.where(absent, np.inf, -values[..., 0])
    order = np.argsort(keys, axis=1, kind="stable")[..., None]
    directions = np.take_along_axis(directions, order, 1)
    values = np.take_along_axis(values, order, 1)
    warped = _make_peaks(pam, resampling, directions, values, inside)
    warped.gfa = _transform_gfa(pam, resampling, mask)
    warped.shm_coeff = _transform_harmonics(pam, resampling, mask)
    return warped


def _split_vectors(data: np.ndarray) -> np.ndarray:
    """Vectors as lists of shape (X, Y, Z, K, 3)."""
    flat = data.ndim == 4 and data.shape[3] > 0 and data.shape[3] % 3 == 0
    lists = data.ndim == 5 and data.shape[4] == 3 and data.shape[3] > 0
    if not (flat or lists) or data.dtype.kind not in "iuf":
        raise ValueError(
            "vectors must be real numbers of shape (X, Y, Z, 3), (X, Y, Z, K, 3) or "
            f"(X, Y, Z, 3 K), got {data.dtype} of shape {data.shape}"
        )
    return data.reshape(*data.shape[:3], -1, 3)


def _axes_and_lengths(lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors and lengths; both are 0 where a vector is absent."""
    vectors = np.asarray(lists, dtype=np.float64)
    finite = np.isfinite(vectors).all(-1, keepdims=True)
    vectors = np.where(finite, vectors, 0)
    lengths = np.sqrt(np.square(vectors).sum(-1))
    return vectors / np.where(lengths > 0, lengths, 1)[..., None], lengths


def _resample(
    resampling: Resampling,
    axes: np.ndarray,
    scalars: np.ndarray,
    known: np.ndarray,
    interpolation: str,
    scale: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes (N, K, 3), reoriented, and scalars (N, K, S) at the voxels of the result."""
    points, inside = resampling.input_points(known, nearest=interpolation == "nearest")
    if interpolation == "nearest":
        points = np.floor(points + 0.5)
    neighbours = find_neighbours(points, known)
    choose = take_axes if interpolation == "nearest" else average_axes
    count = known.size
    directions, values = choose(
        axes.reshape(count, *axes.shape[3:]),
        scalars.reshape(count, *scalars.shape[3:]),
        neighbours,
    )
    matrices = resampling.direction_matrices(inside)
    directions = directions @ matrices.swapaxes(1, 2)
    stretch = np.linalg.norm(directions, axis=-1, keepdims=True)
    directions /= np.where(stretch > 0, stretch, 1)
    values = np.where(stretch > 0, values, 0)
    return directions, values * stretch if scale else values, inside


def _make_peaks(
    pam: PeaksAndMetrics,
    resampling: Resampling,
    directions: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
) -> PeaksAndMetrics:
    """DIPY's peaks from directions and scalars of the voxels inside."""
    warped = PeaksAndMetrics()
    shape = (*inside.shape, directions.shape[1])
    warped.peak_dirs = np.zeros((*shape, 3))
    warped.peak_dirs[inside] = directions
    warped.peak_values = np.zeros(shape)
    warped.peak_values[inside] = values[..., 0]
    if values.shape[-1] > 1:
        warped.qa = np.zeros(shape)
        warped.qa[inside] = values[..., 1]
    warped.sphere, warped.B = pam.sphere, pam.B
    warped.peak_indices = np.full(shape, -1, dtype=np.int32)
    if pam.sphere is not None:
        warped.peak_indices[inside] = _nearest_vertices(pam.sphere.vertices, directions)
    for name in ("total_weight", "ang_thr"):
        if getattr(pam, name, None) is not None:
            setattr(warped, name, getattr(pam, name))
    warped.affine = resampling.grids.out_grid2world
    if pam.odf is not None:
        logger.info("Peaks are transformed without odf, which is shm_coeff @ B.")
    return warped


def _transform_gfa(
    pam: PeaksAndMetrics, resampling: Resampling, mask: np.ndarray | None
) -> np.ndarray | None:
    """GFA from its finite voxels in the mask; None if there is none."""
    if pam.gfa is None:
        return None
    gfa = np.asarray(pam.gfa)
    known = find_known(np.isfinite(gfa), mask, "peaks.gfa")
    values, inside = resampling.interpolate(gfa[..., None], known)
    warped = np.zeros(inside.shape, dtype=np.float32)
    warped[inside] = values[:, 0]
    return warped


def _transform_harmonics(
    pam: PeaksAndMetrics, resampling: Resampling, mask: np.ndarray | None
) -> np.ndarray | None:
    """The coefficients of peaks, reoriented; None if there are none."""
    if pam.shm_coeff is None:
        return None
    basis, legacy = find_basis(pam)
    return transform_fods(
        resampling.mapping,
        np.asarray(pam.shm_coeff),
        basis=basis,
        legacy=legacy,
        frame=resampling.frame,
        mask=mask,
        image_grid2world=resampling.grids.image_grid2world,
        out_shape=resampling.grids.out_shape,
        out_grid2world=resampling.grids.out_grid2world,
        inverse=resampling.inverse,
    )


def _nearest_vertices(vertices: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Index of the vertex of a sphere that is nearest to each axis; -1 for none."""
    present = (directions != 0).any(-1)
    indices = np.full(present.shape, -1, dtype=np.int32)
    chosen = directions[present]
    found = [
        np.abs(part @ vertices.T).argmax(1)
        for part in np.array_split(chosen, len(chosen) // 50_000 + 1)
    ]
    indices[present] = np.concatenate(found)
    return indices
