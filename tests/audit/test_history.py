"""Results of earlier plans in a run folder: they are listed and deleted, damaged ones too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from underfire.audit.history import clean, stale
from underfire.audit.run import run
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
