"""Run one training: copy the classifier, fit the copy by a loss, and return it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from underfire import models
from underfire.catalog import find
from underfire.errors import ModelError
from underfire.files import as_path
from underfire.learning import AttackedAccuracy, Checkpoint, Guard, KeepBest, MaskingGuard, Shuffled, drawn_seed, fit
from underfire.model import Classifier, as_classifier
from underfire.training.images import Data, Numbered, fingerprint_of, opened, split_off
from underfire.training.plan import Plan
from underfire.training.steps import Loss, TrainingStep
from underfire.training.weights import with_new_weights
from underfire.validate import check_classes


class Training:
    """A classifier that is going to be trained: a copy of the one that was given, with optimiser and batches.

    A method makes a `Training`, adds what it needs to the optimiser, and calls `run` with its loss.

    Args:
        method: the name of the method.
        model: the classifier; it is not changed.
        data: the images with their labels.
        plan: how the training runs.
        generator: source of the seed of all random numbers.
        options: the options of the method, with which a checkpoint must agree.
        eps: the size of the attacks on the images that the plan keeps back; None makes none.
        norm: the norm of eps.
        partner: a second network that is trained beside the classifier; it is moved to the same device.
        partner_rate: its learning rate, as a share of that of the classifier.
        replays: how many steps in a row get the same batch; the number of all steps does not depend on it.

    Attributes:
        model: the copy.
        network: the modules that a checkpoint holds.
        optimiser: the optimiser of their parameters.
        batches: the batches.
        like: one image `[1, ...]`, on the device of the classifier.
        classes: number of classes.
        steps: number of steps.
        seed: the seed.

    Raises:
        DataError: the data has too few classes, or labels that the classifier does not have. ModelError: the
            classifier has no weights.
    """

    def __init__(
        self,
        method: str,
        model: nn.Module,
        data: Data,
        plan: Plan,
        generator: Generator | None,
        options: Mapping[str, Any],
        *,
        eps: float | None = None,
        norm: str = "linf",
        partner: nn.Module | None = None,
        partner_rate: float = 1.0,
        replays: int = 1,
    ) -> None:
        given = as_classifier(model)
        self.plan, self.seed = plan, drawn_seed(generator)
        # copy the classifier
        if not any(p.is_floating_point() for p in given.parameters()):
            raise ModelError("the model has no weights to train; a function or an ONNX program cannot be trained")
        self._wanted = [p.requires_grad for p in given.parameters()]
        self.model = copy.deepcopy(given)
        self.model.domain = given.domain
        if plan.fresh:
            with_new_weights(self.model.module, self.seed)
        learned = [p.requires_grad_(True) for p in self.model.parameters() if p.is_floating_point()]
        device = learned[0].device
        # open the data, and check its labels
        images = opened(data)
        if isinstance(images, tuple):
            x, y = images[0][:1], images[1]
        else:
            x, y = images[:1]
        self.model.domain.check(x)
        self.like = x.to(device)
        logits = self.model.predict(self.like)
        self.classes = logits.shape[1]
        check_classes(logits, y.to(device))
        # keep images back
        self._held_out: AttackedAccuracy | None = None
        if plan.held_out:
            images, (x, y) = split_off(images, plan.held_out, self.seed % 2**63)
            self._held_out = AttackedAccuracy(x, y, self._attacks(eps, norm))
        # make batches, optimiser and the facts of a checkpoint
        shuffled = Shuffled(images, plan.batch_size, device=device, augment=plan.make_augment())
        self.batches = Numbered(shuffled, replays)
        self.steps = max(1, round(plan.epochs * shuffled.per_epoch))
        self.network: nn.Module = self.model
        groups: list[dict[str, Any]] = [{"params": learned}]
        if partner is not None:
            self.network = nn.ModuleDict({"model": self.model, "partner": partner.to(device)})
            groups.append({"params": list(partner.parameters()), "lr": partner_rate * plan.rate})
        self.optimiser: Optimizer = plan.make_optimiser(groups)
        self._facts = {
            "method": method,
            "options": repr(sorted(options.items())),
            "plan": repr((plan, self.seed)),
            "data": fingerprint_of(data),
            "model": models.fingerprint(given),
        }

    @property
    def device(self) -> torch.device:
        """The device of the classifier."""
        return next(self.model.parameters()).device

    def run(self, loss: Loss | Sequence[Loss]) -> Classifier:
        """Minimise the loss, and return the trained classifier in evaluation mode.

        Several losses alternate: each takes one step of the optimiser on every batch.

        Raises:
            ModelError: the loss or a weight became NaN or infinite. InputError: the checkpoint is of another training.
        """
        plan, losses = self.plan, list(loss) if isinstance(loss, Sequence) else [loss]
        checkpoint = None
        if plan.checkpoint is not None:
            checkpoint = Checkpoint(as_path(plan.checkpoint), self._facts, plan.every)
        validate = self._held_out or plan.validate
        self.network.train()
        fit(
            self.network,
            self.optimiser,
            self.batches,
            [self._of_batch(one) for one in losses],
            steps=self.steps,
            schedule=plan.make_schedule(),
            generator=Generator(self.device).manual_seed(self.seed),
            checkpoint=checkpoint,
            computation=plan.make_computation(),
            average=plan.make_average(),
            validate=None if validate is None else partial(validate, self.model),
            validate_every=max(1, round(plan.validate_every * self.batches.batches.per_epoch)),
            guards=[*self._guards(), *plan.guards],
            progress=plan.progress,
            watch=plan.watch,
        )
        for parameter, wanted in zip(self.model.parameters(), self._wanted, strict=True):
            parameter.requires_grad_(wanted)
        return self.model.eval()

    @staticmethod
    def _attacks(eps: float | None, norm: str) -> dict[str, Callable[..., Tensor]]:
        """Return the attacks on the images that are kept back: a single step, and PGD of 10 steps."""
        found = {"fgsm": find("attack", "fgsm"), "pgd": find("attack", "pgd")}
        if eps is None or norm not in found["fgsm"].facts.norms:
            return {}
        more: dict[str, dict[str, Any]] = {"fgsm": {}, "pgd": {"steps": 10}}
        return {name: card.with_options(eps=eps, norm=norm, **more[name]) for name, card in found.items()}

    def _guards(self) -> list[Guard]:
        """Return what watches the accuracy on the images that are kept back."""
        if self._held_out is None:
            return []
        attacked = bool(self._held_out.attacks)
        guards: list[Guard] = [MaskingGuard(then=self.plan.overfitting)] if attacked else []
        if self.plan.patience is not None:
            guards.append(KeepBest("accuracy under pgd" if attacked else "accuracy", self.plan.patience))
        return guards

    def _of_batch(self, loss: Loss) -> Any:
        """Return a loss of a step as the loop needs it: a loss of a batch."""

        def of_batch(batch: tuple[Tensor, Tensor], generator: Generator) -> Tensor:
            return loss(TrainingStep(self.model, *batch, self.batches.step, self.steps, generator))

        return of_batch
