"""One step towards the least likely class (Kurakin et al., Adversarial Machine Learning at Scale, ICLR 2017)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.objectives import Objective
from underfire.attacks.fgsm import fgsm
from underfire.attacks.illc import least_likely
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import Unsupported


@card(
    "attack",
    paper="Kurakin, Goodfellow and Bengio, Adversarial Machine Learning at Scale, ICLR 2017",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted",),
    random=False,
    atlas="AML.T0043.000",
)
def step_ll(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    objective: Objective | None = None,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take one FGSM step towards the class that the model finds least likely for the clean image, never `y` itself.

    Args:
        goal: must be None; the method chooses its goal.
        eps: largest change of an entry, one number or one per sample `[B]`; the paper has 2 to 16 grey levels.
        objective: None is `log_odds`, whose gradient has exactly the sign of the paper's cross-entropy.

    Raises:
        Unsupported: a goal is given.
    """
    if goal is not None:
        raise Unsupported("step_ll chooses the goal itself, the least likely class; use fgsm to choose another goal")
    return fgsm(model, x, y, goal=least_likely(model, x, y), norm=norm, eps=eps, objective=objective, mask=mask)
