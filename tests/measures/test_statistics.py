import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, sem, t

from tests.networks import rand
from underfire.errors import InputError
from underfire.measures import statistics


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 20, 0.0013, 0.2487)],
)
def test_textbook_intervals(k, n, low, high):
    found = statistics.clopper_pearson(k, n)
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_intervals_are_scipys(n, data, confidence):
    k = data.draw(st.integers(0, n))
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    found = statistics.clopper_pearson(k, n, confidence)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


def test_nothing_observed_is_nothing_known():
    found = statistics.rate(torch.zeros(0, dtype=torch.bool))
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 0)


def test_a_rate_counts():
    assert statistics.rate(torch.tensor([True, False, True, True])) == statistics.clopper_pearson(3, 4)
    assert statistics.rate([1, 0, 1, 1]) == statistics.rate(np.array([True, False, True, True]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.clopper_pearson(5, 4), "k = 5 of n = 4"),
        (lambda: statistics.clopper_pearson(-1, 4), "k = -1 of n = 4"),
        (lambda: statistics.clopper_pearson(1, 4, confidence=95), "such as 0.95, got 95"),
        (lambda: statistics.rate([0.5, 1.0]), "true or false, got 0.5"),
        (lambda: statistics.rate([[True]]), r"\[n\], got the shape \(1, 1\)"),
        (lambda: statistics.bootstrap_mean([1.0, math.inf]), "finite"),
        (lambda: statistics.bootstrap_mean([1.0, 2.0], resamples=10), "at least 100, such as 10000, got 10"),
        (lambda: statistics.bootstrap_ratio([1.0, 2.0], [1.0]), "one length, got 2 and 1"),
        (lambda: statistics.bootstrap_ratio([1.0, 2.0], [1.0, 0.0]), "positive"),
        (lambda: statistics.paired_difference([1.0, 2.0], [1.0]), "one length, got 2 and 1"),
        (lambda: statistics.ratio_difference(([1.0], [1.0]), ([1.0, 2.0], [1.0, 1.0])), "one length"),
        (lambda: statistics.ratio_difference(([1.0], [1.0]), ([1.0], [-1.0])), "negative"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_bootstrap_is_scipys_bca():
    values = np.random.default_rng(1).exponential(size=60)
    expected = bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=2).confidence_interval
    found = statistics.bootstrap_mean(values, resamples=20_000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.01), pytest.approx(expected.high, abs=0.01))


def test_the_same_seed_gives_the_same_interval_and_the_global_one_is_left_alone():
    values = rand(30)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert statistics.bootstrap_mean(values) == statistics.bootstrap_mean(values, seed=0)
    assert statistics.bootstrap_mean(values) != statistics.bootstrap_mean(values, seed=1)
    assert (np_state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(torch_state, torch.get_rng_state())


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_bootstrap_covers_the_truth(draw):
    generator, truth = np.random.default_rng(0), {"normal": 0.0, "exponential": 1.0}[draw]
    intervals = [
        statistics.bootstrap_mean(getattr(generator, draw)(size=40), resamples=1000, seed=s) for s in range(300)
    ]
    covered = sum(i.low <= truth <= i.high for i in intervals)
    assert statistics.clopper_pearson(covered, 300, 0.999).high > 0.95 > 0.9 < covered / 300


def test_few_values():
    none, one, equal = (statistics.bootstrap_mean(v) for v in ([], [2.0], [2.0, 2.0, 2.0]))
    assert none.n == 0
    assert all(map(math.isnan, (none.value, none.low, none.high)))
    assert (one.value, one.n) == (2.0, 1)
    assert all(map(math.isnan, (one.low, one.high)))
    assert (equal.low, equal.value, equal.high) == (2.0, 2.0, 2.0)


def test_undefined_values_are_left_out_and_not_counted():
    found = statistics.bootstrap_mean([1.0, math.nan, 2.0, 4.0])
    assert found == statistics.bootstrap_mean([1.0, 2.0, 4.0])
    assert found.n == 3
    assert statistics.paired_difference([1.0, math.nan, 2.0], [0.0, 1.0, math.nan]).n == 1


def test_pairing_finds_what_the_spread_between_samples_hides():
    generator = np.random.default_rng(0)
    level = generator.normal(0, 10, 50)
    a, b = level + 0.5 + generator.normal(0, 0.1, 50), level
    found = statistics.paired_difference(a, b)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    mirrored = statistics.paired_difference(b, a)
    assert (mirrored.value, mirrored.low) == (pytest.approx(-found.value), pytest.approx(-found.high, abs=0.01))


@pytest.mark.slow
def test_many_values_are_drawn_in_parts():
    values = rand(100_000)
    found = statistics.bootstrap_mean(values, resamples=200)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std().item() / 100_000**0.5, rel=0.15)


def test_student_is_that_of_scipy():
    values = np.array([0.3, 1.2, -0.4, 2.5])
    low, high = t.interval(0.9, 3, loc=values.mean(), scale=sem(values))
    found = statistics.student_mean(values, 0.9)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 4))
    assert (
        np.isnan(statistics.student_mean([1.0]).low)
        and statistics.student_mean([1.0]).value == 1
        and np.isnan(statistics.student_mean([]).value)
    )


def test_a_ratio_of_sums_is_scipys():
    draw = np.random.default_rng(3)
    wholes = draw.uniform(0.5, 2.0, 60)
    parts = wholes * draw.beta(4.0, 2.0, 60)
    found = statistics.bootstrap_ratio(parts, wholes)
    expected = bootstrap(
        (parts, wholes), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, n_resamples=10_000, rng=1
    ).confidence_interval
    assert (found.value, found.n) == (parts.sum() / wholes.sum(), 60)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=3e-3), pytest.approx(expected.high, abs=3e-3))
    same = statistics.bootstrap_ratio(parts, np.ones(60))
    mean = statistics.bootstrap_mean(parts)
    assert (same.low, same.high) == (pytest.approx(mean.low), pytest.approx(mean.high))
    assert statistics.bootstrap_ratio(0.25 * wholes, wholes).high == pytest.approx(0.25)
    assert (
        math.isnan(statistics.bootstrap_ratio([], []).value) and statistics.bootstrap_ratio([1.0], [2.0]).value == 0.5
    )


def test_a_difference_of_ratios_is_scipys() -> None:
    parts, wholes, others, others_wholes = (rand(30, dtype=torch.float64, seed=i).numpy() + 0.1 for i in range(4))

    def apart(a, b, c, d, axis=-1):
        return a.sum(axis) / b.sum(axis) - c.sum(axis) / d.sum(axis)

    columns = (parts, wholes, others, others_wholes)
    expected = bootstrap(columns, apart, paired=True, vectorized=True, rng=np.random.default_rng(1)).confidence_interval
    found = statistics.ratio_difference(columns[:2], columns[2:])
    assert found.value == pytest.approx(apart(*columns)) and found.n == 30
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.03), pytest.approx(expected.high, abs=0.03))
    # a sample without a whole counts in neither
    more = [[*column, 0.0] for column in columns]
    assert statistics.ratio_difference(tuple(more[:2]), tuple(more[2:])) == found
    same = statistics.ratio_difference(columns[:2], columns[:2])
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert math.isnan(statistics.ratio_difference(([1.0], [1.0]), ([0.0], [0.0])).value)
    assert math.isnan(statistics.ratio_difference(([1.0], [1.0]), ([0.5], [1.0])).low)
