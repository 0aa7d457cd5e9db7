"""ROC curves, rates at a rate, and average precision: against scikit-learn, and with the stated coverage."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics

from underfire.errors import DataError, InputError
from underfire.measures.detection import detection_rate, threshold
from underfire.measures.roc import average_precision, fpr_at, roc_curve, tpr_at


@pytest.fixture(scope="module")
def scores():
    """Rounded scores, with ties inside and between the sets."""
    generator = np.random.default_rng(0)
    clean, attacked = np.round(generator.normal(size=120), 1), np.round(generator.normal(1, 2, size=90), 1)
    return clean, attacked, [0] * 120 + [1] * 90, [*clean, *attacked]


def test_the_curve_is_that_of_scikit_learn(scores):
    clean, attacked, truth, together = scores
    found, expected = roc_curve(clean, attacked), metrics.roc_curve(truth, together, drop_intermediate=False)
    for mine, theirs in zip((found.fpr, found.tpr, found.thresholds), expected, strict=True):
        assert np.allclose(mine, theirs)


def test_average_precision_is_that_of_scikit_learn_both_ways(scores):
    clean, attacked, truth, together = scores
    found = average_precision(clean, attacked)
    assert found.value == pytest.approx(metrics.average_precision_score(truth, together)) and found.n == 210
    other = metrics.average_precision_score(1 - np.array(truth), -np.array(together))
    assert average_precision(clean, attacked, "clean").value == pytest.approx(other)
    assert found.low < found.value < found.high
    perfect = average_precision([0, 1], [2, 3, 4])
    assert perfect.value == perfect.high == 1 and perfect.low == pytest.approx(0.025 ** (1 / 3))


def test_rates_are_those_of_the_threshold_and_of_the_curve(scores):
    clean, attacked, *_ = scores
    for at in (0.01, 0.05, 0.1):
        assert tpr_at(clean, attacked, at).value == detection_rate(attacked, threshold(clean, at)).value
    curve = roc_curve(clean, attacked)
    found = fpr_at(clean, attacked)
    assert found.value == pytest.approx(curve.fpr[curve.tpr >= 0.95].min()) and found.n == 120
    assert found.low <= found.value <= found.high


@pytest.mark.slow
def test_the_intervals_have_their_confidence_though_the_threshold_is_estimated():
    generator, inside = np.random.default_rng(1), []
    for _ in range(100):
        clean, attacked = generator.normal(size=80), generator.normal(1.5, size=60)
        true = norm.sf(norm.isf(0.1) - 1.5), norm.sf(norm.isf(0.95, 1.5))
        found = tpr_at(clean, attacked, 0.1, 0.9), fpr_at(clean, attacked, 0.95, 0.9)
        inside.append([i.low <= value <= i.high for i, value in zip(found, true, strict=True)])
    assert np.mean(inside, 0).min() >= 0.9


def test_few_clean_inputs_leave_the_rate_open_or_refuse_it():
    clean, attacked = np.arange(99.0), np.full(50, 1000.0)
    found = tpr_at(clean, attacked, 0.01)
    assert found.value == 1 and found.low == 0  # the largest of 99 scores may well lie below the true threshold
    with pytest.raises(DataError, match="needs 99 clean"):
        tpr_at(clean[:98], attacked, 0.01)
    with pytest.raises(DataError, match="needs 19 attacked"):
        fpr_at(clean, attacked[:18])


def test_edges():
    assert np.isnan(tpr_at(range(20), [], 0.05).value) and np.isnan(average_precision([], [1.0]).value)
    with pytest.raises(DataError, match="0 clean and 1"):
        roc_curve([], [1.0])
    with pytest.raises(InputError, match="got 95"):
        fpr_at([0.0], [1.0], 95)
    with pytest.raises(InputError, match="'attacks'"):
        average_precision([0.0], [1.0], "attacks")
