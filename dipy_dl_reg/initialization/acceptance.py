"""Whether a field is a better start of refinement than no displacement."""

import torch

from dipy_dl_reg.geometry.fields import resize
from dipy_dl_reg.geometry.pyramid import coarsen
from dipy_dl_reg.initialization.displacement_search import longest_extent
from dipy_dl_reg.initialization.network import resample_field
from dipy_dl_reg.optimization.deformable import evaluate_energies, refine

#: Smoothing of the images before they are sampled on larger voxels, see `coarsen`.
_SIGMA_FACTOR = 0.5
#: Coarse refinement: voxels along the image's longest side, iterations of each level.
_COARSE, _COARSE_ITERS = 48, (20, 20)


def improves_similarity(pair, displacement, objective, *, spacing=None):
    """Whether a field brings the images closer, by the objective's own measure.

    Parameters
    ----------
    pair : Pair
        The images.
    displacement : Tensor, shape (1, D, *static_shape)
        Field in voxels.
    objective : Objective
        What refinement would minimise.
    spacing : float, optional
        Voxel size, mm, at which to look; by default the images' own.

    Returns
    -------
    better : bool
        If its energy is below that of no displacement.
    """
    none = torch.zeros_like(displacement)
    if spacing is not None:
        coarse = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
        displacement, none = (
            resample_field(u, pair.static_grid, coarse.static_grid)
            for u in (displacement, none)
        )
        pair = coarse
    without, by_network = evaluate_energies(pair, objective, (none, displacement))
    return by_network < without


def improves_refinement(pair, objective, u, v, *, worth=1.05):
    """Whether a coarse refinement ends better from a field than without.

    Parameters
    ----------
    pair : Pair
        The images.
    objective : Objective
        What refinement minimises.
    u, v : Tensor, shape (1, D, *static_shape)
        The field and its inverse, in voxels of the static grid.
    worth : float, optional
        How much more the energy must fall, as a factor.  By default clearly more: of
        two about equal ends the one that went less far is the better bet.

    Returns
    -------
    helps : bool
        If it falls by that much more, on voxels of 1 / 48 of the longest side.
    """
    spacing = longest_extent(pair.static_grid) / _COARSE
    coarse = coarsen(pair, spacing, sigma_factor=_SIGMA_FACTOR)
    start = tuple(resize(f, coarse.static_grid.shape) for f in (u, v))
    none = torch.zeros_like(start[0])
    options = {"level_iters": _COARSE_ITERS, "sigma_factor": _SIGMA_FACTOR}
    ends = [refine(coarse, objective, start=s, **options)[0] for s in (None, start)]
    before, without, with_it = evaluate_energies(coarse, objective, (none, *ends))
    return before - with_it > worth * (before - without)
