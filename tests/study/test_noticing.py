"""A study of noticing: what annotators see, and that what is measured of them is what they are."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from underfire.cli import main
from underfire.errors import InputError
from underfire.study import noticing, page, simulate
from underfire.study.design import CONDITIONS, Study, read_study
from underfire.study.noticing import d_prime
from underfire.study.simulate import NoticingAnnotator
from underfire.study.store import AnswerStore

IOUS = {"clean": 1.0, "pgd": 0.3, "adv2": 0.8}
READY = ("study", "prepare", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--interpreter", "grad_cam")


@pytest.fixture
def study(made_noticing: Callable[..., Study]) -> Study:
    return made_noticing(IOUS)


@pytest.fixture
def measured(study: Study) -> Callable[..., noticing.NoticingResults]:
    """Lets a number of annotators answer a study, and gives the results."""

    def measure(mind: simulate.Mind, people: int) -> noticing.NoticingResults:
        store = AnswerStore(study.folder)
        for i in range(people):
            simulate.answer_all(mind, study, store, f"annotator {i}")
        found = noticing.evaluate(study, store.annotators(), store.answers())
        store.close()
        return found

    return measure


def test_everybody_sees_every_image_once_and_each_version_of_it_equally_often(study: Study) -> None:
    assert read_study(study.folder) == study and (study.images, study.shown) == (33, 30)
    plans = [study.plan(i) for i in range(6)]
    for plan in plans:
        assert Counter(trial.item // 3 for trial in plan) == dict.fromkeys(range(33), 1)
        counted = [trial.item for trial in plan if not trial.practice]
        assert Counter(study.items[i].condition for i in counted) == dict.fromkeys(CONDITIONS, 10)
        assert [trial.practice for trial in plan] == [True] * 3 + [False] * 30 and all(t.explained for t in plan)
        assert [i for i, trial in enumerate(plan) if trial.before] == [0, 3, 23]
    for three in (plans[:3], plans[3:]):
        assert Counter(t.item for plan in three for t in plan) == dict.fromkeys(range(99), 1)


def test_d_prime_is_the_difference_of_two_quantiles() -> None:
    z = NormalDist().inv_cdf
    found = d_prime(np.array([[69, 100], [10, 10], [5, 10], [3, 0]]), np.array([[31, 100], [0, 10], [5, 10], [1, 2]]))
    assert found[:2].tolist() == pytest.approx([z(69.5 / 101) - z(31.5 / 101), z(10.5 / 11) - z(0.5 / 11)])
    assert found[2] == 0 and math.isnan(found[3])
    assert d_prime(np.array([841_345, 10**6]), np.array([500_000, 10**6])) == pytest.approx(1.0, abs=1e-4)


def test_a_study_recovers_what_its_annotators_are(
    study: Study, measured: Callable[..., noticing.NoticingResults]
) -> None:
    mind = NoticingAnnotator(threshold=0.6, noise=0.3)
    found = measured(mind, 30)
    z = NormalDist().inv_cdf
    for name in CONDITIONS:
        share = found.noticed[name]
        assert share.n == 300 and share.low < mind.share(study, name) < share.high
        assert found.iou[name] == pytest.approx(IOUS[name])
    for name in ("pgd", "adv2"):  # for one IoU in each condition, d' is the distance of the IoUs in units of the noise
        d, truth = found.sensitivity[name], (IOUS["clean"] - IOUS[name]) / 0.3
        assert truth == pytest.approx(z(mind.share(study, name)) - z(mind.share(study, "clean")))
        assert d.n == 30 and d.low < truth < d.high and d.high - d.low < 1
    assert found.difference.low > 0 and found.left_out == {} and found.notes == ()
    title, sentence = noticing.headline(found)
    assert title == "People notice ADV² less often than PGD" and "map alone" in sentence


def test_who_calls_everything_attacked_notices_nothing(measured: Callable[..., noticing.NoticingResults]) -> None:
    found = measured(NoticingAnnotator(threshold=9.0), 9)
    assert [share.value for share in found.noticed.values()] == [1.0] * 3
    assert [d.value for d in found.sensitivity.values()] == [0.0, 0.0] and found.difference.value == 0
    assert "do not show" in noticing.headline(found)[0] and found.notes == ()


def test_few_annotators_are_no_verdict(measured: Callable[..., noticing.NoticingResults]) -> None:
    found = measured(NoticingAnnotator(noise=0.1), 7)
    assert found.why == "" and found.sensitivity["pgd"].value > 0 and math.isnan(found.difference.value)
    title, sentence = noticing.headline(found)
    assert "not known yet" in title and "it takes 8 annotators" in sentence
    found = replace(found, difference=found.sensitivity["pgd"], why_difference="")
    assert noticing.headline(found)[0] == "People notice ADV² less often than PGD"


def test_one_annotator_and_none_are_results_too(measured: Callable[..., noticing.NoticingResults]) -> None:
    nobody = measured(NoticingAnnotator(), 0)
    assert noticing.headline(nobody)[0] == "There are not enough answers yet" and "nan" not in page.render(nobody)
    one = measured(NoticingAnnotator(), 1)
    assert math.isnan(one.sensitivity["pgd"].value) and one.why == "it takes 64 answers, and there are 10"
    assert noticing.headline(one)[1] == "It takes 64 answers in each condition; there are: Clean 10, PGD 10, ADV² 10."
    source = page.render(one)
    assert noticing.headline(one)[1] in source and "nan" not in source and "<script" not in source


def test_answers_of_another_study_are_refused(study: Study) -> None:
    store = AnswerStore(study.folder)
    simulate.answer_all(NoticingAnnotator(), study, store, "Ada")
    with pytest.raises(InputError, match="another study"):
        noticing.evaluate(replace(study, items=study.items[:9]), store.annotators(), store.answers())
    store.close()
    replace(study, items=study.items[1:] + study.items[:1]).write(study.folder)
    with pytest.raises(InputError, match="damaged"):
        read_study(study.folder)


@pytest.mark.slow
def test_the_page_shows_map_and_class_and_tells_after_practice_only(
    study: Study, serve: Callable[..., Any], clock: Any
) -> None:
    server = serve(study, clock)
    assert b"Has this input been attacked?" in server.ask("GET", "/")
    token = simulate.take_part(NoticingAnnotator(noise=0.0), study, server.ask, clock.wait, "Ada", trials=2)
    due, trial = json.loads(server.ask("GET", f"/api/{token}/next")), study.plan(0)[2]
    assert due["image"] is None and server.request("GET", f"/picture/{token}/2/image")[0] == 404
    assert due["class"] == study.items[trial.item].shown_class and "not the image" in due["description"]
    given = {"trial": 2, "answer": 1, "seconds": 1.0, "hidden": False}
    reply = json.loads(server.ask("POST", f"/api/{token}/answer", given))
    attacked = study.items[trial.item].condition != "clean"
    assert (reply["decision"], reply["right"]) == ("attacked" if attacked else "not attacked", attacked)
    assert "decision" not in json.loads(server.ask("POST", f"/api/{token}/answer", {**given, "trial": 3}))
    simulate.take_part(NoticingAnnotator(noise=0.0), study, server.ask, clock.wait, "Ada", token=token)
    answers = server.store.answers()[4:]
    assert [a.answer for a in answers] == [int(study.items[a.item].condition == "pgd") for a in answers]


@pytest.mark.slow  # it runs the whole ADV²
def test_prepare_simulate_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = ("--noticing", "0.3", "--n", "3", "--practice", "0", "--batch-size", "4", "--out", "s", "--quiet")
    assert main([*READY, *counts]) == 0, capsys.readouterr().err
    made = read_study(Path("s"))
    made.check_pictures()
    assert made.about["eps"] == 0.3 and not made.with_image and made.images == 3
    for clean, pgd, adv2 in zip(made.items[::3], made.items[1::3], made.items[2::3], strict=True):
        assert clean.name == pgd.name == adv2.name and clean.prediction == clean.label
        assert clean.prediction != pgd.prediction == adv2.prediction
        assert pgd.iou < adv2.iou <= clean.iou == 1
    store = AnswerStore(Path("s"))
    for name in ("Ada", "Grace", "Joan"):
        simulate.answer_all(NoticingAnnotator(), made, store, name)
    store.close()
    assert main(["study", "report", "s"]) == 0
    shown = capsys.readouterr().out
    assert "called attacked" in shown and "Joan" in shown and "Joan" in Path("s/results.html").read_text()
    assert main(["study", "report", "s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["noticed"]["adv2"]["n"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--noticing", "0.1", "--n", "2"), "--n of at least 3"),
        (("--noticing", "0.1", "--mistakes", "0.5"), "--mistakes has no meaning"),
        (("--noticing", "0.1", "--classes", "4"), "--classes has no meaning"),
        (("--noticing", "-1"), "eps"),
        (("--with-image",), "--with-image needs --noticing"),
        (("--noticing", "1e-6", "--n", "3", "--practice", "0", "--from", "4"), "a larger size with --noticing"),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main([*READY, *options, "--quiet"])
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and says in said, said
    assert list(Path().iterdir()) == []
