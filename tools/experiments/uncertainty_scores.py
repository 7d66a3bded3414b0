"""Fits the calibration of uncertainties to stored cases, and measures coverage."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize, nnls
from scipy.stats import spearmanr

from dipy_dl_reg.registration.uncertainty_calibration import (
    LEVELS,
    Calibration,
    Factors,
    FactorTable,
)
from dipy_dl_reg.registration.uncertainty_measures import Window, measure_disagreement

#: Points of a case; repetitions of `mapping_uncertainty`; levels of the report.
COUNT = 6000
USED = ("change",)
REPORTED = (0.5, 0.8, 0.95)
#: Levels of the distribution from which the length of errors is found.
DENSE = np.concatenate([np.linspace(0.01, 0.98, 98), [0.985, 0.99, 0.995, 0.998]])


class Errors(NamedTuple):
    """Errors at points of one case, and the measures there.

    `components` has shape (N, D) for known errors, (N, 1) for boundaries; `lengths` is
    None for the latter. `measures` holds arrays (N,).
    """

    components: np.ndarray
    lengths: np.ndarray | None
    measures: dict

    def widths(self, factors):
        """Half-widths at all points."""
        return factors.apply(self.measures["d"], self.measures["precision"])


def read_errors(path, lost=0.0, distances="distances", candidates=False):
    """Errors and measures of a stored case.

    With `candidates`, the measures that are not used, too. `lost` is the part of the
    displacement that is removed from the map before it is judged: 1 leaves the affine
    (known errors only).
    """
    stored = dict(np.load(path))
    inside, affine = stored["inside"], stored["affine"]
    dim = inside.ndim
    window = Window(np.linalg.norm(affine[:dim, :dim], axis=0))
    removed = lost * stored["u"].astype(np.float32)
    names = [
        k[2:] for k in stored if k.startswith("d ") and (candidates or k[2:] in USED)
    ]
    differences = {n: stored[f"d {n}"].astype(np.float32) + removed for n in names}
    maps = {
        "d": measure_disagreement([differences[n] for n in USED], inside, window),
        "precision": stored["m precision"],
    }
    if candidates:
        for n in names:
            maps[f"d {n}"] = measure_disagreement([differences[n]], inside, window)
        maps |= {k[2:]: v for k, v in stored.items() if k.startswith("m ")}
        length = np.square(stored["u"].astype(np.float32)).sum(-1)
        maps["displacement"] = np.sqrt(window.mean(length))
    random = np.random.default_rng(0)
    if "error" in stored:
        at = np.argwhere(inside)
        at = tuple(at[random.permutation(len(at))[:COUNT]].T)
        error = (stored["error"].astype(np.float32) - removed)[at]
        lengths = np.linalg.norm(error, axis=-1)
        return Errors(error, lengths, {k: v[at] for k, v in maps.items()})
    inverse = np.linalg.inv(affine)
    voxels = stored["points"] @ inverse[:3, :3].T + inverse[:3, 3]
    known = np.isfinite(stored[distances])
    picked = random.permutation(np.flatnonzero(known))[:COUNT]
    at = voxels[picked].T
    measures = {
        k: map_coordinates(v, at, order=1, mode="nearest") for k, v in maps.items()
    }
    return Errors(stored[distances][picked][:, None], None, measures)


# Calibration


def pooled_quantile(samples, level):
    """Quantile of all samples, each with the same weight."""
    values = np.concatenate([np.ravel(s) for s in samples])
    weights = np.concatenate([np.full(np.size(s), 1 / np.size(s)) for s in samples])
    order = np.argsort(values)
    return float(
        np.interp(level, np.cumsum(weights[order]) / len(samples), values[order])
    )


def calibrate_known(cases, worse):
    """Factors from known errors, by cases and the same with parts of the map lost.

    The ratio of both factors is that of quantile regression on all; both are then
    multiplied so that the coverage on `cases` is the level.
    """
    tables = {}
    for name in ("component", "length"):
        rows = [fit_level(cases, worse, name, level) for level in LEVELS]
        tables[name] = increasing_table(rows)
    mean = fit_mean(cases, worse)
    return Calibration(tables["component"], tables["length"], mean)


def errors_of(case, name):
    """Absolute components, or lengths, of the errors of a case: (N, D) or (N, 1)."""
    return np.abs(case.components) if name == "component" else case.lengths[:, None]


def fit_level(cases, worse, name, level):
    """Factors of one level."""
    some = [(errors_of(c, name)[:700], c) for c in [*cases, *worse]]

    def loss(logs):
        factors = Factors(*np.exp(logs))
        total = 0.0
        for error, case in some:
            rest = error - case.widths(factors)[: len(error), None]
            total += np.maximum(level * rest, (level - 1) * rest).mean() / error.mean()
        return total

    start = np.log([level + 0.3, 0.05])
    factors = Factors(*np.exp(minimize(loss, start, method="Nelder-Mead", tol=1e-3).x))
    ratios = [errors_of(c, name) / c.widths(factors)[:, None] for c in cases]
    scale = pooled_quantile(ratios, level)
    return Factors(*(scale * f for f in factors))


def fit_mean(cases, worse):
    """Factors of the mean length of the error, with the ratio of those at level .65."""
    factors = fit_level(cases, worse, "length", 0.65)
    ratio = np.mean([c.lengths.mean() / c.widths(factors).mean() for c in cases])
    return Factors(*(round(float(ratio * f), 3) for f in factors))


def increasing_table(rows):
    """Table of factors that do not decrease with the level."""
    columns = np.maximum.accumulate(np.array(rows), axis=0).T
    return FactorTable(*(tuple(round(float(x), 3) for x in c) for c in columns))


def calibrate_boundaries(cases, known, dim):
    """Factors from distances of boundaries; those of disagreement are of known errors.

    The factors of precision are those with which the distances have the coverage. The
    length follows from the distribution of the distances if errors have no preferred
    direction.
    """
    rows = []
    for level in LEVELS:
        first = known.component.at(level).disagreement
        rest = [np.square(c.components[:, 0]) for c in cases]
        rest = [r - np.square(first * c.measures["d"]) for r, c in zip(rest, cases)]
        ratios = [r / np.square(c.measures["precision"]) for r, c in zip(rest, cases)]
        rows.append(Factors(first, np.sqrt(max(pooled_quantile(ratios, level), 0))))
    component = increasing_table(rows)
    # The same distribution, of a scale that a map of typical disagreement has.
    typical = component.at(0.8)
    ratios = [c.components / c.widths(typical)[:, None] for c in cases]
    lengths, mean = lengths_of_components(
        np.array([pooled_quantile(ratios, q) for q in DENSE]), dim
    )
    scale = [c.widths(typical) for c in cases]
    rows = [
        match(scale, cases, ratio, known.length.at(level).disagreement)
        for level, ratio in zip(LEVELS, lengths)
    ]
    mean = match(scale, cases, mean, known.mean.disagreement)
    mean = Factors(*(round(float(f), 3) for f in mean))
    return Calibration(component, increasing_table(rows), mean)


def match(scales, cases, ratio, first):
    """Factor of precision with which the width is `ratio` times a scale on average."""
    squares = [
        (np.square(ratio * s) - np.square(first * c.measures["d"])).mean()
        / np.square(c.measures["precision"]).mean()
        for s, c in zip(scales, cases)
    ]
    return Factors(first, np.sqrt(max(np.mean(squares), 0)))


def lengths_of_components(quantiles, dim):
    """Quantiles at `LEVELS` and mean of the length of vectors without direction.

    `quantiles` are those of the absolute component, at `DENSE`. For a vector of length
    R the component is below c with probability c / R in 3D, 2 / pi asin(c / R) in 2D.
    The distribution of R is a mixture of lengths that reproduces the quantiles.
    """
    lengths = np.geomspace(quantiles[0] / 2, quantiles[-1] * 2, 120)
    ratio = np.minimum(quantiles[:, None] / lengths, 1)
    below = ratio if dim == 3 else 2 / np.pi * np.arcsin(ratio)
    smooth = 0.3 * np.diff(np.eye(120), 2, axis=0)
    rows = np.concatenate([below, smooth, np.full((1, 120), 10.0)])
    wanted = np.concatenate([DENSE, np.zeros(118), [10.0]])
    parts = nnls(rows, wanted)[0]
    parts /= parts.sum()
    table = np.interp(LEVELS, np.cumsum(parts), lengths)
    return table, float(parts @ lengths)


# Scores


class Score(NamedTuple):
    """Coverage (parts of 1) and median half-widths (mm) at the levels of the report."""

    component: list
    width: list
    length: list
    radius: list
    mean_error: float
    expected: float


def score(errors, calibration):
    """Coverage and half-widths on a case."""
    rows = {"component": [], "width": [], "length": [], "radius": []}
    for level in REPORTED:
        half = errors.widths(calibration.component.at(level))
        ball = errors.widths(calibration.length.at(level))
        rows["component"].append(np.mean(np.abs(errors.components) <= half[:, None]))
        rows["width"].append(np.median(half))
        rows["radius"].append(np.median(ball))
        if errors.lengths is not None:
            rows["length"].append(np.mean(errors.lengths <= ball))
    known = errors.lengths is not None
    mean = errors.lengths.mean() if known else np.abs(errors.components).mean()
    expected = np.mean(errors.widths(calibration.mean))
    return Score(**rows, mean_error=mean, expected=expected)


def correlations(errors):
    """Rank correlation of each measure with the error."""
    error = errors.lengths
    error = np.abs(errors.components[:, 0]) if error is None else error
    return {k: float(spearmanr(v, error)[0]) for k, v in errors.measures.items()}
