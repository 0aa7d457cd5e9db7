"""The runs that the masking checks compare: of the checked attack at several budgets, of attacks without a gradient.

Every run answers for the same images, so that `underfire.audit.masking` can compare any two of them image by image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from underfire.ascent.step import succeeded
from underfire.ascent.threats import ball
from underfire.domains import domain_of
from underfire.errors import Unsupported
from underfire.gradients.estimators import nes
from underfire.hooks import frozen
from underfire.measures.prediction import margin

RESTARTS, NOISES = 5, 20
"""The number of restarts of the run with restarts, and the number of draws of random noise."""

MARGIN, CROSS_ENTROPY, NOISE = "margin", "cross_entropy", "noise"
"""The runs that do not attack: does an image have a gradient of this loss, does random noise change its class?"""

_NES_STEPS, _NES_SAMPLES = 10, 20
_LONG = 40  # the least number of steps of the run without a bound


@dataclass(frozen=True)
class Budget:
    """The budget of the attack that is checked: its size in its norm, its steps, and the seed of its random numbers."""

    norm: str
    eps: float
    steps: int
    seed: int = 0


def options_of_runs(budget: Budget, largest: float) -> dict[str, dict[str, Any]]:
    """Return the options of the attack in each of its runs, in place of those of its own budget, by name.

    Args:
        budget: the budget of the attack in the audit.
        largest: the size at which the attack has no bound (`diameter`).
    """
    eps, steps = budget.eps, budget.steps
    fewer = {f"steps {n}": {"steps": n} for n in (1, max(1, steps // 4)) if n < steps}
    return {
        "nes": {"steps": _NES_STEPS, "step_size": None, "estimate": None},
        "own": {},
        **fewer,
        "half": {"eps": eps / 2},
        "twice": {"eps": min(2 * eps, largest)},
        "unbounded": {"eps": largest, "steps": max(steps, _LONG), "step_size": None},
        "restarts": {"restarts": RESTARTS},
    }


def names(budget: Budget) -> list[str]:
    """Return the names of all runs, the longest first if a step takes a forward and a backward pass."""
    found = [*options_of_runs(budget, 0.0), NOISE, MARGIN, CROSS_ENTROPY]
    return sorted(found, key=lambda name: -(2 * budget.steps * length(name, budget) + sum(passes(name))))


def length(name: str, budget: Budget) -> float:
    """Return the steps of a run in units of those of the attack with its own budget; 0 for one that takes no steps."""
    options = options_of_runs(budget, 0.0).get(name)
    if options is None or name == "nes":
        return 0.0
    return float(options.get("restarts", 1) * options.get("steps", budget.steps) / budget.steps)


def passes(name: str) -> tuple[int, int]:
    """Return the forward and backward passes of a run for one image, beside the steps that `length` counts."""
    forwards = {"nes": 2 * _NES_SAMPLES * _NES_STEPS, NOISE: NOISES, MARGIN: 1, CROSS_ENTROPY: 1}.get(name, 1)
    return forwards + 1, int(name in (MARGIN, CROSS_ENTROPY))  # one more finds the images that are right


def with_step_size(attack: Callable[..., Tensor], options: Container[str]) -> Callable[..., Tensor]:
    """Return the attack with an option `step_size`; an attack that has only `step_rule` gets the value as that."""
    if "step_size" in options:
        return attack

    def renamed(*inputs: Any, **given: Any) -> Tensor:
        return attack(*inputs, **{"step_rule" if key == "step_size" else key: value for key, value in given.items()})

    return renamed


def probe(
    name: str, model: nn.Module, x: Tensor, y: Tensor, *, attack: Callable[..., Tensor], budget: Budget
) -> Tensor:
    """Return the answer of one run for each image that the model classifies correctly, bool `[right images]`.

    It is whether the attack or the noise fools the image; for `MARGIN` and `CROSS_ENTROPY`, whether the image has a
    gradient. Where no image has a gradient and the attack refuses the model for it, it fools none.

    Args:
        name: one of `names(budget)`.
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: clean images.
        y: labels, int64 `[B]`.
        attack: `(model, x, y, *, eps, steps, step_size, restarts, estimate, keep, generator) -> x'`, such as
            `attacks.pgd`.
        budget: the budget of the attack in the audit.
    """
    right = ~_wrong(model, x, y)
    x, y = x[right], y[right]
    if len(x) == 0:
        return right[:0]
    if name == MARGIN:
        return _has_gradient(model, x, y, margin)
    if name == CROSS_ENTROPY:
        return _has_gradient(model, x, y, partial(cross_entropy, reduction="none"))
    if name == NOISE:
        return _noise(model, x, y, budget)
    options = options_of_runs(budget, diameter(model, x, budget.norm, budget.eps))[name]
    if name == "nes":
        entry = budget.eps / ball(budget.norm, 0.0).largest(x)  # the change if all entries change equally
        options = options | {"estimate": nes(samples=_NES_SAMPLES, sigma=max(entry / 2, 1e-3))}
    generator = torch.Generator(x.device).manual_seed(budget.seed)
    own = {"eps": budget.eps, "steps": budget.steps, "restarts": 1, "keep": "success", "generator": generator}
    try:
        return _wrong(model, attack(model, x, y, **own | options), y)
    except Unsupported:
        if bool(_has_gradient(model, x, y, margin).any()):
            raise
        return torch.zeros_like(y, dtype=torch.bool)


def diameter(model: nn.Module, x: Tensor, norm: str, eps: float) -> float:
    """Return the size at which the ball around each of `x` contains every input of the model."""
    largest = ball(norm, 0.0).in_domain(domain_of(model)).largest(x)
    return largest if math.isfinite(largest) else 1000 * eps


def _has_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor]) -> Tensor:
    """Return which images have a gradient of the loss that is finite and not zero, bool `[B]`."""
    with frozen(model), torch.enable_grad():
        z = x.detach().clone().requires_grad_(True)
        value = loss(model(z), y).sum()
        g = torch.autograd.grad(value, z, allow_unused=True)[0] if value.requires_grad else None
    if g is None:
        return torch.zeros_like(y, dtype=torch.bool)
    steepest = g.flatten(1).abs().amax(1)  # amax of a NaN is NaN
    return (steepest > 0) & steepest.isfinite()


@torch.no_grad()
def _noise(model: nn.Module, x: Tensor, y: Tensor, budget: Budget) -> Tensor:
    """Return which images at least one draw of random noise fools, bool `[B]`."""
    generator = torch.Generator(x.device).manual_seed(budget.seed)
    threat = ball(budget.norm, budget.eps).in_domain(domain_of(model))
    draws = [_wrong(model, threat.random_start(x, generator), y) for _ in range(NOISES)]
    return torch.stack(draws).any(0)


@torch.no_grad()
def _wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which images the model classifies wrongly, bool `[B]`."""
    with frozen(model):
        return succeeded(model(x), y, None)
