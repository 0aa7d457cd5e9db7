"""APGD (Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Attacks, ICML 2020).

Under L1: APGD-L1 (Croce and Hein, Mind the Box: l1-APGD for Sparse Adversarial Attacks, ICML 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.losses import as_objective
from underfire.ascent.objectives import Objective, dlr, log_odds, margin
from underfire.ascent.objectives import objective as make
from underfire.ascent.rows import best_row, class_by_class, in_parts, likeliest_others
from underfire.ascent.sources import evaluate
from underfire.ascent.step import Best, Step, Targets, choose, succeeded, take
from underfire.ascent.step_rules import Position, Progress, halving, sparse
from underfire.ascent.threats import Threat, ball
from underfire.catalog import card
from underfire.domains import ADDITIVE, check_inputs, domain_of
from underfire.errors import InputError, Unsupported
from underfire.gradients.estimators import autograd
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_classes, default_generator

Loss = Literal["ce", "dlr"]
KEEP = ("best", "success")


@card(
    "attack",
    paper="Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free "
    "Attacks, ICML 2020",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2", "l1"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
)
def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int = 100,
    objective: Objective | Loss = "ce",
    candidates: int = 0,
    keep: Literal["best", "success"] = "best",
    restarts: int = 1,
    random_start: bool = True,
    momentum: float = 0.75,
    rho: float = 0.75,
    chunk: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Run PGD with momentum, and halve the step size of each sample when its progress stalls.

    After each halving the sample continues from its best iterate. Under L1 this is APGD-L1: each step moves only the
    entries with the largest gradients, as many as the sparsity of the best iterate suggests, and the ball shrinks from
    `3 eps` over `2 eps` to `eps`. The paper halves the step size if the number of rising steps is `<` a share, the
    authors' code if it is `<=`; this follows the code. Each projection is onto the intersection of ball and box, not
    onto one after the other.

    Args:
        objective: `"ce"` maximises the log-odds (see `log_odds`). They grow with the cross-entropy, so comparisons of
            values and normalised gradients are the same, but their gradient does not vanish on a confident model.
            `"dlr"` maximises the difference of logits ratio, or the margin if there are too few classes for this ratio.
            An Objective is maximised itself.
        candidates: number of the likeliest other classes to attack as targets, one at a time (APGD-T is `"dlr"` with
            9); any misclassification is a success. With 0 the attack has no target and only leaves class `y`.
        restarts: number of runs, each with all candidates. The runs after the first start at random. The result is the
            best of all runs.
        momentum: weight of the new step, the paper's alpha; the previous step has weight `1 - momentum`.
        rho: the step size halves unless more than this share of the steps between two checkpoints raise the objective.

    Returns:
        The perturbed images, shaped like `x`: for each sample a success if there is one; of several successes, the one
        with the largest objective.

    Raises:
        Unsupported: both a goal and candidates are given.
    """
    generator = default_generator(generator, x.device)
    at_least_one(steps=steps, restarts=restarts, chunk=1 if chunk is None else chunk)
    if keep not in KEEP:
        raise Unsupported(f"keep={keep!r} is unknown here; choices: {', '.join(KEEP)}")
    if candidates < 0 or not 0 < momentum <= 1 or not 0 <= rho <= 1:
        raise InputError(
            f"candidates must be >= 0, momentum in (0, 1], rho in [0, 1]; got {candidates}, {momentum}, {rho}"
        )
    if candidates and goal is not None:
        raise Unsupported("candidates are for untargeted attacks; with a goal there is one class to reach")
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, among=("linf", "l2", "l1")).in_domain(domain_of(model))
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    x = x.detach()
    threat = replace(threat, eps=torch.as_tensor(eps).to(x).expand(len(x)))
    run = _Run(model, x, y, goal, _objective(objective), threat, steps, keep == "success", momentum, rho)
    with frozen(model):
        classes = goal[:, None] if goal is not None else None
        if classes is None and candidates:
            logits = in_parts(model, x, chunk)
            check_classes(logits, y)
            classes = likeliest_others(logits, y, candidates)
        for restart in range(restarts):
            at_random = random_start or restart > 0
            columns = y[:, None] if classes is None else classes
            for index, tried in class_by_class(columns, chunk or len(x), run.done):
                run.ascend(Targets(y[index], None if classes is None else tried, index), at_random, generator)
    return run.best.x_adv


def _objective(objective: Objective | Loss) -> Objective:
    """Return the objective that a name or a function stands for."""
    if callable(objective):
        return as_objective(objective)
    if objective not in get_args(Loss):
        raise Unsupported(f"objective {objective!r} is unknown; choices: {', '.join(get_args(Loss))}, or an Objective")
    if objective == "ce":
        return log_odds()

    def term(step: Step) -> Tensor:
        enough = step.logits.shape[1] >= (3 if step.goal is None else 4)
        return (dlr() if enough else margin())(step)

    return make(term)


class _Run:
    """One call of `apgd`: its options, and the best image of each sample so far."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        goal: Tensor | None,
        objective: Objective,
        threat: Threat,
        steps: int,
        retire: bool,
        momentum: float,
        rho: float,
    ) -> None:
        self.model, self.x, self.y, self.goal, self.objective = model, x, y, goal, objective
        self.threat, self.steps, self.retire = threat, steps, retire
        self.rule = sparse(steps) if threat.norm == "l1" else halving(momentum, rho)
        self.checked = False
        self.best = Best(x)

    def done(self) -> Tensor:
        """Return which samples need no more runs, bool `[B]`."""
        return self.best.found & self.retire

    def ascend(self, targets: Targets, at_random: bool, generator: Generator | None) -> None:
        """Run the attack once for some rows; a row is a sample with one class to reach."""
        x, threat = self.x[targets.index], self.threat.take(targets.index)
        if self.threat.norm != "l1":
            start = threat.random_start(x, generator) if at_random else threat.start(x)
            self._phase(targets, x, threat, start, self.steps)
            return
        z = x
        if at_random:  # far outside the ball, because the L1 projection of such a point is sparse
            z = x + torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        for factor, steps in _shrinking(self.steps):
            ball_now = replace(threat, eps=factor * torch.as_tensor(threat.eps))
            z = ball_now.project(x, z)
            z = self._phase(targets, x, ball_now, z, steps, final=factor == 1)

    def _phase(self, targets: Targets, x: Tensor, threat: Threat, z: Tensor, steps: int, final: bool = True) -> Tensor:
        """Run some steps in one ball and return the best iterates; only the final phase records successes."""
        rule, judge = self.rule, self.rule.judge
        assert judge is not None
        pace = rule.init(Position(threat, x, targets.index, 0, steps), z)  # the state of the step rule
        logits, value, g = self._evaluate(z, targets)
        best_value, best, best_g = value, z, g
        for step in range(steps + 1):
            # keep the best; successes may leave the batch
            if final:
                stays = self._record_successes(z, logits, value, targets)
                if stays is not None:
                    if len(stays) == 0:
                        return z[:0]
                    x, z, value, g, pace = take((x, z, value, g, pace), stays)
                    best_value, best, best_g = take((best_value, best, best_g), stays)
                    targets, threat = targets.take(stays), threat.take(stays)
            if step == steps:
                break
            # step and project
            direction = g if threat.norm == "l1" else threat.steepest(g, x, z)
            z, pace = rule.update(Position(threat, x, targets.index, step, steps), z, direction, pace)
            # forward and backward pass
            before = value
            logits, value, g = self._evaluate(z, targets, gradient=step + 1 < steps)
            higher = value > best_value
            best_value, best, best_g = choose(higher, (value, z, g), (best_value, best, best_g))
            # rows whose step size is halved go back to their best iterate
            position = Position(threat, x, targets.index, step + 1, steps)
            pace, back = judge(position, Progress(value > before, best_value, best), pace)
            if back is not None and step + 1 < steps:
                z, g = choose(back, (best, best_g), (z, g))
        if final:
            self._keep(best, best_value, targets.index, torch.zeros_like(best_value, dtype=torch.bool))
        return best

    def _evaluate(self, z: Tensor, targets: Targets, gradient: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and objective at `z`, and the objective's gradient (zeros if `gradient` is False)."""
        seen: list[Tensor] = []

        def step_of(source: nn.Module, shown: Tensor, logits: Tensor) -> Step:
            if not self.checked:
                check_classes(logits, targets.y, targets.goal)
                self.checked = True
            return targets.step(source, shown, logits)

        def loss(z: Tensor) -> Tensor:
            step, (value,) = evaluate(self.model, z, step_of, lambda step: [self.objective(step)])
            seen[:] = [step.logits.detach()]
            return value

        if gradient:
            value, g = autograd(loss, z)
        else:
            with torch.no_grad():
                value, g = loss(z), torch.zeros_like(z)
        return seen[0], value.detach(), torch.nan_to_num_(g, 0.0, 0.0, 0.0)

    def _record_successes(self, z: Tensor, logits: Tensor, value: Tensor, targets: Targets) -> Tensor | None:
        """Record the successes; with `keep="success"`, return the rows that continue, or None if all continue."""
        goal = None if self.goal is None else self.goal[targets.index]
        success = succeeded(logits, targets.y, goal)
        if not bool(success.any()):
            return None
        self._keep(z[success], value[success], targets.index[success], success[success])
        return (~self.best.found[targets.index]).nonzero().squeeze(1) if self.retire else None

    def _keep(self, z: Tensor, value: Tensor, index: Tensor, success: Tensor) -> None:
        """Update the best image of each sample with the best of its rows."""
        rows = best_row(index, value)
        self.best.update(z[rows], success[rows], value[rows], index[rows])


def _shrinking(steps: int) -> Iterator[tuple[int, int]]:
    """Yield multiples of eps and their numbers of steps: 3 and 2 for three tenths of the steps each, then 1."""
    early = 3 * steps // 10
    if early:
        yield 3, early
        yield 2, early
    yield 1, steps - 2 * early
