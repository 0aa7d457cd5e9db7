"""An attack of freely chosen parts, in a spec file or on the command line: objective x threat x gradient x move.

The three kinds of parts that published transfer attacks combine (input transformations, gradient smoothing, momentum)
are compared in Dong et al., Benchmarking Adversarial Robustness on Image Classification, CVPR 2020.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent import parts as parts  # adds the parts to the catalogue
from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.moves import Move, plain
from underfire.ascent.objectives import Objective, margin
from underfire.ascent.step_rules import StepRule, StepSize
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.gradients.backward import Backward, true_gradient
from underfire.gradients.estimators import Estimator, autograd
from underfire.gradients.smoothing import Smoothing, none
from underfire.gradients.views import View, identity
from underfire.validate import at_least_one, default_generator


@card(
    "attack",
    paper="Dong, Fu, Yang, Pang, Su, Xiao and Zhu, Benchmarking Adversarial Robustness on Image Classification, "
    "CVPR 2020",
    knowledge="white-box",
    norms=("linf", "l2", "l1"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
    domains=("image", "table", "series"),
)
def recipe(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int = 10,
    objective: Objective | None = None,
    views: View = identity,
    estimate: Estimator = autograd,
    smooth: Smoothing = none,
    backward: Backward = true_gradient,
    move: Move | None = None,
    step_rule: StepRule | StepSize | None = None,
    keep: Keep = "best",
    restarts: int = 1,
    random_start: bool = False,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Run the attack that consists of the given parts; with none given, it is PGD from the clean image.

    Args:
        objective: what to make large; None is the margin.
        views: the transformed copies of an image that the objective is averaged over.
        estimate: how the gradient is obtained.
        smooth: how the gradient is smoothed before the move uses it.
        backward: how the network passes gradients back, such as `skip_gradient`.
        move: how the gradients become a direction, such as momentum; None is the last gradient itself.
        step_rule: the step size; None is `eps / steps`.
    """
    at_least_one(steps=steps)
    made = Recipe(
        objective or margin(),
        ball(norm, eps, mask, among=("linf", "l2", "l1")),
        step_rule=eps / steps if step_rule is None else step_rule,
        views=views,
        estimate=estimate,
        smooth=smooth,
        backward=backward,
        move=move or plain(),
        keep=keep,
    )
    return ascend(
        model,
        x,
        y,
        made,
        steps=steps,
        goal=goal,
        restarts=restarts,
        random_start=random_start,
        generator=default_generator(generator, x.device),
    )
