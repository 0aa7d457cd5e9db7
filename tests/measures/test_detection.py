"""Thresholds, detection rates and AUROC of scores."""

import numpy as np
import pytest
from scipy.stats import beta, norm
from sklearn.metrics import roc_auc_score

from underfire.errors import DataError, InputError
from underfire.measures.detection import auroc, auroc_difference, detection_rate, p_values, threshold
from underfire.measures.statistics import clopper_pearson


def test_a_threshold_is_an_order_statistic_with_its_exact_interval():
    found = threshold(np.arange(1, 100), 0.05)
    assert found.value == 95 and found.flags([95, 95.5]).tolist() == [False, True]
    assert found.rate.value == pytest.approx(0.05) and found.rate.n == 99
    assert (found.rate.low, found.rate.high) == pytest.approx(tuple(beta.ppf([0.025, 0.975], 5, 95)))


def test_the_stated_rate_holds_on_average_whatever_the_distribution():
    generator = np.random.default_rng(0)
    rates, inside = [], []
    for _ in range(400):
        chosen = threshold(generator.exponential(size=40), 0.1)
        true = float(np.exp(-chosen.value))
        rates.append(true)
        inside.append(chosen.rate.low <= true <= chosen.rate.high)
    assert np.mean(rates) <= 0.1 and np.mean(rates) > 0.08 and 0.92 < np.mean(inside) < 0.98


def test_auroc_is_that_of_scikit_learn_and_its_interval_has_its_confidence():
    generator = np.random.default_rng(0)
    clean, attacked = np.round(generator.normal(size=60), 1), np.round(generator.normal(1, 2, size=45), 1)
    found = auroc(clean, attacked)
    truth = [0] * 60 + [1] * 45
    assert found.value == pytest.approx(roc_auc_score(truth, [*clean, *attacked])) and found.n == 105
    true, covered = 0.7602, []  # of N(1, 1) over N(0, 1)
    for _ in range(300):
        i = auroc(generator.normal(size=50), generator.normal(1, 1, size=50))
        covered.append(i.low <= true <= i.high)
    assert 0.92 < np.mean(covered) <= 0.98


def test_edges_of_auroc():
    perfect = auroc([0, 1, 2], [3, 4, 5, 6])
    assert perfect.value == 1 and perfect.high == 1 and perfect.low == pytest.approx(0.025 ** (1 / 3))
    assert auroc([3, 4], [1, 2]).value == 0
    equal = auroc([1] * 10, [1] * 12)  # no pair says anything, and few pairs leave much open
    few = clopper_pearson(5, 10)
    assert (equal.value, equal.low, equal.high) == (0.5, few.low, few.high)
    assert np.isnan(auroc([1.0], []).value)


def by_delong(clean, attacked):
    """Return the covariance of two areas by the definition of DeLong et al., pair by pair."""
    m, n = len(attacked[0]), len(clean[0])
    psi = np.array([[[(x > y) + 0.5 * (x == y) for y in clean[r]] for x in attacked[r]] for r in (0, 1)])
    areas = psi.mean((1, 2))
    by_attacked, by_clean = psi.mean(2) - areas[:, None], psi.mean(1) - areas[:, None]
    return areas, by_attacked @ by_attacked.T / (m - 1) / m + by_clean @ by_clean.T / (n - 1) / n


def test_the_difference_of_two_areas_has_the_paired_interval_of_delong():
    generator = np.random.default_rng(0)

    def scores(shift, size):  # two detectors whose scores of an input are similar
        shared = generator.normal(size=size)
        return tuple(np.round(shared + weight * generator.normal(size=size) + shift, 1) for weight in (0.3, 0.8))

    clean, attacked = scores(0, 40), scores(1, 30)
    found, (areas, covariance) = auroc_difference(clean, attacked), by_delong(clean, attacked)
    error = 1.959964 * np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.value == pytest.approx(areas[0] - areas[1]) and found.n == 70
    assert (found.low, found.high) == pytest.approx((found.value - error, found.value + error))
    separate = [auroc(*pair) for pair in zip(clean, attacked, strict=True)]
    assert found.high - found.low < min(i.high - i.low for i in separate)
    # the true difference is that of Phi(1 / sqrt(2 (1 + w^2)))
    true = norm.cdf(1 / np.sqrt(2 * 1.09)) - norm.cdf(1 / np.sqrt(2 * 1.64))
    covered = [i.low <= true <= i.high for i in (auroc_difference(scores(0, 40), scores(1, 40)) for _ in range(200))]
    assert 0.91 < np.mean(covered) <= 0.99
    with pytest.raises(InputError, match="same attacked inputs"):
        auroc_difference(clean, (attacked[0], [1.0]))
    with pytest.raises(InputError, match="give a pair"):
        auroc_difference(clean[0], attacked)


def test_detectors_that_order_all_pairs_alike_leave_open_what_two_intervals_do():
    perfect = auroc([0, 1, 2], [3, 4, 5, 6], 0.975)
    found = auroc_difference(([0, 1, 2], [0, 0, 0]), ([3, 4, 5, 6], [1, 1, 1, 1]))
    assert (found.value, found.low, found.high) == pytest.approx((0, perfect.low - 1, 1 - perfect.low))
    assert np.isnan(auroc_difference(([1.0], [1.0]), ([], [])).value)


def test_detection_rate_is_the_share_above_the_threshold():
    at = threshold(range(1, 20), 0.1)
    found = detection_rate([1, 18, 19, 30], at)
    assert at.value == 18 and found.value == 0.5 and found.n == 4


def test_p_values_count_clean_scores_that_are_as_high():
    assert p_values([1, 2, 3, 4], [0, 2, 2.5, 5]) == pytest.approx([1, 0.8, 0.6, 0.2])
    generator = np.random.default_rng(0)
    found = [p_values(generator.normal(size=30), generator.normal(size=30)) for _ in range(50)]
    assert np.mean(np.concatenate(found) <= 0.1) <= 0.11
    with pytest.raises(DataError, match="got none"):
        p_values([], [1.0])


def test_bad_input():
    with pytest.raises(DataError, match="needs 19"):
        threshold(range(18), 0.05)
    with pytest.raises(InputError, match="got 5"):
        threshold(range(18), 5)
    with pytest.raises(DataError, match="1 of 2"):
        auroc([1, float("nan")], [1.0])
