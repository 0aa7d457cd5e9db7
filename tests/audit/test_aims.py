"""The interpreters that an attack is aimed at, as one text: a label is never taken for another."""

from __future__ import annotations

from itertools import permutations

import pytest

from underfire import report
from underfire.audit.aims import MAP_CHANGED, aims_at, aims_only_at, joined
from underfire.audit.ledger import Ledger
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.audit.summary import findings
from underfire.report.gaps import against_plain

LABELS = ["cup", "mug", "cup, mug", "cup,mug", '"cup"', 'a "b, c" d', ",", " cup", "ADV² (x, y)", "two\nlines"]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_found_among_others_and_no_other_is(label: str) -> None:
    for others in permutations([name for name in LABELS if name != label], 2):
        text = joined([others[0], label, others[1]])
        assert aims_at(text, label) and not aims_only_at(text, label)
        assert {name for name in LABELS if aims_at(text, name)} == {label, *others}
    alone = joined([label])
    assert aims_only_at(alone, label) and [name for name in LABELS if aims_at(alone, name)] == [label]
    assert joined([]) == "" and not aims_at("", label) and not aims_only_at("", label)


def test_a_plain_label_is_written_as_it_is_and_an_earlier_text_is_read() -> None:
    assert joined(["grad_cam"]) == "grad_cam" and joined(["Grad-CAM (a)", "cam"]) == "Grad-CAM (a), cam"
    assert aims_at("gradient, cam", "cam") and not aims_only_at("gradient, cam", "cam")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    content = {
        "model": "python:audit_networks:linear",
        "data": {"uri": "digits:", "n": 12, "seed": 1},
        "interpreters": [{"name": "gradient", "label": "cup, mug"}, {"name": "gradient_input", "label": "cup"}],
        "attacks": [
            {"name": "pgd", "eps": 0.3, "steps": 2},
            {"name": "adv2", "interpreter": {"name": "gradient", "label": "cup, mug"}, "eps": 0.3, "steps": 2},
        ],
        "masking": False,
        "gallery": 2,
    }
    return run(parse_spec(content), tmp_path_factory.mktemp("aims") / "run")


@pytest.mark.slow
def test_an_attack_on_one_map_is_not_one_on_the_map_whose_label_is_a_part(ledger: Ledger) -> None:
    found = findings(ledger)
    assert {s.interpreter for s in found.shifts if s.aimed_here} == {"cup, mug"}
    assert {q.interpreter for q in found.quadrants if q.reached is not None} == {"cup, mug"}
    assert {gap.interpreter for gap in found.gaps if gap.aimed} == {"cup, mug"}
    assert not any(q.changes_map or q.aim == MAP_CHANGED for q in found.quadrants)
    assert [name for name, _ in against_plain(found.interpreter_transfers)] == ["cup, mug"]
    assert "aimed at this map" in report.page.render(ledger)
