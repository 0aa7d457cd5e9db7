"""VMI-FGSM (Wang and He, Enhancing the Transferability of Adversarial Attacks through Variance Tuning, CVPR 2021)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.gradients.estimators import variance_tuned
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Wang and He, Enhancing the Transferability of Adversarial Attacks through Variance Tuning, CVPR 2021",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    atlas="AML.T0043.000",
    domains=ADDITIVE,
)
def vmi_fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    steps: int = 10,
    samples: int = 20,
    neighbourhood: float = 1.5,
    decay: float = 1.0,
    objective: Objective | None = None,
    keep: Keep = "last",
    restarts: int = 1,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take momentum steps of `eps / steps` along gradients corrected by their variance around the previous iterate.

    Args:
        samples: number of points around an iterate, the paper's N.
        neighbourhood: half the side of the cube that the points are drawn from, in units of eps; the paper's beta.
        decay: share of the accumulated gradient that is kept in each step, the paper's mu.
        objective: None is `log_odds`; the paper has cross-entropy, whose gradient vanishes on a confident network.
    """
    at_least_one(steps=steps)
    recipe = Recipe(
        objective or log_odds(),
        ball(norm, eps, mask, among=("linf",)),
        step_rule=eps / steps,
        estimate=variance_tuned(samples, neighbourhood * eps),
        move=moves.momentum(decay),
        keep=keep,
    )
    return ascend(model, x, y, recipe, steps=steps, goal=goal, restarts=restarts, generator=generator)
