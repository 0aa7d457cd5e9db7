"""The loop of all gradient attacks with a given eps; a `Recipe` combines objective, threat, gradient and move."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.leader import Leader
from underfire.ascent.objective import Start
from underfire.ascent.recipe import Keep as Keep
from underfire.ascent.recipe import Recipe as Recipe
from underfire.ascent.sources import evaluate, folded_passes, members_of, shared_passes, sources_of
from underfire.ascent.step import Best, State, Step, Targets, choose, succeeded, take
from underfire.ascent.step_rules import Position, Progress, StepRule, scheduled
from underfire.ascent.threats import Threat
from underfire.domains import check_inputs, domain_of
from underfire.errors import Unsupported
from underfire.gradients import views
from underfire.gradients.attack_loss import AttackLoss
from underfire.gradients.backward import true_gradient
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_classes, default_generator, per_sample

_FOLDS = 4
"""Number of steps from which batch norms are folded, which costs as much as a pass of a few images."""


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
    views, smooths it, moves along it, and projects. Unless the objective differentiates a pass itself, batch norms are
    computed inside the convolutions before them, which changes the rounding. The model is left as it was found.

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
    unwatched = recipe.rank is None and watch is None
    alone, first_order = (flag and unwatched for flag in (recipe.objective.logits_only, recipe.objective.first_order))
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        stack.enter_context(recipe.backward(model, x))
        forget = stack.enter_context(shared_passes(model, begin=not alone, twice=not first_order))
        folds = recipe.backward is true_gradient and steps >= _FOLDS
        if folds and alone:
            stack.enter_context(folded_passes(model, x))
        run.begin(forget)
        # the terms have read their layers, so that the others may be folded
        if folds and first_order and not alone and stack.enter_context(folded_passes(model, x)):
            forget()
            run.begin(forget)  # clean features anew, which those of an unchanged image then equal exactly
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
        self.objective = recipe.objective

    def begin(self, forget: Callable[[], None]) -> None:
        """Prepare the terms that compare with the clean samples; `forget` frees the pass that calls share."""
        self.forget = forget
        start = Start(
            self.model, self.x, self.targets.y, self.targets.goal, self.threat.projection(self.x), self.generator
        )
        self.objective = self.recipe.objective.begin(start, sources_of(self.model))

    def ascend(self, z: Tensor, rows: Tensor) -> None:
        """Take all steps of one run from `z`, for the samples of the batch at `rows`."""
        move, rule, estimate = self.recipe.move, self.rule, self.recipe.estimate
        x, threat, targets = self.x[rows], self.threat.take(rows), self.targets.take(rows)
        position = Position(threat, x, targets.index, 0, self.steps, threat.projection(x))
        move_state, rule_state = move.init(z), rule.init(position, z)
        estimate_state = estimate.init(z, targets.index)
        leader: Leader | None = None
        for number in range(self.steps):
            position = replace(position, step=number)
            progress = number / self.steps
            # choose the point of the gradient
            size = rule.size(position, rule_state)
            offset = None if move.peek is None else move.peek(move_state, size)
            point = z if offset is None else z + offset
            # forward and backward pass
            step, value, g, estimate_state = self._gradient(position, point, targets, size, estimate_state)
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
                    here = Leader(value, value, z, g, move_state)
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
        self, position: Position, z: Tensor, targets: Targets, size: float | Tensor, state: State
    ) -> tuple[Step | None, Tensor, Tensor, State]:
        """Return the step at `z`, its objective, the gradient, and the estimator's new memory.

        The step is None if no iterate is evaluated, and with views, which do not show the image itself. With views, the
        objective is the mean over the views.
        """
        view, plain = self.recipe.views, self.recipe.views is views.identity
        seen: list[tuple[Step, Tensor]] = []

        def loss(
            z: Tensor, model: nn.Module = self.model, x: Tensor = position.x, threat: Threat = position.threat
        ) -> Tensor:
            all_targets = targets
            if len(z) > len(x):  # an estimator evaluates several copies of the batch at once
                rows = torch.arange(len(x), device=x.device).repeat(len(z) // len(x))
                x, threat, all_targets = x[rows], threat.take(rows), targets.take(rows)

            def value(version: Tensor, x_adv: Tensor) -> Tensor:
                def make(source: nn.Module, shown: Tensor, logits: Tensor) -> Step:
                    if position.step == 0:
                        check_classes(logits, all_targets.y, all_targets.goal)
                    return all_targets.step(source, shown, logits, position.step / self.steps, z, x_adv)

                self.forget()  # a view may show the same tensor twice, and the model may be random
                step, parts = evaluate(model, version, make, self.objective.parts)
                if plain and self.evaluates and model is self.model:
                    fixed = {name: getattr(step, name).detach() for name in ("x", "logits", "z", "x_adv")}
                    seen[:] = [(replace(step, **fixed), self._final([part.detach() for part in parts]))]
                return self.objective.weigh(parts, step.progress)

            x_adv = threat.apply(x, z)
            if plain:
                return value(x_adv, x_adv)
            samples = views.Rows(all_targets.index, all_targets.y, self.x, self.targets.y)
            return views.averaged(views.of_rows(view, samples), value, x_adv, self.generator)

        def advance(z: Tensor, direction: Tensor) -> Tensor:
            return position.project(z + per_sample(size, z) * position.threat.steepest(direction, position.x, z))

        members = tuple(partial(loss, model=one) for one in members_of(self.model))
        whole = AttackLoss(loss, members, advance, compared=plain and self.evaluates)
        total, g, state = self.recipe.estimate.update(whole, z, self.generator, state)
        step, value = seen[0] if seen else (None, total)
        # NaN and infinity become 0, because one of them would spoil the image; an audit's masking checks report them.
        return step, value, torch.nan_to_num_(g, 0.0, 0.0, 0.0), state

    def _final(self, parts: list[Tensor]) -> Tensor:
        """Return the objective with the weights of the last step, so that iterates of all steps can be compared."""
        return self.objective.weigh(parts, 1.0)

    @torch.no_grad()
    def _evaluate(self, x_adv: Tensor, z: Tensor, targets: Targets, progress: float) -> tuple[Step, Tensor]:
        """Return the step at `z`, the variable of `x_adv`, and its objective."""

        def make(source: nn.Module, seen: Tensor, logits: Tensor) -> Step:
            return targets.step(source, seen, logits, progress, z, x_adv)

        step, parts = evaluate(self.model, x_adv, make, self.objective.parts)
        return step, self._final([part.detach() for part in parts])

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
