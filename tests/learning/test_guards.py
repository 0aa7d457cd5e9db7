"""Guards of the loop: the best weights by a metric, and a model that hides its gradient from a weak attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tests.networks import rand
from underfire.errors import DataError, InputError
from underfire.learning import (
    AttackedAccuracy,
    Average,
    Checkpoint,
    Guard,
    KeepBest,
    MaskingGuard,
    Outcome,
    Report,
    fit,
)

NAN = float("nan")


def run(
    metrics: list[dict[str, float]], guards: list[Guard], kill: int = -1, **options: Any
) -> tuple[float, Outcome, list[float]]:
    """Train a weight that grows by one in every step of SGD, with given metrics.

    Returns:
        The weight at the end, the outcome, and the weight at each validation.
    """
    net, seen = nn.Linear(1, 1, bias=False), list[float]()
    with torch.no_grad():
        net.weight.zero_()
    step = 0

    def loss(batch: int, _: Generator) -> Tensor:
        nonlocal step
        step = batch
        return -net.weight.sum()

    def validate() -> dict[str, float]:
        seen.append(float(net.weight.detach()))
        return metrics[step]

    def progress(done: int, _: int) -> None:
        if done == kill:
            raise InterruptedError

    sgd = torch.optim.SGD(net.parameters(), 1.0)
    options |= {"validate": validate, "guards": guards, "progress": progress}
    outcome = fit(net, sgd, lambda step, _: step, loss, steps=len(metrics), **options)
    return float(net.weight.detach()), outcome, seen


def named(*values: float) -> list[dict[str, float]]:
    """Metrics of one name."""
    return [{"robust": value} for value in values]


@pytest.mark.parametrize(
    ("values", "options", "best", "steps"),
    [
        ((0.2, 0.5, 0.4, 0.5, 0.3, 0.9), {"patience": 3}, 2, 5),  # an equal value is not better
        ((0.2, 0.5, 0.4, 0.5, 0.3, 0.9), {}, 6, 6),
        ((0.2, 0.5, NAN, 0.6, 0.3, 0.1), {"patience": 3}, 4, 6),
        ((3.0, 2.0, 2.5, 4.0), {"smallest": True, "patience": 9}, 2, 4),
        ((NAN, NAN), {"patience": 2}, 2, 2),
    ],
)
def test_the_best_weights_are_kept(values: Any, options: Any, best: int, steps: int, tmp_path: Path) -> None:
    weight, outcome, _ = run(named(*values), [KeepBest("robust", **options)])
    assert (weight, outcome.steps) == (best, steps)
    assert outcome.stopped == (steps < len(values) or len(values) == 2) == bool(outcome.notes)
    if steps == 5:
        assert "0.5 after step 2" in outcome.notes[0]
        checkpoint = Checkpoint(tmp_path / "state", every=2)
        for kill in (1, 3, 4):
            with pytest.raises(InterruptedError):
                run(named(*values), [KeepBest("robust", **options)], kill, checkpoint=checkpoint)
        for _ in range(2):  # the second run has nothing left to do
            weight, outcome, seen = run(named(*values), [KeepBest("robust", **options)], checkpoint=checkpoint)
            assert (weight, outcome.steps, outcome.stopped) == (2, 5, True)
        assert seen == []


def test_the_best_weights_are_those_that_were_measured() -> None:
    """Of a network with a moving average: half the old average and half the weight, 1, 2, …"""
    options: dict[str, Any] = {"average": Average(0.5, warm_up=False)}
    weight, _, seen = run(named(0.1, 0.9, 0.2), [KeepBest("robust")], **options)
    assert seen == [0.5, 1.25, 2.125] and weight == 1.25


def gaps(*strong: float) -> list[dict[str, float]]:
    """Metrics with an accuracy of 0.9 under the weak attack."""
    return [{"weak": 0.9, "strong": value} for value in strong]


STRONG = (0.8, 0.75, 0.1, 0.8, 0.6, 0.8)


@pytest.mark.parametrize(
    ("options", "weight", "steps"),
    [
        ({"then": "say"}, 6, 6),
        ({"then": "stop"}, 2, 3),
        ({"then": "go_back"}, 2 + 1 + 1, 6),  # after the third and the fifth step
        ({"then": "go_back", "limit": 1}, 3, 5),
        ({"then": "go_back", "gap": 0.5}, 2 + 3, 6),
    ],
)
def test_a_gap_between_two_attacks_is_noticed(options: Any, weight: float, steps: int, tmp_path: Path) -> None:
    told = list[Report]()
    found, outcome, _ = run(gaps(*STRONG), [MaskingGuard("weak", "strong", **options)], watch=told.append)
    assert (found, outcome.steps, outcome.stopped) == (weight, steps, steps < 6)
    assert "after step 3, weak is 0.9, and strong 0.1" in outcome.notes[0]
    assert [bool(report.notes) for report in told][:5] == [False, False, True, False, "gap" not in options][:steps]
    checkpoint = Checkpoint(tmp_path / "state", every=2)
    for kill in (2, steps - 1):
        with pytest.raises(InterruptedError):
            run(gaps(*STRONG), [MaskingGuard("weak", "strong", **options)], kill, checkpoint=checkpoint)
    found, outcome, _ = run(gaps(*STRONG), [MaskingGuard("weak", "strong", **options)], checkpoint=checkpoint)
    assert (found, outcome.steps) == (weight, steps)


def test_without_a_good_validation_the_first_weights_return() -> None:
    weight, outcome, _ = run(gaps(0.0, 0.0), [MaskingGuard("weak", "strong", then="stop")])
    assert weight == 0 and "after step 0" in outcome.notes[0]


def test_the_memory_of_the_optimiser_goes_back_too() -> None:
    """After momentum that is lost, the next step has the length of the first one again."""
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.zero_()
    sgd, seen = torch.optim.SGD(net.parameters(), 1.0, momentum=0.5), list[float]()

    def validate() -> dict[str, float]:
        seen.append(float(net.weight.detach()))
        return gaps(0.0, 0.9, 0.0)[len(seen) - 1]

    guards = [MaskingGuard("weak", "strong", then="go_back")]
    options: dict[str, Any] = {"validate": validate, "guards": guards}
    fit(net, sgd, lambda step, _: step, lambda *_: -net.weight.sum(), steps=3, **options)
    assert seen == [1.0, 1.0, 2.5] and float(net.weight.detach()) == 1.0


def test_the_accuracy_of_a_linear_model_has_a_closed_form() -> None:
    """The sign of a pixel is the class: a step of eps moves a pixel beyond zero if it is nearer than eps."""
    x = (rand(50, 1, 1, 1, seed=3) - 0.5).double()
    y = (x.flatten() > 0).long()
    y[:10] = 1 - y[:10]  # wrong labels
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False, dtype=torch.float64)).train()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    modes = []

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        modes.append(model.training)
        return x - 0.2 * (2 * y.view(-1, 1, 1, 1) - 1)

    found = AttackedAccuracy(x, y, {"one step": step}, chunk=7)(net)
    kept = float((x[10:].abs() > 0.2).sum()) / 50
    assert found == {"accuracy": 0.8, "accuracy under one step": kept} and 0 < kept < 0.8
    assert net.training and not any(modes) and len(modes) == 8


def test_wrong_settings() -> None:
    with pytest.raises(InputError, match="'robus' .* 'robust'"):
        run(named(0.1), [KeepBest("robus")])
    for make in (
        lambda: KeepBest("robust", patience=0),
        lambda: MaskingGuard(then="cry"),  # type: ignore[arg-type]
        lambda: MaskingGuard(gap=-1),
        lambda: AttackedAccuracy(torch.rand(2, 1, generator=Generator()), torch.tensor([0])),
        lambda: AttackedAccuracy(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)),
    ):
        with pytest.raises((InputError, DataError)):
            make()
    net = nn.Linear(1, 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(InputError, match="validate"):
        fit(net, sgd, lambda step, _: step, lambda *_: net.weight.sum(), steps=1, guards=[Guard()])
