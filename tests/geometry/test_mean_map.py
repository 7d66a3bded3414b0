"""Maps composed with the inverse of their mean."""

import torch

from dipy_dl_reg.geometry.fields import compose
from dipy_dl_reg.geometry.inversion import invert
from dipy_dl_reg.geometry.mean_map import invert_mean, remove_mean_map
from dipy_dl_reg.geometry.smoothing import smooth


def fields(count=3):
    """Smooth displacements of some voxels, with a mean that is not 0."""
    torch.manual_seed(3)
    raw = torch.randn(count, 2, 40, 36) * 15 + 2
    window = torch.hann_window(40, False)[:, None] * torch.hann_window(36, False)
    return list((smooth(raw, [5.0, 5.0]) * window).split(1))


def test_mean_is_zero_and_pairs_are_unchanged():
    maps = fields()
    inverses = [invert(u) for u in maps]
    mean, inverse = invert_mean(torch.stack(maps).mean(0))
    assert mean.norm(dim=1).max() > 1
    centred = [remove_mean_map(u, v, mean, inverse) for u, v in zip(maps, inverses)]
    left = torch.stack([u for u, _ in centred]).mean(0).norm(dim=1)
    assert left.max() < 0.1
    # From one image through the common space to another is the same map as before.
    before = compose(inverses[0], maps[1])
    after = compose(centred[0][1], centred[1][0])
    assert (before - after).norm(dim=1).max() < 0.15
