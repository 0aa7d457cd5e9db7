"""Adaptive ADV² against feature squeezing (Zhang et al., USENIX Security 2020, section 4.5 and Algorithm 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.objectives import Interpreter, Objective, cross_entropy, margin, objective
from underfire.ascent.step import Best, Step, Targets, succeeded, value_and_grad
from underfire.ascent.target_maps import TargetMap
from underfire.ascent.threats import ball
from underfire.attacks.adv2.attack import adv2
from underfire.attacks.adv2.weights import Weights
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.errors import InputError, Unsupported
from underfire.hooks import frozen
from underfire.transforms.squeezing import Squeezer, bit_depth
from underfire.transforms.squeezing import squeezers as named
from underfire.validate import at_least, check_choice, check_classes, check_number, per_sample

Scheme = Literal["paper", "code", "bpda"]
CODE: dict[str, tuple[float, float]] = {
    "bit_depth_3": (40.0, 1.5924778),
    "median_2": (9.0, 0.96955955),
    "median_3": (3.0, 1.3244714),
}
"""Weight and threshold of each squeezer in the authors' code for CAM; the thresholds are those of a ResNet-50."""

_SHARE = 0.75  # of the threshold, below which the authors' code wants the distance


@card(
    "attack",
    paper="Zhang, Wang, Shen, Ji, Luo and Wang, Interpretable Deep Learning under Fire, USENIX Security 2020",
    knowledge="white-box",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    quadrant="prediction changed, map kept",
)
def adv2_squeezing(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter,
    target: Tensor | TargetMap | None = None,
    goal: Tensor | None = None,
    scheme: Scheme = "bpda",
    squeezers: str | tuple[str, ...] = ("bit_depth_3", "median_2", "median_3"),
    thresholds: float | tuple[float, ...] | None = None,
    evasion: float = 3.0,
    squeezed_steps: int = 50,
    norm: str = "linf",
    eps: float | Tensor = 0.031,
    steps: int = 200,
    warm_steps: int = 50,
    weight: Weights = 100.0,
    confidence: float = 0.95,
    generator: Generator | None = None,
) -> Tensor:
    """Run ADV² with terms that keep the prediction the same when the image is squeezed.

    With `p` the probabilities of the image and `p_ψ` those of the squeezed image, and `T` a threshold of their L1
    distance, the schemes add:

    * `paper`: the cross-entropy of `p_ψ` against `p` for every smoothing squeezer; and for a bit depth, `|p - p₊|₁`,
      where `p₊` are the probabilities of an image found before, in the squeezed space (Algorithm 2, stage 1).
    * `code`: `w max(|p - p_ψ|₁ - 0.75 T, 0)`, with the weights of the authors' code; no gradient passes through bit
      depth, and the goal without one is the class of the image of stage 1. The code has 400 steps in the squeezed
      space, 1,200 steps of 1/255 after them, and map weights (5, 10).
    * `bpda`: the cross-entropy of `p_ψ` against `p` for every squeezer whose distance is above `T`, with the gradient
      of the identity for bit depth. This form is ours. It needs no stage 1, and unlike that of the distance itself, its
      gradient does not vanish where both predictions are confident. On 32 embedded digits (L-infinity 0.1, 55 steps,
      three squeezers, 5 % false positives), it lowers the detection rate from 100 % to 6 %, `paper` to 16 %, and `code`
      to 88 %.

    Stage 1 ascends by steps of one level among the squeezed images of the ball; it is left out where no bit depth is
    squeezed, and with `bpda`.

    Args:
        interpreter: as for `adv2`, as are all options that are not named here.
        scheme: the form of the terms.
        squeezers: the squeezers to evade, as for the detector `feature_squeezing`.
        thresholds: T, one number or one for each squeezer; None is 0, or with `code` those of the authors' code, which
            knows bit depth 3 and medians of 2 and 3.
        evasion: weight of the terms; 1 takes the weights of `code` as they are.
        squeezed_steps: number of steps of stage 1.
    """
    domain_of(model).require_images("adv2_squeezing")
    check_choice(("paper", "code", "bpda"), scheme=scheme)
    check_choice(("linf",), norm=norm)
    at_least(0, evasion=evasion, squeezed_steps=squeezed_steps)
    chosen = named(squeezers)
    limits = _limits(scheme, list(chosen), thresholds)
    p_plus: Tensor | None = None
    bits = [int(name.removeprefix("bit_depth_")) for name in chosen if name.startswith("bit_depth_")]
    if bits and scheme != "bpda" and len(x) and squeezed_steps:
        with frozen(model):
            x_plus = _in_squeezed_space(model, x, y, goal, min(bits), eps, squeezed_steps)
            with torch.no_grad():
                logits = model(x_plus)
        p_plus = logits.softmax(1)
        if goal is None:
            goal = logits.scatter(1, y[:, None], float("-inf")).argmax(1)
    return adv2(
        model,
        x,
        y,
        interpreter=interpreter,
        target=target,
        goal=goal,
        eps=eps,
        steps=steps,
        warm_steps=warm_steps,
        weight=weight,
        also=evasion * _terms(scheme, chosen, limits, p_plus),
        confidence=confidence,
        generator=generator,
    )


def _limits(scheme: str, names: list[str], thresholds: float | tuple[float, ...] | None) -> dict[str, float]:
    """Return the threshold of each squeezer.

    Raises:
        InputError: there is not one threshold for each squeezer, or one is negative. Unsupported: the authors' code has
            none for a squeezer.
    """
    if thresholds is None:
        unknown = [name for name in names if name not in CODE] if scheme == "code" else []
        if unknown:
            raise Unsupported(f"the authors' code has no threshold for {unknown[0]}; give thresholds, one a squeezer")
        return {name: CODE[name][1] if scheme == "code" else 0.0 for name in names}
    listed = tuple(thresholds) if isinstance(thresholds, (tuple, list)) else (thresholds,) * len(names)
    check_number(**{f"thresholds[{i}]": limit for i, limit in enumerate(listed)})
    if len(listed) != len(names) or not all(0 <= limit < 2 for limit in listed):
        raise InputError(f"thresholds must be one number in [0, 2) for each of {len(names)} squeezers, got {listed}")
    return dict(zip(names, listed, strict=True))


def _terms(scheme: str, chosen: dict[str, Squeezer], limits: dict[str, float], p_plus: Tensor | None) -> Objective:
    """Return minus the evasion loss of a scheme."""

    def term(step: Step) -> Tensor:
        p, loss = step.logits.softmax(1), torch.zeros_like(step.logits[:, 0])
        for name, squeeze in chosen.items():
            rounds = name.startswith("bit_depth")
            if scheme == "paper" and rounds:
                if p_plus is not None:
                    loss = loss + (p - p_plus[step.index]).abs().sum(1)
                continue
            logits = step.model(squeeze(step.x))
            squeezed = logits.softmax(1)
            if scheme == "code":
                distance = (p - (squeezed.detach() if rounds else squeezed)).abs().sum(1)
                weight = CODE.get(name, (40.0 if rounds else 6.0, 0.0))[0]
                loss = loss + weight * (distance - _SHARE * limits[name]).clamp_min(0)
            else:
                crossed = -(p * logits.log_softmax(1)).sum(1)
                seen = (p - squeezed).abs().sum(1) > limits[name]
                loss = loss + (crossed if scheme == "paper" else crossed * seen)
        return -loss

    return objective(term)


def _in_squeezed_space(
    model: nn.Module, x: Tensor, y: Tensor, goal: Tensor | None, bits: int, eps: float | Tensor, steps: int
) -> Tensor:
    """Return images of `2^bits` levels that fool the model, by PGD among the squeezed images of the ball around `x`."""
    ball("linf", eps).check(x)
    domain, radius = domain_of(model), per_sample(torch.as_tensor(eps, dtype=x.dtype, device=x.device), x)
    low, high = (bit_depth(domain.clip(x + side * radius), bits) for side in (-1, 1))
    aim = margin() if goal is None else cross_entropy()
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    best, z = Best(x), bit_depth(x, bits)
    with torch.no_grad():
        check_classes(model(z[:1]), y, goal)
    for _ in range(steps):
        # forward and backward pass
        logits, value, g = value_and_grad(model, aim, z, targets)
        best.update(z, succeeded(logits, y, goal), value, targets.index)
        # a step of one level, inside the squeezed ball
        z = (z + g.sign() / (2**bits - 1)).clamp(low, high)
    return best.x_adv
