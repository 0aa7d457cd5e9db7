"""Masking checks: does an attack fail because the model is robust, or because its gradient is masked?

The checks follow Carlini et al., On Evaluating Adversarial Robustness, 2019, section 4, and Athalye et al., Obfuscated
Gradients Give a False Sense of Security, ICML 2018, section 3.1. All attacks run on the same images, which the model
classifies correctly (`underfire.audit.probes`). Two attacks are compared by a sign test over the images that only one
of them fools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from underfire.audit.probes import CROSS_ENTROPY, MARGIN, NOISES, RESTARTS, Budget, diameter, names, probe
from underfire.audit.probes import NOISE as NOISE_RUN
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.audit.sizes import percent, threat
from underfire.catalog import find
from underfire.records import Check

IMAGES = 50
"""The number of images that the checks use: enough to detect a masked gradient, few enough to be cheap."""

BLIND = frozenset({"gradients", "more_steps", "larger_eps", "unbounded_eps", "beats_noise", "beats_black_box"})
"""The checks whose failure says that the attack was blind; if another check fails, the attack may be too weak."""

NOISE, NES = "random noise", "NES"
"""The names of the attacks without a gradient that the checks run."""

_SIGNIFICANCE = 0.05  # significance level of the sign test
_DEAD = 0.05  # largest share of images without a gradient
_GAIN = 0.1  # largest share of images that only restarts may fool


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


def checks(model: nn.Module, x: Tensor, y: Tensor, *, attack: Callable[..., Tensor], budget: Budget) -> list[Check]:
    """Run all masking checks of one attack on one model, on the images that the model classifies correctly.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: clean images.
        y: labels, int64 `[B]`.
        attack: the attack, as in `probe`.
        budget: the budget of the attack in the audit.

    Returns:
        The results of the checks; an empty list if the model classifies no image correctly.
    """
    found = {name: probe(name, model, x, y, attack=attack, budget=budget) for name in names(budget)}
    return judge(found, budget, diameter(model, x, budget.norm, budget.eps))


def judge(found: Mapping[str, Tensor], budget: Budget, largest: float) -> list[Check]:
    """Return the results of the checks, from the answers of the runs that they compare.

    Args:
        found: the answers of all runs for the same images, bool `[B]`, by name (`probe`).
        budget: the budget of the attack in the audit.
        largest: the size at which the attack has no bound (`diameter`).

    Returns:
        The results of the checks; an empty list if there is no image.
    """
    norm, eps, white = budget.norm, budget.eps, found["own"]
    if len(white) == 0:
        return []
    steps = {int(name.removeprefix("steps ")): hits for name, hits in found.items() if name.startswith("steps ")}
    sizes = {eps / 2: found["half"], eps: white, min(2 * eps, largest): found["twice"]}
    unbounded, restarted = found["unbounded"], found["restarts"]
    gain = _share(restarted) - _share(white)
    return [
        *_check_gradients(1 - _share(found[MARGIN]), 1 - _share(found[CROSS_ENTROPY]), _count(white)),
        _never_weaker("more_steps", dict(sorted(steps.items())) | {budget.steps: white}, _steps),
        _never_weaker("larger_eps", sizes, partial(threat, norm)),
        Check(
            "unbounded_eps",
            bool(unbounded.all()),
            _share(unbounded),
            1.0,
            f"Without a bound, the attack fools {percent(_share(unbounded))} of {_count(white)}; it must reach "
            f"{percent(1)}.",
        ),
        *_rivals(white, found[NOISE_RUN], found["nes"]),
        Check(
            "restarts",
            gain <= _GAIN,
            gain,
            _GAIN,
            f"{RESTARTS} random restarts fool {percent(_share(restarted))} of {_count(white)} and one start "
            f"{percent(_share(white))}; a gain of more than {percent(_GAIN)} means that one start is not enough.",
        ),
    ]


def _steps(count: int) -> str:
    """Return a number of steps in words."""
    return f"{count} step{'s' * (count != 1)}"


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


def _never_weaker(name: str, found: dict[Any, Tensor], said: Callable[[Any], str]) -> Check:
    """Check that a larger budget fools no fewer images than chance explains, for each pair of successive budgets.

    `said` returns a budget in words.
    """
    budgets = list(found)
    pairs = [_compare(found[small], found[large]) for small, large in pairwise(budgets)]
    value, limit = max(pairs, key=lambda pair: pair[0] - pair[1], default=(0.0, 0.0))
    text = ", ".join(f"{said(budget)}: {percent(_share(hits))}" for budget, hits in found.items())
    text = f"Of {_count(found[budgets[0]])} fooled: {text}"
    return Check(name, value <= limit, value, limit, f"{text}; a larger budget must not fool fewer images.")


def _check_gradients(dead: float, flat: float, images: str) -> list[Check]:
    """Check that few images have no gradient, of the margin and of the cross-entropy."""
    margin_text = f"The gradient of the margin is zero or not a number for {percent(dead)} of {images}."
    text = f"The cross-entropy has no gradient for {percent(flat)} of {images}; an attack on it has no direction there."
    return [
        Check("gradients", dead <= _DEAD, dead, _DEAD, margin_text),
        Check("saturation", flat <= _DEAD, flat, _DEAD, text),
    ]


def _rivals(white: Tensor, noise: Tensor, black: Tensor) -> list[Check]:
    """Check that the attack fools no fewer images than two attacks that need no gradient."""
    estimated = "an attack that only estimates the gradient from outputs (NES)"
    return [
        _beats("beats_noise", white, noise, f"{NOISES} draws of random noise of the same size", NOISE),
        _beats("beats_black_box", white, black, estimated, NES),
    ]


def _beats(name: str, white: Tensor, other: Tensor, what: str, rival: str) -> Check:
    """Check that the attack fools no fewer images than chance explains, compared with the weaker attack `other`."""
    value, limit = _compare(other, white)
    text = f"The attack fools {percent(_share(white))} of {_count(white)}, {what} {percent(_share(other))}"
    text = f"{text}; the weaker attack must not fool more images."
    return Check(name, value <= limit, value, limit, text, rival, int(other.sum()), len(other))


def _compare(weak: Tensor, strong: Tensor) -> tuple[float, float]:
    """Return the share of images by which the weaker attack leads, and the largest lead that chance explains."""
    lost, won = int((weak & ~strong).sum()), int((strong & ~weak).sum())
    return (lost - won) / len(weak), max(0, chance(lost, won)) / len(weak)


def _count(images: Tensor) -> str:
    return f"{len(images)} image{'s' * (len(images) != 1)}"


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
