"""ZOO (Chen et al., Zeroth Order Optimization Based Black-box Attacks without Training Substitute Models, 2017)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.moves import adam
from underfire.ascent.nearest import Nearest
from underfire.ascent.objectives import margin
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.step import State, Targets, take
from underfire.ascent.threats import Threat
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_choice, default_generator

_ADAM = adam()


@card(
    "attack",
    paper="Chen, Zhang, Sharma, Yi and Hsieh, ZOO: Zeroth Order Optimization Based Black-box Attacks to Deep Neural "
    "Networks without Training Substitute Models, AISec 2017",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("l2",),
    goals=("untargeted", "targeted"),
    random=True,
    minimal=True,
    atlas="AML.T0043.001",
    quick={"queries": 300},
)
def zoo(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    queries: int | Tensor = 100_000,
    binary_search_steps: int = 1,
    c: float = 10.0,
    confidence: float = 0.0,
    step_size: float = 0.01,
    step: float = 1e-4,
    coordinates: int = 128,
    solver: str = "adam",
    sides: tuple[int, ...] | None = None,
    importance: bool = False,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Minimise Carlini and Wagner's loss by coordinate descent along finite differences of the margin.

    The loss is `|x' - x|^2 + c * max(confidence - margin, 0)`. Each step updates a few random coordinates and costs
    `2 * coordinates + 1` queries. Values are clipped to the box, which is an option of the authors' code. The paper
    optimises in tanh space, where the differences vanish at black and white pixels.

    Args:
        binary_search_steps: number of runs of the binary search over `c`, which share the queries equally. (The paper
            has 9 on small images, with millions of queries, and 1 on large ones.)
        c: first weight of the margin against the distance.
        step_size: Adam's step size for each coordinate, or the factor of Newton's step.
        step: half the distance between the two points of a central difference.
        coordinates: number of coordinates updated at once.
        solver: `"adam"` or `"newton"`. (The second differences of Newton's method need a larger `step`, or float64.)
        sides: sizes in which the perturbation is optimised, one after the other, before it is enlarged to the size of
            `x`; each is the length of the longer side in pixels. Each size gets an equal share of a run and starts from
            the perturbation of the size before. None is full size only.
        importance: whether coordinates are drawn with probabilities that follow the largest change so far in their
            region of 8 x 8 pixels, instead of uniformly.

    Returns:
        The nearest success of each sample; the clean image if there is none within eps.

    Raises:
        OracleError: the model failed; the error's `found` holds the nearest successes so far.
    """
    generator = default_generator(generator, x.device)
    at_least_one(
        binary_search_steps=binary_search_steps,
        coordinates=coordinates,
        **{"every side": min(sides, default=0)} if sides else {},
    )
    check_choice(("adam", "newton"), solver=solver)
    if step <= 0 or step_size <= 0 or c <= 0:
        raise InputError(f"step, step_size and c must be > 0, got {step}, {step_size} and {c}")
    query = Queries(model, x, y, queries, goal=goal, chunk=chunk)
    x = x.detach()
    nearest = Nearest(x, norm, eps, among=("l2",), domain=domain_of(model))
    if sides or importance:
        domain_of(model).require_images("zoo with sides or importance")
    everyone = Targets(y, goal, torch.arange(len(x), device=x.device))
    weights, lead = BinarySearch(x, c), margin()
    shapes = [_shape(x, side) for side in sides] if sides else [tuple(x.shape[2:])]

    def see(x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Return by how much the margin falls short of `confidence`, and whether the attack has succeeded, `[M]`."""
        logits = query(x_adv, targets.index)
        short = confidence - lead(targets.step(model, x_adv, logits)).to(x.dtype)
        success = query.reached(logits, targets.index) & (short <= 0)
        nearest.update(x_adv, success, targets.index)
        return short, success

    with frozen(model), attach_partial_result(lambda: nearest.x_adv), torch.no_grad():
        if len(x) == 0:
            return nearest.x_adv
        clean, _ = see(x, everyone)
        first = everyone.take((~nearest.found).nonzero().squeeze(1))
        for search in range(binary_search_steps):
            # each run may spend an equal share of the queries that are left
            until = query.used + query.left // (binary_search_steps - search)
            targets, reached = first, torch.zeros_like(nearest.found)
            short = clean[targets.index]
            run = _Run(x[targets.index], shapes[0], solver, step_size, step, importance, nearest.threat, generator)
            taken = 0
            while True:
                # rows that cannot pay for one more step leave the run
                cost = 2 * min(coordinates, run.z[:1].numel()) + 1
                rows = (query.used[targets.index] + cost <= until[targets.index]).nonzero().squeeze(1)
                if len(rows) == 0:
                    break
                if len(rows) < len(targets.index):
                    targets, short = targets.take(rows), short[rows]
                    run.take(rows)
                # move to the next size when its share of the longest run begins
                if taken == 0:
                    length = int((until - query.used)[targets.index].max()) // cost
                elif (stage := taken * len(shapes) // max(length, 1)) < len(shapes):
                    run.enlarge(shapes[stage])
                # take a step, and evaluate the new images
                run.descend(
                    query, targets, short, weights.c[targets.index], confidence, min(coordinates, run.z[:1].numel())
                )
                short, success = see(run.image(run.z, run.x), targets)
                reached[targets.index] |= success
                taken += 1
            weights.update(reached[first.index], first.index)
    return nearest.x_adv


def _shape(x: Tensor, side: int) -> tuple[int, int]:
    """Return height and width of `x` scaled so that the longer side has at most `side` pixels."""
    height, width = x.shape[2:]
    share = min(1.0, side / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


class _Run:
    """One descent from the clean inputs: the perturbations `z` `[L, C, h, w]`, and the memory of each coordinate."""

    def __init__(
        self,
        x: Tensor,
        shape: tuple[int, ...],
        solver: str,
        step_size: float,
        step: float,
        importance: bool,
        threat: Threat,
        generator: Generator | None,
    ) -> None:
        self.x, self.solver, self.step_size, self.step = x, solver, step_size, step
        self.importance, self.threat, self.generator = importance, threat, generator
        self.z = x.new_zeros(*x.shape[:2], *shape)
        self.forget()

    def forget(self) -> None:
        """Reset Adam's moving averages and its step counts, which every coordinate has for itself, each `[L, D]`."""
        self.memory: State = tuple(part.view(self.z.flatten(1).shape) for part in _ADAM.init(self.z.flatten()))

    def take(self, rows: Tensor) -> None:
        """Keep only these rows."""
        self.x, self.z, self.memory = take((self.x, self.z, self.memory), rows)

    def enlarge(self, shape: tuple[int, ...]) -> None:
        """Interpolate the perturbations to this size, and reset Adam."""
        if self.z.shape[2:] != shape:
            self.z = F.interpolate(self.z, shape, mode="bilinear", align_corners=False)
            self.forget()

    def image(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the images `x` with the perturbations `z` added at full size, clipped to the box."""
        if z.shape[2:] != x.shape[2:]:
            z = F.interpolate(z, x.shape[2:], mode="bilinear", align_corners=False)
        return self.threat.clip(x, x + z)

    def choose(self, count: int) -> Tensor:
        """Draw coordinates `[L, count]` to update, without replacement."""
        key = torch.rand(self.z.flatten(1).shape, generator=self.generator, device=self.z.device, dtype=self.z.dtype)
        if self.importance:
            pooled = F.max_pool2d(self.z.abs(), 8, ceil_mode=True)
            share = F.interpolate(pooled, self.z.shape[2:], mode="nearest").flatten(1)
            share = torch.where((share > 0).any(1, keepdim=True), share, 1)
            key = key.clamp_min(torch.finfo(key.dtype).tiny).log() / share.clamp_min(torch.finfo(key.dtype).tiny)
        return key.topk(count, dim=1).indices  # the largest u^(1/p) are a draw with weights p

    def descend(
        self, query: Queries, targets: Targets, short: Tensor, c: Tensor, confidence: float, count: int
    ) -> None:
        """Estimate slope and curvature of `count` random coordinates, and take one step along them."""
        chosen = self.choose(count)
        g, curvature = torch.zeros_like(chosen, dtype=self.z.dtype), torch.zeros_like(chosen, dtype=self.z.dtype)
        h, lead, pairs = self.step, margin(), torch.arange(chosen.numel(), device=chosen.device)
        for some in pairs.split(max(1, query.chunk // 2)):
            # the two points of each difference, and the present image
            rows = some // count
            x = self.x[rows]
            offset = torch.zeros_like(self.z[rows]).flatten(1)
            offset = offset.scatter_(1, chosen.flatten()[some, None], h).view_as(self.z[rows])
            ahead, middle, behind = (self.image(self.z[rows] + sign * offset, x) for sign in (1, 0, -1))
            both, twice = torch.cat([ahead, behind]), targets.take(torch.cat([rows, rows]))
            value = confidence - lead(twice.step(query.model, both, query(both, twice.index))).to(self.z.dtype)
            rise, fall = value.clamp_min(0).chunk(2)
            # the distance term; rounding would hide its small differences, so a² - b² is computed as `(a - b) (a + b)`
            up, down = (((a - b) * (a + b - 2 * x)).flatten(1).sum(1) for a, b in ((ahead, middle), (middle, behind)))
            # first and second differences of the whole loss
            weight = c[rows]
            g.view(-1)[some] = (up + down + weight * (rise - fall)) / (2 * h)
            curvature.view(-1)[some] = (up - down + weight * (rise - 2 * short[rows].clamp_min(0) + fall)) / h**2
        change = self._newton(g, curvature) if self.solver == "newton" else self._adam(g, chosen)
        z = self.z.flatten(1).scatter_add(1, chosen, -self.step_size * change).view_as(self.z)
        full = z.shape == self.x.shape
        self.z = self.threat.clip(self.x, self.x + z) - self.x if full else z

    def _newton(self, g: Tensor, curvature: Tensor) -> Tensor:
        """Return Newton's step, or the slope where the curvature is not positive."""
        return g / torch.where(curvature > 0, curvature, 1)

    def _adam(self, g: Tensor, chosen: Tensor) -> Tensor:
        """Return Adam's step for the chosen coordinates, and update their memory."""
        state = tuple(part.gather(1, chosen).flatten() for part in self.memory)
        direction, state = _ADAM.update(g.flatten(), state)
        for part, new in zip(self.memory, state, strict=True):
            part.scatter_(1, chosen, new.view_as(chosen))
        return direction.view_as(g)
