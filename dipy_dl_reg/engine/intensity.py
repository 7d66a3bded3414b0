"""How intensities are scaled, in training and in use alike."""

import numpy as np

#: What becomes 0 and 1; the outermost thousandths are noise, or one hot voxel.
QUANTILES = (0.001, 0.999)


def quantile_limits(values):
    """The intensities that become 0 and 1.

    Parameters
    ----------
    values : ndarray
        At least one, all finite.

    Returns
    -------
    low, high : float
        Quantiles .001 and .999; least and greatest value where these two are equal, as
        of a small bright spot on nothing.
    """
    low, high = np.quantile(values, QUANTILES)
    if not high > low:
        low, high = values.min(), values.max()
    return float(low), float(high)
