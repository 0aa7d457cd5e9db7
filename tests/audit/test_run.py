"""Runs: the numbers of a linear model in closed form, and what a run survives."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import audit_networks
import pytest
import torch
from torch import Tensor

from underfire import data
from underfire.audit import backends
from underfire.audit.executors import AutoExecutor, Executor, InProcess, LocalProcesses, threads_per_worker
from underfire.audit.goals import choose_goal
from underfire.audit.graph import Cell
from underfire.audit.ledger import Ledger
from underfire.audit.reading import attack_results
from underfire.audit.run import Event, choose_executor, run
from underfire.audit.spec import AuditSpec
from underfire.catalog import AttackFacts, Card
from underfire.catalog.registry import _CARDS
from underfire.errors import DiskFull, InputError, LedgerError, ModelError, UnderfireError

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

Small = Callable[..., AuditSpec]


def _contents(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Every table but for the time that things took, in one order."""
    tables = {
        name: ledger.sql(f"SELECT * {'EXCLUDE seconds' if name == 'rows' else ''} FROM {name} ORDER BY ALL")
        for name in ("clean", "rows", "maps", "measures", "checks", "answers", "sample", "transfer")
    }
    return json.loads(json.dumps(tables))  # NaN equals NaN, as text


def _robust(eps: float) -> Tensor:
    """Which of the small audit's images no change of at most eps in the box can make the linear model lose."""
    batch = data.load("digits:", n=60, seed=1)[:]
    x, layer = batch.x.flatten(1).double(), audit_networks.head()
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    holds = torch.ones(len(x), dtype=torch.bool)
    for other in range(10):
        w = weight[batch.y] - weight[other]
        worst = torch.where(w > 0, (x - eps).clamp_min(0), (x + eps).clamp_max(1))
        lead = (w * worst).sum(1) + bias[batch.y] - bias[other]
        holds &= (lead > 0) | (batch.y == other)
    return holds


def test_the_accuracy_under_attack_is_the_closed_form(small: Small, tmp_path: Path) -> None:
    ledger = run(small(attacks=[{"name": "pgd", "eps": [0.0, 0.02, 0.1, 0.2], "steps": 30}]), tmp_path / "run")
    for eps in (0.0, 0.02, 0.1, 0.2):
        rows = ledger.sql(f"SELECT id, pred_adv = y AS holds, success, linf, within_eps FROM rows WHERE eps = {eps}")
        batch = data.load("digits:", n=60, seed=1)[:]
        expected = dict(zip(batch.ids, _robust(eps).tolist(), strict=True))
        assert not [row["id"] for row in rows if expected[row["id"]] and not row["holds"]]  # no attack beats a proof
        missed = [row["id"] for row in rows if row["holds"] and not expected[row["id"]]]
        assert len(missed) <= 5  # the margin has a kink wherever the second class changes, so PGD may miss a few
        assert all(row["holds"] != row["success"] for row in rows)
        assert all(row["linf"] <= eps + 1e-6 and row["within_eps"] for row in rows)
    assert ledger.missing == 0


def test_one_run_of_a_minimum_size_attack_answers_for_every_size(small: Small, tmp_path: Path) -> None:
    entry = {"name": "deepfool", "norm": "linf", "eps": [0.02, 0.2, 0.1]}
    ledger = run(small(attacks=[entry], gallery=2), tmp_path / "run")
    (cell,) = [cell for cell in ledger.cells if cell["kind"] == "craft"]
    assert cell["about"]["title"] == "deepfool linf at eps 0.2, 0.1, 0.02"
    nearest = {row["id"]: row for row in ledger.sql("SELECT * FROM rows WHERE eps = 0.2")}
    for eps in (0.02, 0.1):
        for row in ledger.sql(f"SELECT * FROM rows WHERE eps = {eps}"):
            best = nearest[row["id"]]
            assert row["success"] == (best["success"] and best["linf"] <= eps * (1 + 1e-4) + 1e-6)
            assert row["linf"] == (best["linf"] if row["pred_adv"] != row["pred_clean"] else 0.0)
            assert row["within_eps"]
        assert len(ledger.sql(f"SELECT DISTINCT id FROM maps WHERE eps = {eps}")) == 60
    assert len(ledger.gallery_ids(cell["key"])) == 4  # twice as many as are shown, so that the report can choose
    robust = {result.eps: result.robust.value for result in attack_results(ledger)}
    assert robust[0.02] >= robust[0.1] >= robust[0.2]
    expected = {eps: float(_robust(eps).double().mean()) for eps in robust}
    assert all(abs(robust[eps] - expected[eps]) <= 0.05 for eps in robust)  # its overshoot is a fiftieth


def test_cost_and_clean_answers_are_measured(small: Small, tmp_path: Path) -> None:
    ledger = run(small(attacks=[{"name": "pgd", "eps": 0.02, "steps": 7}]), tmp_path / "run")
    (row,) = ledger.sql("SELECT DISTINCT forwards, backwards, params FROM rows")
    assert row == {"forwards": 8.0, "backwards": 7.0, "params": '{"steps": 7}'}
    right = int(_robust(0.0).sum())
    assert ledger.sql("SELECT count(*) FILTER (pred = y) AS k, count(*) AS n FROM clean") == [{"k": right, "n": 60}]
    same = "SELECT id FROM rows WHERE pred_adv = pred_clean"
    maps = ledger.sql(f"SELECT min(map_iou) AS iou, max(map_l1) AS l1 FROM maps WHERE id IN ({same})")
    assert maps == [{"iou": 1.0, "l1": 0.0}]  # a linear model's gradient depends on the class alone


def _liar(change: Callable[[Tensor, float], Tensor]) -> Card:
    def liar(model: Any, x: Tensor, y: Tensor, *, goal: Any = None, eps: float = 0.1, generator: Any = None) -> Tensor:
        return change(x, eps)

    return Card("attack", "liar", liar, "none", facts=AttackFacts(goals=("untargeted", "targeted")))


@pytest.mark.parametrize(
    ("change", "in_box", "within"),
    [
        (lambda x, eps: (1 - x).clamp(0, 1), True, False),
        (lambda x, eps: x + (1 - 2 * x) * 3, False, False),
    ],
)
def test_an_attack_that_breaks_its_bounds_has_no_success(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, in_box: bool, within: bool
) -> None:
    monkeypatch.setitem(_CARDS, ("attack", "liar"), _liar(change))
    ledger = run(small(attacks=["liar"]), tmp_path / "run")
    rows = ledger.sql(
        "SELECT bool_or(success) AS success, bool_and(in_box) AS box, bool_or(within_eps) AS eps FROM rows"
    )
    assert rows == [{"success": False, "box": in_box, "eps": within}]
    assert ledger.sql("SELECT count(*) AS n FROM rows WHERE pred_adv <> y")[0]["n"] > 30


def test_an_attack_that_returns_no_numbers_is_named(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_CARDS, ("attack", "liar"), _liar(lambda x, eps: x * torch.nan))
    with pytest.raises(InputError, match="liar linf .* 0.1: .* not finite"):
        run(small(attacks=["liar"]), tmp_path / "run")
    assert [cell["kind"] for cell in Ledger(tmp_path / "run").cells if cell["done"]] == ["clean"]


def test_goals_are_other_classes_and_do_not_depend_on_the_batch() -> None:
    batch = data.load("digits:", n=60, seed=1)[:]
    logits = audit_networks.linear()(batch.x).detach()
    whole = choose_goal("random-target", logits, batch, 0)
    assert whole is not None
    assert not (whole == batch.y).any()
    assert len(whole.unique()) == 10
    part = batch.take(torch.arange(30, 60))
    assert torch.equal(whole[30:], choose_goal("random-target", logits[30:], part, 0))  # type: ignore[arg-type]
    assert not torch.equal(whole, choose_goal("random-target", logits, batch, 1))  # type: ignore[arg-type]
    least = choose_goal("least-likely", logits, batch, 0)
    assert least is not None
    expected = [
        min((k for k in range(10) if k != y), key=row.__getitem__)
        for row, y in zip(logits.tolist(), batch.y.tolist(), strict=True)
    ]
    assert least.tolist() == expected


def test_a_second_run_skips_what_is_there(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    first = run(small(), tmp_path / "run", progress=events.append)
    assert {"pgd linf", "gradient"} < {cost.label for cost in events[0].costs}  # an estimate
    assert replace(events[0], costs=()) == Event(
        0, 360, 0, 10, 0, ""
    )  # clean, two attacks, three sets of maps; measures ask no model
    assert (events[-1].done, events[-1].cells, events[-1].share) == (360, 10, pytest.approx(1))
    assert [event.share for event in events] == sorted(event.share for event in events)
    events.clear()
    again = run(small(), tmp_path / "run", progress=events.append)
    assert events == [Event(0, 0, 0, 0, 10, "")]
    assert _contents(again) == _contents(first)
    assert capsys.readouterr() == ("", "")


def test_shards_and_seeds_add_up(small: Small, tmp_path: Path) -> None:
    ledger = run(small(shard_size=25, seeds=[0, 1]), tmp_path / "run")
    whole = data.load("digits:", n=60, seed=1)[:]
    for seed in (0, 1):
        found = ledger.sql(f"SELECT id FROM rows WHERE seed = {seed} AND eps = 0.1 ORDER BY id")
        assert [row["id"] for row in found] == sorted(whole.ids)


def test_workers_use_no_more_threads_than_this_process_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underfire.audit.executors.cores", lambda: 8)
    before = torch.get_num_threads()
    try:
        for allowed, workers, expected in ((1, 1, 1), (8, 2, 4), (8, 16, 1), (3, 2, 3)):
            torch.set_num_threads(allowed)  # as OMP_NUM_THREADS does
            assert threads_per_worker(workers) == expected
    finally:
        torch.set_num_threads(before)


class Backwards(Executor):
    """A cluster: cells come back in another order, computed from what was sent over a wire."""

    def map(self, work: Callable[[Cell], Cell], ready: Callable[[], Sequence[Cell]]) -> Iterator[Cell]:
        import pickle

        waiting = list(ready())
        while waiting:
            elsewhere, there = pickle.loads(pickle.dumps((work, waiting.pop())))
            yield elsewhere(there)
            waiting += ready()


@pytest.mark.slow
def test_any_executor_gives_the_same_ledger(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = {"defenses": [{"name": "resize_and_pad", "keep_size": True}, {"name": "bit_depth", "bits": 2}]}
    others = {"sources": ["python:audit_networks:linear", "python:audit_networks:narrow"], "victims": [padded]}
    spec = small(shard_size=30, masking=True, **others)
    here = run(spec, tmp_path / "here")
    assert len(_contents(here)["transfer"]) > 0
    assert _contents(run(spec, tmp_path / "cluster", executor=Backwards())) == _contents(here)
    monkeypatch.setattr("underfire.audit.executors._PATIENCE", 0.0)  # a job that takes long from its first cell on
    monkeypatch.setattr("underfire.audit.executors.cores", lambda: 2)
    assert _contents(run(spec, tmp_path / "workers", workers=None)) == _contents(here)


def test_the_number_of_workers_chooses_the_executor(small: Small) -> None:
    chosen = choose_executor(small(), 2)
    assert isinstance(chosen, LocalProcesses)
    assert chosen.workers == 2
    assert isinstance(choose_executor(small(), None), AutoExecutor)
    assert isinstance(choose_executor(small(), 0), InProcess)


@pytest.mark.slow
def test_a_worker_that_dies_is_said_in_one_line(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match="a worker process died"):
        run(small(model="python:audit_networks:dies_in_a_worker"), tmp_path / "run", workers=1)
    assert Ledger(tmp_path / "run").missing == 10


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_same_error(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="^clean images: .* returns NaN"):
        run(small(model="python:audit_networks:not_finite_in_a_worker"), tmp_path / "run", workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["one", "two"])
def test_a_worker_has_the_environment_of_its_run(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """And not that of the time at which the process began that workers are copies of."""
    monkeypatch.setenv("UNDERFIRE_OF_A_TEST", value)
    cells = iter([["UNDERFIRE_OF_A_TEST"]])
    with LocalProcesses(1) as executor:
        assert list(executor.map(os.getenv, lambda: next(cells, []))) == [value]


_SCRIPT = """
import multiprocessing, sys
sys.path.append({tests!r})
from underfire.audit.run import run
from underfire.audit.spec import parse_spec

def tell(event):
    print(event.cells, *(child.pid for child in multiprocessing.active_children()), flush=True)
    if event.cells >= 5:
        sys.stdin.read()  # waits to be killed; a worker works on

if __name__ == "__main__":
    run(parse_spec({content!r}), {out!r}, workers={workers}, progress=tell)
"""


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_run_continues(
    small: Small, content: Callable[..., dict[str, Any]], tmp_path: Path, workers: int
) -> None:
    many = content(attacks=[{"name": "pgd", "eps": [i / 40 for i in range(1, 7)]}], shard_size=30)
    script = tmp_path / "script.py"
    out = tmp_path / "run"
    script.write_text(_SCRIPT.format(tests=str(Path(__file__).parent), content=many, out=str(out), workers=workers))
    process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    children: set[int] = set()
    for line in process.stdout:
        done, *pids = map(int, line.split())
        children.update(pids)
        if done >= 5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert len(children) == workers
    deadline = time.monotonic() + 30
    while not all(map(_gone, children)):
        assert time.monotonic() < deadline, "a worker outlived the run"
        time.sleep(0.05)
    left = Ledger(out)
    assert left.missing > 0
    from underfire.audit.spec import parse_spec

    events: list[Event] = []
    ledger = run(parse_spec(many), out, progress=events.append)
    assert events[0].skipped == left.planned - left.missing >= 3
    assert ledger.missing == 0
    assert _contents(ledger) == _contents(run(parse_spec(many), tmp_path / "whole"))


def test_two_runs_in_one_folder_do_not_disturb_each_other(small: Small, tmp_path: Path) -> None:
    inner: list[Ledger] = []

    def other(event: Event) -> None:
        if event.cells == 3:
            inner.append(run(small(), tmp_path / "run"))  # finishes while this one is in the middle

    outer = run(small(), tmp_path / "run", progress=other)
    assert outer.missing == 0
    assert _contents(outer) == _contents(inner[0]) == _contents(run(small(), tmp_path / "alone"))


def test_a_full_disk_in_the_middle(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = backends._write, [8]

    def full(place: Path, content: bytes) -> None:
        write(place, content)
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backends, "_write", full)
    with pytest.raises(DiskFull, match="no space left"):
        run(small(), tmp_path / "run")
    monkeypatch.undo()
    after = Ledger(tmp_path / "run")
    assert 0 < after.missing < after.planned
    assert not list((tmp_path / "run").rglob(".part*"))
    assert _contents(run(small(), tmp_path / "run")) == _contents(run(small(), tmp_path / "other"))


def test_a_folder_that_cannot_be_written(small: Small, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LedgerError, match="cannot write to .*file/run"):
        run(small(), tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_other_things_is_refused(small: Small, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LedgerError, match="contains files but no run"):
        run(small(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
