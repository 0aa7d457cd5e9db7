"""Change both the prediction and the explanation: the losses of Ghorbani et al. (AAAI 2019) on a new class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.map_gradients import map_gradient
from underfire.ascent.map_objectives import MapObjective, by_map, margin_up_to, move_map, remembered
from underfire.ascent.moves import Move, plain
from underfire.ascent.objectives import Interpreter, margin
from underfire.ascent.step_rules import StepSize, linear
from underfire.ascent.target_maps import Clean, TargetMap
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.gradients.estimators import Estimator
from underfire.hooks import frozen
from underfire.validate import at_least, at_least_one, check_classes, checked_at_end, default_generator


@card(
    "attack",
    paper="Noppel and Wressnegger, SoK: Explainable Machine Learning in Adversarial Environments, IEEE S&P 2024",
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    quadrant="both changed",
)
def explanation_and_prediction(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter,
    goal: Tensor | None = None,
    objective: MapObjective = "top_k",
    target: Tensor | TargetMap | None = None,
    resize: bool = False,
    quantile: float = 0.9,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int = 100,
    warm_steps: int = 20,
    step_size: StepSize | None = None,
    move: Move | None = None,
    estimate: Estimator | None = None,
    weight: float = 1.0,
    lead: float = 1.0,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Change the predicted class and the explanation.

    An attack on the prediction alone runs first. Then the attack maximises the lead of the new class, as far as `lead`,
    plus `weight` times the change of the map. Of the iterates that fool the model it returns the one with the largest
    change of the map, and without any the one with the largest margin. The paper names this goal and gives no
    algorithm; the objectives are those of `explanation_only`.

    Args:
        interpreter: `(model, x, classes) -> [B, 1, h, w]`, differentiable in `x`.
        goal: None is the likeliest class other than `y` after the first phase.
        objective: see `explanation_only`.
        target: the maps to show with `objective="target_map"`, `[B, 1, h, w]`, or a rule that makes them, such as
            `random_patch()` (see `ascent.target_maps`).
        resize: whether to resize a target map whose size is not that of the interpreter's maps; if False, such a target
            raises an error.
        quantile: the top pixels of `objective="top_k"` are those above this quantile of the clean map.
        steps: number of steps with both objectives.
        warm_steps: number of steps of the attack on the prediction alone; 0 leaves it out.
        step_size: None is a step that falls linearly from `eps / 4` to `eps / 80`; the first phase uses `eps / 8`.
        move: how gradients are used in the second phase; None is the plain gradient.
        estimate: see `explanation_only`.
        weight: weight of the change of the map.
        lead: the margin, in logits, beyond which the prediction adds no gradient.
    """
    domain_of(model).require_images("explanation_and_prediction")
    check_inputs(model, x, y, goal)
    at_least_one(steps=steps)
    at_least(0, warm_steps=warm_steps, weight=weight, lead=lead)
    threat = ball(norm, eps, mask, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    generator = default_generator(generator, x.device)
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        check_classes(logits, y, goal)
        predicted = logits.argmax(1)
        maps = interpreter(model, x.detach(), predicted).detach()
        # the prediction alone
        z = x
        if warm_steps:
            first = Recipe(margin(), threat, step_rule=eps / 8, keep="last")
            z = ascend(model, x, y, first, goal=goal, steps=warm_steps, generator=generator)
        if goal is None:
            with torch.no_grad():
                goal = model(z).scatter(1, y[:, None], float("-inf")).argmax(1)
        # prediction and explanation together
        clean = Clean(maps, predicted, goal)
        interpreter, usual = map_gradient(interpreter, steps)
        aim = move_map(
            objective, interpreter, clean, target=target, resized=resize, quantile=quantile, generator=generator
        )
        change, moved = remembered(aim)
        total = margin_up_to(lead) + weight * change
        both = Recipe(
            total,
            threat,
            step_rule=linear(eps / 4, eps / 80) if step_size is None else step_size,
            estimate=estimate or usual,
            move=move or plain(),
            rank=by_map(moved),
        )
        with checked_at_end():
            return ascend(model, x, y, both, goal=goal, steps=steps, z=z, generator=generator)
