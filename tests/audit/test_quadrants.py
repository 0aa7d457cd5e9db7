"""The quadrants of prediction and explanation: counts of a table made by hand, and of a small run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch

from underfire.audit.aims import MAP_CHANGED, MAP_KEPT, QUADRANTS, aim_of, aims_at_prediction
from underfire.audit.ledger import Ledger
from underfire.audit.quadrants import Quadrants, control_of, quadrants
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.audit.standing import Evidence, assess
from underfire.audit.summary import findings
from underfire.measures.statistics import clopper_pearson
from underfire.report.export import to_json
from underfire.report.findings import findings as sentences
from underfire.report.page import render


class Tables:
    """Two tables of a ledger, with a row for every sample, attack and seed."""

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self.database = duckdb.connect(":memory:")
        text = ("cell", "attack", "label", "attacked", "norm")
        place = ", ".join([*(f"{name} VARCHAR" for name in text), "eps DOUBLE", "seed INT", "id INT"])
        self.database.execute(f"CREATE TABLE maps ({place}, interpreter VARCHAR, map_iou DOUBLE)")
        self.database.execute(
            f"CREATE TABLE rows ({place}, y INT, pred_clean INT, pred_adv INT, within_eps BOOL, in_box BOOL)"
        )
        for attack, attacked, seed, sample, iou, *outcome in rows:
            key = ["c", attack, attack, attacked, "linf", 0.1, seed, sample]
            self._insert("maps", [*key, "cam", iou])
            self._insert("rows", [*key, 1, *outcome, True])

    def _insert(self, table: str, values: list[Any]) -> None:
        self.database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)

    def sql(self, query: str) -> list[dict[str, Any]]:
        found = self.database.execute(query)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_counts_by_hand() -> None:
    source = Tables(
        ("pgd", "", 0, 0, 0.5, 1, 2, True),  # at the threshold, a map is kept
        ("pgd", "", 0, 1, 0.49, 1, 2, True),
        ("pgd", "", 0, 2, 0.9, 1, 1, True),
        ("pgd", "", 0, 3, 0.1, 1, 1, True),
        ("pgd", "", 0, 4, 0.1, 1, 2, True),
        ("pgd", "", 0, 5, 0.9, 2, 3, True),  # wrong before the attack
        ("pgd", "", 0, 6, float("nan"), 1, 2, True),  # a constant map
        ("pgd", "", 0, 7, 0.9, 1, 2, False),  # beyond eps
    )
    (found,) = quadrants(source)
    assert (found.aim, found.iou, found.reached) == ("prediction changed", 0.5, None)
    counts = {MAP_KEPT: 1, "both changed": 2, MAP_CHANGED: 1, "both kept": 1}
    assert found.shares == {name: clopper_pearson(k, 5) for name, k in counts.items()}


def test_of_several_seeds_the_one_counts_that_reaches_the_aim() -> None:
    rows = [("adv2", "cam", seed, 0, iou, 1, 2, True) for seed, iou in ((0, 0.1), (1, 0.9))]
    rows += [("adv2", "cam", seed, 1, iou, 1, pred, True) for seed, iou, pred in ((0, 0.9, 1), (1, 0.2, 2))]
    (found,) = quadrants(Tables(*rows))
    assert found.reached == clopper_pearson(1, 2)
    assert found.shares["both kept"].value == 0.5  # the first seed of the second sample


@pytest.mark.parametrize(
    ("attack", "attacked", "aim"),
    [
        ("pgd", "", "prediction changed"),
        ("adv2", "cam", MAP_KEPT),
        ("adv2_black_box", "cam", MAP_KEPT),
        ("explanation_only", "cam", MAP_CHANGED),
        ("explanation_only_black_box", "cam", MAP_CHANGED),
        ("explanation_and_prediction", "cam", "both changed"),
        ("random_noise", "", "both kept"),
        ("somebody's own", "cam", MAP_KEPT),
        ("somebody's own", "", "prediction changed"),
    ],
)
def test_the_aim_is_that_of_the_card(attack: str, attacked: str, aim: str) -> None:
    assert aim_of(attack, attacked) == aim
    assert aims_at_prediction(aim) == (aim not in (MAP_CHANGED, "both kept"))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Every quadrant, attacked on eight digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    aimed = {"interpreter": "cam", "eps": 0.1}
    spec = {
        "model": "python:audit_networks:pooling",
        "data": {"uri": "digits:", "n": 8, "seed": 0},
        "attacks": [
            {"name": "pgd", "eps": 0.1, "steps": 5},
            {"name": "adv2", "steps": 10, "warm_steps": 5, **aimed},
            {"name": "explanation_only", "steps": 10, **aimed},
            {"name": "explanation_and_prediction", "steps": 5, "warm_steps": 5, **aimed},
            {"name": "random_noise", "eps": 0.1},
        ],
        "interpreters": ["cam"],
        "masking": False,
        "gallery": 0,
    }
    yield run(parse_spec(spec), tmp_path_factory.mktemp("quadrants") / "run")
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_run_says_what_was_aimed_at_and_what_was_reached(ledger: Ledger) -> None:
    found = findings(ledger)
    by_label = {q.label.split()[0]: q for q in found.quadrants}
    assert len(by_label) == 5
    assert all(sum(rate.value for rate in q.shares.values()) == pytest.approx(1) for q in found.quadrants)
    kept = by_label["explanation_only"]
    assert kept.shares[MAP_KEPT].value == kept.shares["both changed"].value == 0  # the prediction is always kept
    assert kept.changes_map and kept.reached is not None
    # only attacks on the prediction count for the accuracy, and only those that keep a map may forge it
    assert {q.label for q in found.quadrants if q.reached} == {a.label for a in found.attacks if "cam" in a.label}
    assert {d.label for d in found.differences} == {"adv2 cam linf"}
    assert {d.baseline for d in found.differences} == {"pgd linf"}
    assert all("explanation_only" not in r.worst and "noise" not in r.worst for r in found.robust)


@pytest.mark.slow
def test_the_page_and_the_json_show_them(ledger: Ledger) -> None:
    page, content = render(ledger), to_json(ledger)
    assert "The four quadrants" in page
    assert all(q in page for q in (*QUADRANTS, "prediction changed"))
    assert {entry["aim"] for entry in content["quadrants"]} == {*QUADRANTS, "prediction changed"}
    assert content["quadrants"][0]["shares"][MAP_KEPT].keys() == {"value", "low", "high", "n"}
    told = [f["words"] for f in content["findings"]]
    assert any(w.startswith("explanation_only cam linf keeps the class and changes the cam map") for w in told)
    assert not any(w.startswith("random_noise") or "explanation_only cam linf fools" in w for w in told)


def shares(kept: int, changed: int, label: str = "explanation_only", aim: str = MAP_CHANGED) -> Quadrants:
    n = kept + changed
    counts = {MAP_KEPT: 0, "both changed": 0, MAP_CHANGED: changed, "both kept": kept}
    rates = {name: clopper_pearson(k, n) for name, k in counts.items()}
    return Quadrants(label, "linf", 0.1, "cam", "cam" if aim == MAP_CHANGED else "", aim, rates)


@pytest.mark.parametrize(
    ("changed", "noise", "tone"),
    [(90, 5, "bad"), (30, 5, "warn"), (6, 5, "good"), (90, None, "none"), (90, 88, "good")],
)
def test_a_map_is_changed_if_noise_of_the_size_changes_fewer(
    ledger: Ledger, changed: int, noise: int | None, tone: str
) -> None:
    many = [shares(100 - changed, changed)]
    many += [] if noise is None else [shares(100 - noise, noise, "random_noise", "both kept")]
    found = replace(findings(ledger), quadrants=tuple(many), standing=assess(Evidence()))
    found = replace(found, standing=replace(found.standing, level="firm"))
    (told,) = (f for f in sentences(found) if f.words.startswith("explanation_only keeps"))
    assert told.tone == tone
    assert (control_of(many[0], many) is None) == (noise is None)


@pytest.mark.slow
def test_a_run_without_an_attack_on_the_prediction_has_no_verdict(tmp_path: Path) -> None:
    spec = {
        "model": "python:audit_networks:pooling",
        "data": {"uri": "digits:", "n": 3, "seed": 0},
        "attacks": [
            {"name": "random_noise", "eps": 0.1},
            {"name": "explanation_only", "interpreter": "cam", "eps": 0.1},
        ],
        "interpreters": ["cam"],
        "masking": False,
    }
    ledger = run(parse_spec(spec), tmp_path / "run")
    found = findings(ledger)
    assert "No attack of this run aims at the prediction" in render(ledger)
    assert found.robust == () and found.standing.headline == "No attack aims at the prediction"
