"""Simulated annotators: what a study measures of them is what they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from underfire.measures import human
from underfire.study import results, simulate
from underfire.study.simulate import SimulatedAnnotator, truth
from underfire.study.store import AnswerStore

pytestmark = pytest.mark.slow  # one of the twenty heaviest files


def test_the_truth_of_a_faithful_annotator_is_that_of_a_symmetric_channel(made: Callable[..., Any]) -> None:
    mind, study = SimulatedAnnotator(), made()
    p, k = mind.right(True), 4
    bits = math.log2(k) + p * math.log2(p) + (1 - p) * math.log2((1 - p) / (k - 1))
    assert truth(mind, study, True)[0] == pytest.approx(bits / mind.seconds(True))
    assert p == pytest.approx(1 / (1 + math.exp(-2.0 * 1.6)))


def test_help_makes_answers_faster_and_more_often_right() -> None:
    mind = SimulatedAnnotator()
    assert mind.right(True) > mind.right(False) and mind.seconds(True) < mind.seconds(False)
    assert SimulatedAnnotator(helped=1.0).seconds(True) == SimulatedAnnotator(helped=1.0).seconds(False)


def test_the_trust_of_endless_answers_falls_with_the_annotators_own_eyes(made: Callable[..., Any]) -> None:
    study = made()
    trusts = [truth(SimulatedAnnotator(eyes=eyes), study, False)[1] for eyes in (0.0, 0.5, 1.0)]
    assert trusts[0] > 1 > trusts[2] and trusts == sorted(trusts, reverse=True)


def test_a_study_recovers_what_its_annotators_are(made: Callable[..., Any]) -> None:
    mind, study = SimulatedAnnotator(eyes=0.3), made(n=80)
    store = AnswerStore(study.folder)
    for i in range(40):
        simulate.answer_all(mind, study, store, f"annotator {i}")
    found = results.evaluate(study, store.annotators(), store.answers())
    for name, explained in (("without", False), ("with", True)):
        rate, trust = truth(mind, study, explained)
        measured = found.pooled[name]
        assert measured.n == 1600 and measured.rate.n == 40
        assert measured.rate.low < rate < measured.rate.high
        assert measured.rate.value == pytest.approx(rate, rel=0.06)
        assert measured.trust.low < trust < measured.trust.high
        assert measured.plain > measured.rate.value
    gain = truth(mind, study, True)[0] - truth(mind, study, False)[0]
    assert found.rate.value.low < gain < found.rate.value.high and found.rate.value.low > 0
    assert results.headline(found)[0] == "The explanations help people to predict the model"
    assert found.notes == () and found.left_out == {}
    store.close()


def test_no_help_is_not_mistaken_for_help(made: Callable[..., Any]) -> None:
    study, hits = made(n=40), 0
    for seed in range(12):
        folder = study.folder / str(seed)
        folder.mkdir()
        store = AnswerStore(folder)
        for i in range(8):
            simulate.answer_all(SimulatedAnnotator(helped=1.0), study, store, f"annotator {i}", seed)
        gain = results.evaluate(study, store.annotators(), store.answers()).rate.value
        hits += gain.low <= 0 <= gain.high
        store.close()
    assert hits >= 9  # of 12 at 95 %; binomial, less three standard deviations


def test_annotators_over_the_real_interface(made: Callable[..., Any], serve: Callable[..., Any], clock: Any) -> None:
    study, mind = made(n=16), SimulatedAnnotator()
    server = serve(study, clock)
    for i in range(4):
        simulate.take_part(mind, study, server.ask, clock.wait, f"annotator {i}")
    answers = server.store.answers()
    assert len(answers) == 4 * 20 and sum(a.practice for a in answers) == 16
    assert all(a.server_seconds == pytest.approx(a.seconds) for a in answers)
    found = results.evaluate(study, server.store.annotators(), answers)
    assert found.pooled["with"].n == found.pooled["without"].n == 32 and found.left_out == {}
    assert found.pooled["with"].seconds < found.pooled["without"].seconds
    labels = [study.items[a.item].label for a in answers if not a.practice]
    assert len(labels) == 64 and human.CORRECTIONS[-1] == results.CORRECTION


def test_an_annotator_goes_on_where_he_left_off(
    made: Callable[..., Any], serve: Callable[..., Any], clock: Any
) -> None:
    study = made(n=8)
    first = serve(study, clock)
    token = simulate.take_part(SimulatedAnnotator(), study, first.ask, clock.wait, "Ada", trials=5)
    again = serve(study, clock)  # another server over the same folder
    assert len(again.store.answers()) == 5
    assert simulate.take_part(SimulatedAnnotator(), study, again.ask, clock.wait, "Ada", token=token) == token
    answers = again.store.answers()
    assert [a.trial for a in answers] == list(range(12))
    assert sorted(a.item for a in answers) == list(range(12))
