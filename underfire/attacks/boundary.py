"""Boundary attack (Brendel et al., Decision-Based Adversarial Attacks, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.decisions import approach, find_starts, within
from underfire.ascent.nearest import Nearest
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.threats import Threat
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.gradients.smoothing import norms, unit
from underfire.hooks import frozen
from underfire.validate import at_least_one, default_generator


@card(
    "attack",
    paper="Brendel, Rauber and Bethge, Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box Machine "
    "Learning Models, ICLR 2018",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("l2",),
    goals=("untargeted", "targeted"),
    random=True,
    minimal=True,
    atlas="AML.T0043.001",
    quick={"queries": 50},
)
def boundary(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    queries: int | Tensor = 10_000,
    starts: Tensor | None = None,
    draws: int = 50,
    sideways: float = 0.01,
    inwards: float = 0.01,
    factor: float = 1.5,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Walk at random along the decision boundary and towards the image, using the model's decisions alone.

    Every proposal is a random step on the sphere around the image, followed by a step towards the image; it is accepted
    if it is still a success. Each sample adapts its own step sizes: the sideways step so that half of the steps on the
    sphere succeed (every fifth proposal spends a second query to test this), the inward step so that a quarter of the
    proposals succeed. Unlike in the paper, the walk begins on the boundary, which a bisection finds.

    Args:
        starts: images shaped like `x` that the model gets wrong (or assigns to the goal class); None looks for them at
            random and in the batch. A sample without any is returned as it is.
        draws: number of random images tried for each sample.
        sideways: first step on the sphere, as a share of the distance to the image.
        inwards: first step towards the image, as a share of the distance to it.
        factor: factor by which the step sizes grow or shrink.

    Returns:
        The nearest success of each sample; the clean image if there is none within eps.

    Raises:
        OracleError: the model failed; the error's `found` holds the nearest successes so far.
    """
    generator = default_generator(generator, x.device)
    at_least_one(draws=draws)
    if sideways <= 0 or inwards <= 0 or factor <= 1:
        raise InputError(f"sideways and inwards must be > 0 and factor > 1, got {sideways}, {inwards} and {factor}")
    query = Queries(model, x, y, queries, goal=goal, chunk=chunk)
    x = x.detach()
    nearest = Nearest(x, norm, among=("l2",), domain=domain_of(model))
    within(nearest, eps)  # raises at once if eps is out of range
    side, inward = Rate(x, sideways, factor, 0.2, 0.5, 10), Rate(x, inwards, factor, 0.1, 0.25, 20)
    step = 0
    with frozen(model), attach_partial_result(lambda: within(nearest, eps)), torch.no_grad():
        # start on the boundary
        find_starts(query, x, nearest, starts, draws, generator)
        index = nearest.found.nonzero().squeeze(1)
        z = approach(query, x[index], nearest.x_adv[index], index, "l2", 1e-3)
        nearest.update(z, torch.ones_like(index, dtype=torch.bool), index)
        while True:
            # samples go on while they have queries, and while their inward steps are not vanishing
            live = nearest.found & (nearest.size > 0) & (query.left > 0) & (inward.value > 1e-7)
            index = live.nonzero().squeeze(1)
            if len(index) == 0:
                break
            sphere, proposal = propose(
                x[index], nearest.x_adv[index], side.value[index], inward.value[index], nearest.threat, generator
            )
            # query the proposals, and in every fifth step their points on the sphere too
            rows = (query.left[index] > 1).nonzero().squeeze(1) if step % 5 == 0 else index[:0]
            queried = torch.cat([index, index[rows]])
            reached = query.reached(query(torch.cat([proposal, sphere[rows]]), queried), queried)
            success, aside = reached.split([len(index), len(rows)])
            # accept the successes, and adapt the step sizes
            nearest.update(proposal, success, index)
            inward.learn(success, index)
            if len(rows):
                side.learn(aside, index[rows])
            step += 1
    return within(nearest, eps)


def propose(
    x: Tensor, z: Tensor, sideways: Tensor, inwards: Tensor, threat: Threat, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Return a random point near `z` on the sphere around `x`, and one nearer to `x` by `inwards`; both in the box."""
    away = z - x
    far = norms(away, 2)
    direction = away / far
    noise = threat.restrict(torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype), x)
    noise = noise - (noise * direction).flatten(1).sum(1).reshape_as(far) * direction
    shift = away + unit(noise, 2) * far * sideways.reshape_as(far)
    sphere = threat.clip(x, x + shift / norms(shift, 2) * far)
    # Clipping may have brought the point nearer to `x` already; the distance aimed at is not lowered by that.
    back = sphere - x
    scale = (1 - inwards.reshape_as(far)) * far / norms(back, 2)
    return sphere, threat.clip(x, x + back * scale.clamp_max(1))


class Rate:
    """A step size for each sample that grows while many steps succeed and shrinks while few do; at most 1.

    Args:
        x: inputs, `[B, ...]`.
        first: the first step size.
        factor: factor of growing and shrinking.
        low: share of successes below which the step size shrinks.
        high: share of successes above which it grows.
        window: number of steps over which a share is counted.

    Attributes:
        value: the step sizes, `[B]`.
    """

    def __init__(self, x: Tensor, first: float, factor: float, low: float, high: float, window: int) -> None:
        self.value = x.new_full((len(x),), first)
        self.tried, self.succeeded = x.new_zeros(len(x)), x.new_zeros(len(x))
        self.factor, self.low, self.high, self.window = factor, low, high, window

    def learn(self, success: Tensor, index: Tensor) -> None:
        """Count one step of the samples at `index`, and adapt the step sizes where the window is full."""
        self.tried[index] += 1
        self.succeeded[index] += success.to(self.succeeded)
        full = self.tried >= self.window
        share = self.succeeded / self.tried.clamp_min(1)
        self.value = torch.where(full & (share > self.high), (self.value * self.factor).clamp_max(1), self.value)
        self.value = torch.where(full & (share < self.low), self.value / self.factor, self.value)
        self.tried[full], self.succeeded[full] = 0, 0
