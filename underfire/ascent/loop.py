"""The loop of all gradient attacks with a given eps; a `Recipe` combines objective, threat, gradient and move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.losses import as_objective
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Objective
from underfire.ascent.step import Best, State, Step, Targets, choose, succeeded, take
from underfire.ascent.step_rules import Position, Progress, StepRule, StepSize, scheduled
from underfire.ascent.threats import Threat
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError, Unsupported
from underfire.gradients import estimators, smoothing, views
from underfire.gradients.backward import Backward, true_gradient
from underfire.hooks import frozen, shared_forward
from underfire.validate import at_least_one, check_classes, default_generator

Keep = Literal["last", "best", "success"]
Rank = Callable[[Step, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """The parts of an attack with a given eps: what it maximises, what it may change, and how it moves.

    Attributes:
        objective: the function that the attack maximises; a function `step -> [B]` or a loss `(logits, y) -> [B]` is
            made an `Objective`.
        threat: what may change, and by how much.
        step_rule: the rule that sets the length of every step. A number, one number per sample `[B]` or a schedule
            `(step, steps) -> size` is this length itself, in the threat's norm.
        views: the transformed images over which the objective is averaged.
        estimate: the estimator of the gradient.
        smooth: the smoothing that is applied to the gradient before the move uses it.
        backward: the rule by which the network passes gradients back, in all passes of the attack.
        move: turns the gradient into a direction, with a memory.
        keep: which iterate is returned. `"last"` is the last one. `"best"` is the best one: a success before any
            failure, then the larger objective (with the weights of the last step, if they change). `"success"` is the
            first success, after which the sample costs nothing more; a sample without a success gets its best iterate.
        rank: `(step, value) -> [B]`, a score that replaces the objective where two successes or two failures compete.
    """

    objective: Objective
    threat: Threat
    step_rule: StepRule | StepSize
    views: views.View = views.identity
    estimate: estimators.Estimator = estimators.autograd
    smooth: smoothing.Smoothing = smoothing.none
    backward: Backward = true_gradient
    move: Move = moves.plain()  # noqa: RUF009  a Move is frozen
    keep: Keep = "best"
    rank: Rank | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))

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
    """Maximise the objective of a recipe within its threat, and return the perturbed images, shaped like `x`.

    Every step estimates the gradient at `z` (or at the point where the move peeks) of the objective averaged over the
    views, smooths it, moves along it, and projects. The model is left as it was found.

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
        z: the variable that the first run starts from, instead of that of the clean image.
        generator: source of every random number, on the device of `x`.
        watch: a function that is called with every evaluated step; it must not change the step.

    Raises:
        InputError: an argument is out of its range. DataError: images or labels are wrong. Unsupported: the recipe
            does not go with the restarts, or with the model's domain.
    """
    check_inputs(model, x, y, goal)
    recipe = replace(recipe, threat=recipe.threat.in_domain(domain_of(model)))
    recipe.check(x)
    at_least_one(steps=steps, restarts=restarts)
    if recipe.keep == "last" and restarts > 1:
        raise Unsupported("keep='last' cannot choose between restarts: use keep='best' or keep='success'")
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    generator = default_generator(generator, x.device)
    run = _Run(model, x, Targets(y, goal, torch.arange(len(x), device=x.device)), recipe, steps, generator, watch)
    alone = recipe.objective.logits_only and recipe.rank is None and watch is None
    with frozen(model), recipe.backward(model), shared_forward(model, begin=not alone) as forget:
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
            run.ascend(start, rows)
    return run.best.x_adv


class _Run:
    """The state of one call of `ascend`: its arguments, and the best images so far."""

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
        self.threat = recipe.threat
        self.rule = recipe.step_rule if isinstance(recipe.step_rule, StepRule) else scheduled(recipe.step_rule)
        self.generator, self.watch = generator, watch
        self.evaluates = recipe.keep != "last" or self.rule.judge is not None or watch is not None
        self.best = Best(x)
        self.forget: Callable[[], None] = lambda: None

    def ascend(self, z: Tensor, rows: Tensor) -> None:
        """Take all steps of one run from `z`, for the samples of the batch at `rows`."""
        move, rule, estimate = self.recipe.move, self.rule, self.recipe.estimate
        x, threat, targets = self.x[rows], self.threat.take(rows), self.targets.take(rows)
        position = Position(threat, x, targets.index, 0, self.steps, threat.projection(x))
        move_state, rule_state = move.init(z), rule.init(position, z)
        estimate_state = estimate.init(z, targets.index)
        leader: _Leader | None = None
        for number in range(self.steps):
            position = replace(position, step=number)
            progress = number / self.steps
            # choose the point of the gradient
            offset = None if move.peek is None else move.peek(move_state, rule.size(position, rule_state))
            point = z if offset is None else z + offset
            # forward and backward pass
            step, value, g, estimate_state = self._gradient(position, point, targets, estimate_state)
            if self.evaluates:
                if step is None or offset is not None:  # the pass has not evaluated z itself
                    step, value = self._evaluate(threat.apply(x, z), z, targets, progress)
                # keep the best; successes leave the batch if keep="success"
                stays = self._keep_best(step, value)
                if stays is not None:
                    if len(stays) == 0:
                        return
                    x, z, g, value = (t[stays] for t in (x, z, g, value))
                    states = move_state, rule_state, estimate_state
                    move_state, rule_state, estimate_state = take(states, stays)
                    threat, targets = threat.take(stays), targets.take(stays)
                    leader = None if leader is None else leader.take(stays)
                    position = Position(threat, x, targets.index, number, self.steps, threat.projection(x))
                # rows whose steps bring too little progress go back to their best iterate
                if rule.judge is not None:
                    here = _Leader(value, value, z, g, move_state)
                    leader, rose = (here, None) if leader is None else leader.follow(here)
                    if rose is not None:
                        rule_state, back = rule.judge(position, Progress(rose, leader.top, leader.z), rule_state)
                        if back is not None:
                            best = leader.z, leader.g, leader.memory
                            z, g, move_state = choose(back, best, (z, g, move_state))
            # step and project
            direction, move_state = move.update(self.recipe.smooth(g), move_state)
            if move.steepest:
                direction = threat.steepest(direction, x, z)
            z, rule_state = rule.update(position, z, direction, rule_state)
            # free tensors that the next pass does not need, so that it can use their memory
            del step, value, g, direction, point
        x_adv = threat.apply(x, z)
        if self.recipe.keep == "last":
            self.best.x_adv[targets.index] = x_adv
        if self.evaluates:
            self.forget()
            step, value = self._evaluate(x_adv, z, targets, 1.0)
            self._keep_best(step, value)

    def _gradient(
        self, position: Position, z: Tensor, targets: Targets, state: State
    ) -> tuple[Step | None, Tensor, Tensor, State]:
        """Return the step at `z`, its objective, the gradient, and the estimator's new memory.

        The step is None if no iterate is evaluated, and with views, which do not show the image itself. With views, the
        objective is the mean over the views.
        """
        view, plain = self.recipe.views, self.recipe.views is views.identity
        seen: list[tuple[Step, Tensor]] = []

        def loss(z: Tensor, x: Tensor = position.x, threat: Threat = position.threat) -> Tensor:
            all_targets = targets
            if len(z) > len(x):  # an estimator evaluates several copies of the batch at once
                rows = torch.arange(len(x), device=x.device).repeat(len(z) // len(x))
                x, threat, all_targets = x[rows], threat.take(rows), targets.take(rows)

            def value(version: Tensor) -> Tensor:
                self.forget()  # a view may show the same tensor twice, and the model may be random
                logits = self.model(version)
                if position.step == 0:
                    check_classes(logits, all_targets.y, all_targets.goal)
                step = all_targets.step(self.model, version, logits, position.step / self.steps, z)
                parts = self.recipe.objective.parts(step)
                if plain and self.evaluates:
                    final = self._final([part.detach() for part in parts])
                    plain_step = replace(step, x=version.detach(), logits=logits.detach(), z=z.detach())
                    seen[:] = [(plain_step, final)]
                return self.recipe.objective.weigh(parts, step.progress)

            x_adv = threat.apply(x, z)
            return value(x_adv) if plain else views.averaged(view, value, x_adv, self.generator)

        total, g, state = self.recipe.estimate.update(loss, z, self.generator, state)
        step, value = seen[0] if seen else (None, total)
        # NaN and infinity become 0, because one of them would spoil the image; an audit's masking checks report them.
        return step, value, torch.nan_to_num_(g, 0.0, 0.0, 0.0), state

    def _final(self, parts: list[Tensor]) -> Tensor:
        """Return the objective with the weights of the last step, so that iterates of all steps can be compared."""
        return self.recipe.objective.weigh(parts, 1.0)

    @torch.no_grad()
    def _evaluate(self, x_adv: Tensor, z: Tensor, targets: Targets, progress: float) -> tuple[Step, Tensor]:
        """Return the step at `z`, the variable of `x_adv`, and its objective."""
        step = targets.step(self.model, x_adv, self.model(x_adv), progress, z)
        return step, self._final([part.detach() for part in self.recipe.objective.parts(step)])

    def _keep_best(self, step: Step, value: Tensor) -> Tensor | None:
        """Keep the images that are better than before, and return the rows that continue; None means all rows."""
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
    """The best iterate of a run with its objective, gradient and memory, and the previous iterate's objective."""

    before: Tensor
    top: Tensor
    z: Tensor
    g: Tensor
    memory: State

    def take(self, rows: Tensor) -> _Leader:
        return _Leader(*take((self.before, self.top, self.z, self.g, self.memory), rows))

    def follow(self, here: _Leader) -> tuple[_Leader, Tensor]:
        """Return the leader after the iterate `here`, and whether its objective rose in the last step, bool `[B]`."""
        higher = here.top > self.top
        ahead, behind = ((one.top, one.z, one.g, one.memory) for one in (here, self))
        return _Leader(here.top, *choose(higher, ahead, behind)), here.top > self.before
