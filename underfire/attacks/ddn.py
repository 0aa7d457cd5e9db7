"""DDN (Rony et al., Decoupling Direction and Norm for Efficient Gradient-Based L2 Attacks, CVPR 2019)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.decoupled import descend
from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger, Decoupling Direction and Norm for Efficient "
    "Gradient-Based L2 Adversarial Attacks and Defenses, CVPR 2019",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
)
def ddn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    steps: int = 100,
    gamma: float = 0.05,
    first: float = 1.0,
    levels: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Step along the gradient, and set the length of the perturbation separately in every step.

    The length shrinks after a success and grows after a failure. The gradient is that of the log-odds, which has the
    direction of the paper's cross-entropy but does not vanish on a confident network; only its direction is used. If it
    is zero, the direction stays as it is (the authors' code draws a random one).

    Args:
        steps: number of steps; the paper has 100, 300 and 1000.
        gamma: share by which the length changes in a step.
        first: length of the first perturbation.
        levels: number of grey levels that every iterate is rounded to; None does not round. The paper's images have
            256.

    Returns:
        The nearest success of each sample, shaped like `x`; the clean image if there is none.
    """
    at_least_one(steps=steps)
    if not 0 < gamma < 1 or not first > 0 or (levels is not None and levels < 2):
        raise InputError(f"ddn needs gamma in (0, 1), first > 0, levels >= 2; got {gamma}, {first} and {levels}")
    nearest = Nearest(x.detach(), norm, eps, among=("l2",), domain=domain_of(model))
    with frozen(model):
        _, at = evaluate_clean(model, x, y, goal, nearest)
        at = at.take((~nearest.found).nonzero().squeeze(1))
        if len(at.index) == 0:
            return nearest.x_adv
        descend(model, at, nearest, steps, gamma=gamma, first=first, levels=levels)
    return nearest.x_adv
