"""Masking checks: does an attack fail because the model is robust, or because its gradient is masked?

The checks follow Carlini et al., On Evaluating Adversarial Robustness, 2019, section 4, and Athalye et al., Obfuscated
Gradients Give a False Sense of Security, ICML 2018, section 3.1. All attacks run on the same images, which the model
classifies correctly. Two attacks are compared by a sign test over the images that only one of them fools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from underfire.ascent.step import succeeded
from underfire.ascent.threats import ball
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.catalog import find
from underfire.domains import domain_of
from underfire.errors import Unsupported
from underfire.gradients.estimators import nes
from underfire.hooks import frozen
from underfire.measures.prediction import margin
from underfire.records import Check

IMAGES = 50
"""The number of images that the checks use: enough to detect a masked gradient, few enough to be cheap."""

BLIND = frozenset({"gradients", "more_steps", "larger_eps", "unbounded_eps", "beats_noise", "beats_black_box"})
"""The checks whose failure says that the attack was blind; if another check fails, the attack may be too weak."""

NOISE, NES = "random noise", "NES"
"""The names of the attacks without a gradient that the checks run."""

NES_PASSES = 10 * 2 * 20 + 20
"""The forward passes for one image of the check with NES, and of the random noise."""

_SIGNIFICANCE = 0.05  # significance level of the sign test
_DEAD = 0.05  # largest share of images without a gradient
_RESTARTS, _GAIN = 5, 0.1  # number of restarts, and the largest share of images that only they may fool
_NOISES = 20  # number of draws of random noise


@dataclass(frozen=True)
class Budget:
    """The budget of the attack that is checked: its size in its norm, its steps, and the seed of its random numbers."""

    norm: str
    eps: float
    steps: int
    seed: int = 0


def subject(spec: AuditSpec) -> AttackSpec:
    """Return the attack to check.

    It is the first untargeted attack with a size above 0 that follows the gradient and has all the options that
    `checks` sets; without one, it is PGD in the first norm of the spec that PGD has, at the sizes of that attack.
    """
    needed = {"estimate", "steps", "restarts", "keep"}
    attacked = [entry for entry in spec.attacks if any(eps > 0 for eps in entry.eps)]
    for entry in attacked:
        options = set(entry.card.options)
        follows = "estimate" not in entry.options and needed <= options and options & {"step_size", "step_rule"}
        if entry.goal == "untargeted" and follows:
            return entry
    norms = find("attack", "pgd").facts.norms
    known = next(((str(e.norm), e.eps) for e in attacked if e.norm in norms), ("linf", [8 / 255]))
    return AttackSpec(name="pgd", label=f"pgd {known[0]}", norm=known[0], eps=known[1])


def with_step_size(attack: Callable[..., Tensor], options: Container[str]) -> Callable[..., Tensor]:
    """Return the attack with an option `step_size`; an attack that has only `step_rule` gets the value as that."""
    if "step_size" in options:
        return attack

    def renamed(*inputs: Any, **given: Any) -> Tensor:
        return attack(*inputs, **{"step_rule" if key == "step_size" else key: value for key, value in given.items()})

    return renamed


def checks(model: nn.Module, x: Tensor, y: Tensor, *, attack: Callable[..., Tensor], budget: Budget) -> list[Check]:
    """Run all masking checks of one attack on one model, on the images that the model classifies correctly.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: clean images.
        y: labels, int64 `[B]`.
        attack: `(model, x, y, *, eps, steps, step_size, restarts, estimate, keep, generator) -> x'`, such as
            `attacks.pgd`.
        budget: the budget of the attack in the audit.

    Returns:
        The results of the checks; an empty list if the model classifies no image correctly. Where no image has a
        gradient and the attack refuses the model for it, the attack counts as fooling none.
    """
    norm, eps, steps = budget.norm, budget.eps, budget.steps
    right = ~_wrong(model, x, y)
    x, y = x[right], y[right]
    if len(x) == 0:
        return []

    dead, flat = _gradients(model, x, y)

    def fooled(**options: Any) -> Tensor:
        """Return which images the attack fools, bool `[B]`, with `options` in place of its own budget."""
        generator = torch.Generator(x.device).manual_seed(budget.seed)
        given = {"eps": eps, "steps": steps, "restarts": 1, "keep": "success", "generator": generator} | options
        try:
            return _wrong(model, attack(model, x, y, **given), y)
        except Unsupported:
            if dead < 1:
                raise
            return torch.zeros(len(x), dtype=torch.bool, device=x.device)

    # attacks that need no gradient
    black = fooled(steps=10, step_size=None, estimate=nes(samples=20, sigma=max(_per_entry(x, norm, eps) / 2, 1e-3)))
    noise = _noise(model, x, y, budget)
    # the attack with its own budget
    white = fooled()
    # the attack with fewer steps, other sizes and no bound
    diameter = _diameter(model, x, norm, eps)
    quarter = max(1, steps // 4)
    steps_taken = {n: fooled(steps=n) for n in (1, quarter) if n < steps} | {steps: white}
    sizes = {eps / 2: fooled(eps=eps / 2), eps: white, min(2 * eps, diameter): fooled(eps=min(2 * eps, diameter))}
    unbounded = fooled(eps=diameter, steps=max(steps, 40), step_size=None)
    # the attack with restarts
    restarted = fooled(restarts=_RESTARTS)
    gain = _share(restarted) - _share(white)
    return [
        *_check_gradients(dead, flat, _count(x)),
        _never_weaker("more_steps", steps_taken, "{} steps"),
        _never_weaker("larger_eps", sizes, f"{norm} {{:.4g}}"),
        Check(
            "unbounded_eps",
            bool(unbounded.all()),
            _share(unbounded),
            1.0,
            f"Without a bound, the attack fools {_share(unbounded):.0%} of {_count(x)}; it must reach 100%.",
        ),
        *_rivals(white, noise, black),
        Check(
            "restarts",
            gain <= _GAIN,
            gain,
            _GAIN,
            f"{_RESTARTS} random restarts fool {_share(restarted):.0%} of {_count(x)} and one start {_share(white):.0%}"
            f"; a gain of more than {_GAIN:.0%} means that one start is not enough.",
        ),
    ]


def passes_of_checks(steps: int) -> int:
    """Return how many steps all checks of an attack with `steps` steps make together, at most."""
    return steps * (3 + _RESTARTS) + max(1, steps // 4) + 1 + max(steps, 40)


def chance(lost: int, won: int) -> int:
    """Return the largest surplus of `lost` over `won` that chance explains (sign test, one-sided).

    >>> chance(4, 0), chance(5, 0)
    (4, 3)
    """
    n = lost + won
    tail, k = 0.0, n + 1
    while k > 0 and (tail := tail + math.comb(n, k - 1) / 2**n) <= _SIGNIFICANCE:
        k -= 1
    return min(n, 2 * (k - 1) - n)  # k is the smallest number of losses that chance does not explain


def _never_weaker(name: str, found: dict[Any, Tensor], unit: str) -> Check:
    """Check that a larger budget fools no fewer images than chance explains, for each pair of successive budgets."""
    budgets = list(found)
    pairs = [_compare(found[small], found[large]) for small, large in pairwise(budgets)]
    value, limit = max(pairs, key=lambda pair: pair[0] - pair[1], default=(0.0, 0.0))
    text = ", ".join(f"{unit.format(budget)}: {_share(hits):.0%}" for budget, hits in found.items())
    text = f"Of {_count(found[budgets[0]])} fooled: {text}"
    return Check(name, value <= limit, value, limit, f"{text}; a larger budget must not fool fewer images.")


def _check_gradients(dead: float, flat: float, images: str) -> list[Check]:
    """Check that few images have no gradient, of the margin and of the cross-entropy."""
    margin_text = f"The gradient of the margin is zero or not a number for {dead:.0%} of {images}."
    text = f"The cross-entropy has no gradient for {flat:.0%} of {images}; an attack on it has no direction there."
    return [
        Check("gradients", dead <= _DEAD, dead, _DEAD, margin_text),
        Check("saturation", flat <= _DEAD, flat, _DEAD, text),
    ]


def _rivals(white: Tensor, noise: Tensor, black: Tensor) -> list[Check]:
    """Check that the attack fools no fewer images than two attacks that need no gradient."""
    estimated = "an attack that only estimates the gradient from outputs (NES)"
    return [
        _beats("beats_noise", white, noise, f"{_NOISES} draws of random noise of the same size", NOISE),
        _beats("beats_black_box", white, black, estimated, NES),
    ]


def _beats(name: str, white: Tensor, other: Tensor, what: str, rival: str) -> Check:
    """Check that the attack fools no fewer images than chance explains, compared with the weaker attack `other`."""
    value, limit = _compare(other, white)
    text = f"The attack fools {_share(white):.0%} of {_count(white)}, {what} {_share(other):.0%}"
    text = f"{text}; the weaker attack must not fool more images."
    return Check(name, value <= limit, value, limit, text, rival, int(other.sum()), len(other))


def _compare(weak: Tensor, strong: Tensor) -> tuple[float, float]:
    """Return the share of images by which the weaker attack leads, and the largest lead that chance explains."""
    lost, won = int((weak & ~strong).sum()), int((strong & ~weak).sum())
    return (lost - won) / len(weak), max(0, chance(lost, won)) / len(weak)


def _gradients(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the share of images whose gradient is zero or not finite, of the margin and of the cross-entropy."""
    shares = []
    for loss in (margin, partial(cross_entropy, reduction="none")):
        with frozen(model), torch.enable_grad():
            z = x.detach().clone().requires_grad_(True)
            value = loss(model(z), y).sum()
            g = torch.autograd.grad(value, z, allow_unused=True)[0] if value.requires_grad else None
        steepest = torch.zeros(len(x)) if g is None else g.flatten(1).abs().amax(1)  # amax of a NaN is NaN
        shares.append(1 - _share((steepest > 0) & steepest.isfinite()))
    return shares[0], shares[1]


@torch.no_grad()
def _noise(model: nn.Module, x: Tensor, y: Tensor, budget: Budget) -> Tensor:
    """Return which images at least one draw of random noise fools, bool `[B]`."""
    generator: Generator = torch.Generator(x.device).manual_seed(budget.seed)
    threat = ball(budget.norm, budget.eps).in_domain(domain_of(model))
    draws = [_wrong(model, threat.random_start(x, generator), y) for _ in range(_NOISES)]
    return torch.stack(draws).any(0)


@torch.no_grad()
def _wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which images the model classifies wrongly, bool `[B]`."""
    with frozen(model):
        return succeeded(model(x), y, None)


def _diameter(model: nn.Module, x: Tensor, norm: str, eps: float) -> float:
    """Return the size at which the ball contains every input of the model."""
    largest = ball(norm, 0.0).in_domain(domain_of(model)).largest(x)
    return largest if math.isfinite(largest) else 1000 * eps


def _per_entry(x: Tensor, norm: str, eps: float) -> float:
    """Return the change of each entry of an image if all entries change equally within a size of `eps`."""
    return eps / ball(norm, 0.0).largest(x)


def _count(images: Tensor) -> str:
    return f"{len(images)} image{'s' * (len(images) != 1)}"


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
