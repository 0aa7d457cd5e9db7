"""The summary of a ledger made by hand, whose every number is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underfire.audit.comparison import PAIRS, Difference, leading
from underfire.audit.graph import Cell
from underfire.audit.kinds import KINDS
from underfire.audit.ledger import Ledger, write_head
from underfire.audit.map_shifts import MapShift
from underfire.audit.reading import largest
from underfire.audit.result import Result
from underfire.audit.sentences import verdict
from underfire.audit.spec import parse_spec
from underfire.audit.standing import FIRM
from underfire.audit.store import Store
from underfire.audit.summary import findings
from underfire.measures.statistics import clopper_pearson
from underfire.records import Interval

N = 10
PLAIN, AIMED = "pgd linf", "adv2 cam linf"
GATES = [
    {"measure": "clean_accuracy", "at_least": 0.9},
    {"measure": "robust_accuracy", "at_least": 0.5, "attack": PLAIN, "eps": 0.1},
    {"measure": "worst_accuracy", "at_least": 0.5, "norm": "linf", "eps": 0.1},
    {"measure": "map_iou", "at_least": 0.5, "attack": AIMED, "eps": 0.1, "interpreter": "cam"},
    {"measure": "robust_accuracy", "at_least": 0.0, "attack": "fgsm linf", "eps": 0.1},
]


CLEAN = Cell("clean", {})


def _craft(label: str, eps: float, seed: int, fooled: set[int], attacked: str = "") -> tuple[Cell, Result]:
    """Ten samples of class 1; the last is taken for class 2 without any attack, the fooled ones for class 3."""
    about = {"clean": CLEAN.key, "attack": label.split()[0], "label": label, "norm": "linf", "seed": seed}
    cell = Cell("craft", {"label": label, "eps": eps, "seed": seed}, {"clean": CLEAN}, about={**about, **_PLAIN})
    cell.about["attacked"] = attacked  # type: ignore[index]
    result = Result()
    for i in range(N):
        was = 2 if i == 9 else 1
        result.add(
            1,
            id=f"s{i}",
            eps=eps,
            goal=-1,
            pred_adv=3 if i in fooled else was,
            conf_adv=0.8 if i in fooled else 0.6,
            success=i in fooled or i == 9,
            in_box=True,
            within_eps=i != 0,
            linf=eps,
            l2=2 * eps,
            l1=3 * eps,
            l0=4.0,
            forwards=11.0,
            backwards=10.0,
            seconds=0.5,
        )
    return cell, result


_PLAIN = {"targeted": False, "params": "{}"}


def _maps(craft: Cell, iou: list[float]) -> tuple[Cell, Result]:
    about = {"craft": craft.key, "label": craft.about["label"], "seed": craft.about["seed"], "interpreter": "cam"}
    result = Result()
    columns = {"map_iou": (np.nan, iou), "map_l1": (np.nan, [(1 - v) / 2 for v in iou]), "mass_inside": (0.75, 0.25)}
    for name, (clean, value) in columns.items():
        result.add(N, id=[f"s{i}" for i in range(N)], eps=0.1, measure=name, clean=clean, value=value)
    return Cell("measure", {}, {"craft": craft}, about=about), result


@pytest.fixture
def ledger(content: Callable[..., dict[str, Any]], tmp_path: Path) -> Ledger:
    """A run of three attacks, of which FGSM has no result yet."""
    attacks = [
        {"name": "pgd", "eps": [0.05, 0.1]},
        {"name": "adv2", "interpreter": "cam", "eps": 0.1},
        {"name": "fgsm", "eps": 0.1},
    ]
    spec = parse_spec(content(attacks=attacks, interpreters=["cam"], gates=GATES))
    clean, checks = Result(), Result()
    clean.add(N, id=[f"s{i}" for i in range(N)], y=1, pred=[1] * 9 + [2], conf=0.9)
    checks.add(2, name=["b", "a"], passed=[True, False], value=[0.0, 1.0], limit=[0.0, 0.5], detail=["", "No."])
    checks.add(2, rival="", hits=None, images=None)
    plain, aimed = _craft(PLAIN, 0.1, 0, {1, 2, 3}), _craft(AIMED, 0.1, 0, {1, 2, 5}, "cam")
    cells = [
        (CLEAN, clean),
        _craft(PLAIN, 0.05, 0, {1}),
        plain,
        _maps(plain[0], [0.2] * N),
        _craft(PLAIN, 0.1, 1, {3, 4}),
        aimed,
        _maps(aimed[0], [0.4] + [0.8] * 8 + [np.nan]),
        (Cell("masking", {}, about={"label": PLAIN, "norm": "linf", "eps": 0.1}), checks),
    ]
    store = Store(tmp_path)
    for cell, result in cells:
        result.write(store, cell, KINDS[cell.kind].schema)
    planned = [cell.as_dict() for cell, _ in cells] + [_craft("fgsm linf", 0.1, 0, set())[0].as_dict()]
    write_head(store, {"underfire": "0.1.0", "spec": spec.model_dump(), "environment": {}, "cells": planned})
    return Ledger(tmp_path)


def test_accuracy_under_every_attack(ledger: Ledger) -> None:
    found = findings(ledger)
    assert found.clean == clopper_pearson(9, 10)
    by_place = {(result.label, result.eps): result for result in found.attacks}
    assert set(by_place) == {(PLAIN, 0.05), (PLAIN, 0.1), (AIMED, 0.1)}
    assert by_place[PLAIN, 0.05].robust == clopper_pearson(8, 10)
    strong = by_place[PLAIN, 0.1]
    assert strong.robust == clopper_pearson(5, 10)  # 1, 2, 3 fell to one seed, 3, 4 to the other, 9 was wrong before
    assert strong.success == clopper_pearson(4, 9)
    assert strong.seeds == 2
    assert strong.confidence == pytest.approx(0.8)
    assert strong.within == pytest.approx(0.9)
    assert strong.sizes == pytest.approx({"linf": 0.1, "l2": 0.2, "l1": 0.3, "l0": 4.0})
    assert strong.cost == {"forwards": 11.0, "backwards": 10.0, "seconds": 0.5}
    assert strong.atlas.startswith("AML.T0043")
    assert {(result.label, result.eps) for result in largest(found.attacks)} == {(PLAIN, 0.1), (AIMED, 0.1)}


def test_a_sample_is_robust_if_all_attacks_fail(ledger: Ledger) -> None:
    weak, strong = findings(ledger).robust
    assert (weak.norm, weak.eps, weak.robust, weak.worst) == ("linf", 0.05, clopper_pearson(8, 10), PLAIN)
    assert (strong.eps, strong.robust, strong.worst) == (0.1, clopper_pearson(4, 10), PLAIN)  # 1 to 5 and 9 are lost


def test_maps_and_their_paired_difference(ledger: Ledger) -> None:
    found = findings(ledger)
    aimed, plain = found.shifts
    assert (aimed.label, aimed.attacked, plain.label, plain.attacked) == (AIMED, "cam", PLAIN, "")
    assert (aimed.iou.value, aimed.iou.n) == (pytest.approx((0.4 + 8 * 0.8) / 9), 9)  # the undefined one is left out
    assert aimed.plausible == clopper_pearson(3, 9)
    assert plain.plausible == clopper_pearson(0, 9)
    inside = aimed.measures["mass_inside"]
    assert inside.clean is not None
    assert (inside.clean.value, inside.value.value) == (0.75, 0.25)
    assert aimed.measures["map_iou"].value == aimed.iou
    (gap,) = found.differences
    assert (gap.label, gap.baseline, gap.interpreter, gap.eps) == (AIMED, PLAIN, "cam", 0.1)
    assert (gap.iou.value, gap.iou.n) == (
        pytest.approx(0.6),
        2,
    )  # only 1 and 2 fall to both
    assert gap.l1.value == pytest.approx(-0.3)
    assert gap.ious == (pytest.approx(0.8), pytest.approx(0.2))
    assert gap.plausible == (clopper_pearson(2, 2), clopper_pearson(0, 2))


def test_the_gap_is_that_of_the_best_attack_on_every_image(ledger: Ledger) -> None:
    found = findings(ledger)
    (gap,) = found.gaps
    assert (gap.interpreter, gap.norm, gap.sizes, gap.aimed) == ("cam", "linf", (0.1,), (AIMED,))
    # 1, 2 and 5 fall with an IoU of 0.8, and 3 with 0.2; 0 falls to none, because it is out of bounds
    near, far = (1.6 / 1.8 - 0.2) / 0.8, (0.4 / 1.2 - 0.2) / 0.8
    assert (gap.value.value, gap.value.n) == (pytest.approx((3 * near + far) / 4), 4)
    assert gap.plain.value == pytest.approx(3 * far / 4)
    assert (gap.fooled, gap.kept) == ((pytest.approx(4 / 9),), (pytest.approx((3 * near + far) / 4),))
    assert found.gap == (
        f"Prediction-interpretation gap 0.69 (95\u00a0% interval {gap.value.low:.2f} to {gap.value.high:.2f}, n = 4; "
        "cam, L∞ eps 0.1 only): Where the class of an image can be changed, an attacker can keep 69\u00a0% of "
        "its cam map: the map seldom shows that the class was changed."
    )
    assert [(t.label, t.l1.n, t.iou.value) for t in found.interpreter_transfers] == [
        (PLAIN, 3, pytest.approx(0.2)),
        (AIMED, 3, pytest.approx(0.8)),
    ]


def test_gates_checks_and_verdict(ledger: Ledger) -> None:
    found = findings(ledger)
    assert [(gate.value, gate.state) for gate in found.gates] == [  # a cell is missing, so no gate holds
        (0.9, "unsure"),
        (0.5, "unsure"),
        (0.4, "missed"),
        (pytest.approx((0.4 + 8 * 0.8) / 9), "unsure"),
        (None, "unknown"),
    ]
    assert [gate.name for gate in found.gates][1:3] == [
        f"robust accuracy {PLAIN} eps 0.1",
        "worst accuracy L∞ eps 0.1",
    ]
    assert not found.passed
    assert [check.name for check in found.checks] == ["a", "b"]
    assert found.missing == 1
    assert found.verdict == (
        "The run is not finished: 1 of 9 cells has no result. "
        "1 of 2 masking checks warns (a): the model may be weaker than these numbers say. "
        "adv2 cam linf at eps 0.1 broke its limits on 10\u00a0% of the images, which count as not fooled. "
        "pgd linf at eps 0.05 broke its limits on 10\u00a0% of the images, which count as not fooled. "
        "pgd linf at eps 0.1 broke its limits on 10\u00a0% of the images, which count as not fooled. "
        "The cam map of 1 of 10 images shows nothing, before or after an attack (1 with NaN or infinity); "
        "its IoU is not known there. "
        "Accuracy falls from 90.0\u00a0% to 40.0\u00a0% under all attacks of L∞ eps 0.1 together "
        "(95\u00a0% interval 12.2\u00a0% to 73.8\u00a0%, n = 10). "
        "adv2 cam linf and pgd linf fool 2 of the same images at L∞ eps 0.1, too few to compare the cam maps: "
        "mean IoU 0.80 against 0.20; "
        "100.0\u00a0% and 0.0\u00a0% of the maps stay plausible (IoU at least 0.5)."
    )


def _gap(low: float, high: float, n: int, **changes: Any) -> Difference:
    mean = Interval((low + high) / 2, low, high, n)
    shares = clopper_pearson(n, n), clopper_pearson(n // 2, n)
    known = {"label": AIMED, "baseline": PLAIN, "norm": "linf", "eps": 0.1, "interpreter": "cam", **changes}
    return Difference(**known, l1=mean, iou=mean, ious=(0.9, 0.5), plausible=shares)


@pytest.mark.parametrize(
    ("low", "high", "n", "forged"),
    [(0.1, 0.3, 6, True), (0.1, 0.3, 5, False), (-0.1, 0.3, 50, False), (0.0, 0.3, 50, False), (-0.3, -0.1, 50, False)],
)
def test_a_map_is_forged_when_the_whole_interval_says_so(low: float, high: float, n: int, forged: bool) -> None:
    gap = _gap(low, high, n)
    assert gap.forged is forged
    said = verdict(FIRM, None, [], [], [gap], [])
    assert ("keeps more of the cam map" in said) is forged
    enough = n >= PAIRS  # with fewer, nothing is called significant, and no interval is given
    assert ("significantly" in said) is (enough and not forged) and ("too few to compare" in said) is not enough
    assert (f"{low:+.2f} to {high:+.2f}" in said) is enough


def test_the_plain_attack_of_the_verdict_is_the_strongest_and_of_equals_the_hardest_to_beat() -> None:
    gaps = [
        _gap(0.7, 0.9, 40, baseline="fgsm linf"),  # fools fewer
        _gap(0.3, 0.5, 50, baseline="bim linf"),
        _gap(0.1, 0.3, 50),
        _gap(0.8, 0.9, 60, eps=0.05),  # a smaller size
        _gap(-0.1, 0.9, 50, label="adv2 gradient linf", interpreter="gradient"),
    ]
    first, second = leading(gaps)
    assert (first, second) == (gaps[2], gaps[4])
    assert "Forged maps: 1 of the 2 that were attacked." in verdict(FIRM, None, [], [], gaps, [])


def test_a_rate_of_plausible_maps_alone_is_not_called_forgery() -> None:
    alone = MapShift(AIMED, "linf", 0.1, "cam", "cam", *[Interval(0.9, 0.8, 1.0, 9)] * 2, clopper_pearson(9, 9), {})
    said = verdict(FIRM, None, [], [alone], [], [])
    assert said.startswith(
        "In 100.0\u00a0% of 9 images adv2 cam linf changes the class and the cam map stays plausible"
    )
    assert "nothing to compare with" in said


def test_an_empty_ledger_has_nothing_to_say(content: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    spec = parse_spec(content())
    planned = [{"key": "x", "kind": "masking", "about": {}}]
    write_head(Store(tmp_path), {"spec": spec.model_dump(), "cells": planned})
    found = findings(Ledger(tmp_path))
    assert (found.clean, found.attacks, found.shifts, found.differences, found.missing) == (None, (), (), (), 1)
    assert found.standing.level == "nothing"
    assert found.verdict.startswith("The model has not been attacked yet.") and "1 of 1 cells" in found.verdict
    assert found.passed
