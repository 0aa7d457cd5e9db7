"""Square attack (Andriushchenko et al., Square Attack: a Query-efficient Black-box Adversarial Attack, ECCV 2020).

Under L1: as in Croce and Hein, Mind the Box: l1-APGD for Sparse Adversarial Attacks, ICML 2021.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.losses import as_objective
from underfire.ascent.objectives import Objective, log_odds, margin
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.step import Targets
from underfire.ascent.threats import Threat, ball
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.errors import InputError
from underfire.gradients.smoothing import norms
from underfire.hooks import frozen
from underfire.validate import at_least_one, default_generator, per_sample


@card(
    "attack",
    paper="Andriushchenko, Croce, Flammarion and Hein, Square Attack: a Query-efficient Black-box Adversarial Attack "
    "via Random Search, ECCV 2020",
    knowledge="black-box",
    norms=("linf", "l2", "l1"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"queries": 10},
)
def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    queries: int | Tensor = 5000,
    share: float = 0.8,
    objective: Objective | None = None,
    chunk: int = 512,
    generator: Generator | None = None,
) -> Tensor:
    """Change the colour (in L2 and L1: the texture) of random squares, and keep each change that helps.

    Every sample has its own squares, costs one forward pass per query, and leaves the batch at its first success. If a
    square would change nothing, it takes the opposite colour. The schedule of the square sizes is scaled to the number
    of queries, as in AutoAttack.

    Args:
        share: share of the image that the first squares cover, the paper's p.
        objective: None is the margin, or with a goal the log-odds, which replace the paper's cross-entropy.

    Returns:
        The first success of each sample; where there is none, the image of the largest objective.

    Raises:
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    domain_of(model).require_images("square")
    generator = default_generator(generator, x.device)
    at_least_one(chunk=chunk)
    if not 0 < share <= 1:
        raise InputError(f"share must be in (0, 1], got {share}")
    threat = ball(norm, eps, among=("linf", "l2", "l1")).in_domain(domain_of(model))
    threat.check(x)
    query = Queries(model, x, y, queries, goal=goal, chunk=chunk)
    x = x.detach()
    if len(x) == 0:
        return x.clone()
    threat = type(threat)(torch.as_tensor(eps).to(x).expand(len(x)))
    objective = as_objective(objective or (margin() if goal is None else log_odds()))
    first, again = (_stripes, _recolour) if norm == "linf" else (_tiles, _exchange)
    best = x.clone()
    index = torch.arange(len(x), device=x.device)
    score = torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device)
    with frozen(model), attach_partial_result(lambda: best):
        clean, within, targets = x, threat, Targets(y, goal, index)
        z = first(clean, within, generator)
        while True:
            # evaluate the proposals, and keep those that help
            logits = query(z, index).to(x.dtype)
            reached = query.reached(logits, index)
            value = objective(targets.step(model, z, logits)).detach()
            better = (value > score[index]) | reached
            best[index[better]], score[index[better]] = z[better], value[better]
            # samples that succeeded or have no queries left leave the batch
            stays = (~reached & (query.left[index] > 0)).nonzero().squeeze(1)
            if len(stays) == 0:
                break
            if len(stays) < len(index):
                clean, within, targets, index = clean[stays], within.take(stays), targets.take(stays), index[stays]
            # propose the next squares
            side = _side(share, query.used[index] - 1, query.limit[index], x.shape[2], x.shape[3])
            z = again(clean, best[index], within, side, generator)
    return best


def _side(share: float, used: Tensor, limit: Tensor, height: int, width: int) -> Tensor:
    """Return the side of the next square; the covered share is halved at fixed points of the schedule."""
    halvings = torch.tensor([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], device=used.device)
    way = used * 10000 // limit  # the schedule is that of 10,000 queries
    part = share / 2 ** (way[:, None] > halvings).sum(1)
    return (part * height * width).sqrt().round().clamp(1, min(height, width)).long()


def _signs(shape: tuple[int, ...], like: Tensor, generator: Generator | None) -> Tensor:
    """Draw random signs."""
    return 2 * torch.randint(2, shape, generator=generator, device=like.device).to(like.dtype) - 1


def _corner(side: Tensor, height: int, width: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Draw the first row and column of a random square inside the image, `[M]` each."""
    place = torch.rand(2, len(side), generator=generator, device=side.device, dtype=torch.float64)
    return (place[0] * (height - side + 1)).long(), (place[1] * (width - side + 1)).long()


def _offsets(x: Tensor, corner: tuple[Tensor, Tensor], side: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pixel's row and column in the square, `[M, 1, H, 1]` and `[M, 1, 1, W]`, and whether it is inside."""
    rows = torch.arange(x.shape[2], device=x.device).reshape(1, 1, -1, 1) - per_sample(corner[0], x)
    columns = torch.arange(x.shape[3], device=x.device).reshape(1, 1, 1, -1) - per_sample(corner[1], x)
    side = per_sample(side, x)
    return rows, columns, (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _stripes(x: Tensor, threat: Threat, generator: Generator | None) -> Tensor:
    """Return the images with vertical stripes of random sign and size eps: the first proposal in L-infinity."""
    return threat.project(x, x + _signs((len(x), x.shape[1], 1, x.shape[3]), x, generator))


def _recolour(x: Tensor, best: Tensor, threat: Threat, side: Tensor, generator: Generator | None) -> Tensor:
    """Give a random square one random colour, each channel at one end of the interval that eps allows."""
    *_, inside = _offsets(x, _corner(side, x.shape[2], x.shape[3], generator), side)
    colour = _signs((len(x), x.shape[1], 1, 1), x, generator)
    z = threat.project(x, torch.where(inside, x + colour, best))
    # a proposal that changes nothing takes the opposite colour
    same = per_sample((z == best).flatten(1).all(1), z)
    return torch.where(same & inside, threat.project(x, x - colour), z) if bool(same.any()) else z


def _texture(side: int, like: Tensor) -> Tensor:
    """Return two opposite pyramids, one above the other, `[side, side]`, with steps of `1 / k²` around each centre."""

    def pyramid(height: int, width: int) -> Tensor:
        steps = max(height, width) // 2 + 1
        rows = (torch.arange(height, device=like.device) - height // 2).abs()[:, None]
        columns = (torch.arange(width, device=like.device) - width // 2).abs()[None]
        heights = (1 / torch.arange(1, steps + 1, device=like.device, dtype=like.dtype) ** 2).flip(0).cumsum(0).flip(0)
        return heights[torch.maximum(rows, columns)]

    return torch.cat([pyramid(side // 2, side), -pyramid(side - side // 2, side)])


def _unit(texture: Tensor, order: float) -> Tensor:
    """Divide every channel by its norm."""
    length = torch.linalg.vector_norm(texture, ord=order, dim=(2, 3), keepdim=True)
    return texture / length.clamp_min(torch.finfo(texture.dtype).tiny)


def _tiles(x: Tensor, threat: Threat, generator: Generator | None) -> Tensor:
    """Tile the images with textures of random signs, five along the shorter side: the first proposal in L2 and L1."""
    side = max(min(x.shape[2], x.shape[3]) // 5, 1)
    down, across = x.shape[2] // side, x.shape[3] // side
    signs = _signs((len(x), x.shape[1], down, across), x, generator)
    tiles = torch.kron(signs, _texture(side, x)[None, None])
    margins = x.shape[3] - tiles.shape[3], x.shape[2] - tiles.shape[2]
    left, top = margins[0] // 2, margins[1] // 2
    return _full_size(x, F.pad(tiles, (left, margins[0] - left, top, margins[1] - top)), threat)


def _exchange(x: Tensor, best: Tensor, threat: Threat, side: Tensor, generator: Generator | None) -> Tensor:
    """Move the change of one random square, and the unused part of the radius, into the texture of another."""
    order = float(threat.norm[1:])
    side = side.clamp_min(3)
    side = (side + (side + 1) % 2).clamp_max(min(x.shape[2], x.shape[3]))  # odd, where the image has room
    # two random squares: `here` grows, `there` is emptied
    rows, columns, here = _offsets(x, _corner(side, x.shape[2], x.shape[3], generator), side)
    *_, there = _offsets(x, _corner(side, x.shape[2], x.shape[3], generator), side)
    # the texture in each square `here`, transposed at random
    texture = torch.zeros_like(x)
    turned = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device, dtype=x.dtype) > 0.5
    for length in side.unique().tolist():
        table = _texture(length, x)
        i, j = rows.clamp(0, length - 1), columns.clamp(0, length - 1)
        looked_up = torch.where(turned, table[j, i], table[i, j])
        texture = torch.where(per_sample(side == length, x) & here, looked_up, texture)
    # new direction inside `here`: the texture with a random sign, added to the present change
    shift = best - x
    new = _unit(texture, order) * _signs((len(x), x.shape[1], 1, 1), x, generator) + _unit(shift * here, order)
    # its length: the part of the radius that is unused, and what both squares held
    free = (per_sample(torch.as_tensor(threat.eps), x) ** order - norms(shift, order) ** order).clamp_min(0)
    held = torch.linalg.vector_norm(shift * (here | there), ord=order, dim=(2, 3), keepdim=True) ** order
    grown = _unit(new, order) * (free / x.shape[1] + held) ** (1 / order)
    return _full_size(x, torch.where(here, grown, torch.where(there, 0, shift)), threat)


def _full_size(x: Tensor, shift: Tensor, threat: Threat) -> Tensor:
    """Scale the perturbation to the radius, and project the image into the box."""
    number = torch.finfo(x.dtype)
    size = norms(shift, float(threat.norm[1:])).clamp_min(number.tiny)
    scale = per_sample(torch.as_tensor(threat.eps), x) / size
    return threat.project(x, x + shift * scale.clamp_max(number.max))  # a perturbation of zero stays zero
