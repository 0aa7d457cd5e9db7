"""Information transfer rate and trust coefficient against closed forms and scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics import mutual_info_score

from tests.networks import rand
from underfire.errors import InputError
from underfire.measures import human

TEN = torch.arange(200) % 10  # ten balanced classes
TWO_SECONDS = torch.full((200,), 2.0)


def noisy(classes, right, k, draw):
    """Each class as it is with probability `right`, else one of the `k - 1` others."""
    other = (classes + torch.randint(1, k, classes.shape, generator=draw)) % k
    return torch.where(torch.rand(classes.shape, generator=draw) < right, classes, other)


def channel(k, right):
    """The mutual information in bits of `k` balanced classes and their `noisy` copy."""
    return math.log2(k) + right * math.log2(right) + (1 - right) * math.log2((1 - right) / (k - 1))


@pytest.mark.parametrize("correction", human.CORRECTIONS)
def test_a_perfect_annotator_reads_all_there_is(correction):
    rate = human.information_transfer_rate(TEN, TEN, TWO_SECONDS, correction=correction)
    assert rate == pytest.approx(math.log2(10) / 2)


def test_classes_that_are_always_swapped_carry_as_much():
    assert human.information_transfer_rate(9 - TEN, TEN, TWO_SECONDS) == pytest.approx(math.log2(10) / 2)


@pytest.mark.parametrize("correction", human.CORRECTIONS)
def test_an_independent_annotator_reads_nothing(correction):
    answers, predictions = torch.cartesian_prod(torch.arange(10), torch.arange(10)).unbind(1)
    assert human.information_transfer_rate(answers, predictions, rand(100) + 0.1, correction=correction) < 1e-12


def test_a_noisy_annotator_matches_the_closed_form_of_the_channel():
    # Of each class, 8 of 10 answers are right; the 2 wrong ones are spread over the two other classes.
    predictions = torch.arange(3).repeat_interleave(10)
    answers = predictions.clone()
    answers[8::10], answers[9::10] = (answers[8::10] + 1) % 3, (answers[9::10] + 2) % 3
    seconds = torch.linspace(0.5, 1.5, 30)
    assert human.information_transfer_rate(answers, predictions, seconds) == pytest.approx(channel(3, 0.8))


def test_mutual_information_is_that_of_scikit_learn():
    draw = torch.Generator().manual_seed(0)
    a = torch.randint(0, 5, (300,), generator=draw)
    b = noisy(a, 0.5, 7, draw)
    assert human.mutual_information(a, b) == pytest.approx(mutual_info_score(a, b) / math.log(2))
    assert human.mutual_information(a, b) == pytest.approx(human.mutual_information(b, a))


def test_miller_madow_is_the_published_formula():
    draw = torch.Generator().manual_seed(0)
    a = torch.randint(0, 4, (50,), generator=draw)
    b = noisy(a, 0.6, 4, draw)
    pairs = len({*zip(a.tolist(), b.tolist(), strict=True)})
    wanted = human.mutual_information(a, b) + (4 + 4 - pairs - 1) / (2 * 50 * math.log(2))
    assert human.mutual_information(a, b, correction="miller-madow") == pytest.approx(wanted)


def test_the_jackknife_leaves_out_each_answer_in_turn():
    draw = torch.Generator().manual_seed(0)
    a = torch.randint(0, 4, (30,), generator=draw)
    b = noisy(a, 0.6, 4, draw)
    without = [
        mutual_info_score(*(torch.cat([v[:i], v[i + 1 :]]) for v in (a, b))) / math.log(2) for i in range(len(a))
    ]
    wanted = 30 * human.mutual_information(a, b) - 29 * sum(without) / 30
    assert human.mutual_information(a, b, correction="jackknife") == pytest.approx(wanted)


def test_a_correction_brings_few_answers_nearer_to_the_truth():
    draw = torch.Generator().manual_seed(0)
    predictions = torch.arange(60) % 4
    bias = {}
    for correction in human.CORRECTIONS:
        found = [
            human.mutual_information(noisy(predictions, 0.8, 4, draw), predictions, correction=correction)
            for _ in range(200)
        ]
        bias[correction] = abs(sum(found) / 200 - channel(4, 0.8))
    assert bias["none"] > 0.12 and bias["miller-madow"] < 0.7 * bias["none"] and bias["jackknife"] < 0.4 * bias["none"]


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    draw = torch.Generator().manual_seed(0)
    predictions, truth, hits = torch.arange(80) % 4, channel(4, 0.8) / 2, 0
    for _ in range(100):
        seconds = 1 + 2 * torch.rand(80, generator=draw)  # 2 on the average
        found = human.transfer_rate(noisy(predictions, 0.8, 4, draw), predictions, seconds, correction="jackknife")
        interval = found.interval()
        hits += interval.low <= truth <= interval.high
        assert interval.value == found.value == pytest.approx(found.shares.mean().item())
    assert hits >= 86  # of 100 at 95 %; binomial, less three standard deviations


# --- trust -----------------------------------------------------------------------------------------------------------


def test_copying_the_errors_of_the_model_is_too_much_trust():
    # The model is right on half of the images of two classes, in a way that I(labels; predictions) has a closed form.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    predictions = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert human.trust_coefficient(predictions, predictions, labels) == pytest.approx(1 / (1 - entropy))
    assert human.trust_coefficient(labels, predictions, labels) == pytest.approx(1 - entropy)
    assert human.trust_coefficient(TEN, TEN, TEN) == pytest.approx(1)


def test_trust_is_the_ratio_of_the_two_rates():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 5
    predictions = noisy(labels, 0.7, 5, draw)
    answers = noisy(predictions, 0.8, 5, draw)
    seconds = torch.rand(300, generator=draw) + 0.5
    of_model, of_label = (human.information_transfer_rate(answers, v, seconds) for v in (predictions, labels))
    assert human.trust_coefficient(answers, predictions, labels) == pytest.approx(of_model / of_label)


# --- several annotators ----------------------------------------------------------------------------------------------


def test_annotators_share_the_pooled_figure():
    draw = torch.Generator().manual_seed(0)
    answers, who = noisy(TEN, 0.7, 10, draw), torch.arange(200) // 50 + 3
    seconds = 1 + torch.rand(200, generator=draw)
    pooled = human.transfer_rate(answers, TEN, seconds, annotators=who)
    assert len(pooled.shares) == 4 and pooled.interval().n == 4
    assert pooled.value == human.information_transfer_rate(answers, TEN, seconds)
    assert pooled.shares.mean().item() == pytest.approx(pooled.value)


def test_annotators_with_different_numbers_of_answers_keep_the_mean():
    who = torch.cat([torch.zeros(150), torch.ones(50)]).long()
    pooled = human.transfer_rate(TEN.flip(0), TEN, rand(200) + 1, annotators=who)
    assert pooled.shares.mean().item() == pytest.approx(pooled.value)


def test_a_difference_is_paired_by_annotator():
    draw = torch.Generator().manual_seed(0)
    predictions, who = torch.arange(2400) % 4, torch.arange(2400) // 100
    seconds, truth, hits = torch.full((2400,), 2.0), (channel(4, 0.9) - channel(4, 0.7)) / 2, 0
    for _ in range(30):
        before, after = (
            human.transfer_rate(noisy(predictions, p, 4, draw), predictions, seconds, annotators=who)
            for p in (0.7, 0.9)
        )
        found, why = human.difference(after, before)
        assert not why and found.n == 24 and found.low > 0
        assert found.value == pytest.approx(after.value - before.value)
        hits += found.low <= truth <= found.high
    assert hits >= 25  # of 30 at 95 %; binomial, less three standard deviations


@pytest.mark.parametrize("people", [2, 4])
def test_few_annotators_seldom_show_a_difference_that_is_not_there(people):
    draw, alarms = torch.Generator().manual_seed(0), 0
    predictions, who = torch.arange(16 * people) % 4, torch.arange(people).repeat_interleave(16)
    for _ in range(100):
        before, after = (
            human.transfer_rate(
                noisy(predictions, 0.8, 4, draw),
                predictions,
                0.5 + torch.rand(len(who), generator=draw),
                annotators=who,
                correction="jackknife",
            )
            for _ in range(2)
        )
        found, _ = human.difference(after, before)
        alarms += found.low > 0 or found.high < 0
    assert alarms <= 12  # of 100 at 5 %; binomial, and three standard deviations


def test_a_difference_is_of_the_same_annotators():
    four, two = (human.transfer_rate(TEN, TEN, TWO_SECONDS, annotators=torch.arange(200) % k) for k in (4, 2))
    with pytest.raises(InputError, match="annotators, got 4 and 2"):
        human.difference(four, two)


# --- where nothing can be said ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "predictions", "labels", "why"),
    [
        ([], [], [], "there are none"),
        ([1], [1], [1], "there is one"),
        ([0, 1], [1, 1], [1, 1], "one class to every image"),
    ],
)
def test_an_undefined_rate_is_nan_and_says_why(answers, predictions, labels, why):
    answers, predictions, labels = (torch.tensor(v, dtype=torch.long) for v in (answers, predictions, labels))
    found = human.transfer_rate(answers, predictions, torch.ones(len(answers)))
    assert math.isnan(found.value) and why in found.why
    interval = found.interval()
    assert math.isnan(interval.value) and math.isnan(interval.low) and interval.n == len(answers)
    assert math.isnan(human.trust_coefficient(answers, predictions, labels))


def test_trust_is_undefined_where_the_answers_say_nothing_about_the_labels():
    labels, answers = torch.cartesian_prod(torch.arange(2), torch.arange(2)).unbind(1)
    found = human.trust(answers, answers, labels)
    assert math.isnan(found.value) and "say nothing about the labels" in found.why
    difference, why = human.difference(found, found)
    assert math.isnan(difference.value) and why == found.why


def test_one_annotator_cannot_be_compared():
    one = human.transfer_rate(TEN, TEN, TWO_SECONDS, annotators=torch.zeros(200, dtype=torch.long))
    found, why = human.difference(one, one)
    assert math.isnan(found.low) and "two annotators" in why


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seconds": torch.tensor([1.0, 0.0])}, "seconds must be positive and finite, got 0.0"),
        ({"seconds": torch.tensor([1.0, math.inf])}, "got inf"),
        ({"seconds": torch.ones(3)}, r"one length \[n\], got \(2,\), \(2,\), \(3,\)"),
        ({"answers": torch.tensor([0.0, 1.0])}, "classes must be whole numbers"),
        ({"correction": "magic"}, "none, miller-madow, jackknife, got 'magic'"),
    ],
)
def test_bad_input_is_said(change, says):
    two = torch.tensor([0, 1])
    given = {"answers": two, "predictions": two, "seconds": torch.ones(2), "correction": "none", **change}
    with pytest.raises(InputError, match=says):
        human.information_transfer_rate(**given)
