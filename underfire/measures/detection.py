"""How well a detector tells attacked from clean inputs, from the scores that it gives: threshold, rates and AUROC.

A higher score is more suspicious. The threshold comes from clean inputs alone, at a stated false-positive rate, and not
from the inputs that are to be detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from underfire.errors import DataError, InputError, shown
from underfire.measures.statistics import as_vector, checked_level, clopper_pearson, is_number, rate
from underfire.records import Interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Threshold:
    """A threshold of scores; an input is flagged if its score is above it.

    Attributes:
        value: the threshold.
        rate: the false-positive rate that it has, as a share, with its interval and the number of clean inputs.
    """

    value: float
    rate: Interval

    def flags(self, scores: Tensor | ArrayLike) -> np.ndarray:
        """Return which scores are above the threshold, bool `[n]`."""
        return checked_scores(scores) > self.value


def threshold(clean: Tensor | ArrayLike, false_positive_rate: float = 0.05, confidence: float = 0.95) -> Threshold:
    """Return the threshold that flags a stated share of clean inputs on average, from the scores of some, `[n]`.

    It is the k-th smallest score, with `k = ceil((n + 1) (1 - rate))`. For scores of a continuous distribution, the
    false-positive rate of this threshold is distributed as Beta(n - k + 1, k) whatever that distribution is; the mean
    of that, which is at most the stated rate, and its quantiles are the rate of the result.

    Raises:
        InputError: the rate is not in (0, 1). DataError: there are fewer than 1 / rate - 1 clean inputs, or a score is
            not finite.
    """
    from scipy.special import betaincinv

    tail = (1 - checked_level(confidence)) / 2
    if not (is_number(false_positive_rate) and 0 < false_positive_rate < 1):
        raise InputError(f"the false-positive rate must be in (0, 1), such as 0.05, got {shown(false_positive_rate)}")
    scores = np.sort(checked_scores(clean))
    n = len(scores)
    k = int(np.ceil((n + 1) * (1 - false_positive_rate) - 1e-9))
    if k > n:
        needed = int(np.ceil(1 / false_positive_rate - 1e-9)) - 1
        raise DataError(f"a false-positive rate of {false_positive_rate:g} needs {needed} clean inputs, got {n}")
    above = n - k + 1
    low, high = (float(betaincinv(above, k, p)) for p in (tail, 1 - tail))
    return Threshold(float(scores[k - 1]), Interval(above / (n + 1), low, high, n))


def detection_rate(attacked: Tensor | ArrayLike, at: Threshold, confidence: float = 0.95) -> Interval:
    """Return the share of attacked inputs that a threshold flags, with its Clopper-Pearson interval.

    Raises:
        InputError: `at` is no `Threshold`. DataError: a score is not finite.
    """
    if not isinstance(at, Threshold):
        raise InputError(f"at must be a Threshold, as threshold(clean) returns it, got {shown(at)}")
    return rate(at.flags(attacked), confidence)


def auroc(clean: Tensor | ArrayLike, attacked: Tensor | ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the area under the ROC curve, the positive class being attacked inputs, with DeLong's interval.

    It is the probability that an attacked input scores higher than a clean one; ties count half. The interval is that
    of the logit of the area, so that it stays inside [0, 1]. If all pairs are ordered alike or all scores are equal,
    the estimated variance is zero, and the interval is that of the same share of the smaller of the two sets. `n`
    counts both sets; without an input in one of them, the area is nan.

    Raises:
        DataError: a score is not finite.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988.
    """
    from scipy.special import expit, logit, ndtri

    tail = (1 - checked_level(confidence)) / 2
    negative, positive = checked_scores(clean), checked_scores(attacked)
    m, n = len(positive), len(negative)
    if not m or not n:
        return Interval(float("nan"), 0.0, 1.0, m + n)
    above, below = _placements(negative, positive)
    area = float(above.mean())
    fewer = min(m, n)
    variance = above.var(ddof=1) / m + below.var(ddof=1) / n if fewer > 1 else 0.0
    if area in (0.0, 1.0) or variance == 0:
        bound = clopper_pearson(round(area * fewer), fewer, confidence)
        return Interval(area, min(area, bound.low), max(area, bound.high), m + n)
    error = np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([1, -1]) * ndtri(tail) * error)
    return Interval(area, float(low), float(high), m + n)


def auroc_difference(
    clean: tuple[Tensor | ArrayLike, Tensor | ArrayLike],
    attacked: tuple[Tensor | ArrayLike, Tensor | ArrayLike],
    confidence: float = 0.95,
) -> Interval:
    """Return by how much the area under the ROC curve of one detector exceeds that of another on the same inputs.

    The interval is DeLong's for paired curves, with the covariance of the two areas: the same inputs are hard for both
    detectors, so that it is narrower than two separate intervals suggest. It is that of a normal distribution, cut off
    at -1 and 1. If it contains 0, the inputs do not tell which detector is better. If the estimated variance is zero,
    as of two detectors that order all pairs alike, it is what two separate intervals leave open. `n` counts both sets.

    Args:
        clean: the scores of the clean inputs by the first and by the second detector, `[n]` each.
        attacked: the scores of the attacked inputs, in the same order for both, `[m]` each.
        confidence: the confidence of the interval in (0, 1).

    Raises:
        InputError: the scores are no pairs, or differ in their numbers. DataError: a score is not finite.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988.
    """
    from scipy.special import ndtri

    tail = (1 - checked_level(confidence)) / 2
    pairs: Any = (clean, attacked)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"give a pair: the scores by the first and by the second detector, got {shown(pair)}")
    (one, other), (hit, hit_by_other) = (tuple(map(checked_scores, pair)) for pair in (clean, attacked))
    for first, second, kind in ((one, other, "clean"), (hit, hit_by_other, "attacked")):
        if len(first) != len(second):
            raise InputError(f"both detectors must score the same {kind} inputs, got {len(first)} and {len(second)}")
    m, n = len(hit), len(one)
    if not m or not n:
        return Interval(float("nan"), -1.0, 1.0, m + n)
    (above, below), (above_by_other, below_by_other) = _placements(one, hit), _placements(other, hit_by_other)
    value = float(above.mean() - above_by_other.mean())
    # the variance of a difference: that of the differences of the two detectors' placements of each input
    parts = (above - above_by_other, m), (below - below_by_other, n)
    variance = sum(part.var(ddof=1) / size for part, size in parts) if min(m, n) > 1 else 0.0
    if variance == 0:
        own, others = (auroc(*scores, 1 - tail) for scores in ((one, hit), (other, hit_by_other)))
        return Interval(value, max(own.low - others.high, -1.0), min(own.high - others.low, 1.0), m + n)
    error = -ndtri(tail) * np.sqrt(variance)
    return Interval(value, float(max(value - error, -1)), float(min(value + error, 1)), m + n)


def _placements(negative: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of negative scores below each positive one `[m]`, and of positive ones above each negative one.

    Equal scores count half.
    """
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    joint = rankdata(np.concatenate([positive, negative]))
    return (joint[:m] - rankdata(positive)) / n, 1 - (joint[m:] - rankdata(negative)) / m


def p_values(clean: Tensor | ArrayLike, scores: Tensor | ArrayLike) -> np.ndarray:
    """Return for each score `[m]` the p-value of its input being clean, from the scores of held-out clean inputs `[n]`.

    It is `(1 + k) / (n + 1)`, where k clean inputs score at least as high. For a clean input, the probability of a
    p-value of at most p is at most p, whatever the distribution of the scores is, so the smallest p-value that the
    clean inputs can show is `1 / (n + 1)`.

    Raises:
        DataError: there is no clean input, or a score is not finite.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (conformal p-values).
    """
    usual, found = np.sort(checked_scores(clean)), checked_scores(scores)
    if not len(usual):
        raise DataError("a p-value needs the scores of held-out clean inputs, got none")
    return (1 + len(usual) - np.searchsorted(usual, found, side="left")) / (len(usual) + 1)


def checked_scores(scores: Tensor | ArrayLike) -> np.ndarray:
    """Return scores `[n]` as float64, or raise unless they are finite.

    Raises:
        DataError: a score is not finite.
    """
    vector = as_vector(scores)
    if not np.isfinite(vector).all():
        raise DataError(f"{int((~np.isfinite(vector)).sum())} of {len(vector)} scores are not finite")
    return vector
