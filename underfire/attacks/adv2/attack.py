"""ADV² (Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020): fool model and explanation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.moves import Move, plain
from underfire.ascent.objectives import Interpreter, Objective, cross_entropy, margin
from underfire.ascent.step import Step
from underfire.ascent.step_rules import StepSize, linear
from underfire.ascent.threats import Threat, ball
from underfire.attacks.adv2.direct import direct
from underfire.attacks.adv2.plan import Plan, loop_of
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import check_classes, check_goal, default_generator


@card(
    "attack",
    paper="Zhang, Wang, Shen, Ji, Luo and Wang, Interpretable Deep Learning under Fire, USENIX Security 2020",
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted", "kept"),
    random=False,
    atlas="AML.T0043.000",
    quadrant="prediction changed, map kept",
)
def adv2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter,
    target: Tensor | None = None,
    goal: Tensor | None = None,
    keep_class: bool = False,
    norm: str = "linf",
    eps: float | Tensor = 0.031,
    threat: Threat | None = None,
    steps: int = 200,
    warm_steps: int = 50,
    step_size: StepSize | None = None,
    move: Move | None = None,
    weight: float | tuple[float, float] = 100.0,
    also: Objective | None = None,
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
        keep_class: whether a goal may be the label itself, so that only the explanation changes.
        threat: what may change, and by how much; it replaces `norm`, `eps` and `mask`.
        steps: number of steps with both losses.
        warm_steps: number of steps of the warm start; 0 leaves it out.
        step_size: None is a step that falls linearly from twice the usual step to a tenth of it, because maps do not
            settle under a constant step. The usual step is 1/255 for L-infinity (as in the paper) and `eps / 10` for
            L2; the warm start always uses the usual step.
        move: how gradients are used after the warm start; None is the plain gradient, as in the paper.
        weight: weight of the map loss; a pair changes linearly from the first number to the second over the steps. (The
            authors' code has 5 to 10, with many more steps.)
        also: further terms of the objective, such as the hinge of a detector's score.
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
    if goal is not None and not keep_class:
        check_goal(y, goal)
    loop = loop_of(interpreter, direct)
    threat = ball(norm, eps, mask, among=("linf", "l2")) if threat is None else threat
    threat = threat.in_domain(domain_of(model))
    threat.check(x)
    usual = threat.eps / 10 if threat.norm == "l2" else 1 / 255
    if len(x) == 0:
        return x.clone()
    generator = default_generator(generator, x.device)
    prediction = cross_entropy(smoothing)
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        check_classes(logits, y, goal)
        if target is None:
            target = interpreter(model, x.detach(), logits.argmax(1))
        elif target.dim() != 4 or target.shape[:2] != (len(x), 1):
            raise InputError(f"target must be one map per image, [{len(x)}, 1, h, w], got {tuple(target.shape)}")
        # the warm start: the prediction alone
        z = threat.start(x)
        if warm_steps:
            aim = margin() if goal is None else prediction
            z, logits = _climb(model, x, y, Recipe(aim, threat, step_rule=usual, keep="last"), goal, warm_steps)
        if goal is None:
            goal = logits.scatter(1, y[:, None], float("-inf")).argmax(1)
        # prediction and explanation together
        return loop(
            Plan(
                model=model,
                x=x,
                y=y,
                goal=goal,
                z=z,
                interpreter=interpreter,
                target=target,
                threat=threat,
                prediction=prediction,
                weight=weighed(weight),
                also=also,
                steps=steps,
                step_size=linear(2 * usual, usual / 10) if step_size is None else step_size,
                move=move or plain(),
                confidence=confidence,
                tau=tau,
                pool=pool,
                generator=generator,
            )
        )


def weighed(weight: float | tuple[float, float]) -> Callable[[float], float]:
    """Return the weight of the map loss as a function of the share of the steps that are done."""
    first, last = weight if isinstance(weight, tuple) else (weight, weight)
    return lambda progress: first + (last - first) * progress


def _climb(
    model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, goal: Tensor | None, steps: int
) -> tuple[Tensor, Tensor]:
    """Run a recipe, and return the last variable of its threat and the logits there."""
    last: list[Step] = []

    def watch(step: Step) -> None:
        last[:] = [step]

    ascend(model, x, y, recipe, goal=goal, steps=steps, watch=watch)
    return last[0].z, last[0].logits
