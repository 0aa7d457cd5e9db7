"""Defensive distillation (Papernot et al., IEEE S&P 2016): a student learns the softened outputs of a teacher.

Carlini and Wagner (IEEE S&P 2017) break it: its gradients are masked, not robust.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.files import as_path
from underfire.model import Classifier
from underfire.training.images import Data
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training


@card(
    "training",
    paper="Papernot, McDaniel, Wu, Jha and Swami, Distillation as a Defense to Adversarial Perturbations against Deep "
    "Neural Networks, IEEE S&P 2016",
    domains=ADDITIVE,
    robust=True,
)
def distillation(
    model: nn.Module,
    data: Data,
    *,
    temperature: float = 40.0,
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Train a teacher at a temperature T of the softmax, and a student on its probabilities at T; return the student.

    The student is used at temperature 1. Teacher and student begin with the same weights, and each is trained by the
    whole plan. Both losses are multiplied by T, so that the size of their gradients depends less on T.

    Args:
        temperature: the T by which the logits are divided; the paper has 1 to 100.

    Raises:
        InputError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"temperature must be above 0, got {temperature:g}")
    options = {"temperature": temperature}

    def of_labels(step: TrainingStep) -> Tensor:
        return temperature * F.cross_entropy(step.model(step.x) / temperature, step.y, reduction="none")

    # the teacher has its own checkpoint
    beside = None if plan.checkpoint is None else Path(f"{as_path(plan.checkpoint)}.teacher")
    teaching = Training("distillation teacher", model, data, replace(plan, checkpoint=beside), generator, options)
    teacher = teaching.run(of_labels)

    def of_teacher(step: TrainingStep) -> Tensor:
        with torch.no_grad():
            wanted = (teacher(step.x) / temperature).softmax(1)
        return temperature * F.cross_entropy(step.model(step.x) / temperature, wanted, reduction="none")

    student = Training("distillation", model, data, plan, generator, options).run(of_teacher)
    if beside is not None:
        beside.unlink(missing_ok=True)
    return student
