"""The plan of a training: epochs, batches, optimiser, learning rate; the same options for every method."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from underfire.errors import InputError
from underfire.learning import (
    Average,
    Computation,
    Guard,
    Processes,
    Schedule,
    Watch,
    cosine,
    crop_and_flip,
    one_cycle,
    steps_down,
)
from underfire.learning.batches import Augment
from underfire.learning.computation import Precision
from underfire.learning.guards import Then
from underfire.learning.processes import ALONE
from underfire.model import Classifier
from underfire.validate import at_least, at_least_one, check_choice

OptimiserName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["one_cycle", "cosine", "steps_down", "constant"]
AugmentName = Literal["none", "shift", "shift_and_flip"]

_SCHEDULES: dict[str, Callable[[], Schedule]] = {"one_cycle": one_cycle, "cosine": cosine, "steps_down": steps_down}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The options of the optimisation, which every method of training shares.

    The defaults are ours and suit small networks; each paper has its own.

    Attributes:
        epochs: passes over the data.
        batch_size: images in a step.
        optimiser: `"sgd"` with Nesterov's momentum, `"adam"` or `"adamw"`.
        rate: the learning rate; with `"one_cycle"` the highest one.
        momentum: momentum of SGD.
        weight_decay: the factor of the L2 penalty of the weights.
        schedule: how the rate changes: `"one_cycle"`, `"cosine"`, `"steps_down"` (a tenth after 50 % and 75 % of the
            steps) or `"constant"`.
        augment: random changes of the images: `"shift"` by up to 4 pixels, or `"shift_and_flip"`.
        fresh: whether training begins with new random weights, and not with those of the model.
        average: decay of a moving average of the weights, which the classifier has in the end; 0 is no average.
        accumulate: number of parts of a batch whose gradients add up, so that less memory is needed.
        precision: `"full"`, or `"bfloat16"` for losses under torch's autocast.
        channels_last: whether feature maps have the channels as the last dimension in memory.
        held_out: number of images that are kept back. After every `validate_every` epochs, the accuracy on them is
            measured: clean, and at the eps of the method under FGSM and under PGD of 10 steps.
        overfitting: what happens when the accuracy under FGSM is far above that under PGD, see
            `learning.MaskingGuard`: `"say"`, `"stop"` or `"go_back"`.
        patience: measurements without a better accuracy under PGD (or, without eps, on clean images) after which the
            training stops; then the result has the best weights. None trains to the end.
        checkpoint: a file for the state of the training; if it exists, training continues from it.
        every: number of steps between two writes of the checkpoint.
        progress: a function of the number of steps that are done, and of all steps.
        watch: functions that get a `learning.Report` after every step, such as `learning.JsonLines`.
        validate: measures the classifier, such as `learning.AttackedAccuracy`.
        validate_every: number of epochs between two of its calls.
        guards: what judges these metrics, such as `learning.KeepBest` and `learning.MaskingGuard`.
        processes: the processes that train, by `learning.start_processes`.
    """

    epochs: float = 15.0
    batch_size: int = 128
    optimiser: OptimiserName = "sgd"
    rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "one_cycle"
    augment: AugmentName = "none"
    fresh: bool = False
    average: float = 0.0
    accumulate: int = 1
    precision: Precision = "full"
    channels_last: bool = False
    held_out: int = 0
    overfitting: Then = "say"
    patience: int | None = None
    checkpoint: str | os.PathLike[str] | None = field(default=None, repr=False, compare=False)
    every: int = field(default=50, repr=False, compare=False)
    progress: Callable[[int, int], None] | None = field(default=None, repr=False, compare=False)
    watch: Watch | Sequence[Watch] | None = field(default=None, repr=False, compare=False)
    validate: Callable[[Classifier], Mapping[str, float]] | None = field(default=None, repr=False, compare=False)
    validate_every: float = field(default=1.0, repr=False, compare=False)
    guards: Sequence[Guard] = field(default=(), repr=False, compare=False)
    processes: Processes = field(default=ALONE, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least_one(batch_size=self.batch_size, every=self.every)
        at_least(0, momentum=self.momentum, weight_decay=self.weight_decay)
        for name, choices in (("optimiser", OptimiserName), ("schedule", ScheduleName), ("augment", AugmentName)):
            check_choice(get_args(choices), **{name: getattr(self, name)})
        self.make_average(), self.make_computation()  # they check their settings
        at_least(0, held_out=self.held_out)
        check_choice(get_args(Then), overfitting=self.overfitting)
        if self.held_out == 0 and (self.patience is not None or self.overfitting != "say"):
            raise InputError("patience and overfitting need held_out, the number of images that are kept back")
        if self.held_out and self.validate is not None:
            raise InputError("validate measures images of its own; leave out held_out")
        for name in ("epochs", "rate", "validate_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name):g}")

    def make_optimiser(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> Optimizer:
        """Return the optimiser of some parameters, or of groups of them."""
        if self.optimiser == "sgd":
            nesterov = self.momentum > 0
            return torch.optim.SGD(parameters, self.rate, self.momentum, 0.0, self.weight_decay, nesterov)
        made = torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW
        return made(parameters, self.rate, weight_decay=self.weight_decay)

    def make_schedule(self) -> Schedule | None:
        """Return the schedule of the learning rate; None if it is constant."""
        return None if self.schedule == "constant" else _SCHEDULES[self.schedule]()

    def make_average(self) -> Average | None:
        """Return the moving average of the weights; None if there is none."""
        return None if self.average == 0 else Average(self.average)

    def make_computation(self) -> Computation:
        """Return how gradients are computed."""
        return Computation(
            accumulate=self.accumulate,
            precision=self.precision,
            channels_last=self.channels_last,
            processes=self.processes,
        )

    def make_augment(self) -> Augment | None:
        """Return the random changes of the images; None if there are none."""
        return None if self.augment == "none" else crop_and_flip(flip=self.augment == "shift_and_flip")


USUAL = Plan()
"""The plan of a method that is given none."""
