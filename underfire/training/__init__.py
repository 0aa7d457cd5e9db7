"""Training of classifiers: each method is `(model, data, ...) -> classifier` over the loop of `underfire.learning`.

A method is a loss and, where it has one, an inner attack. The classifier that is given is not changed: a trained copy
is returned, in evaluation mode.
"""

from underfire.training.adversarial import adversarial
from underfire.training.crafting import Inner, inner_attack
from underfire.training.fast import fast
from underfire.training.free import free
from underfire.training.linear_head import LinearHead, linear_head
from underfire.training.plan import Plan
from underfire.training.standard import standard
from underfire.training.steps import TrainingStep
from underfire.training.trades import trades
from underfire.training.trainer import Training

__all__ = [
    "Inner",
    "LinearHead",
    "Plan",
    "Training",
    "TrainingStep",
    "adversarial",
    "fast",
    "free",
    "inner_attack",
    "linear_head",
    "standard",
    "trades",
]
