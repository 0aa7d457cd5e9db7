"""ADV² (Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020): fool model and explanation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.moves import Move, plain
from underfire.ascent.objectives import Interpreter, Objective, cross_entropy, keep_map, margin, objective
from underfire.ascent.step import Step
from underfire.ascent.step_rules import StepSize, linear
from underfire.ascent.threats import ball
from underfire.catalog import InterpreterFacts, card, facts_of
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen, smooth_relu
from underfire.validate import check_classes


@card(
    "attack",
    paper="Zhang, Wang, Shen, Ji, Luo and Wang, Interpretable Deep Learning under Fire, USENIX Security 2020",
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted", "kept"),
    random=False,
    atlas="AML.T0043.000",
)
def adv2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter,
    target: Tensor | None = None,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 0.031,
    steps: int = 200,
    warm_steps: int = 50,
    step_size: StepSize | None = None,
    move: Move | None = None,
    weight: float | tuple[float, float] = 100.0,
    smoothing: float = 0.01,
    confidence: float = 0.95,
    tau: float | None = None,
    pool: int = 1,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Change the prediction while the explanation stays as it is, or becomes a given map.

    An attack on the prediction alone runs first (the warm start). Then the attack minimises
    `prediction loss + weight * map loss`: the label-smoothed cross-entropy of the goal, and the mean squared difference
    between the map and the target map, both min-max normalised. It returns the iterate whose map is nearest to the
    target, among those that fool the classifier with enough confidence. The paper has goals only; without a goal, the
    likeliest class other than `y` after the warm start becomes the goal.

    Args:
        interpreter: `(model, x, classes) -> [B, 1, h, w]`, differentiable in `x`. A step on a mean of gradients asks
            for every gradient twice; `integrated_gradients` and `smooth_grad` have an option, `derivative_steps` and
            `derivative_samples`, with which only a few are asked for again, at a higher loss after as many steps.
        target: the map that the explanation should become, `[B, 1, h, w]`; None is the interpreter's map of the clean
            image for its predicted class.
        steps: number of steps with both losses.
        warm_steps: number of steps of the warm start; 0 leaves it out.
        step_size: None is a step that falls linearly from twice the usual step to a tenth of it, because maps do not
            settle under a constant step. The usual step is 1/255 for L-infinity (as in the paper) and `eps / 10` for
            L2; the warm start always uses the usual step.
        move: how gradients are used after the warm start; None is the plain gradient, as in the paper.
        weight: weight of the map loss; a pair changes linearly from the first number to the second over the steps. (The
            authors' code has 5 to 10, with many more steps.)
        smoothing: label smoothing of the prediction loss.
        confidence: probability of the goal above which iterates are compared by their maps alone.
        tau: width of the smoothing of ReLU's derivative; None is 1e-4 if the interpreter is itself a gradient whose
            derivative is taken exactly, and no smoothing otherwise; 0 never smooths.
        pool: side of the squares, in pixels of the map, over which both maps are averaged before they are compared.
    """
    domain_of(model).require_images("adv2")
    if steps < 1 or warm_steps < 0:
        raise InputError(f"steps must be at least 1 and warm_steps at least 0, got {steps} and {warm_steps}")
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, mask, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    usual = 1 / 255 if norm == "linf" else eps / 10
    if len(x) == 0:
        return x.clone()
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        check_classes(logits, y, goal)
        if target is None:
            predicted = logits.argmax(1)
            target = interpreter(model, x.detach(), predicted)
        elif target.dim() != 4 or target.shape[:2] != (len(x), 1):
            raise InputError(f"target must be one map per image, [{len(x)}, 1, h, w], got {tuple(target.shape)}")
        z, prediction = x, cross_entropy(smoothing)
        if warm_steps:
            first_aim = margin() if goal is None else prediction
            z = ascend(
                model, x, y, Recipe(first_aim, threat, step_rule=usual, keep="last"), goal=goal, steps=warm_steps
            )
        if goal is None:
            with torch.no_grad():
                goal = model(z).scatter(1, y[:, None], float("-inf")).argmax(1)
        map_term, closeness = _remembered(keep_map(interpreter, target, pool=pool))

        def rank(step: Step, value: Tensor) -> Tensor:
            assert step.goal is not None  # set above
            # Below the wanted confidence, iterates rank by confidence, in `[-2, -1)`; above it, by the closeness of the
            # map, which is at least -1.
            fooled = step.logits.softmax(1).gather(1, step.goal[:, None]).squeeze(1)
            return torch.where(fooled >= confidence, closeness(), fooled - 2)

        first, last = weight if isinstance(weight, tuple) else (weight, weight)
        both = prediction + (lambda progress: first + (last - first) * progress) * map_term
        with _smoothed(interpreter, tau):
            return ascend(
                model,
                x,
                y,
                Recipe(
                    both,
                    threat,
                    step_rule=linear(2 * usual, usual / 10) if step_size is None else step_size,
                    move=move or plain(),
                    rank=rank,
                ),
                goal=goal,
                steps=steps,
                z=z,
            )


def _remembered(term: Objective) -> tuple[Objective, Callable[[], Tensor]]:
    """Return the objective, and a function that returns its last values, so that no map is computed twice."""
    last: list[Tensor] = []

    def remember(step: Step) -> Tensor:
        value = term(step)
        last[:] = [value.detach()]
        return value

    return objective(remember), lambda: last[0]


def _smoothed(interpreter: Interpreter, tau: float | None) -> AbstractContextManager[None]:
    """Return a context in which the derivative of ReLU is smoothed, if the interpreter needs that or `tau` is given."""
    keywords = getattr(interpreter, "keywords", {})
    exact = facts_of(interpreter, InterpreterFacts()).second_order and keywords.get("double_backward") == "exact"
    tau = (1e-4 if exact else 0) if tau is None else tau
    return smooth_relu(tau) if tau > 0 else nullcontext()
