"""Detectors in an audit: what is fitted to what, the tables, the report, and what is computed again."""

import numpy as np
import pytest

import underfire as uf
from underfire.audit.detection import detections, detector_results, read_scores
from underfire.audit.kinds.evade import attacks_on, can_know
from underfire.audit.plan import plan
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.audit.summary import findings
from underfire.audit.target import HELD_OUT, open_target
from underfire.cli.summary import print_summary
from underfire.detectors import MLLOO, Mahalanobis
from underfire.errors import DataError, SpecError
from underfire.measures.detection import auroc, detection_rate, threshold
from underfire.measures.roc import tpr_at
from underfire.report.export import to_json
from underfire.report.page import render

SQUEEZING = {"name": "feature_squeezing", "squeezers": ["bit_depth_2", "median_2"], "label": "squeezing"}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    spec = {
        "model": "python:audit_networks:linear",
        "data": {"uri": "digits:", "n": 60, "seed": 1},
        "attacks": [
            {"name": "pgd", "norm": "linf", "eps": [0.02, 0.2], "steps": 5},
            {"name": "deepfool", "norm": "l2", "eps": [0.5, 1.0], "steps": 5},
            {
                "name": "corner_cases",
                "transformations": ["rotation", "fog"],
                "strengths": 2,
                "label": "turned or in fog",
            },
        ],
        "detectors": [SQUEEZING],
        "masking": False,
        "gallery": 0,
    }
    return run(parse_spec(spec), tmp_path_factory.mktemp("detectors") / "run")


def scores(ledger, where):
    return [row["score"] for row in ledger.sql(f"SELECT score FROM {where} ORDER BY id")]


@pytest.mark.slow
def test_the_tables_have_every_score(ledger):
    assert len(scores(ledger, "clean_scores WHERE NOT held_out")) == 60
    assert len(scores(ledger, "clean_scores WHERE held_out")) == HELD_OUT // 2
    sizes = ledger.sql("SELECT norm, eps, count(*) AS n FROM scores GROUP BY ALL ORDER BY ALL")
    assert [(row["norm"], row["eps"], row["n"]) for row in sizes] == [
        ("corner_case", 1.0, 60), ("l2", 0.5, 60), ("l2", 1.0, 60), ("linf", 0.02, 60), ("linf", 0.2, 60),
    ]  # fmt: skip
    # an image that a minimal attack did not fool within a size counts as unchanged there
    row = ledger.sql(
        "SELECT max(abs(s.score - c.score)) AS gap, count(*) AS n FROM scores s JOIN clean_scores c USING (id) "
        "JOIN rows r ON r.cell = s.cell AND r.id = s.id AND r.eps = s.eps WHERE r.linf = 0 AND NOT c.held_out"
    )[0]
    assert row["n"] > 0 and row["gap"] < 1e-6


def test_the_figures_follow_from_the_tables(ledger):
    at = threshold(scores(ledger, "clean_scores WHERE held_out"), 0.05)
    clean = scores(ledger, "clean_scores WHERE was_right")
    found = {(d.norm, d.eps): d for d in detections(ledger, 0.05) if not d.aware}
    hit = scores(ledger, "scores WHERE was_right AND success AND norm = 'linf' AND eps = 0.2")
    chosen = found["linf", 0.2]
    assert chosen.rate == detection_rate(hit, at) and chosen.auroc == auroc(clean, hit)
    assert chosen.expected == at.rate and chosen.measured == detection_rate(clean, at)
    assert chosen.expected.value <= 0.05 and chosen.detector == "squeezing"
    every = scores(ledger, "scores WHERE was_right AND norm = 'linf' AND eps = 0.2")
    assert chosen.auroc_of_all == auroc(clean, every) and list(chosen.at) == ["5", "10"]  # too few images for 1 %
    assert chosen.at["10"] == tpr_at(clean, hit, 0.1)
    assert chosen.evaded.value == (np.array(hit) <= at.value).sum() / len(every)
    assert chosen.attainable.value >= max(chosen.evaded.value, found["linf", 0.02].evaded.value)


def test_an_attacker_who_knows_the_detector_comes_first(ledger):
    at = threshold(scores(ledger, "clean_scores WHERE held_out"), 0.05)
    every = detections(ledger, 0.05)
    assert [d.aware for d in every] == [True] * 4 + [False] * 5  # a corner case has no goal
    hit = scores(ledger, "aware_scores WHERE was_right AND success AND norm = 'linf' AND eps = 0.2")
    every_score = scores(ledger, "aware_scores WHERE was_right AND norm = 'linf' AND eps = 0.2")
    known, plain = ({(d.norm, d.eps): d for d in every if d.aware == aware} for aware in (True, False))
    chosen = known["linf", 0.2]
    assert chosen.rate == detection_rate(hit, at)
    assert chosen.evaded.value == (np.array(hit) <= at.value).sum() / len(every_score)
    assert chosen.rate.value <= plain["linf", 0.2].rate.value  # the attack has lowered the scores below the threshold
    # who knows the detector can also attack without using that
    for key, d in known.items():
        assert d.attainable.value >= max(d.evaded.value, plain[key].attainable.value)
    aware, unaware = detector_results(ledger, 0.05)
    assert aware.aware and not unaware.aware and aware.evaded.n == unaware.evaded.n == len(every_score)
    assert aware.evaded.value >= max([unaware.evaded.value, *(d.attainable.value for d in known.values())])


def test_the_attacks_that_can_know_a_detector(content):
    several = ["pgd", "square", "corner_cases", {"name": "adv2", "interpreter": "gradient"}]
    spec = parse_spec(
        content(attacks=several, detectors=["energy", {"name": "energy", "aware": False, "label": "off"}])
    )
    attacks, (energy, off) = {entry.name: entry for entry in spec.attacks}, spec.detectors
    assert [a.name for a in attacks_on(energy, spec)] == ["pgd", "square"] and attacks_on(off, spec) == []
    blind = MLLOO()  # its score has no gradient
    assert [name for name, entry in attacks.items() if can_know(entry, blind)] == ["square"]
    assert not can_know(attacks["pgd"], object())


def test_the_worst_attack_stands_beside_the_mean(ledger):
    _, found = detector_results(ledger, 0.05)
    attacks = {(d.norm, d.eps): d for d in detections(ledger, 0.05) if not d.aware}
    last = [attacks[key] for key in (("linf", 0.2), ("l2", 1.0), ("corner_case", 1.0))]
    assert found.least.value == min(d.auroc.value for d in last) and found.worst in {d.label for d in last}
    assert found.mean.value == pytest.approx(np.mean([d.auroc.value for d in last]))
    assert set(found.checks) == {"pgd linf", "deepfool l2"}
    assert len(read_scores(ledger).attacked) == 9


@pytest.mark.slow
def test_the_report_shows_them(ledger):
    page, found = render(ledger), findings(ledger).detections
    assert len(found) == 9 and 'id="detection"' in page and "AUROC" in page and "squeezing</a></h3>" in page
    assert page.index("The attacker knows the detector") < page.index("The attacker does not know the detector")
    assert "sees least" in page and "turned" in page and page.count("Histograms of the scores of squeezing") == 2
    assert page.count("ROC curves of squeezing for 2 attacks that know it") == 1
    assert page.count("ROC curves of squeezing for 3 attacks.") == 1
    assert len(to_json(ledger)["detections"]) == 9 and to_json(ledger)["detectors"][0]["aware"]


def test_the_summary_shows_them(ledger, capsys):
    print_summary(findings(ledger))
    shown = capsys.readouterr().out
    assert "at 5 % false positives" in shown and "squeezing" in shown and "knowing" in shown


LEARNS = {"name": "mahalanobis", "combine": "logistic", "layers": "logits", "label": "learner", "aware": False}


@pytest.mark.slow
def test_a_supervised_detector_is_also_fitted_without_each_attack(content, tmp_path):
    attacks = [{"name": "fgsm", "eps": [0.2]}, {"name": "bim", "eps": [0.2], "steps": 3}]
    spec = parse_spec(content(attacks=attacks, detectors=[LEARNS], data={"uri": "digits:", "n": 40}, interpreters=None))
    assert spec.detectors[0].learns_from == ["fgsm linf", "bim linf"]
    ledger, target = run(spec, tmp_path / "run"), open_target(spec)
    assert ledger.refusals == () and [(d.label, d.learned) for d in detections(ledger, 0.05)] == [
        ("bim linf", True), ("fgsm linf", True),
    ]  # fmt: skip
    # fit and threshold have other images than the audit, and than each other
    learn, choose = target.held_out_halves
    names = [set(learn.ids), set(choose.ids), {row["id"] for row in ledger.sql("SELECT id FROM clean")}]
    assert sum(map(len, names)) == len(set.union(*names))
    # without BIM, it is the detector that has learned from FGSM
    x_adv = uf.attacks.fgsm(target.model, learn.x, learn.y, eps=0.2)
    detector = Mahalanobis(combine="logistic", layers="logits")
    detector.fit(target.model, learn, uf.Batch(x_adv, learn.y, learn.ids))
    wanted = dict(zip(choose.ids, detector.score(target.model, choose.x).tolist(), strict=True))
    query = "SELECT id, score FROM clean_scores WHERE held_out AND left_out = 'bim linf'"
    found = {row["id"]: row["score"] for row in ledger.sql(query)}
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    # the figures are those of its own threshold and scores
    at = threshold(list(found.values()), 0.05)
    hit = scores(ledger, "scores WHERE left_out = 'bim linf' AND was_right AND success")
    bim = next(d for d in detections(ledger, 0.05) if d.label == "bim linf")
    clean = scores(ledger, "clean_scores WHERE left_out = 'bim linf' AND was_right")
    assert bim.rate_if_new == detection_rate(hit, at) and bim.auroc_if_new == auroc(clean, hit)
    assert "Attacks that it has not learned from" in render(ledger)


def test_a_supervised_detector_without_a_success_to_learn_from_says_so(content, tmp_path):
    weak = [{"name": "fgsm", "eps": [1e-6]}]
    ledger = run(parse_spec(content(attacks=weak, detectors=[LEARNS], interpreters=None, gallery=0)), tmp_path / "run")
    (refusal,) = ledger.refusals
    assert refusal.name == "learner" and "successful attacks" in refusal.reason and not detections(ledger, 0.05)


def keys(content, kind):
    spec = parse_spec(content)
    return {cell.key for cell in plan(spec, open_target(spec)) if cell.kind == kind}


@pytest.mark.slow
def test_a_detector_and_a_rate_run_only_the_attacks_again_that_know_it(content):
    plain, one = content(), content(detectors=[SQUEEZING])
    assert keys(plain, "craft") == keys(one, "craft")
    two = content(detectors=[SQUEEZING, {**SQUEEZING, "squeezers": ["median_3"], "label": "3"}])
    rate = content(detectors=[SQUEEZING], false_positive_rate=0.1)
    unaware = content(detectors=[{**SQUEEZING, "aware": False}])
    for kind in ("fit", "score"):
        assert keys(plain, kind) == set() and keys(one, kind) < keys(two, kind)
        assert keys(one, kind) == keys(rate, kind) == keys(unaware, kind)
    # an attacker who knows the detector knows its threshold
    assert keys(one, "evade").isdisjoint(keys(rate, "evade")) and keys(unaware, "evade") == set()


@pytest.mark.parametrize(
    ("changes", "error", "fact"),
    [
        ({"detectors": ["feature_squeezin"]}, SpecError, "feature_squeezing"),
        ({"detectors": [{"name": "feature_squeezing", "squeezer": 1}]}, SpecError, "squeezers"),
        ({"detectors": [{"name": "feature_squeezing", "squeezers": ["median"]}]}, SpecError, "median"),
        ({"detectors": [SQUEEZING, SQUEEZING]}, SpecError, "squeezing"),
        ({"detectors": [SQUEEZING], "data": "digits:"}, SpecError, "held_out"),
        ({"detectors": [{**SQUEEZING, "learns_from": ["pgd linf"]}]}, SpecError, "learns from clean images"),
        ({"detectors": [{"name": "lid", "learns_from": ["pgd"]}]}, SpecError, "pgd linf"),
        ({"detectors": [{"name": "lid", "learns_from": []}]}, SpecError, "learns_from"),
        (
            {"detectors": ["lid"], "attacks": [{"name": "explanation_only", "interpreter": "gradient"}]},
            SpecError,
            "no attack changes the prediction",
        ),
        ({"detectors": [SQUEEZING], "false_positive_rate": 1}, SpecError, "false_positive_rate"),
    ],
)
def test_a_wrong_entry_is_refused(content, changes, error, fact):
    with pytest.raises(error, match=fact):
        parse_spec(content(**changes))


@pytest.mark.parametrize(
    ("held_out", "error", "fact"),
    [
        ({"uri": "digits:", "n": 20}, SpecError, "needs 38 images"),
        ({"uri": "digits:", "n": 500}, DataError, "that the audit attacks"),
    ],
)
def test_held_out_images_must_be_enough_and_others(content, tmp_path, held_out, error, fact):
    with pytest.raises(error, match=fact):
        run(
            parse_spec(content(detectors=[SQUEEZING], held_out=held_out, data={"uri": "digits:", "n": 5, "seed": 9})),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
