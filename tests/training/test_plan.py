"""Options of a plan that belong to the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.training.toys import X, Y, close, network, plan
from underfire.errors import InputError, Unsupported
from underfire.learning import AttackedAccuracy, KeepBest, Processes, Report


def test_gradients_of_parts_and_an_average_reach_the_weights_of_the_plan() -> None:
    usual = uf.training.standard(network(), (X, Y), plan=plan())
    assert close(usual, uf.training.standard(network(), (X, Y), plan=plan(accumulate=3)))
    assert not close(usual, uf.training.standard(network(), (X, Y), plan=plan(average=0.5)))
    assert close(usual, uf.training.standard(network(), (X, Y), plan=plan(average=1e-12)))


def test_every_epoch_the_classifier_is_measured_under_attack() -> None:
    told: list[Report] = []
    modes: list[bool] = []

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        modes.append(model.training)
        return torch.zeros_like(x)

    measure = AttackedAccuracy(X, Y, {"erasure": attack})
    options: dict[str, Any] = {"validate": measure, "guards": [KeepBest("accuracy")], "watch": [told.append]}
    made = uf.training.standard(network(), (X, Y), plan=plan(epochs=3, **options))
    found = [report.metrics for report in told if report.metrics]
    assert len(found) == len(modes) == 3 and not any(modes)
    assert measure(made)["accuracy"] == max(metrics["accuracy"] for metrics in found)


def test_what_a_method_or_the_loop_does_not_do_is_refused() -> None:
    for changes in ({"accumulate": 2}, {"processes": Processes(0, 2)}):
        with pytest.raises(Unsupported, match="free .* accumulate=1"):
            uf.training.free(network(), (X, Y), plan=plan(**changes))
    for changes in ({"accumulate": 0}, {"average": 1.0}, {"precision": "half"}, {"validate_every": 0}):
        with pytest.raises(InputError):
            plan(**changes)
