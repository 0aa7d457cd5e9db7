"""R+FGSM (Tramer et al., Ensemble Adversarial Training: Attacks and Defenses, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE, check_inputs, domain_of
from underfire.errors import InputError
from underfire.validate import default_generator, per_sample


@card(
    "attack",
    paper="Tramer, Kurakin, Papernot, Goodfellow, Boneh and McDaniel, Ensemble Adversarial Training, ICLR 2018",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
)
def rand_fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    start: float = 0.5,
    objective: Objective | None = None,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take one random sign step out of the non-smooth vicinity of the image, then one FGSM step with the rest of eps.

    Args:
        start: share of eps that the random step uses, in `[0, 1)`; the paper has 0.5.
        objective: None is `log_odds`, whose gradient has exactly the sign of the paper's cross-entropy.
    """
    generator = default_generator(generator, x.device)
    if not 0 <= start < 1:
        raise InputError(f"start must be a share of eps in [0, 1), got {start}")
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, mask, among=("linf",)).in_domain(domain_of(model))
    threat.check(x)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device).sign()
    first = per_sample(torch.as_tensor(eps, dtype=x.dtype, device=x.device), x) * start
    return ascend(
        model,
        x,
        y,
        Recipe(objective or log_odds(), threat, step_rule=eps * (1 - start), keep="last"),
        goal=goal,
        steps=1,
        z=x + first * noise,
    )
