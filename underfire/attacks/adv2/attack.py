"""ADV² (Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020): fool model and explanation."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Interpreter, Objective, margin
from underfire.ascent.step import Step
from underfire.ascent.step_rules import StepSize
from underfire.ascent.target_maps import Clean, TargetMap, target_maps
from underfire.ascent.threats import Threat
from underfire.attacks.adv2.bilevel import bilevel
from underfire.attacks.adv2.direct import direct
from underfire.attacks.adv2.framework import encoder_term, framework
from underfire.attacks.adv2.plan import Plan, loop_of
from underfire.attacks.adv2.scheme import Bilevel
from underfire.attacks.adv2.smoothing import Smoothing, smoothed_cross_entropy
from underfire.attacks.adv2.weights import Weights, weight_schedule
from underfire.catalog import Card, card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError, shown
from underfire.hooks import frozen
from underfire.validate import at_least, check_classes, check_goal, default_generator


@card(
    "attack",
    paper="Zhang, Wang, Shen, Ji, Luo and Wang, Interpretable Deep Learning under Fire, USENIX Security 2020",
    knowledge="white-box",
    norms=("linf", "l2", "flow", "patch"),
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
    target: Tensor | TargetMap | None = None,
    resize: bool = False,
    goal: Tensor | None = None,
    keep_class: bool = False,
    norm: str = "linf",
    eps: float | Tensor = 0.031,
    threat: Threat | None = None,
    steps: int = 200,
    warm_steps: int = 50,
    step_size: StepSize | None = None,
    move: Move | None = None,
    weight: Weights = 100.0,
    encoder_weight: float = 0.1,
    flow_weight: float = 5e-4,
    flow_start: float = 0.0,
    also: Objective | None = None,
    smoothing: Smoothing = 0.01,
    confidence: float = 0.95,
    tau: float | None = None,
    pool: int = 1,
    mask: Tensor | None = None,
    scheme: Bilevel | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Change the prediction while the explanation stays as it is, or becomes a given map.

    An attack on the prediction alone runs first (the warm start). Then the attack minimises
    `prediction loss + weight * map loss`: the label-smoothed cross-entropy of the goal, and the mean squared difference
    between the map and the target map, both min-max normalised. It returns the iterate whose map is nearest to the
    target, among those that fool the classifier with enough confidence. The paper has goals only; without a goal, the
    likeliest class other than `y` after the warm start becomes the goal.

    Args:
        interpreter: `(model, x, classes) -> [B, 1, h, w]`, differentiable in `x`, or an optimisation whose
            steps are, as MASK (see `attacks.adv2.bilevel`). A step on a mean of gradients asks
            for every gradient twice; `integrated_gradients` and `smooth_grad` have an option, `derivative_steps` and
            `derivative_samples`, with which only a few are asked for again, at a higher loss after as many steps.
        target: the map that the explanation should become: maps `[B, 1, h, w]`, or a rule that makes them, such as
            `random_patch()`, `other_class()` or `picture("arrow.png")` (see `ascent.target_maps`); None is the
            interpreter's map of the clean image for its predicted class.
        resize: whether to resize a target map whose size is not that of the interpreter's maps; if False, such a target
            raises an error.
        keep_class: whether a goal may be the label itself, so that only the explanation changes.
        threat: what may change, and by how much; it replaces `norm`, `eps` and `mask`.
        steps: number of steps with both losses.
        warm_steps: number of steps of the warm start; 0 leaves it out.
        step_size: None is a step that falls linearly from twice the usual step to a tenth of it, because maps do not
            settle under a constant step. The usual step is 1/255 for L-infinity (as in the paper), 10/255 for a patch,
            and a tenth of eps for L2 and flow fields; the warm start always uses the usual step. For an interpreter
            that optimises its map, it is the length in L2 of a step on the prediction, and None is such that all steps
            go as far as the authors' 1,000.
        move: how gradients are used after the warm start, and on a flow field also in it; None is the plain gradient,
            and Adam for a flow field, as in the paper. The authors' code has `adam(amsgrad=True)` for a flow field.
        weight: weight of the map loss; a pair changes linearly from the first number to the second over the steps, and
            phases `((length, weight), ...)` follow each other. The authors' code has 5 to 10 for CAM and RTS, with many
            more steps, and for GRAD 0.001, 0.004, 0.01 and 0.05 over 301, 201, 101 and 101 steps of a map of 56 x 56
            pixels. Their loss for GRAD is a sum over the pixels and ours a mean, so that their weights are multiplied
            by 3136 here: `((301, 3.1), (201, 13), (101, 31), (101, 157))`.
        encoder_weight: weight of the encoder loss of an interpreter that is a network of its own, such as RTS: how
            little its encoder finds the goal.
        flow_weight: weight of the flow loss for `norm="flow"`, the paper's τ.
        flow_start: largest random displacement of a pixel at the start of a flow field, in pixels, uniform; 0.1 in the
            authors' code. 0 begins with the clean image and draws nothing.
        also: further terms of the objective, such as the hinge of a detector's score.
        smoothing: label smoothing of the prediction loss; a pair, `(0.05, 0.01)` in the paper, draws it in every step
            between 0 and a number that falls linearly from the first to the second.
        confidence: probability of the goal above which iterates are compared by their maps alone.
        tau: width of the smoothing of ReLU's derivative; None is 1e-4 if the interpreter is itself a gradient whose
            derivative is taken exactly, and no smoothing otherwise; 0 never smooths.
        pool: side of the squares, in pixels of the map, over which both maps are averaged before they are compared.
        scheme: constants of the loop that attacks an interpreter that optimises its map, such as MASK (see
            `attacks.adv2.scheme`); None is those of the authors.
    """
    domain_of(model).require_images("adv2")
    if steps < 1 or warm_steps < 0:
        raise InputError(f"steps must be at least 1 and warm_steps at least 0, got {steps} and {warm_steps}")
    at_least(0, tau=0 if tau is None else tau)
    if not 0 <= confidence <= 1:
        raise InputError(f"confidence is a probability in [0, 1], got {confidence}")
    if not isinstance(scheme, Bilevel | None):
        raise InputError(f"scheme must be a Bilevel, such as Bilevel(follow=8), got {shown(scheme)}")
    check_inputs(model, x, y, goal)
    if goal is not None and not keep_class:
        check_goal(y, goal)
    interpreter = _object(interpreter)
    loop = loop_of(interpreter, direct, bilevel)
    base = framework(norm, eps, mask, threat, flow_weight, flow_start, move)
    threat = base.threat.in_domain(domain_of(model))
    threat.check(x)
    schedule, generator = weight_schedule(weight), default_generator(generator, x.device)
    if len(x) == 0:
        return x.clone()
    prediction = smoothed_cross_entropy(smoothing, len(x), max(steps, warm_steps), generator)
    terms = [base.terms, encoder_term(interpreter, encoder_weight), also]
    more = [term for term in terms if term is not None]
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        check_classes(logits, y, goal)
        predicted = logits.argmax(1)
        maps = interpreter(model, x.detach(), predicted)
        # the warm start: the prediction alone
        z = replace(base, threat=threat).start(x, generator)
        if warm_steps:
            aim = margin() if goal is None else prediction
            aim = aim if base.terms is None else aim + base.terms
            first = Recipe(aim, threat, step_rule=base.step_size, move=base.move, keep="last")
            z, logits = _run_recipe(model, x, y, first, goal, warm_steps, z)
        if goal is None:
            goal = logits.scatter(1, y[:, None], float("-inf")).argmax(1)
        # prediction and explanation together
        plan = Plan(
            model=model,
            x=x,
            y=y,
            goal=goal,
            z=z,
            interpreter=interpreter,
            target=target_maps(target, Clean(maps, predicted, goal), resized=resize, generator=generator),
            threat=threat,
            prediction=prediction,
            weight=schedule,
            also=sum(more[1:], more[0]) if more else None,
            steps=steps,
            step_size=step_size,
            usual=base.step_size,
            move=base.move if move is None else move,
            confidence=confidence,
            tau=tau,
            pool=pool,
            scheme=scheme or Bilevel(),
            generator=generator,
        )
        return loop(plan)


def _run_recipe(
    model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, goal: Tensor | None, steps: int, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a recipe from `z`, and return the last variable of its threat and the logits there."""
    last: list[Step] = []

    def watch(step: Step) -> None:
        last[:] = [step]

    ascend(model, x, y, recipe, goal=goal, steps=steps, z=z, watch=watch)
    return last[0].z, last[0].logits


def _object(interpreter: Any) -> Interpreter:
    """Return the interpreter, or for the class of one that is trained an object with the default options."""
    if inspect.isclass(interpreter) or (isinstance(interpreter, Card) and interpreter.fitted):
        interpreter = interpreter()
    return cast(Interpreter, interpreter)
