"""The ROC curve of a detector and the rates that are read from it, from scores of clean and of attacked inputs.

The positive class is attacked inputs; a higher score is more suspicious, and an input is flagged if its score is above
the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from underfire.errors import DataError, InputError, shown
from underfire.measures.detection import checked_scores, threshold
from underfire.measures.statistics import checked_level, clopper_pearson, is_number
from underfire.records import Interval

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING = Interval(float("nan"), 0.0, 1.0, 0)


@dataclass(frozen=True)
class Roc:
    """An empirical ROC curve: one point for each threshold at which a rate changes, the highest threshold first.

    Attributes:
        fpr: the shares of clean inputs that are flagged, `[P]`, from 0 to 1.
        tpr: the shares of attacked inputs that are flagged, `[P]`, from 0 to 1.
        thresholds: an input is flagged if its score is at least this number, `[P]`; the first one is infinite.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def roc_curve(clean: Tensor | ArrayLike, attacked: Tensor | ArrayLike) -> Roc:
    """Return the empirical ROC curve of scores `[n]` and `[m]`; equal scores are one point.

    Raises:
        DataError: a score is not finite, or one of the sets is empty.
    """
    negative, positive = checked_scores(clean), checked_scores(attacked)
    if not len(negative) or not len(positive):
        raise DataError(f"an ROC curve needs scores of both kinds, got {len(negative)} clean and {len(positive)}")
    values, of_positive, of_negative = _counts(negative, positive)
    points = np.concatenate([[0], np.cumsum(of_negative)]), np.concatenate([[0], np.cumsum(of_positive)])
    return Roc(points[0] / len(negative), points[1] / len(positive), np.concatenate([[np.inf], values]))


def tpr_at(
    clean: Tensor | ArrayLike,
    attacked: Tensor | ArrayLike,
    false_positive_rate: float = 0.05,
    confidence: float = 0.95,
) -> Interval:
    """Return the share of attacked inputs that is flagged at a stated false-positive rate, with its interval.

    The value is that of `threshold(clean, false_positive_rate)`. The interval holds for the threshold whose true
    false-positive rate is the stated one, which is known only within two order statistics of the clean scores; it
    contains the true share with at least the stated confidence, whatever the two distributions are. A quarter of the
    error goes to each end of the threshold, and a quarter to each Clopper-Pearson bound there. `n` counts the attacked
    inputs.

    Raises:
        InputError: the rate is not in (0, 1). DataError: there are fewer than 1 / rate - 1 clean inputs, which cannot
            tell so fine a rate, or a score is not finite.
    """
    at = threshold(clean, false_positive_rate, confidence)
    negative, positive = checked_scores(clean), checked_scores(attacked)
    if not len(positive):
        return _NOTHING
    low, high = _quantile_bounds(negative, 1 - false_positive_rate, confidence)
    return _share_above(positive, at.value, low, high, confidence)


def fpr_at(
    clean: Tensor | ArrayLike,
    attacked: Tensor | ArrayLike,
    true_positive_rate: float = 0.95,
    confidence: float = 0.95,
) -> Interval:
    """Return the share of clean inputs that is flagged where a stated share of attacked ones is: at 0.95, the FPR95.

    The value is the smallest false-positive rate of a threshold that flags at least the stated share of the attacked
    inputs. The interval is that of `tpr_at` with the two sets exchanged. `n` counts the clean inputs.

    Raises:
        InputError: the rate is not in (0, 1). DataError: there are fewer than 1 / (1 - rate) - 1 attacked inputs, which
            cannot tell so fine a rate, or a score is not finite.
    """
    if not (is_number(true_positive_rate) and 0 < true_positive_rate < 1):
        raise InputError(f"the true-positive rate must be in (0, 1), such as 0.95, got {shown(true_positive_rate)}")
    negative, positive = checked_scores(clean), np.sort(checked_scores(attacked))
    needed = int(np.ceil(1 / (1 - true_positive_rate) - 1e-9)) - 1
    if len(positive) < needed:
        raise DataError(
            f"a true-positive rate of {true_positive_rate:g} needs {needed} attacked inputs, got {len(positive)}"
        )
    if not len(negative):
        return _NOTHING
    # flag at least the k highest scores
    k = int(np.ceil(true_positive_rate * len(positive) - 1e-9))
    at = np.nextafter(positive[len(positive) - k], -np.inf)
    low, high = _quantile_bounds(-positive, true_positive_rate, confidence)
    # of negated scores, the share below a bound; -high is the lowest threshold
    return _share_above(negative, at, np.nextafter(-high, -np.inf), np.nextafter(-low, -np.inf), confidence)


def average_precision(
    clean: Tensor | ArrayLike,
    attacked: Tensor | ArrayLike,
    positive: str = "attacked",
    confidence: float = 0.95,
) -> Interval:
    """Return the average precision: the mean precision at the thresholds, weighted by the growth of the recall.

    Args:
        clean: scores `[n]`.
        attacked: scores `[m]`.
        positive: `"attacked"`, or `"clean"` for the other direction, in which low scores are positive.
        confidence: the confidence of the interval in (0, 1).

    Returns:
        The area with the interval of its logit, from the number of positive inputs (Boyd, Eng and Page, Area under the
        Precision-Recall Curve: Point Estimates and Confidence Intervals, ECML PKDD 2013). At an area of 1 the interval
        is that of Clopper and Pearson. `n` counts both sets; without an input in one of them, the area is nan. Unlike
        the area under the ROC curve, the average precision depends on the ratio of the two numbers.

    Raises:
        InputError: `positive` is neither. DataError: a score is not finite.
    """
    from scipy.special import expit, logit, ndtri

    tail = (1 - checked_level(confidence)) / 2
    if positive not in ("attacked", "clean"):
        raise InputError(f"positive must be 'attacked' or 'clean', got {shown(positive)}")
    others, wanted = checked_scores(clean), checked_scores(attacked)
    if positive == "clean":
        others, wanted = -wanted, -others
    m, n = len(wanted), len(wanted) + len(others)
    if not len(wanted) or not len(others):
        return Interval(float("nan"), 0.0, 1.0, n)
    _, hits, misses = _counts(others, wanted)
    found = np.cumsum(hits)
    area = float((found / (found + np.cumsum(misses)) * hits).sum() / m)
    if area >= 1:
        return Interval(1.0, clopper_pearson(m, m, confidence).low, 1.0, n)
    low, high = expit(logit(area) + np.array([1, -1]) * ndtri(tail) / np.sqrt(m * area * (1 - area)))
    return Interval(area, float(low), float(high), n)


def _counts(
    negative: NDArray[np.float64], positive: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the different scores, the highest first, and how many positive and negative inputs have each."""
    values, places = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    size = len(values)
    counts = [np.bincount(part, minlength=size)[::-1] for part in (places[: len(positive)], places[len(positive) :])]
    return values[::-1], counts[0], counts[1]


def _quantile_bounds(scores: NDArray[np.float64], p: float, confidence: float) -> tuple[float, float]:
    """Return two order statistics, or infinities, around the true p-quantile; each fails with a quarter of the error.

    The number of scores below the quantile is binomial, whatever the distribution is.
    """
    from scipy.stats import binom

    ordered, n, tail = np.sort(scores), len(scores), (1 - confidence) / 4
    low, high = int(binom.ppf(tail, n, p)), int(binom.ppf(1 - tail, n, p)) + 1
    return float(ordered[low - 1]) if low >= 1 else -np.inf, float(ordered[high - 1]) if high <= n else np.inf


def _share_above(scores: NDArray[np.float64], at: float, low: float, high: float, confidence: float) -> Interval:
    """Return the share of scores above `at`, with the bounds of the shares above the thresholds `low` and `high`."""
    n, level = len(scores), 1 - (1 - confidence) / 2
    share = float((scores > at).mean())
    least = clopper_pearson(int((scores > high).sum()), n, level).low
    most = clopper_pearson(int((scores > low).sum()), n, level).high
    return Interval(share, min(share, least), max(share, most), n)
