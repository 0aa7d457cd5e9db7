"""A training in two processes reaches the weights of a training in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.learning import two_processes
from underfire.errors import InputError, MissingExtra
from underfire.learning import Computation, Processes, read_facts, read_json_lines, read_tensors, start_processes


@pytest.mark.slow
def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    """The second process is started by the same command; the training goes on from a checkpoint of one process."""
    pytest.importorskip("lightning_fabric", reason="needs Lightning Fabric")
    one, two = tmp_path / "one", tmp_path / "two"
    wanted = two_processes.trained(Computation(), one).state_dict()
    with pytest.raises(InterruptedError):
        two_processes.trained(Computation(), two, kill=3)
    command = [sys.executable, two_processes.__file__, str(two)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    (first, facts), (second, _) = (read_tensors(two / f"weights{rank}") for rank in (0, 1))
    assert facts["count"] == "2" and read_facts(two / "state")["step"] == "7"
    for name, weight in wanted.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], weight, rtol=0, atol=1e-12), name
    ledgers = [read_json_lines(folder / "ledger.jsonl") for folder in (one, two)]
    assert [line["step"] for line in ledgers[1]] == [*range(1, 8)]
    for ours, theirs in zip(*ledgers, strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-12)


def test_every_row_belongs_to_one_process() -> None:
    for rows in (0, 1, 7, 8):
        parts = [range(*Processes(rank, 3).rows(rows)) for rank in range(3)]
        assert [row for part in parts for row in part] == [*range(rows)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_process_draws_other_numbers_and_one_alone_the_usual_ones() -> None:
    shared = torch.Generator().manual_seed(5)
    assert Processes().generator(shared, 1) is shared and Processes().seed(2**63 + 4) == 4
    draws = [torch.rand(3, generator=Processes(rank, 2).generator(shared, 9)) for rank in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_wrong_number_of_devices_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "lightning_fabric", None)
        with pytest.raises(MissingExtra, match="pip install lightning"):
            start_processes()
    pytest.importorskip("lightning_fabric", reason="needs Lightning Fabric")
    with pytest.raises(InputError, match="devices=0"):
        start_processes(0, accelerator="cpu")
