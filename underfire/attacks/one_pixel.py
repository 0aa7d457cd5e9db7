"""One-pixel attack (Su et al., One Pixel Attack for Fooling Deep Neural Networks, IEEE TEVC 2019)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.objectives import log_odds
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.step import Targets
from underfire.ascent.threats import L0
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, default_generator


@card(
    "attack",
    paper="Su, Vargas and Sakurai, One Pixel Attack for Fooling Deep Neural Networks, IEEE TEVC 2019",
    knowledge="black-box",
    norms=("pixels",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"population": 10, "steps": 1},
)
def one_pixel(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "pixels",
    eps: float | Tensor = 1,
    population: int = 400,
    steps: int = 100,
    factor: float = 0.5,
    base: str = "random",
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Search the positions and colours of a few pixels by differential evolution.

    A candidate is a position and a colour for each pixel. A child is `base + factor * (another - a third)`, without
    crossover, and replaces its parent if it is fitter. Fitness is the log-odds of the class, which orders candidates
    like the paper's probability, but does not round to zero or one. A position outside the image is drawn again; a
    colour is clipped. A sample is done when one of its candidates succeeds; every generation costs `population`
    queries, the first included.

    Args:
        eps: how many pixels may change, one number or one per sample `[B]`; fractions are rounded down.
        population: number of candidates of each sample, at least 4.
        steps: number of generations after the first.
        factor: factor of the difference of two candidates, the paper's F.
        base: `"random"` adds the difference to another random candidate, as in the paper; `"best"` adds it to the
            fittest candidate so far, which gets further in few generations.

    Returns:
        The perturbed images, shaped like `x`: the first success, or the fittest candidate.

    Raises:
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    domain_of(model).require_images("one_pixel")
    generator = default_generator(generator, x.device)
    at_least_one(steps=steps)
    if population < 4:
        raise InputError(f"population must be at least 4, got {population}")
    check_choice(("pixels",), norm=norm)
    check_choice(("random", "best"), base=base)
    query = Queries(model, x, y, population * (steps + 1), goal=goal, chunk=chunk)
    L0(eps).check(x)
    pixels = torch.as_tensor(eps, device=x.device).floor().expand(len(x)).clamp(max=x[:1, 0].numel()).to(torch.int64)
    best = x.detach().clone()
    targets = Targets(y, goal, torch.arange(len(x), device=x.device)).take((pixels > 0).nonzero().squeeze(1))
    evolution = _Evolution(x, population, int(pixels.max()) if len(x) else 0, factor, base, generator)

    def answers(index: Tensor, genes: Tensor) -> tuple[Tensor, Tensor]:
        """Return fitness and success of each candidate, `[L, population]`, for one query each."""
        owner = index.repeat_interleave(population)
        flat = genes.flatten(0, 1)
        logits = query.each(lambda rows: paint(x[owner[rows]], flat[rows], pixels[owner[rows]]), owner)
        candidates = Targets(y[owner], None if goal is None else goal[owner], owner)
        fitness = log_odds()(candidates.step(model, x, logits)).to(x.dtype).nan_to_num(nan=float("-inf"))
        reached = query.reached(logits, owner)
        return fitness.view(-1, population), reached.view(-1, population)

    with frozen(model), attach_partial_result(lambda: best), torch.no_grad():
        if len(targets.index) == 0:
            return best
        parents = evolution.first(len(targets.index))
        fitness, reached = answers(targets.index, parents)
        for step in range(steps + 1):
            # a child replaces its parent if it is fitter or a success
            if step:
                children = evolution.children(parents, fitness)
                child_fitness, reached = answers(targets.index, children)
                fitter = child_fitness > fitness
                parents = torch.where(fitter[..., None, None] | reached[..., None, None], children, parents)
                fitness = torch.where(fitter, child_fitness, fitness)
            # keep the fittest candidate; a success comes first, whatever rounding does to its log-odds
            order = torch.where(reached, float("inf"), fitness)
            top = parents[torch.arange(len(parents), device=x.device), order.argmax(1)]
            best[targets.index] = paint(x[targets.index], top, pixels[targets.index])
            # samples with a success leave the batch
            rows = (~reached.any(1)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            targets, parents, fitness = targets.take(rows), parents[rows], fitness[rows]
    return best


def paint(x: Tensor, genes: Tensor, pixels: Tensor) -> Tensor:
    """Paint the first `pixels` `[M]` genes `[M, P, 2 + C]` (row, column, colour) into images `[M, C, H, W]`."""
    height, width = x.shape[2:]
    place = genes[..., 0].floor().clamp(0, height - 1) * width + genes[..., 1].floor().clamp(0, width - 1)
    place = place.to(torch.int64)[:, None].expand(-1, x.shape[1], -1)
    painted = x.flatten(2).clone()
    # From the last gene to the first, so that the first counts where two genes have the same position.
    for i in reversed(range(genes.shape[1])):
        before = painted.gather(2, place[..., i : i + 1])
        colour = torch.where((pixels > i)[:, None, None], genes[:, i, 2:, None], before)
        painted.scatter_(2, place[..., i : i + 1], colour)
    return painted.view_as(x)


class _Evolution:
    """Differential evolution of candidates `[L, population, P, 2 + C]`: row, column, colour of each pixel.

    Rows are in `[0, H)`, columns in `[0, W)` and colours in `[0, 1]`.
    """

    def __init__(
        self, x: Tensor, population: int, pixels: int, factor: float, base: str, generator: Generator | None
    ) -> None:
        self.like, self.shape = x, (population, pixels, 2 + x.shape[1])
        self.sides = torch.tensor(x.shape[2:], dtype=x.dtype, device=x.device)
        self.factor, self.base, self.generator = factor, base, generator

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=self.like.dtype, device=self.like.device)

    def first(self, count: int) -> Tensor:
        """Draw uniform positions, and colours normally distributed around grey (with 128 and 127, as in the paper)."""
        genes = self._uniform(count, *self.shape)
        genes[..., :2] *= self.sides
        colours = genes[..., 2:]
        normal = torch.randn(colours.shape, generator=self.generator, dtype=colours.dtype, device=colours.device)
        genes[..., 2:] = (normal * 127 / 255 + 128 / 255).clamp_(0, 1)
        return genes

    def children(self, parents: Tensor, fitness: Tensor) -> Tensor:
        """Return one child for each parent, shaped like `parents`."""
        count, population = parents.shape[:2]
        samples = torch.arange(count, device=parents.device)[:, None]
        first, second, third = self._three(count)
        if self.base == "best":
            first = fitness.argmax(1, keepdim=True).expand(-1, population)
        genes = parents[samples, first] + self.factor * (parents[samples, second] - parents[samples, third])
        anew = self._uniform(*genes[..., :2].shape) * self.sides
        inside = (genes[..., :2] >= 0) & (genes[..., :2] < self.sides)
        return torch.cat([torch.where(inside, genes[..., :2], anew), genes[..., 2:].clamp(0, 1)], -1)

    def _three(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw three candidates for every parent, different from each other and from it."""
        population = self.shape[0]
        draws = [
            (self._uniform(count, population) * (population - k)).long().clamp_(max=population - k - 1)
            for k in (1, 2, 3)
        ]
        taken = torch.arange(population, device=self.like.device).expand(count, -1)[..., None]
        # Each draw is a number among the candidates not taken yet; it is shifted past those that are taken.
        for draw in draws:
            for other in taken.sort(-1).values.unbind(-1):
                draw += draw >= other
            taken = torch.cat([taken, draw[..., None]], -1)
        return draws[0], draws[1], draws[2]
