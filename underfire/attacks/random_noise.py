"""Random noise of a given size: the control of every attack, which aims at nothing."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE, check_inputs, domain_of
from underfire.errors import Unsupported
from underfire.hooks import frozen
from underfire.validate import check_classes, default_generator, per_sample


@card(
    "attack",
    paper="Ghorbani, Abid and Zou, Interpretation of Neural Networks is Fragile, AAAI 2019",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("linf", "l2"),
    goals=("untargeted",),
    random=True,
    quadrant="both kept",
)
def random_noise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Add noise of size eps: in L-infinity, a random sign for every entry; in L2, a Gaussian direction.

    An attack on a prediction or on an explanation shows something only where it does more than noise of its size. The
    box clips the noise.

    Raises:
        Unsupported: there is a goal.
    """
    if goal is not None:
        raise Unsupported("random_noise has no goal")
    check_inputs(model, x, y)
    threat = ball(norm, eps, mask, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    with frozen(model), torch.no_grad():
        check_classes(model(x), y)
    draw = default_generator(generator, x.device)
    noise = torch.randn(x.shape, generator=draw, dtype=x.dtype, device=x.device)
    length = per_sample(torch.as_tensor(eps, dtype=x.dtype, device=x.device), x)
    return threat.project(x, x + length * threat.steepest(noise, x, x))
