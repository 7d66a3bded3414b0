"""What a network sees of masked images: the background is 0, holes are not."""

import numpy as np

from dipy_dl_reg.initialization.network import sample_pair_on_grid
from dipy_dl_reg.registration import dipy_adapter

LESION = (0, 0, slice(5, 8), slice(6, 9), slice(7, 10))


def test_holes_of_a_mask_have_the_values_around_them():
    rng, shape = np.random.default_rng(0), (16, 18, 20)
    healthy = (1 + 0.5 * rng.random(shape)).astype(np.float32)
    ill, mask = healthy.copy(), np.zeros(shape, np.uint8)
    ill[LESION[2:]] = 5
    mask[2:-2, 2:-2, 2:-2] = 1
    mask[LESION[2:]] = 0
    pair = dipy_adapter.make_pair(healthy, ill, moving_mask=mask)
    static, moving = sample_pair_on_grid(pair, pair.static_grid)
    for image in (static, moving):
        assert not image[0, 0, :2].any() and not image[0, 0, :, -2:].any()
        assert 0 < float(image[LESION].mean()) < 0.9  # neither cut out nor the lesion
    assert float(moving[LESION].std()) > 0.01
