"""The loop of ADV² on every interpreter whose map is differentiable: one ascent on both losses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import Interpreter, keep_map
from underfire.ascent.step_rules import linear
from underfire.attacks.adv2.plan import Plan
from underfire.catalog import InterpreterFacts, facts_of
from underfire.hooks import smooth_relu
from underfire.validate import checked_at_end


def direct(plan: Plan) -> Tensor:
    """Minimise `prediction loss + weight * map loss` by gradients through the map, and return the images."""
    objective = plan.prediction + plan.weight * keep_map(plan.interpreter, plan.target, pool=plan.pool)
    if plan.also is not None:
        objective = objective + plan.also
    rule = linear(2 * plan.usual, plan.usual / 10) if plan.step_size is None else plan.step_size
    both = Recipe(objective, plan.threat, step_rule=rule, move=plan.move, rank=plan.rank)
    with _smoothed(plan.interpreter, plan.tau), checked_at_end():
        return ascend(
            plan.model, plan.x, plan.y, both, goal=plan.goal, steps=plan.steps, z=plan.z, generator=plan.generator
        )


def _smoothed(interpreter: Interpreter, tau: float | None) -> AbstractContextManager[None]:
    """Return a context in which the derivative of ReLU is smoothed, if the interpreter needs that or `tau` is given."""
    keywords = getattr(interpreter, "keywords", {})
    exact = facts_of(interpreter, InterpreterFacts()).second_order and keywords.get("double_backward") == "exact"
    tau = (1e-4 if exact else 0) if tau is None else tau
    return smooth_relu(tau) if tau > 0 else nullcontext()
