"""Training of classifiers: each method is `(model, data, ...) -> classifier` over the loop of `underfire.learning`.

A method is a loss and, where it has one, an inner attack. The classifier that is given is not changed: a trained copy
is returned, in evaluation mode.
"""

from underfire.training.adversarial import adversarial
from underfire.training.adversarial_generator import adversarial_generator
from underfire.training.crafting import Inner, inner_attack
from underfire.training.distillation import distillation
from underfire.training.ensemble_adversarial import ensemble_adversarial
from underfire.training.fast import fast
from underfire.training.free import free
from underfire.training.gaussian_noise import gaussian_noise
from underfire.training.integrated_gradients_norm import ig_norm, ig_sum_norm
from underfire.training.interpretability_aware import interpretability_aware
from underfire.training.linear_head import LinearHead, linear_head
from underfire.training.parseval import ConvexSum, orthonormality_error, parseval
from underfire.training.plan import Plan
from underfire.training.standard import standard
from underfire.training.steps import TrainingStep
from underfire.training.trades import trades
from underfire.training.trainer import Training

__all__ = [
    "ConvexSum",
    "Inner",
    "LinearHead",
    "Plan",
    "Training",
    "TrainingStep",
    "adversarial",
    "adversarial_generator",
    "distillation",
    "ensemble_adversarial",
    "fast",
    "free",
    "gaussian_noise",
    "ig_norm",
    "ig_sum_norm",
    "inner_attack",
    "interpretability_aware",
    "linear_head",
    "orthonormality_error",
    "parseval",
    "standard",
    "trades",
]
