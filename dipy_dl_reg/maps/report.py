"""What a registration did: numbers, and a picture."""

import textwrap
from typing import NamedTuple

from dipy.core.interpolation import interpolate_vector_2d, interpolate_vector_3d
import numpy as np

from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.io.images import read_image
from dipy_dl_reg.maps.dipy_map import check_mapping
from dipy_dl_reg.maps.figure import draw_registration, load_matplotlib

#: Voxels beyond the border that still count as on it.
_ROUNDING = 1e-5


#: Characters in a line below the picture.
_WIDTH = 130


class RegistrationNumbers(NamedTuple):
    """Regularity and invertibility of a map, over the whole grid of its field.

    "Forward" is static to moving, the field behind ``mapping.transform``; "inverse"
    is moving to static. The prealign is left out: it folds nothing.

    Attributes
    ----------
    minimum_jacobian : float
        Least Jacobian determinant of the forward field.
    minimum_jacobian_inverse : float
        Least Jacobian determinant of the inverse field.
    folds_percent : float
        Share of voxels with a determinant of 0 or less, forward field, in percent.
    folds_percent_inverse : float
        The same of the inverse field.
    sd_log_jacobian : float
        Standard deviation of the logarithm of the forward determinant, which is
        clipped at 0.001.
    round_trip_mean : float
        Mean distance, in voxels, between a voxel's centre and where it lands after
        one field and then the other, over voxels whose image stays inside; of the two
        orders (forward first, inverse first) the worse. This is what a registration
        logs, and its `quality` holds.
    round_trip_max : float
        The largest such distance, in voxels; the worse of the two orders.
    round_trip_mean_mm : float
        The mean in mm.
    round_trip_max_mm : float
        The largest in mm.
    """

    minimum_jacobian: float
    minimum_jacobian_inverse: float
    folds_percent: float
    folds_percent_inverse: float
    sd_log_jacobian: float
    round_trip_mean: float
    round_trip_max: float
    round_trip_mean_mm: float
    round_trip_max_mm: float


def registration_numbers(mapping):
    """Measure how regular a map is, and how well its two fields undo each other.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        The map, 2D or 3D.

    Returns
    -------
    numbers : RegistrationNumbers
        The measures, each explained there. All nan for the round trip if no voxel
        stays inside the field, in neither order.

    Raises
    ------
    ValueError
        If `mapping` is no map.
    """
    check_mapping(mapping)
    forward = jacobian_determinant(mapping.get_forward_field(), mapping.disp_grid2world)
    return _numbers(mapping, forward)


def _numbers(mapping, forward):
    """`registration_numbers`, given the determinants of the forward field."""
    there, back = mapping.get_forward_field(), mapping.get_backward_field()
    inverse = jacobian_determinant(back, mapping.disp_grid2world)
    orders = ((there, back), (back, there))
    trips = [_round_trip(*order, mapping.disp_grid2world) for order in orders]
    trips = [
        [voxels.mean(), voxels.max(), mm.mean(), mm.max()]
        for voxels, mm in trips
        if mm.size
    ]
    trip = np.max(trips, axis=0) if trips else [np.nan] * 4
    return RegistrationNumbers(
        float(forward.min()),
        float(inverse.min()),
        float(100 * (forward <= 0).mean()),
        float(100 * (inverse <= 0).mean()),
        float(np.log(np.clip(forward, 1e-3, None)).std()),
        *(float(distance) for distance in trip),
    )


def jacobian_determinant(field, grid2world=None):
    """Determinant of the Jacobian of ``x + u(x)`` in each voxel.

    Central differences inside, one-sided ones on the border:
    ``det(A + G) / det(A)`` with ``A`` the voxel-to-world matrix and ``G`` the
    differences of `field` between neighbours along each axis.

    Parameters
    ----------
    field : ndarray, shape (..., dim)
        Displacement `u` in mm, along world axes.
    grid2world : ndarray, shape (dim + 1, dim + 1), optional
        The grid's matrix; the identity if None.

    Returns
    -------
    determinant : ndarray, shape (...)
        Above 1 where the map expands, 0 or less where it folds; float64.
    """
    shape, dim = field.shape[:-1], field.shape[-1]
    matrix = np.eye(dim) if grid2world is None else grid2world[:dim, :dim]
    columns = [[matrix[c, a] for a in range(dim)] for c in range(dim)]
    for c in range(dim):
        component = np.asarray(field[..., c], dtype=np.float64)
        for a in range(dim):
            if shape[a] > 1:  # nothing changes along an axis of one voxel
                columns[c][a] = columns[c][a] + np.gradient(component, axis=a)
    return np.broadcast_to(_determinant(columns) / np.linalg.det(matrix), shape)


def _determinant(m):
    """Determinant of a 2 by 2 or 3 by 3 matrix whose entries are arrays."""
    if len(m) == 2:
        return m[0][0] * m[1][1] - m[0][1] * m[1][0]
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )


def _round_trip(there, back, grid2world):
    """Distances from each voxel to itself after both fields: in voxels, in mm.

    Slab by slab, which is faster than all at once and takes little memory.
    """
    shape, dim = there.shape[:-1], there.shape[-1]
    matrix = np.eye(dim) if grid2world is None else grid2world[:dim, :dim]
    to_voxels, ends = np.linalg.inv(matrix).T, np.array(shape) - 1
    look_up = interpolate_vector_2d if dim == 2 else interpolate_vector_3d
    back = np.ascontiguousarray(back, dtype=np.float32)
    voxels = np.stack([np.zeros(shape[1:]), *np.indices(shape[1:])], axis=-1)
    voxels = voxels.reshape(-1, dim)
    errors = []
    for voxels[:, 0], slab in enumerate(there):
        moved = slab.reshape(-1, dim).astype(np.float64)
        at = voxels + moved @ to_voxels
        # The engine's rule, with room for rounding between mm and voxels.
        inside = ((at >= -_ROUNDING) & (at <= ends + _ROUNDING)).all(axis=1)
        returned, _ = look_up(back, np.clip(at[inside], 0, ends))
        errors.append(moved[inside] + returned)
    error = np.concatenate(errors)
    return tuple(np.linalg.norm(e, axis=-1) for e in (error @ to_voxels, error))


def plot_registration(
    path,
    static,
    moving,
    mapping,
    *,
    static_grid2world=None,
    moving_grid2world=None,
    warped=None,
    verdict=None,
    title=None,
    overwrite=True,
):
    """Draw one registration to a file, to be looked at.

    From left to right: static with its outlines; moving before (through the prealign
    alone) and after, under static's outlines; both in a checkerboard; a regular grid
    of moving carried to static; the logarithm of the Jacobian determinant. Three
    planes through the middle of static's foreground, or the one there is in 2D, in
    true proportions, on the grid of the field. Below, the numbers of
    `registration_numbers`.

    Parameters
    ----------
    path : str or Path
        The picture to write, PNG or whatever matplotlib knows by its suffix.
    static, moving : ndarray, nibabel image, str or Path
        The two images, not necessarily those that were registered: any that lie in
        the same spaces, on any grid.
    mapping : DiffeomorphicMap
        The map of a registration.
    static_grid2world, moving_grid2world : ndarray, shape (dim + 1, dim + 1), optional
        Grid-to-world matrices of the images; the files' or the map's own by default.
    warped : ndarray, shape of the map's field, optional
        Moving on static's grid, where it is known already, such as the result of
        ``mapping.transform(moving)``; computed by default.
    verdict : Verdict, optional
        Of the registration (`DeepRegistration.verdict`), written below the numbers.
    title : str, optional
        A line on top.
    overwrite : bool, optional
        Replace the file where it exists.

    Returns
    -------
    numbers : RegistrationNumbers
        What stands below the picture.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If an image does not fit the map.
    FileExistsError
        If the file exists and `overwrite` is False.
    """
    load_matplotlib()
    check_mapping(mapping)
    check_writable(path, overwrite=overwrite)
    static, static_grid2world = read_image(static, static_grid2world, name="static")
    moving, moving_grid2world = read_image(moving, moving_grid2world, name="moving")
    for name, image in (("static", static), ("moving", moving)):
        if image.ndim != mapping.dim:
            raise ValueError(f"{name} must be {mapping.dim}D, got shape {image.shape}")
    field_shape = tuple(int(n) for n in mapping.disp_shape)
    if warped is not None and np.shape(warped) != field_shape:
        raise ValueError(
            f"warped must have the shape {field_shape} of the map's field, got "
            f"{np.shape(warped)}"
        )
    forward = jacobian_determinant(mapping.get_forward_field(), mapping.disp_grid2world)
    numbers = _numbers(mapping, forward)
    figure = draw_registration(
        static,
        moving,
        mapping,
        static_grid2world=static_grid2world,
        moving_grid2world=moving_grid2world,
        warped=warped,
        jacobian=forward,
        lines=[*_lines(numbers), *_verdict_lines(verdict)],
        title=title,
    )
    with write_atomically(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=120, facecolor="white")
    return numbers


def _verdict_lines(verdict):
    """The verdict, in lines as long as those of the numbers."""
    return [] if verdict is None else textwrap.wrap(f"verdict: {verdict}", _WIDTH)


def _lines(numbers):
    """The numbers as a reader wants them."""
    n = numbers
    return (
        f"Jacobian determinant: at least {n.minimum_jacobian:.3g} "
        f"(inverse {n.minimum_jacobian_inverse:.3g}); folded voxels "
        f"{n.folds_percent:.3g} % (inverse {n.folds_percent_inverse:.3g} %); "
        f"SD of its logarithm {n.sd_log_jacobian:.3f}",
        f"round trip, the worse of both orders: mean {n.round_trip_mean:.3f}, at most "
        f"{n.round_trip_max:.3f} voxel ({n.round_trip_mean_mm:.3f} and "
        f"{n.round_trip_max_mm:.3f} mm)",
    )
