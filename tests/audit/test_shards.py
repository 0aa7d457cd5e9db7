"""The number of images in a cell follows the measured speed, and stays when a run continues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from underfire.audit import costs
from underfire.audit.costs import Cost
from underfire.audit.ledger import Ledger
from underfire.audit.plan import plan
from underfire.audit.run import Event, run
from underfire.audit.shards import MINUTE, fitting
from underfire.audit.spec import AuditSpec

pytestmark = pytest.mark.slow

Small = Callable[..., AuditSpec]


def _slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let a pass of one image seem to take so many seconds, forwards and backwards alike."""
    monkeypatch.setattr(costs, "_pace", lambda target: (seconds, seconds))


def test_cells_are_halved_until_they_take_a_minute() -> None:
    found = [Cost("craft", "pgd", "pgd", 2, 100, 20, 500.0, 320.0, 5.0)]
    assert fitting(64, 100, found) == 8  # 5 seconds an image
    assert fitting(64, 10, found) == 64  # all images take 50 seconds
    assert fitting(64, 100, []) == 64


def test_cells_of_a_slow_model_are_small_and_stay_so(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGD of ten steps makes some 21 passes: at 0.25 seconds each, a minute is enough for 8 images."""
    plain = {"interpreters": [], "gallery": 0}
    spec, folder = small(**plain), tmp_path / "run"
    assert spec.shard_size is None
    _slow(monkeypatch, 0.25)
    first = run(spec, folder)
    assert first.spec.shard_size == 8 and len([cell for cell in first.cells if cell["kind"] == "clean"]) == 8
    # a run that continues keeps the size: at another speed, with a damaged head, and with another attack
    _slow(monkeypatch, 1e-6)
    events: list[Event] = []
    run(spec, folder, progress=events.append)
    (folder / "ledger.json").write_text("{")
    run(spec, folder, progress=events.append)
    assert [(event.of_cells, event.skipped) for event in events] == [(0, len(first.cells))] * 2
    attacks = [*(entry.model_dump() for entry in spec.attacks), "fgsm"]
    assert run(small(**plain, attacks=attacks), folder).spec.shard_size == 8
    # other data has no cells yet
    other = small(**plain, data={"uri": "digits:", "n": 20, "seed": 2})
    assert run(other, folder).spec.shard_size == 64


def test_a_stated_size_and_a_shared_perturbation_do_not_follow_the_speed(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"interpreters": [], "gallery": 0}
    _slow(monkeypatch, 10 * MINUTE)
    assert run(small(**plain, shard_size=30), tmp_path / "stated").spec.shard_size == 30
    # without the key, a run that continues has the size that it recorded
    assert run(small(**plain), tmp_path / "stated").spec.shard_size == 30
    shared = small(**plain, attacks=[{"name": "uap", "eps": 0.1, "steps": 2}])
    assert run(shared, tmp_path / "shared").spec.shard_size == 64
    assert Ledger(tmp_path / "shared").missing == 0
    other = {"name": "adv2", "interpreter": "gradient_input", "target": "other_class", "eps": 0.1, "steps": 1}
    assert run(small(**plain, attacks=[other]), tmp_path / "other").spec.shard_size == 64


def test_masking_checks_are_cut_too_and_keep_their_parts(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NES makes 401 passes, more than any other run: 12 seconds an image, so 4 a cell and not 8."""
    spec, folder = (
        small(interpreters=[], gallery=0, masking=True, data={"uri": "digits:", "n": 16, "seed": 1}),
        tmp_path,
    )
    _slow(monkeypatch, 0.03)
    first = run(spec, folder / "run")
    assert (first.spec.shard_size, first.spec.masking_shard_size) == (64, 4)
    runs = [cell for cell in first.cells if cell["kind"] == "probe"]
    assert len(runs) == 11 * 4 and sum(cell["images"] for cell in runs) == 11 * 16
    assert len(first.sql("SELECT name FROM checks")) == 8 and first.missing == 0
    # a run that continues keeps the parts, also without its head
    _slow(monkeypatch, 1e-6)
    (folder / "run" / "ledger.json").write_text("{")
    events: list[Event] = []
    run(spec, folder / "run", progress=events.append)
    assert [(event.of_cells, event.skipped) for event in events] == [(0, len(first.cells))]
    # a stated size is that of the parts, and `shard_size` bounds them
    assert len([c for c in plan(small(masking=True, masking_shard_size=30)) if c.kind == "probe"]) == 11 * 2
    assert len([c for c in plan(small(masking=True, shard_size=10)) if c.kind == "probe"]) == 11 * 5
