"""Methods that a model does not support: their cells say why, the others go on, and so says the verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from underfire import report
from underfire.audit.kinds import craft
from underfire.audit.ledger import Ledger
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec
from underfire.audit.summary import findings
from underfire.errors import Unsupported

pytestmark = pytest.mark.slow

Small = Callable[..., AuditSpec]
SQUARE = {"name": "square", "eps": 0.2, "queries": 30}


@pytest.fixture
def refused(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A run in which PGD does not support the model; Square does."""
    known = craft.attack_of

    def attack_of(entry: Any, eps: float) -> Callable[..., Any]:
        def refuses(*_: object, **__: object) -> None:
            raise Unsupported("the model has no gradient with respect to its input;\nuse square")

        return refuses if entry.name == "pgd" else known(entry, eps)

    monkeypatch.setattr(craft, "attack_of", attack_of)
    return run(small(attacks=[{"name": "pgd", "eps": [0.1, 0.2], "steps": 2}, SQUARE]), tmp_path / "run")


def test_a_refusal_is_a_result_with_its_reason_and_the_others_go_on(refused: Ledger) -> None:
    assert refused.missing == 0
    found = findings(refused)
    (entry,) = found.refused
    assert (entry.kind, entry.name, entry.cells, entry.of) == ("attack", "pgd linf", 2, 2)
    assert entry.reason == "the model has no gradient with respect to its input; use square"
    assert {hit.label for hit in found.attacks} == {"square linf"}
    assert {shift.label for shift in found.shifts} == {"square linf"}
    assert found.standing.level == "partial" and entry.reason in found.verdict
    assert "pgd linf could not be run" in report.page.render(refused)


def test_a_refusal_is_kept_when_the_run_goes_on(refused: Ledger) -> None:
    again = run(refused.spec, refused.path)
    assert findings(again).refused == findings(refused).refused


def test_a_model_without_a_gradient_comes_to_a_verdict_that_says_so(small: Small, tmp_path: Path) -> None:
    spec = small(model="python:audit_networks:blind", attacks=[SQUARE], masking=True, gallery=1)
    found = findings(run(spec, tmp_path / "run"))
    assert found.standing.level == "blind" and "no gradient" in found.standing.headline
    assert [(entry.kind, entry.name) for entry in found.refused] == [("interpreter", "gradient")]
    bound = found.standing.bound
    assert bound is not None and bound.left <= min(hit.robust.value for hit in found.attacks)
    page = report.page.render(Ledger(tmp_path / "run"))
    assert "These numbers cannot be believed" in page and "withstands" not in page
    assert 'class="tile good"' not in page and 'class="status good"' not in page
