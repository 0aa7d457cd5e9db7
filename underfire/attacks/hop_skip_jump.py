"""HopSkipJump (Chen, Jordan and Wainwright, HopSkipJumpAttack, IEEE S&P 2020)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.decisions import approach, find_starts, within
from underfire.ascent.nearest import Nearest
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.threats import Threat
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.gradients.smoothing import unit
from underfire.hooks import frozen
from underfire.validate import at_least_one, default_generator, per_sample


@card(
    "attack",
    paper="Chen, Jordan and Wainwright, HopSkipJumpAttack: A Query-Efficient Decision-Based Attack, IEEE S&P 2020",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("l2", "linf"),
    goals=("untargeted", "targeted"),
    random=True,
    minimal=True,
    atlas="AML.T0043.001",
    quick={"queries": 100},
)
def hop_skip_jump(
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
    first_samples: int = 100,
    most_samples: int = 10_000,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Step from the boundary along its estimated normal, and bisect back to it, using the model's decisions alone.

    The normal at step `t` is the mean of `first_samples * sqrt(t)` random directions, each weighted by the decision at
    its end. The last step of a sample uses the queries that are left.

    Args:
        starts: images shaped like `x` that the model gets wrong (or assigns to the goal class); None looks for them at
            random and in the batch. A sample without any is returned as it is.
        draws: number of random images tried for each sample.
        first_samples: number of directions of the first estimate.
        most_samples: largest number of directions of an estimate.

    Returns:
        The nearest success of each sample; the clean image if there is none within eps.

    Raises:
        OracleError: the model failed; the error's `found` holds the nearest successes so far.
    """
    generator = default_generator(generator, x.device)
    at_least_one(draws=draws, first_samples=first_samples, most_samples=most_samples)
    query = Queries(model, x, y, queries, goal=goal, chunk=chunk)
    x = x.detach()
    nearest = Nearest(x, norm, among=("l2", "linf"), domain=domain_of(model))
    within(nearest, eps)  # raises at once if eps is out of range
    d = max(1, x[:1].numel())
    theta = d**-1.5 if norm == "l2" else d**-2.0
    # Queries that a step needs after its estimate: a few halvings of its length, and a bisection.
    reserve = math.ceil(-math.log2(max(theta, torch.finfo(x.dtype).eps))) + 4
    with frozen(model), attach_partial_result(lambda: within(nearest, eps)), torch.no_grad():
        find_starts(query, x, nearest, starts, draws, generator)
        z, far = nearest.x_adv.clone(), nearest.size.clone()
        index = (nearest.found & (nearest.size > 0)).nonzero().squeeze(1)
        t = 0
        while len(index):
            # bisect to the boundary
            z[index] = approach(query, x[index], z[index], index, norm, theta)
            nearest.update(z[index], torch.ones_like(index, dtype=torch.bool), index)
            t += 1
            # number of directions; samples without enough queries leave
            wanted = min(round(first_samples * math.sqrt(t)), most_samples)
            count = (query.left - reserve).clamp(max=wanted)
            index = index[(count[index] >= min(wanted, 10)) & (nearest.size[index] > 0)]
            if len(index) == 0:
                break
            # estimate the normal; `far` is the distance before the bisection, as in the paper
            delta = (math.sqrt(d) if norm == "l2" else d) * theta * far[index]
            v = normal(query, z[index], index, delta, count[index], nearest.threat, generator)
            v = unit(v, 2) if norm == "l2" else v.sign()
            # step along the normal
            length = nearest.threat.size(x[index], z[index]) / math.sqrt(t)
            z[index] = jump(query, z[index], index, v, length, nearest.threat)
            far[index] = nearest.threat.size(x[index], z[index])
    return within(nearest, eps)


def normal(
    query: Queries, z: Tensor, index: Tensor, delta: Tensor, count: Tensor, threat: Threat, generator: Generator | None
) -> Tensor:
    """Return an estimate of the boundary's normal at `z`, `[M, ...]`: `sum (phi - mean phi) u` over directions `u`.

    `phi` is 1 where the point `z + delta u` is a success, and -1 elsewhere.

    Args:
        query: the model, which counts its queries.
        z: points `[M, ...]`.
        index: the samples that they belong to.
        delta: length of the directions, `[M]`.
        count: number of directions of each point, `[M]`; all are queried as one batch, in chunks.
        threat: the threat whose box and norm are used: `"l2"` draws from a normal distribution, `"linf"` from a cube,
            as the authors' code does.
        generator: source of the directions.
    """
    owner = torch.arange(len(z), device=z.device).repeat_interleave(count)
    total, weighed, hits = torch.zeros_like(z), torch.zeros_like(z), z.new_zeros(len(z))
    for rows in owner.split(query.chunk):
        # draw directions, and query the decisions at their ends
        shape, here = (len(rows), *z.shape[1:]), per_sample(delta[rows], z)
        if threat.norm == "l2":
            u = torch.randn(shape, generator=generator, device=z.device, dtype=z.dtype)
        else:
            u = 2 * torch.rand(shape, generator=generator, device=z.device, dtype=z.dtype) - 1
        points = threat.clip(z[rows], z[rows] + here * unit(u, 2))
        u = (points - z[rows]) / here  # the direction after clipping and rounding
        phi = 2 * query.reached(query(points, index[rows]), index[rows]).to(z.dtype) - 1
        # add them up for each point; by products, because `index_add_` sums in another order every time on a GPU
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        own = (rows == torch.arange(some.start, some.stop, device=z.device)[:, None]).to(z.dtype)
        total[some] += (own @ u.flatten(1)).view_as(z[some])
        weighed[some] += ((own * phi) @ u.flatten(1)).view_as(z[some])
        hits[some] += own @ phi
    mean = per_sample(hits / count, z)
    # If all decisions of a point are the same, the mean of the directions is all that is known.
    return torch.where(mean.abs() == 1, mean * total, weighed - mean * total)


def jump(query: Queries, z: Tensor, index: Tensor, v: Tensor, length: Tensor, threat: Threat) -> Tensor:
    """Return the farthest success among `z + length v`, `z + length v / 2`, ...; `z` itself if there is none."""
    found, rows = z.clone(), torch.arange(len(index), device=z.device)
    for halving in range(30):
        rows = rows[query.left[index[rows]] > 0]
        if len(rows) == 0:
            break
        points = threat.clip(z[rows], z[rows] + per_sample(length[rows] / 2**halving, v) * v[rows])
        reached = query.reached(query(points, index[rows]), index[rows])
        found[rows[reached]] = points[reached]
        rows = rows[~reached]
    return found
