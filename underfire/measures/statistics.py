"""Confidence intervals: exact ones for rates, and the bootstrap or Student's t for means, ratios and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from underfire.errors import InputError, shown
from underfire.records import Interval

if TYPE_CHECKING:
    from torch import Tensor

_DRAWS = 1 << 22  # numbers drawn at a time: 64 MB


def is_number(value: object) -> bool:
    """Return whether a value is one number."""
    return isinstance(value, (int, float, np.number))


def checked_level(confidence: float) -> float:
    """Return the confidence, or raise InputError unless it is in (0, 1)."""
    if not (is_number(confidence) and 0 < confidence < 1):
        raise InputError(f"confidence must lie between 0 and 1, such as 0.95, got {shown(confidence)}")
    return float(confidence)


def as_vector(values: Tensor | ArrayLike) -> NDArray[np.float64]:
    """Return numbers `[n]` as float64, or raise InputError if they are none or have another shape."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"statistics need a list of numbers [n], got {shown(values)}") from None
    if vector.ndim != 1:
        raise InputError(f"statistics need a list of numbers [n], got the shape {vector.shape}")
    return vector


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the rate `k / n` with its exact interval (Clopper and Pearson, Biometrika 1934).

    The interval contains the true rate with at least the stated confidence, whatever that rate is. For n = 0 the rate
    is nan, and the interval [0, 1].

    Raises:
        InputError: not 0 <= k <= n, or the confidence is not in (0, 1).
    """
    from scipy.special import betaincinv

    tail = (1 - checked_level(confidence)) / 2
    if not (is_number(k) and is_number(n) and 0 <= k <= n):
        raise InputError(f"a rate needs counts 0 <= k <= n, got k = {shown(k)} of n = {shown(n)}")
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Interval(k / n if n else float("nan"), low, high, int(n))


def rate(hits: Tensor | ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the share of True among bools `[n]`, with its Clopper-Pearson interval.

    Raises:
        InputError: a value is neither 0 nor 1.
    """
    vector = as_vector(hits)
    if not np.isin(vector, (0, 1)).all():
        raise InputError(f"a rate needs values that are true or false, got {vector[~np.isin(vector, (0, 1))][0]}")
    return clopper_pearson(int(vector.sum()), len(vector), confidence)


def _resampled_means(rows: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the means of the columns of `rows` `[n, k]` over random draws of n rows, `[resamples, k]`."""
    generator, n = np.random.default_rng(seed), len(rows)
    size = max(1, _DRAWS // rows.size)
    parts = [
        rows[generator.integers(n, size=(min(size, resamples - start), n))].mean(1)
        for start in range(0, resamples, size)
    ]
    return np.concatenate(parts)


def _bca(
    estimate: float, drawn: NDArray[np.float64], influence: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """Return the ends of the BCa bootstrap interval (Efron, JASA 1987).

    Args:
        estimate: the estimate.
        drawn: the estimates of the resamples.
        influence: the influence of every value on the estimate, `[n]`; the acceleration is its skewness / (6 √n).
        confidence: the confidence in (0, 1).
    """
    from scipy.special import ndtr, ndtri

    tail = (1 - confidence) / 2
    # Bias correction: the quantile of the estimate among the resampled ones; ties count half, for discrete values.
    below = ((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2
    z0 = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    a = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    z = z0 + ndtri(np.array([tail, 1 - tail]))
    low, high = np.quantile(drawn, ndtr(z0 + z / (1 - a * z)))
    return float(low), float(high)


def _check_resamples(resamples: int) -> None:
    if resamples < 100:
        raise InputError(f"resamples must be at least 100, such as 10000, got {resamples}")


def bootstrap_mean(
    values: Tensor | ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean of values `[n]` with its BCa bootstrap interval (Efron, JASA 1987).

    Values that are nan, because a measure is undefined, are left out; `n` counts the others. The interval of a single
    value is nan, and without values the mean is nan too.

    Raises:
        InputError: a value is infinite, `resamples` is below 100, or the confidence is not in (0, 1).
    """
    _check_resamples(resamples)
    level, vector = checked_level(confidence), as_vector(values)
    vector = vector[~np.isnan(vector)]
    if np.isinf(vector).any():
        raise InputError("a bootstrap needs finite values, got an infinite one")
    n = len(vector)
    if n < 2:
        return Interval(float(vector[0]) if n else float("nan"), float("nan"), float("nan"), n)
    mean = float(vector.mean())
    if np.ptp(vector) == 0:
        return Interval(mean, mean, mean, n)
    means = _resampled_means(vector[:, None], resamples, seed)[:, 0]
    return Interval(mean, *_bca(mean, means, vector - mean, level), n)


def bootstrap_ratio(
    parts: Tensor | ArrayLike,
    wholes: Tensor | ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return `sum(parts) / sum(wholes)` over samples `[n]` with its BCa bootstrap interval (Efron, JASA 1987).

    A resample draws whole samples, each with its part and its whole. Without samples the ratio is nan, and the interval
    of a single sample is nan.

    Raises:
        InputError: the lengths differ, a value is not finite, a whole is not positive, `resamples` is below 100, or the
            confidence is not in (0, 1).
    """
    _check_resamples(resamples)
    level, rows = checked_level(confidence), [as_vector(parts), as_vector(wholes)]
    if len(rows[0]) != len(rows[1]):
        raise InputError(f"parts and wholes must have one length, got {len(rows[0])} and {len(rows[1])}")
    pairs = np.stack(rows, 1)
    if not np.isfinite(pairs).all() or (pairs[:, 1] <= 0).any():
        raise InputError("a ratio needs finite parts and positive wholes")
    n = len(pairs)
    ratio = float(pairs[:, 0].sum() / pairs[:, 1].sum()) if n else float("nan")
    if n < 2:
        return Interval(ratio, float("nan"), float("nan"), n)
    influence = pairs[:, 0] - ratio * pairs[:, 1]
    if np.abs(influence).max() <= 1e-12 * pairs[:, 1].max():
        return Interval(ratio, ratio, ratio, n)
    means = _resampled_means(pairs, resamples, seed)
    return Interval(ratio, *_bca(ratio, means[:, 0] / means[:, 1], influence, level), n)


def ratio_difference(
    first: tuple[Tensor | ArrayLike, Tensor | ArrayLike],
    second: tuple[Tensor | ArrayLike, Tensor | ArrayLike],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the first minus the second of two ratios of sums over the same samples, with its BCa bootstrap interval.

    A resample draws whole samples, each with its parts and wholes `[n]` of both ratios. A sample may lack one ratio:
    its part and whole are 0 there. `n` counts the samples that have a whole in either. Without a whole in one of the
    ratios the difference is nan, and the interval of a single sample is nan.

    Args:
        first: the parts and the wholes of the first ratio.
        second: those of the second.
        confidence: the confidence in (0, 1).
        resamples: number of resamples.
        seed: seed of the resamples.

    Raises:
        InputError: the lengths differ, a value is not finite, a whole is negative, `resamples` is below 100, or the
            confidence is not in (0, 1).
    """
    _check_resamples(resamples)
    pairs: list[Any] = [first, second]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise InputError("a ratio needs its parts and its wholes, a pair of lists of numbers")
    level, columns = checked_level(confidence), [as_vector(values) for pair in pairs for values in pair]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"all parts and wholes must have one length, got {[len(column) for column in columns]}")
    rows = np.stack(columns, 1)
    if not np.isfinite(rows).all() or (rows[:, 1::2] < 0).any():
        raise InputError("a difference of ratios needs finite parts, and wholes that are not negative")
    rows = rows[(rows[:, 1::2] > 0).any(1)]
    n, sums = len(rows), rows.sum(0)
    if (sums[1::2] == 0).any():
        return Interval(float("nan"), float("nan"), float("nan"), n)
    ratios = sums[::2] / sums[1::2]
    difference = float(ratios[0] - ratios[1])
    if n < 2:
        return Interval(difference, float("nan"), float("nan"), n)
    influence = ((rows[:, ::2] - ratios * rows[:, 1::2]) / sums[1::2] * n) @ np.array([1.0, -1.0])
    if np.abs(influence).max() <= 1e-12:
        return Interval(difference, difference, difference, n)
    means = _resampled_means(rows, resamples, seed)
    means = means[(means[:, 1::2] > 0).all(1)]  # in a resample without a whole there is no ratio
    drawn = means[:, 0] / means[:, 1] - means[:, 2] / means[:, 3]
    return Interval(difference, *_bca(difference, drawn, influence, level), n)


def student_mean(values: Tensor | ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of values `[n]` with Student's t interval (Biometrika 1908), which also suits few values.

    The bootstrap interval of fewer than some twenty values is too narrow. The interval of a single value is nan, and
    without values the mean is nan too.

    Raises:
        InputError: the confidence is not in (0, 1).
    """
    from scipy.special import stdtrit

    tail = (1 - checked_level(confidence)) / 2
    vector = as_vector(values)
    n = len(vector)
    if n < 2:
        return Interval(float(vector[0]) if n else float("nan"), float("nan"), float("nan"), n)
    mean, half = float(vector.mean()), float(stdtrit(n - 1, 1 - tail) * vector.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(
    a: Tensor | ArrayLike, b: Tensor | ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean of `a - b` over samples measured twice, `[n]` each, with its BCa bootstrap interval.

    The difference is significant if the interval does not contain 0. Pairs with a nan are left out.

    Raises:
        InputError: `a` and `b` have different lengths, or an argument is wrong for `bootstrap_mean`.
    """
    first, second = as_vector(a), as_vector(b)
    if len(first) != len(second):
        raise InputError(f"paired values must have one length, got {len(first)} and {len(second)}")
    return bootstrap_mean(first - second, confidence, resamples, seed)
