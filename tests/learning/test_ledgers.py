"""What a training reports, in JSON lines, TensorBoard and MLflow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests.networks import rand
from underfire.errors import InputError, MissingExtra
from underfire.learning import Checkpoint, JsonLines, MLflow, Report, TensorBoard, fit, read_json_lines

REPORTS = [
    Report(1, 3, (torch.tensor(2.0),), 0.1),
    Report(2, 3, (torch.tensor(1.5),), 0.1, {"accuracy": 0.5, "loss of the test": float("nan")}, ("it fell",)),
    Report(3, 3, (torch.tensor(1.0), torch.tensor(3.0)), 0.2),
]


def test_a_line_is_a_report(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    write = JsonLines(path, every=3)
    for report in REPORTS:
        write(report)
    one, two = read_json_lines(path)
    assert one == {
        "step": 2,
        "steps": 3,
        "losses": [1.5],
        "rate": 0.1,
        "metrics": {"accuracy": 0.5, "loss of the test": None},
        "notes": ["it fell"],
    }
    assert two["step"] == 3 and two["losses"] == [1.0, 3.0] and two["metrics"] == {}


def test_steps_that_a_continued_training_repeats_have_one_line(tmp_path: Path) -> None:
    """It is killed before step 6, and the last checkpoint is that after step 4."""
    path = tmp_path / "ledger.jsonl"

    def train(kill: int) -> None:
        net = nn.Linear(3, 1)
        with torch.no_grad():
            net.weight.fill_(1.0)

        def progress(done: int, _: int) -> None:
            if done == kill:
                raise InterruptedError

        sgd = torch.optim.SGD(net.parameters(), 0.1)
        checkpoint = Checkpoint(tmp_path / "state", every=4)
        options: dict[str, Any] = {"checkpoint": checkpoint, "progress": progress}
        loss = lambda x, _: net(x).square()  # noqa: E731
        fit(net, sgd, lambda step, _: rand(4, 3, seed=step), loss, steps=8, watch=JsonLines(path), **options)

    with pytest.raises(InterruptedError):
        train(kill=6)
    with path.open("a") as file:
        file.write('{"step": 7, "st')  # a line that was not finished
    killed = read_json_lines(path)
    assert [line["step"] for line in killed] == [1, 2, 3, 4, 5, 6]
    train(kill=-1)
    found = read_json_lines(path)
    assert [line["step"] for line in found] == [*range(1, 9)] and found[:6] == killed


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text('{"step": 1}\nmilk\n')
    with pytest.raises(InputError, match="line 2"):
        JsonLines(path)(REPORTS[0])
    assert path.read_text() == '{"step": 1}\nmilk\n'
    with pytest.raises(InputError, match="every"):
        JsonLines(path, every=0)


class Recorder:
    """A package that writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **options: Any) -> Recorder:
            self.calls.append((name, *values, options))
            return self

        return call


def test_tensorboard_gets_every_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, writer = ModuleType("torch.utils.tensorboard"), Recorder()
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    module.SummaryWriter = writer.SummaryWriter  # type: ignore[attr-defined]
    write = TensorBoard(tmp_path)
    for report in REPORTS[1:]:
        write(report)
    made, *calls = writer.calls
    assert made == ("SummaryWriter", str(tmp_path), {"purge_step": 2})
    assert ("add_scalar", "loss", 1.5, 2, {}) in calls and ("add_scalar", "accuracy", 0.5, 2, {}) in calls
    assert ("add_text", "notes", "it fell", 2, {}) in calls and ("add_scalar", "loss/1", 3.0, 3, {}) in calls
    assert calls.count(("flush", {})) == 2


def test_mlflow_gets_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", package)
    write = MLflow("trades")
    write(REPORTS[1])
    made, numbers, tag = package.calls
    assert made == ("set_experiment", "trades", {}) and tag == ("set_tag", "note.2", "it fell", {})
    assert numbers[0] == "log_metrics" and numbers[2] == {"step": 2}
    assert json.dumps(numbers[1]) == '{"loss": 1.5, "rate": 0.1, "accuracy": 0.5, "loss of the test": NaN}'


@pytest.mark.parametrize("make", [lambda: TensorBoard("runs"), MLflow])
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    for name in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match="pip install (tensorboard|mlflow)"):
        make()
