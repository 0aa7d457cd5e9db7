"""The one loop that every gradient attack of fixed size shares: attack = objective x threat x gradient x move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.moves import Move, StepSize
from underfire.ascent.objectives import Objective, Targets
from underfire.ascent.threats import Threat
from underfire.domains import check_inputs
from underfire.errors import InputError, Unsupported
from underfire.gradients import estimators, smoothing, views
from underfire.hooks import frozen, shared_forward
from underfire.validate import check_classes

Keep = Literal["last", "best", "success"]
Rank = Callable[[Tensor, Tensor, Targets, Tensor], Tensor]


def succeeded(logits: Tensor, targets: Targets) -> Tensor:
    """Whether each sample is where the attacker wants it, bool `[B]`."""
    predicted = logits.argmax(1)
    return predicted != targets.y if targets.goal is None else predicted == targets.goal


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    objective: Objective,
    threat: Threat,
    *,
    steps: int,
    step_size: StepSize,
    goal: Tensor | None = None,
    move: Move | None = None,
    view: views.View = views.identity,
    estimate: estimators.Estimator = estimators.autograd,
    smooth: smoothing.Smoothing = smoothing.none,
    keep: Keep = "best",
    rank: Rank | None = None,
    restarts: int = 1,
    random_start: bool = False,
    z: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Make `objective` large inside `threat`, and return the perturbed images, shaped like `x`.

    Every step looks at `z` (where the move peeks), estimates the gradient of the objective averaged over the views,
    smooths it, moves, and projects. The model is left as it was found.

    Args:
        model: maps images `[B, C, H, W]` to logits `[B, K]`.
        x: clean images in `[0, 1]`.
        y: labels, int64 `[B]`.
        objective: what to make large.
        threat: what may change.
        steps: number of gradient steps, at least 1.
        step_size: length of a step in the threat's norm: a number, one per sample `[B]`, or a schedule
            `(step, steps) -> number`.
        goal: classes to reach, int64 `[B]`; None leaves class `y`.
        move: memory and direction; None is the plain gradient.
        view: looks at the image that the objective is averaged over.
        estimate: how the gradient is obtained.
        smooth: what is done to the gradient first.
        keep: `"last"` returns the last iterate; `"best"` the best one seen, a success before any failure and then by
            the objective (with its last weights, where they change); `"success"` the first success, and takes the
            sample out of the batch there, so that it costs nothing more (a sample that never succeeds gives its best
            iterate).
        rank: `(x', logits, at, value) -> [B]`, what decides between two successes or two failures, instead of the
            objective.
        restarts: runs; those after the first start at random. Under `"success"`, only for samples that have not
            succeeded.
        random_start: whether the first run starts at random too.
        z: the variable to start the first run from (a warm start), instead of the clean image.
        generator: source of every random number, on the device of `x`.

    Raises:
        InputError: an argument is out of its range; DataError: images or labels are.
    """
    check_inputs(model, x, y, goal)
    threat.check(x)
    if steps < 1 or restarts < 1:
        raise InputError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
    if keep not in get_args(Keep):
        raise Unsupported(f"keep={keep!r} is unknown; choices: {', '.join(get_args(Keep))}")
    if keep == "last" and restarts > 1:
        raise Unsupported("restarts need something to choose by: use keep='best' or keep='success'")
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    if isinstance(step_size, Tensor):
        if step_size.shape not in ((), (len(x),)):
            raise InputError(
                f"step_size must be one number or one per sample [{len(x)}], got shape {tuple(step_size.shape)}"
            )
        step_size = step_size.to(x)
    if not callable(step_size) and not bool(torch.isfinite(torch.as_tensor(step_size)).all()):
        raise InputError(f"step_size must be finite, got {step_size}")
    if z is not None:
        z = z.detach().to(x)
    run = _Run(
        model,
        x,
        y,
        goal,
        objective,
        threat,
        steps,
        step_size,
        move or moves.plain(),
        view,
        estimate,
        smooth,
        keep,
        rank,
    )
    with frozen(model), shared_forward(model) as forget:
        for restart in range(restarts):
            index = torch.arange(len(x), device=x.device)
            if keep == "success":
                index = index[~run.found]
            if len(index) == 0:
                break
            if z is not None and restart == 0:
                start = threat.project(x, z)
            elif random_start or restart > 0:
                start = threat.take(index).random_start(x[index], generator)
            else:
                start = threat.take(index).start(x[index])
            run.ascend(start, index, generator, forget)
    return run.best


class _Run:
    """The state of one call of `ascend`: what it was asked for, and the best images so far."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        goal: Tensor | None,
        objective: Objective,
        threat: Threat,
        steps: int,
        step_size: StepSize,
        move: Move,
        view: views.View,
        estimate: estimators.Estimator,
        smooth: smoothing.Smoothing,
        keep: Keep,
        rank: Rank | None,
    ) -> None:
        self.model, self.x, self.y, self.goal, self.objective, self.threat = model, x, y, goal, objective, threat
        self.steps, self.step_size, self.move = steps, step_size, move
        self.view, self.estimate, self.smooth = view, estimate, smooth
        self.keep, self.rank = keep, rank
        self.best = x.clone()
        self.found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.score = torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device)

    def ascend(self, z: Tensor, index: Tensor, generator: Generator | None, forget: Callable[[], None]) -> None:
        """One run from `z` for the samples at `index`."""
        x, threat = self.x[index], self.threat.take(index)
        targets = Targets(self.y[index], None if self.goal is None else self.goal[index], index)
        state = self.move.init(z)
        for step in range(self.steps):
            targets = Targets(targets.y, targets.goal, targets.index, step / self.steps)
            offset = None if self.move.peek is None else self.move.peek(state)
            seen, g = self._gradient(x, z if offset is None else z + offset, threat, targets, generator, forget)
            if self.keep != "last":
                x_adv = threat.apply(x, z)
                if seen is None or offset is not None:  # what was seen, if anything, is not z
                    seen = self._evaluate(x_adv, targets)
                stays = self._remember(x_adv, *seen, targets)
                if stays is not None:
                    if len(stays) == 0:
                        return
                    x, z, g, threat, targets = x[stays], z[stays], g[stays], threat.take(stays), targets.take(stays)
                    state = moves.take(state, stays)
            direction, state = self.move.update(self.smooth(g), state)
            if self.move.steepest:
                direction = threat.steepest(direction, x, z)
            length = moves.current_step_size(self.step_size, step, self.steps)
            if isinstance(length, Tensor) and length.dim():
                length = length.to(z)[targets.index].reshape(-1, *[1] * (z.dim() - 1))
            z = threat.project(x, z + length * direction)
        x_adv = threat.apply(x, z)
        if self.keep == "last":
            self.best[index] = x_adv
            return
        forget()
        targets = Targets(targets.y, targets.goal, targets.index, 1.0)
        self._remember(x_adv, *self._evaluate(x_adv, targets), targets)

    def _gradient(
        self,
        x: Tensor,
        z: Tensor,
        threat: Threat,
        targets: Targets,
        generator: Generator | None,
        forget: Callable[[], None],
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor]:
        """Logits and objective of the image itself where they cost nothing, and the gradient at `z`."""
        seen: list[tuple[Tensor, Tensor]] = []

        def loss(z: Tensor, x: Tensor = x, threat: Threat = threat, targets: Targets = targets) -> Tensor:
            if len(z) > len(x):  # an estimator asks about several copies of the batch at once
                rows = torch.arange(len(x), device=x.device).repeat(len(z) // len(x))
                x, threat, targets = x[rows], threat.take(rows), targets.take(rows)

            def value(look: Tensor) -> Tensor:
                forget()  # a view may show the same tensor twice, and the model may be random
                logits = self.model(look)
                if targets.progress == 0:
                    check_classes(logits, targets.y, targets.goal)
                parts = self.objective.parts(self.model, look, logits, targets)
                if self.view is views.identity:
                    seen[:] = [(logits.detach(), self._final([part.detach() for part in parts]))]
                return self.objective.weigh(parts, targets.progress)

            x_adv = threat.apply(x, z)
            return value(x_adv) if self.view is views.identity else views.averaged(self.view, value, x_adv, generator)

        _, g = self.estimate(loss, z, generator)
        # A direction that is not a number would poison the image; the masking checks report such gradients.
        return seen[0] if seen else None, torch.nan_to_num_(g, 0.0, 0.0, 0.0)

    def _final(self, parts: list[Tensor]) -> Tensor:
        """The objective with the weights of the last step: only so can iterates of different steps be compared."""
        return self.objective.weigh(parts, 1.0)

    def _evaluate(self, x_adv: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = self.model(x_adv)
            return logits, self._final(
                [part.detach() for part in self.objective.parts(self.model, x_adv, logits, targets)]
            )

    def _remember(self, x_adv: Tensor, logits: Tensor, value: Tensor, targets: Targets) -> Tensor | None:
        """Keep what is better than before; return the rows that go on, or None where all do."""
        success = succeeded(logits, targets)
        score = (value if self.rank is None else self.rank(x_adv, logits, targets, value)).to(self.score.dtype)
        found, best = self.found[targets.index], self.score[targets.index]
        better = (success & ~found) | ((success == found) & (score > best))
        if bool(better.any()):
            rows = targets.index[better]
            self.best[rows], self.score[rows], self.found[rows] = x_adv[better], score[better], success[better]
        if self.keep != "success" or not bool(success.any()):
            return None
        return (~success).nonzero().squeeze(1)
