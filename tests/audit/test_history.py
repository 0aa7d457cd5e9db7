"""Results of earlier plans in a run folder: they are listed and deleted, damaged ones too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from underfire.audit.history import clean, stale
from underfire.audit.run import Event, run
from underfire.audit.spec import AuditSpec
from underfire.audit.store import Store


def test_damaged_results_of_an_earlier_plan_are_deleted_too(small: Callable[..., AuditSpec], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = run(small(interpreters=[], gallery=0), folder)
    before = Store(folder).keys()
    ledger = run(small(interpreters=[], gallery=0, attacks=["fgsm"]), folder)
    whole = stale(ledger)
    crafted = {cell["key"] for cell in first.cells if cell["kind"] == "craft"}
    assert crafted < set(whole.keys) < before and whole.bytes > 0
    key = min(crafted)
    (folder / "cells" / key / "manifest.json").write_text("{")
    assert stale(ledger).keys == whole.keys and stale(ledger).bytes < whole.bytes
    clean(ledger)
    assert not set(whole.keys) & Store(folder).keys() and ledger.missing == 0 and stale(ledger).keys == ()


def test_an_audit_returns_its_own_ledger_after_another_one_used_the_folder(
    small: Callable[..., AuditSpec], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    mine, other = (small(interpreters=[], gallery=0, masking=False, attacks=[name]) for name in ("pgd", "fgsm"))

    def intrude(event: Event) -> None:
        if event.cells == 1:
            run(other, folder)

    ledger = run(mine, folder, progress=intrude)
    assert {row["attack"] for row in ledger.sql("SELECT DISTINCT attack FROM rows")} == {"pgd"}
    assert ledger.missing == 0
