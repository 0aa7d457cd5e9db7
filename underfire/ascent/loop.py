"""The one loop that gradient attacks of fixed size share: attack = objective x threat x gradient x move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Objective
from underfire.ascent.step import Best, State, Step, Targets, choose, succeeded, take
from underfire.ascent.step_rules import Position, Progress, StepRule, StepSize, scheduled
from underfire.ascent.threats import Threat
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError, Unsupported
from underfire.gradients import estimators, smoothing, views
from underfire.hooks import frozen, shared_forward
from underfire.validate import at_least_one, check_classes, default_generator

Keep = Literal["last", "best", "success"]
Rank = Callable[[Step, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """An attack of fixed size as a value: what it makes large, what it may change, and how it moves.

    Attributes:
        objective: what to make large.
        threat: what may change.
        step_rule: how far a step goes; a number, one per sample `[B]` or a schedule `(step, steps) -> size` is a
            length in the threat's norm.
        views: the looks at an image that the objective is averaged over.
        estimate: how the gradient is obtained.
        smooth: what is done to the gradient before the move uses it.
        move: memory and direction.
        keep: `"last"` returns the last iterate; `"best"` the best one seen, a success before any failure and then by
            the objective (with its last weights, if they change); `"success"` the first success, and takes the sample
            out of the batch there, so that it costs nothing more (a sample that never succeeds gives its best iterate).
        rank: `(step, value) -> [B]`, which decides between two successes or two failures instead of the objective.
    """

    objective: Objective
    threat: Threat
    step_rule: StepRule | StepSize
    views: views.View = views.identity
    estimate: estimators.Estimator = estimators.autograd
    smooth: smoothing.Smoothing = smoothing.none
    move: Move = moves.plain()  # noqa: RUF009  a Move is frozen
    keep: Keep = "best"
    rank: Rank | None = None

    def check(self, x: Tensor) -> None:
        """Raise an error unless the recipe fits the clean images `x`."""
        self.threat.check(x)
        if self.keep not in get_args(Keep):
            raise Unsupported(f"keep={self.keep!r} is unknown; choices: {', '.join(get_args(Keep))}")
        size = self.step_rule
        if isinstance(size, StepRule) or callable(size):
            return
        if isinstance(size, Tensor) and size.shape not in ((), (len(x),)):
            raise InputError(f"step_size must be one number or one per sample [{len(x)}], got {tuple(size.shape)}")
        if not bool(torch.isfinite(torch.as_tensor(size)).all()):
            raise InputError(f"step_size must be finite, got {size}")


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    steps: int,
    goal: Tensor | None = None,
    restarts: int = 1,
    random_start: bool = False,
    z: Tensor | None = None,
    generator: Generator | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:
    """Make the objective of a recipe large inside its threat, and return the perturbed images, shaped like `x`.

    Every step looks at `z` (or where the move peeks), estimates the gradient of the objective averaged over the views,
    smooths it, moves, and projects. The model is left as it was found.

    Args:
        model: maps `x` to logits `[B, K]`; its domain says what `x` is.
        x: clean inputs.
        y: labels, int64 `[B]`.
        recipe: the attack.
        steps: number of gradient steps.
        goal: classes to reach, int64 `[B]`; None leaves class `y`.
        restarts: number of runs; those after the first start at random, and under `keep="success"` only samples that
            have not succeeded take part.
        random_start: whether the first run starts at random too.
        z: the variable that the first run starts from, instead of the clean image.
        generator: source of every random number, on the device of `x`.
        watch: called with every step that is evaluated; it must not change anything.

    Raises:
        InputError: an argument is out of its range. DataError: images or labels are wrong. Unsupported: the recipe
            does not go with the restarts, or with the model's domain.
    """
    check_inputs(model, x, y, goal)
    recipe.check(x)
    at_least_one(steps=steps, restarts=restarts)
    if recipe.keep == "last" and restarts > 1:
        raise Unsupported("restarts need something to choose by: use keep='best' or keep='success'")
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    generator = default_generator(generator, x.device)
    run = _Run(model, x, Targets(y, goal, torch.arange(len(x), device=x.device)), recipe, steps, generator, watch)
    with frozen(model), shared_forward(model) as forget:
        run.forget = forget
        for restart in range(restarts):
            rows = run.targets.index
            if recipe.keep == "success":
                rows = rows[~run.best.found]
            if len(rows) == 0:
                break
            if z is not None and restart == 0:
                start = run.threat.project(x, z.detach().to(x))
            elif random_start or restart > 0:
                start = run.threat.take(rows).random_start(x[rows], generator)
            else:
                start = run.threat.take(rows).start(x[rows])
            run.climb(start, rows)
    return run.best.x_adv


class _Run:
    """One call of `ascend`: what it was asked for, and the best images so far."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        targets: Targets,
        recipe: Recipe,
        steps: int,
        generator: Generator | None,
        watch: Callable[[Step], None] | None,
    ) -> None:
        self.model, self.x, self.targets, self.recipe, self.steps = model, x, targets, recipe, steps
        self.threat = recipe.threat.in_domain(domain_of(model))
        self.rule = recipe.step_rule if isinstance(recipe.step_rule, StepRule) else scheduled(recipe.step_rule)
        self.generator, self.watch = generator, watch
        self.evaluates = recipe.keep != "last" or self.rule.judge is not None or watch is not None
        self.best = Best(x)
        self.forget: Callable[[], None] = lambda: None

    def climb(self, z: Tensor, rows: Tensor) -> None:
        """Take all steps from `z`, for some samples of the batch."""
        move, rule, estimate = self.recipe.move, self.rule, self.recipe.estimate
        x, threat, targets = self.x[rows], self.threat.take(rows), self.targets.take(rows)
        position = Position(threat, x, targets.index, 0, self.steps)
        memory, pace, known = move.init(z), rule.init(position, z), estimate.init(z, targets.index)
        leader: _Leader | None = None
        for number in range(self.steps):
            position = Position(threat, x, targets.index, number, self.steps)
            progress = number / self.steps
            # where the gradient is taken
            offset = None if move.peek is None else move.peek(memory, rule.size(position, pace))
            # forward and backward pass
            step, value, g, known = self._gradient(position, z if offset is None else z + offset, targets, known)
            if self.evaluates:
                if step is None or offset is not None:  # what was seen, if anything, is not z
                    step, value = self._evaluate(threat.apply(x, z), targets, progress)
                # keep the best; successes may leave the batch
                stays = self._remember(step, value)
                if stays is not None:
                    if len(stays) == 0:
                        return
                    x, z, g, value, memory, pace, known = take((x, z, g, value, memory, pace, known), stays)
                    threat, targets = threat.take(stays), targets.take(stays)
                    leader = None if leader is None else leader.take(stays)
                    position = Position(threat, x, targets.index, number, self.steps)
                # rows whose steps bring too little go back to their best iterate
                if rule.judge is not None:
                    here = _Leader(value, value, z, g, memory)
                    leader, rose = (here, None) if leader is None else leader.follow(here)
                    if rose is not None:
                        pace, back = rule.judge(position, Progress(rose, leader.top, leader.z), pace)
                        if back is not None:
                            z, g, memory = choose(back, (leader.z, leader.g, leader.memory), (z, g, memory))
            # step and project
            direction, memory = move.update(self.recipe.smooth(g), memory)
            if move.steepest:
                direction = threat.steepest(direction, x, z)
            z, pace = rule.update(position, z, direction, pace)
        x_adv = threat.apply(x, z)
        if self.recipe.keep == "last":
            self.best.x_adv[targets.index] = x_adv
        if self.evaluates:
            self.forget()
            step, value = self._evaluate(x_adv, targets, 1.0)
            self._remember(step, value)

    def _gradient(
        self, position: Position, z: Tensor, targets: Targets, known: State
    ) -> tuple[Step | None, Tensor, Tensor, State]:
        """Return the step and its objective where they cost nothing, the gradient at `z`, and the new memory."""
        view, plain = self.recipe.views, self.recipe.views is views.identity
        seen: list[tuple[Step, Tensor]] = []

        def loss(z: Tensor, x: Tensor = position.x, threat: Threat = position.threat) -> Tensor:
            asked = targets
            if len(z) > len(x):  # an estimator asks about several copies of the batch at once
                rows = torch.arange(len(x), device=x.device).repeat(len(z) // len(x))
                x, threat, asked = x[rows], threat.take(rows), targets.take(rows)

            def value(look: Tensor) -> Tensor:
                self.forget()  # a view may show the same tensor twice, and the model may be random
                logits = self.model(look)
                if position.step == 0:
                    check_classes(logits, asked.y, asked.goal)
                step = asked.step(self.model, look, logits, position.step / self.steps)
                parts = self.recipe.objective.parts(step)
                if plain:
                    final = self._final([part.detach() for part in parts])
                    seen[:] = [(asked.step(self.model, look.detach(), logits.detach(), step.progress), final)]
                return self.recipe.objective.weigh(parts, step.progress)

            x_adv = threat.apply(x, z)
            return value(x_adv) if plain else views.averaged(view, value, x_adv, self.generator)

        total, g, known = self.recipe.estimate.update(loss, z, self.generator, known)
        # A direction that is not a number would spoil the image; the masking checks report such gradients.
        step, value = seen[0] if seen else (None, total)
        return step, value, torch.nan_to_num_(g, 0.0, 0.0, 0.0), known

    def _final(self, parts: list[Tensor]) -> Tensor:
        """Return the objective with the weights of the last step, so that iterates of all steps can be compared."""
        return self.recipe.objective.weigh(parts, 1.0)

    @torch.no_grad()
    def _evaluate(self, x_adv: Tensor, targets: Targets, progress: float) -> tuple[Step, Tensor]:
        """Return the step at `x_adv` and its objective."""
        step = targets.step(self.model, x_adv, self.model(x_adv), progress)
        return step, self._final([part.detach() for part in self.recipe.objective.parts(step)])

    def _remember(self, step: Step, value: Tensor) -> Tensor | None:
        """Keep what is better than before, and return the rows that go on; None means all of them."""
        if self.watch is not None:
            self.watch(step)
        if self.recipe.keep == "last":
            return None
        success = succeeded(step.logits, step.y, step.goal)
        score = value if self.recipe.rank is None else self.recipe.rank(step, value)
        self.best.update(step.x, success, score, step.index)
        if self.recipe.keep != "success" or not bool(success.any()):
            return None
        return (~success).nonzero().squeeze(1)


@dataclass(frozen=True)
class _Leader:
    """The best iterate of a run and what is needed to go on from it, beside the value of the iterate before."""

    before: Tensor
    top: Tensor
    z: Tensor
    g: Tensor
    memory: State

    def take(self, rows: Tensor) -> _Leader:
        return _Leader(*take((self.before, self.top, self.z, self.g, self.memory), rows))

    def follow(self, here: _Leader) -> tuple[_Leader, Tensor]:
        """Return the leader after one more iterate, and which rows rose against the iterate before, bool `[B]`."""
        higher = here.top > self.top
        ahead, behind = ((one.top, one.z, one.g, one.memory) for one in (here, self))
        return _Leader(here.top, *choose(higher, ahead, behind)), here.top > self.before
