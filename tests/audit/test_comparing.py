"""Comparisons of two runs, against values that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from underfire.audit.comparing import compare
from underfire.audit.gaps import gaps
from underfire.audit.ledger import Ledger
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec

pytestmark = pytest.mark.slow

BOTH = [
    {"name": "pgd", "eps": [0.02, 0.1], "steps": 5, "label": "pgd"},
    {"name": "fgsm", "eps": 0.1, "label": "fgsm"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def made(folder: Path, name: str, spec: AuditSpec) -> Ledger:
    return run(spec, folder / name)


def test_a_run_does_not_differ_from_itself(small: Callable[..., AuditSpec], folder: Path) -> None:
    ledger = made(folder, "same", small(attacks=BOTH, gallery=0))
    changes = compare(ledger, ledger)
    # clean, robust, worst, success, three measures of maps that are known, and the gap
    assert len(changes) == 1 + 3 + 2 + 3 + 3 * 3 + 1
    assert [change.figure for change in changes if change.significant] == []
    assert all(change.difference and change.difference.value == 0 for change in changes)
    assert {change.p for change in changes[:-1]} == {1.0} and changes[-1].p is None
    assert changes[-1].figure == "interpretation gap of gradient at L∞ eps 0.02 to 0.1"


def test_a_stronger_attack_on_the_same_images_is_a_paired_difference(
    small: Callable[..., AuditSpec], folder: Path
) -> None:
    weak = made(folder, "weak", small(attacks=[{"name": "pgd", "eps": 0.02, "steps": 5, "label": "a"}], gallery=0))
    strong = made(folder, "strong", small(attacks=[{"name": "pgd", "eps": 0.02, "steps": 5, "label": "b"}], gallery=0))
    changes = {change.figure: change for change in compare(weak, strong)}
    assert changes["accuracy under all attacks at L∞ eps 0.02"].p == 1.0
    only = changes["robust accuracy, a at L∞ eps 0.02"]
    assert only.after is None and only.difference is None and only.significant


def test_mcnemar_on_another_model(small: Callable[..., AuditSpec], folder: Path) -> None:
    attack = [{"name": "pgd", "eps": 0.1, "steps": 5, "label": "a"}]
    right = made(folder, "right", small(attacks=attack, interpreters=[], gallery=0))
    misled = made(
        folder,
        "misled",
        small(model="python:audit_networks:noisy_gradient", attacks=attack, interpreters=[], gallery=0),
    )
    changes = {change.figure: change for change in compare(right, misled)}
    robust = changes["robust accuracy, a at L∞ eps 0.1"]
    assert robust.before and robust.after and robust.difference
    assert robust.difference.value == pytest.approx(robust.after.value - robust.before.value)
    first, second = ({row["id"]: row["ok"] for row in ledger.sql(QUERY)} for ledger in (right, misled))
    up = sum(second[i] and not first[i] for i in first)
    down = sum(first[i] and not second[i] for i in first)
    tail = sum(_choose(up + down, k) for k in range(min(up, down) + 1)) / 2 ** (up + down)
    assert robust.p == pytest.approx(min(1.0, 2 * tail)) and robust.significant


QUERY = "SELECT id, bool_and(pred_clean = y AND pred_adv = y) AS ok FROM rows GROUP BY id"


def _choose(n: int, k: int) -> int:
    from math import comb

    return comb(n, k)


def test_other_images_are_compared_by_their_intervals(small: Callable[..., AuditSpec], folder: Path) -> None:
    attack = [{"name": "pgd", "eps": 0.1, "steps": 5, "label": "a"}]
    ledgers = [
        made(folder, f"seed{seed}", small(attacks=attack, interpreters=[], gallery=0, data=f"digits:{split}"))
        for seed, split in enumerate(("test", "train"))
    ]
    changes = compare(*ledgers)
    assert {change.p for change in changes} == {None}
    clean = changes[0]
    assert clean.before and clean.after and clean.difference and not clean.significant
    assert clean.difference.low == pytest.approx(clean.after.low - clean.before.high)


def test_the_gap_of_both_runs_with_a_paired_bootstrap(small: Callable[..., AuditSpec], folder: Path) -> None:
    quick = {"eps": [0.1, 0.2], "label": "a"}
    network = {"model": "python:audit_networks:pooling", "interpreters": ["cam"], "gallery": 0}
    data = {"data": {"uri": "digits:", "n": 24, "seed": 1}, **network}
    first = made(folder, "pgd", small(attacks=[{"name": "pgd", "steps": 4, **quick}], **data))
    second = made(folder, "fgsm", small(attacks=[{"name": "fgsm", **quick}], **data))
    (change,) = (change for change in compare(first, second) if change.figure.startswith("interpretation gap"))
    a, b = (gaps(run)[0].value for run in (first, second))
    assert (change.before, change.after, change.p) == (a, b, None)
    assert change.difference and change.difference.value == pytest.approx(b.value - a.value)
    assert change.difference.low < change.difference.value < change.difference.high
    assert change.difference.high - change.difference.low < (b.high - a.low) - (b.low - a.high)  # it is paired
    # over other images, the interval follows from the two intervals
    elsewhere = {**data, "data": {"uri": "digits:train", "n": 24, "seed": 1}}
    other = made(folder, "other", small(attacks=[{"name": "fgsm", **quick}], **elsewhere))
    (change,) = (change for change in compare(first, other) if change.figure.startswith("interpretation gap"))
    c = gaps(other)[0].value
    assert change.difference and change.difference.low == pytest.approx(c.low - a.high)
