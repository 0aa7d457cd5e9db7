"""No step of ADV² waits for the device: it reads no number back, and selects no rows by a mask."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import underfire as uf
from tests.attacks.adv2.conftest import Case
from underfire.data import Dataset
from underfire.errors import ModelError
from underfire.testing.interpreter import KnownImages

WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nonzero")


class Waits(TorchDispatchMode):
    """Count the operations for whose results the host would wait: reads of numbers, and indexing by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.strip("_").startswith("index") and isinstance(args[1], (list, tuple)) else ()
        masks = [i for i in indices if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)]
        self.count += name in WAITING or bool(masks)
        return func(*args, **(kwargs or {}))


def waits_of_a_step(
    small: Case, goal: torch.Tensor | None, attack: Callable[..., torch.Tensor] = uf.attacks.adv2, **options: Any
) -> int:
    """Return how often a run of six steps waits more than one of five."""
    counts = []
    for steps in (5, 5, 6):  # the first run finds out what the model is like
        with Waits() as seen:
            if "warm_steps" in inspect.signature(attack).parameters:
                options["warm_steps"] = steps
            attack(small.model, small.x, small.y, goal=goal, steps=steps, **options)
        counts.append(seen.count)
    return counts[2] - counts[1]


NAMES = ("cam", "grad_cam", "grad_cam_pp", "gradient", "gradient_input", "guided_backprop", "integrated_gradients")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "mask", "rts", "smooth_grad"])
def test_a_step_on_an_interpreter(small: Case, name: str) -> None:
    card = uf.find("interpreter", name)
    interpreter = card.with_options(**{"steps": 2} if name == "mask" else {})
    if card.fitted:
        interpreter.fit(small.model, Dataset("known", KnownImages()), selector_steps=2, steps=1, batch_size=4)
    assert waits_of_a_step(small, small.goal, interpreter=interpreter, eps=0.1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("flow", 1.0), ("patch", 0.2)])
def test_a_step_on_a_threat(small: Case, norm: str, eps: float) -> None:
    assert waits_of_a_step(small, None, interpreter=uf.interpreters.cam, norm=norm, eps=eps) == 0


@pytest.mark.parametrize("name", ["adv2_squeezing", "explanation_and_prediction", "explanation_only"])
def test_a_step_of_its_relatives(small: Case, name: str) -> None:
    goal = None if name == "explanation_only" else small.goal
    assert waits_of_a_step(small, goal, getattr(uf.attacks, name), interpreter=uf.interpreters.cam, eps=0.1) == 0


def test_a_step_on_several_interpreters(small: Case) -> None:
    several = ("cam", "gradient")
    assert waits_of_a_step(small, small.goal, uf.attacks.adv2_ensemble, interpreters=several, eps=0.1) == 0


def test_a_wait_is_seen(small: Case) -> None:
    def waiting(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert float(x.detach().sum()) > 0
        return uf.interpreters.cam(model, x, y)

    assert waits_of_a_step(small, small.goal, interpreter=waiting) == 1


def test_a_map_that_becomes_nan_in_a_step_is_reported_at_the_end(small: Case) -> None:
    calls: list[int] = []

    def spoil(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(len(output))
        return output * float("nan") if len(calls) > 6 else output

    handle = small.model.module[3].register_forward_hook(spoil)
    try:
        with pytest.raises(ModelError, match="NaN"):
            uf.attacks.adv2(
                small.model, small.x, small.y, goal=small.goal, interpreter=uf.interpreters.cam, warm_steps=0, steps=20
            )
    finally:
        handle.remove()
