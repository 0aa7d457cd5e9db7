"""A ramp of eps: clean images first, then an inner attack that grows to its full size."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import torch

import underfire as uf
from tests.networks import half_space, rand, seeded
from tests.training.toys import X, Y, close, network, plan
from underfire.errors import InputError, Unsupported
from underfire.training import TrainingStep, inner_attack

EPS = 0.1


@pytest.mark.parametrize("method", ["adversarial", "trades", "ig_norm", "ig_sum_norm"])
def test_up_to_the_ramp_the_training_is_the_standard_one(method: str) -> None:
    options: dict[str, Any] = {"eps": EPS, "steps": 2, "plan": plan(epochs=2)}
    made = uf.find("training", method)(network(), (X, Y), ramp=(1.0, 1.0), **options)
    assert close(made, uf.training.standard(network(), (X, Y), plan=plan(epochs=2)))


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("trades", "trades.craft"),
        ("ig_sum_norm", "integrated_gradients_norm.regularised.worst_attribution"),
        ("interpretability_aware", "interpretability_aware.training.craft"),
    ],
)
def test_the_step_of_an_attack_grows_with_its_eps(method: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four batches, two are clean, the third is attacked at half of eps, and the fourth at eps."""
    module, name = place.rsplit(".", 1)
    home = importlib.import_module(f"underfire.training.{module}")
    craft, given = getattr(home, name), list[tuple[float, float]]()

    def noted(*values: Any, **named: Any) -> Any:
        bound = inspect.signature(craft).bind(*values, **named).arguments
        given.append((bound["eps"], bound["step_size"]))
        return craft(*values, **named)

    monkeypatch.setattr(home, name, noted)
    options: dict[str, Any] = {"interpreter": "gradient"} if method == "interpretability_aware" else {}
    options |= {"eps": EPS, "steps": 5, "ramp": (0.25, 0.75), "plan": plan(batch_size=3)}
    uf.find("training", method)(network(), (X, Y), **options)
    assert [value for pair in given for value in pair] == pytest.approx([EPS / 2, EPS / 4, EPS, EPS / 2])


def test_the_attack_grows_with_the_ramp() -> None:
    """Against a half-space, FGSM moves every pixel by exactly its eps."""
    w = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64).reshape(1, 2, 2)
    model, x, y = (
        uf.Classifier(half_space(w)),
        0.3 + 0.4 * rand(3, 1, 2, 2, dtype=torch.float64),
        torch.tensor([0, 1, 0]),
    )
    craft = inner_attack("fgsm", ramp=(0.25, 0.75), eps=EPS)
    sizes = [float((craft(TrainingStep(model, x, y, n, 8, seeded())) - x).abs().max()) for n in range(9)]
    assert sizes == pytest.approx([0, 0, 0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"ramp": (0.5, 0.2)}, InputError, "ramp must be two shares"),
        ({"ramp": (0.0, 1.5)}, InputError, "ramp must be two shares"),
        ({"attack": lambda model, x, y: x, "ramp": (0.0, 0.5)}, Unsupported, "has its own eps"),
        ({"attack": "deepfool", "eps": None, "ramp": (0.0, 0.5)}, Unsupported, "deepfool has no eps"),
    ],
)
def test_a_ramp_that_cannot_be_is_said_in_one_line(options: dict[str, Any], error: Any, named: str) -> None:
    attack = options.pop("attack", "pgd")
    with pytest.raises(error, match=named):
        inner_attack(attack, **{"eps": EPS, **options})
