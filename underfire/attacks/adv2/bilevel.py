"""The loop of ADV² on an interpreter that optimises a map for each image, such as MASK (Zhang et al., Algorithm 1).

Image and map move in turn, because a new optimisation after every step on the image would be too expensive. The map
follows the image by a few steps of its own optimiser. The image then moves such that the map will be nearer to the
target after the next steps of the optimiser, which are differentiated.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.ascent.objectives import margin
from underfire.ascent.rows import in_parts
from underfire.ascent.step import Best, Targets, succeeded
from underfire.ascent.step_rules import current_step_size
from underfire.ascent.threats import Threat
from underfire.attacks.adv2.plan import Plan
from underfire.attacks.adv2.scheme import Unrolled
from underfire.attribution.chunks import resolve_chunk
from underfire.catalog import InterpreterFacts, facts_of
from underfire.gradients.estimators import autograd
from underfire.gradients.smoothing import unit
from underfire.hooks import folded, smooth_relu
from underfire.measures.maps import normalise, resize
from underfire.validate import per_sample

#: How far the authors' 1,000 steps of 0.05 go on images of 224 pixels, in L2 radii of the ball of their eps, 0.031.
TRAVEL = 1000 * 0.05 / (0.031 * (3 * 224 * 224) ** 0.5)
LEVELS = 255  # of an 8-bit image, above black


def bilevel(plan: Plan) -> Tensor:
    """Lead the prediction to the goal and the map to the target, in turn, and return the images.

    Each step on the image has two parts. The first raises the margin of the goal, by a step that becomes shorter once
    the goal has its confidence. The second lowers the map loss by the longest step that leaves the goal its confidence.
    (In the authors' code, the sum of the margins of a batch must stay at 10 logits; here every image is searched by
    itself.) After every `reset` steps, the image is rounded to 8 bits, unless that takes the confidence away, and the
    whole optimisation makes its map. The image with the nearest map is returned.

    The smoothing of labels and the move have no effect, and the weight of the map loss only where images are compared,
    because each loss has its own step. The memory is that of one pass of as many images as the options `chunk` and
    `memory` of the interpreter allow.
    """
    unrolled = cast(Any, facts_of(plan.interpreter, InterpreterFacts()).unrolled)
    options = {**getattr(plan.interpreter, "keywords", {})}
    options.pop("generator", None)
    seed = int(torch.randint(2**62, (), generator=plan.generator, device=plan.generator.device))
    size, best = unrolled.chunk(plan.model, plan.x, ahead=plan.scheme.ahead, **options), Best(plan.x)
    with folded(plan.model, plan.x), smooth_relu(plan.tau) if plan.tau else nullcontext():
        for index in torch.arange(len(plan.x), device=plan.x.device).split(size):
            # every chunk begins with the same random numbers, drawn on the CPU, so that no step waits for the device
            chance = Generator().manual_seed(seed)
            x_adv = plan.threat.take(index).apply(plan.x[index], plan.z[index])
            maps = unrolled(plan.model, x_adv, plan.goal[index], generator=chance, **options)
            _Chunk(plan, index, maps).ascend(best)
    return best.x_adv


def radius(threat: Threat, x: Tensor, z: Tensor) -> Tensor:
    """Return how far `z` can go in L2, `[B]`: eps for L2, and eps in every free entry for L-infinity and flow fields.

    The pixels of a patch can go as far as 1.
    """
    eps = torch.as_tensor(threat.eps).to(x).expand(len(x))
    if threat.norm == "l2":
        return eps
    allowed = threat.allowed(x)
    share = 1.0 if allowed is None else allowed.to(x).expand_as(x).flatten(1).mean(1)
    return (torch.ones_like(eps) if threat.norm == "patch" else eps) * (z[0].numel() * share) ** 0.5


class _Chunk:
    """The attack on the images that are in the memory at the same time; finished images leave it.

    Args:
        index: the images, int64 `[M]`.
        maps: the optimisation of their maps.
    """

    def __init__(self, plan: Plan, index: Tensor, maps: Unrolled) -> None:
        self.plan, self.model, self.maps = plan, plan.model, maps
        self.targets = Targets(plan.y, plan.goal, torch.arange(len(plan.x), device=plan.x.device)).take(index)
        self.x, self.z, self.threat = plan.x[index], plan.z[index], plan.threat.take(index)
        self.lengths = torch.arange(1, plan.scheme.lengths + 1).to(plan.x) / plan.scheme.lengths
        self.passes = resolve_chunk(plan.model, plan.x, None, gradients=False)
        # a MASK lies in [0, 1]: a target that does not is normalised
        target = plan.target[index].to(plan.x)
        inside = ((target >= 0) & (target <= 1)).flatten(1).all(1)
        self.target = torch.where(per_sample(inside, target), target, normalise(target))

    def ascend(self, best: Best) -> None:
        """Take all steps, and give the images to `best` after every reset."""
        plan, scheme = self.plan, self.plan.scheme
        aim = margin() if plan.also is None else margin() + plan.also
        for number in range(plan.steps):
            beta, logits = self._step_size(number), list[Tensor]()

            # lead the prediction
            def value(z: Tensor, logits: list[Tensor] = logits, progress: float = number / plan.steps) -> Tensor:
                x_adv = self.threat.apply(self.x, z)
                logits[:] = [self.model(x_adv)]
                return aim(self.targets.step(self.model, x_adv, logits[0], progress, z))

            _, g = autograd(value, self.z)
            lacking = (1 - self._confidence(logits[0].detach())) / max(1 - plan.confidence, 1e-6)
            length = beta * lacking.clamp(0, 1) if scheme.fade else beta
            self.z = self.threat.project(self.x, self.z + per_sample(length, g) * self._unit(g))
            # the map follows, and its next steps are differentiated
            z = self.z.detach().requires_grad_(True)
            with torch.enable_grad():
                seen = self.maps.unroll(self.threat.apply(self.x, z), scheme.follow, scheme.ahead)
                loss = torch.stack([self._map_loss(m) for m in seen]).mean(0)
                (g,) = torch.autograd.grad(loss.sum(), z)
            # lead the map, as far as the prediction allows
            longest = scheme.longest if number < 0.9 * plan.steps else scheme.last
            self._search(per_sample(longest * beta, g) * -self._unit(g))
            # run the whole optimisation; finished images leave
            if (number + 1) % scheme.reset == 0 or number + 1 == plan.steps:
                rows = (~self._reset(best)).nonzero().squeeze(1)
                if len(rows) == 0:
                    return
                if len(rows) < len(self.x):
                    self._take(rows)

    @torch.no_grad()
    def _search(self, step: Tensor) -> None:
        """Take the longest of the steps `k / n * step` that leaves the goal its confidence, if one does."""
        count, longest = len(step), self.z
        # as many lengths at once as one pass takes, from short to long
        for lengths in self.lengths.split(max(1, self.passes // count)):
            rows = torch.arange(count, device=step.device).repeat(len(lengths))
            x, threat = self.x[rows], self.threat.take(rows)
            z = threat.project(x, (self.z + per_sample(lengths, step[None]) * step).flatten(0, 1))
            p = self._confidence(in_parts(self.model, threat.apply(x, z), self.passes), rows)
            for tried, allowed in zip(z.split(count), (p >= self.plan.confidence).split(count), strict=True):
                longest = torch.where(per_sample(allowed, tried), tried, longest)
        self.z = longest

    @torch.no_grad()
    def _reset(self, best: Best) -> Tensor:
        """Run the whole optimisation, give the images to `best`, and return which are finished, bool `[M]`."""
        plan, targets = self.plan, self.targets
        x_adv = self.threat.apply(self.x, self.z)
        near = (x_adv * LEVELS).round() / LEVELS
        near = self.threat.project(self.x, near) if self.z.shape == self.x.shape else near
        logits, of_near = (in_parts(self.model, images, self.passes) for images in (x_adv, near))
        rounds = (self._confidence(of_near) >= plan.confidence) | (self._confidence(logits) < plan.confidence)
        x_adv, logits = (torch.where(per_sample(rounds, a), a, b) for a, b in ((near, x_adv), (of_near, logits)))
        # compare by the map loss, above the wanted confidence
        loss, step = self._map_loss(self.maps.restart(x_adv)), targets.step(self.model, x_adv, logits, 1.0, self.z)
        value = plan.prediction(step) - plan.weight(1.0) * loss
        value = value if plan.also is None else value + plan.also(step)
        success = succeeded(logits, targets.y, targets.goal)
        best.update(x_adv, success, plan.rank(step, value), targets.index)
        return success & (self._confidence(logits) >= plan.confidence) & (loss <= plan.scheme.enough)

    def _map_loss(self, maps: Tensor) -> Tensor:
        """Return the mean squared difference of maps and targets, `[M]`."""
        gap = maps - resize(self.target, (maps.shape[2], maps.shape[3]))
        pool = self.plan.pool
        return (F.avg_pool2d(gap, pool, ceil_mode=True) if pool > 1 else gap).square().flatten(1).mean(1)

    def _confidence(self, logits: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the probability of the goal, `[M]`."""
        goal = cast(Tensor, self.targets.goal)
        return logits.softmax(1).gather(1, (goal if rows is None else goal[rows])[:, None]).squeeze(1)

    def _unit(self, g: Tensor) -> Tensor:
        """Return the direction of a gradient, of length one in L2, inside what may change."""
        g = torch.nan_to_num(g, 0.0, 0.0, 0.0)
        return unit(self.threat.restrict(g, self.x) if g.shape == self.x.shape else g, 2)

    def _step_size(self, number: int) -> Tensor:
        """Return the length of a step on the prediction, `[M]`."""
        plan = self.plan
        if plan.step_size is not None:
            size = torch.as_tensor(current_step_size(plan.step_size, number, plan.steps)).to(self.x)
            return size[self.targets.index] if size.dim() else size.expand(len(self.x))
        return TRAVEL / plan.steps * radius(self.threat, self.x, self.z)

    def _take(self, rows: Tensor) -> None:
        self.maps.take(rows)
        self.targets, self.threat = self.targets.take(rows), self.threat.take(rows)
        self.x, self.z, self.target = self.x[rows], self.z[rows], self.target[rows]
