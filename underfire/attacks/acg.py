"""ACG (Yamamura et al., Diversified Adversarial Attacks based on Conjugate Gradient Method, ICML 2022)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import Objective, margin
from underfire.ascent.step_rules import halving
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.validate import at_least_one, default_generator


@card(
    "attack",
    paper="Yamamura, Sato, Tateiwa, Hata, Mitsutake, Oe, Ishikura and Fujisawa, Diversified Adversarial Attacks based "
    "on Conjugate Gradient Method, ICML 2022",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    atlas="AML.T0043.000",
    domains=ADDITIVE,
)
def acg(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int = 100,
    rho: float = 0.75,
    objective: Objective | None = None,
    keep: Keep = "best",
    restarts: int = 1,
    random_start: bool = False,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Step along conjugate directions, with APGD's rule for the step size.

    A sample whose step size is halved goes back to its best iterate, and to the direction that led there.

    Args:
        rho: the step size halves unless more than this share of the steps between two checkpoints raise the objective.
        objective: None is the margin, the paper's CW loss.
    """
    at_least_one(steps=steps)
    recipe = Recipe(
        objective or margin(),
        ball(norm, eps, mask, among=("linf", "l2")),
        step_rule=halving(momentum=1.0, rho=rho),
        move=moves.conjugate(),
        keep=keep,
    )
    return ascend(
        model,
        x,
        y,
        recipe,
        steps=steps,
        goal=goal,
        restarts=restarts,
        random_start=random_start,
        generator=default_generator(generator, x.device),
    )
