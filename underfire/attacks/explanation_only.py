"""Change the explanation and keep the prediction (Ghorbani et al., AAAI 2019; Dombrowski et al., NeurIPS 2019)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.map_gradients import map_gradient
from underfire.ascent.map_objectives import MapObjective, by_map, keep_output, move_map, remembered
from underfire.ascent.moves import Move, plain
from underfire.ascent.objectives import Interpreter
from underfire.ascent.step_rules import StepSize, linear
from underfire.ascent.target_maps import Clean, TargetMap
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import Unsupported
from underfire.gradients.estimators import Estimator
from underfire.hooks import frozen
from underfire.validate import at_least, at_least_one, check_classes, checked_at_end, default_generator


@card(
    "attack",
    paper="Ghorbani, Abid and Zou, Interpretation of Neural Networks is Fragile, AAAI 2019",
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted",),
    random=False,
    atlas="AML.T0043.000",
    quadrant="prediction kept, map changed",
)
def explanation_only(
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
    step_size: StepSize | None = None,
    move: Move | None = None,
    estimate: Estimator | None = None,
    output_weight: float | None = None,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Change the explanation while the predicted class stays as it is.

    The attack maximises the change of the map (see `ascent.map_objectives`) minus `output_weight` times the squared
    change of the probabilities. Of the clean image and all iterates, it returns the one with the largest change whose
    predicted class is that of the clean image; so the class is always kept, whether it is `y` or not.

    Args:
        interpreter: `(model, x, classes) -> [B, 1, h, w]`, differentiable in `x`.
        objective: `"top_k"` takes importance away from the pixels that had most of it; `"mass_centre"` moves the centre
            of the importance (both by Ghorbani et al.); `"target_map"` shows the map `target` (Dombrowski et al.).
        target: the maps to show with `objective="target_map"`, `[B, 1, h, w]`, or a rule that makes them, such as
            `random_patch()` (see `ascent.target_maps`).
        resize: whether to resize a target map whose size is not that of the interpreter's maps; if False, such a target
            raises an error.
        quantile: the top pixels of `objective="top_k"` are those above this quantile of the clean map; Ghorbani et al.
            take 1000 of 227 x 227 pixels on ImageNet and 100 of 32 x 32 on CIFAR-10.
        step_size: None is a step that falls linearly from `eps / 4` to `eps / 80`. (Ghorbani et al. take steps of
            1/255 all along.)
        move: how gradients are used; None is the plain gradient. (Dombrowski et al. use `adam`.)
        estimate: how the gradient is obtained; None is `ascent.map_gradients.map_gradient`: with softplus functions in
            place of rectifiers, if the map is itself a gradient.
        output_weight: weight of the change of the probabilities. None is 25 for `"target_map"`, the ratio of Dombrowski
            et al., whose weights 1e6 and 1e11 belong to means over 1000 classes and to maps of 224 x 224 pixels with
            the sum 1. For the other objectives it is 1: with 0, as in the paper, steps are lost to iterates of other
            classes.

    Raises:
        Unsupported: there is a goal.
    """
    if goal is not None:
        raise Unsupported("explanation_only has no goal, it keeps the predicted class; use explanation_and_prediction")
    domain_of(model).require_images("explanation_only")
    check_inputs(model, x, y)
    at_least_one(steps=steps)
    threat = ball(norm, eps, mask, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    weight = (25.0 if objective == "target_map" else 1.0) if output_weight is None else output_weight
    at_least(0, output_weight=weight)
    if len(x) == 0:
        return x.clone()
    generator = default_generator(generator, x.device)
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        check_classes(logits, y)
        predicted = logits.argmax(1)
        clean = Clean(interpreter(model, x.detach(), predicted).detach(), predicted, predicted)
        interpreter, usual = map_gradient(interpreter, steps)
        aim = move_map(
            objective, interpreter, clean, target=target, resized=resize, quantile=quantile, generator=generator
        )
        total, change = remembered(aim)
        if weight:
            total = total + weight * keep_output(logits)
        recipe = Recipe(
            total,
            threat,
            step_rule=linear(eps / 4, eps / 80) if step_size is None else step_size,
            estimate=estimate or usual,
            move=move or plain(),
            rank=by_map(change),
        )
        # the clean image is the first iterate, and a success is an iterate that keeps the predicted class
        with checked_at_end():
            return ascend(model, x, y, recipe, goal=predicted, steps=steps, generator=generator)
