"""Prediction of each volume of a series from the others, for motion correction.

A volume is registered best to an image of its own contrast.  Each volume is therefore
predicted from all others: by the mean of its shell or, with enough directions, by a
tensor that is fitted to all shells.  The volume itself has no part in its prediction:
it would be drawn to its own position.  Volumes are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

#: Largest mean share (leverage) of volumes in their own fitted values, for a tensor
#: fit of volumes that may be misaligned, and of aligned ones.
_ROUGH_LEVERAGE, _MEAN_LEVERAGE = 0.4, 0.6
#: Largest share of a single volume.
_LEVERAGE = 0.9
#: Signals are not smaller than this part of the largest b0 signal before the logarithm.
_LEAST_SIGNAL = 1e-3
#: Diffusivity of brain tissue in mm^2/s, for the weights of the shells.
_DIFFUSIVITY = 0.7e-3


class SignalModel(NamedTuple):
    """Linear model of the signals of a series, or of their logarithms.

    Attributes
    ----------
    design : ndarray, shape (n, C)
        Values of the functions for each volume.
    fit : ndarray, shape (C, n)
        Coefficients from the signals, by weighted least squares.
    leverage : ndarray, shape (n,)
        Share of each volume in its own fitted value.
    shells : ndarray of int, shape (n,)
        Number of the shell of each volume, from 0.
    logarithmic : bool
        Whether the model is one of logarithms.
    """

    design: np.ndarray
    fit: np.ndarray
    leverage: np.ndarray
    shells: np.ndarray
    logarithmic: bool


class Prediction(NamedTuple):
    """Prediction of the volumes of a series.

    Attributes
    ----------
    model : SignalModel
        The model.
    coefficients : list of ndarray, shape (X, Y, Z)
        Coefficients of the functions.
    means : list of ndarray, shape (X, Y, Z)
        Mean of the aligned volumes of each shell.
    known : list of ndarray of bool, shape (X, Y, Z)
        Voxels that at least half of the volumes of a shell show.
    limits : tuple of float
        Range of signals of which logarithms are taken.
    """

    model: SignalModel
    coefficients: list[np.ndarray]
    means: list[np.ndarray]
    known: list[np.ndarray]
    limits: tuple[float, float]

    def predict(self, place: int, aligned: np.ndarray) -> np.ndarray:
        r"""Predict one volume from all others.

        With :math:`\hat s_i` the fitted value and :math:`h_i` the leverage, the fit to
        all others gives, in closed form,

        .. math:: \hat s_{-i} = \frac{\hat s_i - h_i s_i}{1 - h_i}

        Parameters
        ----------
        place : int
            Number of the volume in the model.
        aligned : ndarray, shape (X, Y, Z)
            The volume as it was when the model was fitted.

        Returns
        -------
        predicted : ndarray of float32, shape (X, Y, Z)
            The prediction, not below 0.
        """
        fitted = np.zeros_like(aligned)
        for weight, coefficient in zip(self.model.design[place], self.coefficients):
            if weight:
                fitted += np.float32(weight) * coefficient
        share = np.float32(self.model.leverage[place])
        if not self.model.logarithmic:
            return np.maximum((fitted - share * aligned) / (1 - share), 0)
        own = np.log(np.clip(aligned, *self.limits))
        predicted = (fitted - share * own) / (1 - share)
        return np.exp(np.clip(predicted, *np.log(self.limits).astype(np.float32)))


def mean_model(shells: np.ndarray) -> SignalModel:
    """Make the model in which all volumes of a shell have the same signal.

    Parameters
    ----------
    shells : ndarray of int, shape (n,)
        Number of the shell of each volume, from 0; each has two volumes or more.

    Returns
    -------
    model : SignalModel
        Its prediction is the mean of the other volumes of the shell.
    """
    return _make_model(_indicators(shells), np.ones(len(shells)), shells, False)


def tensor_model(
    shells: np.ndarray, bvals: np.ndarray, bvecs: np.ndarray
) -> SignalModel:
    r"""Make the model of a tensor that has another mean signal in each shell.

    .. math:: \log s_k = c_{shell(k)} - b_k \, g_k^\top D g_k

    with a tensor D of trace 0: the mean of a shell does not follow from others, because
    the decay of the signal is not exponential.  Volumes are weighted by the square of
    their expected signal, the inverse variance of its logarithm
    :footcite:p:`Salvador2005`.

    Parameters
    ----------
    shells : ndarray of int, shape (n,)
        Number of the shell of each volume, from 0.
    bvals : ndarray, shape (n,)
        b-values, s/mm^2.
    bvecs : ndarray, shape (n, 3)
        Directions in the axes of the head.

    Returns
    -------
    model : SignalModel
        The model.

    References
    ----------
    .. footbibliography::
    """
    x, y, z = bvecs.T
    quadratic = [x * x - z * z, y * y - z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    design = np.column_stack(
        [_indicators(shells), -1e-3 * bvals[:, None] * np.column_stack(quadratic)]
    )
    weights = np.exp(-2 * _DIFFUSIVITY * (bvals - bvals.min()))
    return _make_model(design, weights, shells, True)


def choose_model(
    shells: np.ndarray, bvals: np.ndarray, bvecs: np.ndarray, *, aligned: bool
) -> SignalModel:
    """Choose the model by the number and layout of the directions.

    Parameters
    ----------
    shells, bvals, bvecs : ndarray
        As in `tensor_model`.
    aligned : bool
        Whether the volumes are about aligned.  Errors of single volumes have more
        effect on the fit of a tensor than on means.

    Returns
    -------
    model : SignalModel
        A tensor if no volume determines its own value; else the means of the shells.
    """
    model = tensor_model(shells, bvals, bvecs)
    rank = np.linalg.matrix_rank(model.design)
    most = _MEAN_LEVERAGE if aligned else _ROUGH_LEVERAGE
    if (
        rank == model.design.shape[1]
        and model.leverage.mean() <= most
        and model.leverage.max() <= _LEVERAGE
    ):
        return model
    return mean_model(shells)


def _indicators(shells: np.ndarray) -> np.ndarray:
    """One column for each shell: 1 for its volumes, 0 for others."""
    return (shells[:, None] == np.arange(shells.max() + 1)).astype(np.float64)


def _make_model(
    design: np.ndarray, weights: np.ndarray, shells: np.ndarray, logarithmic: bool
) -> SignalModel:
    """Make a model from the values of its functions, and weights of the volumes."""
    root = np.sqrt(weights)
    fit = np.linalg.pinv(design * root[:, None]) * root
    leverage = np.einsum("ij,ji->i", design, fit)
    return SignalModel(design, fit, leverage, shells, logarithmic)


def fit_prediction(
    volumes: Iterable[tuple[np.ndarray, np.ndarray]],
    model: SignalModel,
    largest: float,
) -> Prediction:
    """Fit a model to aligned volumes, which are read one by one.

    Parameters
    ----------
    volumes : iterable of (ndarray, ndarray), each of shape (X, Y, Z)
        The aligned volumes, and which of their voxels are known.
    model : SignalModel
        The model.
    largest : float
        Largest b0 signal.

    Returns
    -------
    prediction : Prediction
        The fit.
    """
    limits = (_LEAST_SIGNAL * largest, largest)
    counts = np.bincount(model.shells)
    coefficients: list[np.ndarray] = []
    for place, (volume, known) in enumerate(volumes):
        if not coefficients:
            coefficients = [np.zeros_like(volume) for _ in model.fit]
            means = [np.zeros_like(volume) for _ in counts]
            seen = [np.zeros(volume.shape, np.int32) for _ in counts]
        shell = model.shells[place]
        means[shell] += volume / np.float32(counts[shell])
        seen[shell] += known
        if model.logarithmic:
            volume = np.log(np.clip(volume, *limits))
        for weight, coefficient in zip(model.fit[:, place], coefficients):
            coefficient += np.float32(weight) * volume
    shown = [each >= 0.5 * count for each, count in zip(seen, counts)]
    return Prediction(model, coefficients, means, shown, limits)


def extrapolate_signal(
    b0: np.ndarray, weighted: np.ndarray, factor: float
) -> np.ndarray:
    r"""Predict the mean signal of a shell from b0 and the mean of another shell.

    .. math:: \hat s = s_0 \left(\frac{s_1}{s_0}\right)^f

    which is exact for a signal that decays exponentially with the b-value.  The
    contrast is then that of the shell that is registered to it.

    Parameters
    ----------
    b0 : ndarray, shape (X, Y, Z)
        Mean of the b0 volumes.
    weighted : ndarray, shape (X, Y, Z)
        Mean of another shell, aligned with it.
    factor : float
        :math:`f`, the b-value over that of the other shell.

    Returns
    -------
    predicted : ndarray of float32, shape (X, Y, Z)
        The prediction, at most `b0`.
    """
    floor = np.float32(_LEAST_SIGNAL * max(float(b0.max()), 1e-30))
    above = np.maximum(b0, floor)
    ratio = np.clip(weighted / above, np.float32(_LEAST_SIGNAL), 1)
    return (above * ratio ** np.float32(factor)).astype(np.float32, copy=False)
