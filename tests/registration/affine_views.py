"""Two views of one scene by a known affine, and a call that registers them."""

from phantom import grid, image, rotation

from dipy_dl_reg import (
    deep_affine_registration,
)

#: Errors allowed, in mm; voxels are 6 mm.
NEAR = 0.5

GRIDS = {2: ((48, 52), 4.5), 3: ((34, 38, 32), 6.0)}

#: One level of half the resolution: enough where poses are searched, or calls are
#: compared with each other.
QUICK = {"level_iters": [40], "factors": [2], "sigmas": [1.0]}

TURN = rotation([1, -2, 0.5], 12)


def scene(dim=3, pose=None, shape=None, moving_grid=None):
    """Keywords of two views, before and after a move."""
    shape, spacing = GRIDS[dim] if shape is None else shape
    static_grid = grid(shape, spacing)
    moving_grid = static_grid if moving_grid is None else moving_grid
    return {
        "static": image(shape, static_grid),
        "moving": image(shape, moving_grid, pose),
        "static_grid2world": static_grid,
        "moving_grid2world": moving_grid,
    }


def call(views, **options):
    """Call `deep_affine_registration` with its names of the arguments."""
    names = {"static_grid2world": "static_affine", "moving_grid2world": "moving_affine"}
    return deep_affine_registration(
        **{names.get(key, key): value for key, value in views.items()}, **options
    )
