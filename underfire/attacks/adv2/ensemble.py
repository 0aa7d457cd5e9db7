"""Adaptive ADV² against several interpreters at once (Zhang et al., USENIX Security 2020, section 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.objectives import keep_map
from underfire.attacks.adv2.attack import adv2
from underfire.attacks.adv2.framework import NORMS, encoder_term
from underfire.attacks.adv2.weights import Weights, weight_schedule
from underfire.attribution.named import named_interpreters
from underfire.catalog import card, card_behind
from underfire.domains import domain_of
from underfire.errors import InputError, Unsupported
from underfire.hooks import frozen


@card(
    "attack",
    paper="Zhang, Wang, Shen, Ji, Luo and Wang, Interpretable Deep Learning under Fire, USENIX Security 2020",
    knowledge="white-box",
    norms=NORMS,
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    quadrant="prediction changed, map kept",
)
def adv2_ensemble(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreters: tuple[str | Mapping[str, Any] | Callable[..., Tensor], ...] = ("gradient", "grad_cam"),
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 0.031,
    steps: int = 200,
    warm_steps: int = 50,
    weight: Weights = 100.0,
    encoder_weight: float = 0.1,
    confidence: float = 0.95,
    tau: float | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Run ADV² on several interpreters: the map loss is the sum of their losses, each against its own benign map.

    It is the adaptive attack on the detector `ensemble_interpretation`, which the paper names and leaves open.

    Args:
        interpreters: names of differentiable interpreters, mappings of a `name` and options, or functions `(model, x,
            y) -> map`.
        weight: weight of each map loss.
        goal: as for `adv2`, as are all options that are not named here.
        encoder_weight: weight of the encoder loss of each interpreter that is a network of its own, such as RTS.
        tau: width of the smoothing of ReLU's derivative, as for `adv2`; None follows from the first interpreter.

    Raises:
        InputError: there is no interpreter, or one is unknown. Unsupported: one is not differentiable; the first may be
            an optimisation, such as MASK.
    """
    domain_of(model).require_images("adv2_ensemble")
    methods = named_interpreters(interpreters)
    if not methods:
        raise InputError("adv2_ensemble needs at least one interpreter")
    for method in methods[1:]:
        known = card_behind(method)
        if known is not None and not known.facts.differentiable:
            raise Unsupported(f"{known.name} is not differentiable, so adv2_ensemble cannot attack it beside another")
    also = None
    if len(methods) > 1 and len(x):
        with frozen(model), torch.no_grad():
            shown = model(x).argmax(1)
            benign = [method(model, x, shown) for method in methods[1:]]
        terms = [weight_schedule(weight) * keep_map(*pair) for pair in zip(methods[1:], benign, strict=True)]
        encoders = (encoder_term(method, encoder_weight) for method in methods[1:])
        also = reduce(add, [*terms, *(term for term in encoders if term is not None)])
    return adv2(
        model,
        x,
        y,
        interpreter=methods[0],
        goal=goal,
        norm=norm,
        eps=eps,
        steps=steps,
        warm_steps=warm_steps,
        weight=weight,
        encoder_weight=encoder_weight,
        also=also,
        confidence=confidence,
        tau=tau,
        generator=generator,
    )
