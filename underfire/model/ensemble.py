"""Several classifiers as one: an ensemble whose logits, probabilities, losses or gradients are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.errors import InputError, ModelError, Unsupported
from underfire.model import sessions
from underfire.model.classifier import Classifier, as_classifier
from underfire.validate import check_choice

Fuse = Literal["logits", "probabilities", "losses", "gradients"]
Scale = tuple[float, float]


class _Members(nn.Module):
    """The members of an ensemble, as a module that answers with the fused logits."""

    def __init__(
        self, members: Sequence[Classifier], scales: Sequence[Scale], weights: tuple[float, ...], fuse: Fuse
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.scales, self.weights, self.fuse = tuple(scales), weights, fuse

    def resized(self, x: Tensor, number: int) -> Tensor:
        """Return the images at the size that a member takes."""
        scale = self.scales[number]
        if all(factor == 1 for factor in scale):
            return x
        size = [round(side * factor) for side, factor in zip(x.shape[2:], scale, strict=True)]
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[B, K]`: the members' mean, or with `"probabilities"` the logarithm of the mean."""
        answers = [member(self.resized(x, number)) for number, member in enumerate(self.members)]
        _same_classes(answers)
        if self.fuse != "probabilities":
            return self.average(answers)
        shares = [math.log(w) + answer.log_softmax(1) for w, answer in zip(self.weights, answers, strict=True)]
        return torch.stack(shares).logsumexp(0)

    def average(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean of one tensor of each member."""
        return torch.stack([w * value for w, value in zip(self.weights, values, strict=True)]).sum(0)


class Ensemble(Classifier):
    """A classifier that stands for several, which an attack uses as its model.

    Its logits are the weighted mean of the members' logits, or with `"probabilities"` the logarithm of the mean of
    their probabilities. `"losses"` averages the objective of the attack over the members. `"gradients"` averages the
    gradients of the objective, each divided by its L1 norm, so that no member outweighs the others because its
    gradient is larger. These two need an attack that maximises an objective; for one that differentiates the logits
    itself, they raise Unsupported. With one member, all four are that member.

    Args:
        members: classifiers of the same classes.
        fuse: what is averaged: `"logits"`, `"probabilities"`, `"losses"` or `"gradients"`.
        weights: one positive number per member; None weighs all equally. They are divided by their sum.
        resize: whether members that were made for another image size than the first get resized images.

    Raises:
        InputError: there are no members, or the weights do not fit. Unsupported: `fuse` is unknown. ModelError: the
            members have other classes, take other kinds of input, or other image sizes and `resize` is false.
    """

    module: _Members

    def __init__(
        self,
        members: Sequence[nn.Module],
        fuse: Fuse = "logits",
        *,
        weights: Sequence[float] | None = None,
        resize: bool = False,
    ) -> None:
        check_choice(get_args(Fuse), fuse=fuse)
        found = [as_classifier(member) for member in members]
        if not found:
            raise InputError("an ensemble needs at least one source")
        scales = [_scale(found[0], member, number, resize) for number, member in enumerate(found)]
        labels = next((member.labels for member in found if member.labels is not None), None)
        body = _Members(found, scales, _shares(weights, len(found)), fuse)
        super().__init__(body, labels=labels, domain=found[0].domain, output="logits", size=found[0].size)

    @property
    def members(self) -> nn.ModuleList:
        """The classifiers."""
        return self.module.members

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the members, whose sum is 1."""
        return self.module.weights

    @property
    def fuse(self) -> Fuse:
        """Return what is averaged: `"logits"`, `"probabilities"`, `"losses"` or `"gradients"`."""
        return self.module.fuse

    @property
    def apart(self) -> bool:
        """Return whether an objective is evaluated on each member, and not on the fused logits."""
        return self.fuse in ("losses", "gradients")

    def fused_by(self, fuse: Fuse) -> Ensemble:
        """Return an ensemble of the same members and weights with another `fuse`; both count the passes of one."""
        other = Ensemble(list(self.members), fuse, weights=self.weights, resize=True)
        other._counts = self._counts
        return other

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused logits `[B, K]`, in the dtype of `x`.

        Raises:
            Unsupported: a gradient is needed, and losses or gradients are fused.
        """
        if self.apart and x.requires_grad and torch.is_grad_enabled():
            raise Unsupported(
                f"this method differentiates the logits of the model, and an ensemble with fuse={self.fuse!r} averages "
                f"{self.fuse}; use fuse='logits'"
            )
        return super().forward(x)

    def resized(self, x: Tensor, number: int) -> Tensor:
        """Return the images at the size that member `number` takes."""
        return self.module.resized(x, number)

    def average(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean of one tensor of each member."""
        return self.module.average(values)

    def note(self, x: Tensor, answers: Sequence[Tensor]) -> None:
        """Count a pass of all members, and tell the session of this use about its gradient."""
        _same_classes(answers)
        if self._counts:
            self._count(answers[0])
        session = sessions.current(self.module)
        if session is not None and x.requires_grad and torch.is_grad_enabled():
            session.watch(x)


def _same_classes(answers: Sequence[Tensor]) -> None:
    """Raise ModelError unless the members answer with the same number of classes."""
    first = answers[0].shape[1]
    for number, answer in enumerate(answers):
        if answer.shape[1] != first:
            raise ModelError(f"source {number} has {answer.shape[1]} classes, and source 0 has {first}")


def _shares(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return weights whose sum is 1."""
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count or not all(0 < weight < math.inf for weight in given):
        raise InputError(f"weights must be {count} positive numbers, one per source, got {given}")
    return tuple(weight / sum(given) for weight in given)


def _scale(first: Classifier, member: Classifier, number: int, resize: bool) -> Scale:
    """Return by how much a member's images are higher and wider than the first member's; check that both fit."""
    if member.domain != first.domain:
        raise ModelError(f"source {number} takes domain {member.domain.name!r}, and source 0 {first.domain.name!r}")
    if member.labels is not None and first.labels is not None and member.labels != first.labels:
        lengths = len(member.labels), len(first.labels)
        pairs = zip(member.labels, first.labels, strict=False)
        k, one, other = next(((k, a, b) for k, (a, b) in enumerate(pairs) if a != b), (0, "", ""))
        what = f"{lengths[0]} classes, and source 0 has {lengths[1]}"
        if lengths[0] == lengths[1]:
            what = f"other classes than source 0: class {k} is {one!r}, not {other!r}"
        raise ModelError(f"source {number} has {what}")
    if member.size is None or first.size is None or member.size == first.size:
        return 1.0, 1.0
    if not resize:
        sizes = " and ".join(f"{size[0]} x {size[1]}" for size in (member.size, first.size))
        raise ModelError(f"source {number} and source 0 take images of {sizes}; resize=True resizes them")
    return member.size[0] / first.size[0], member.size[1] / first.size[1]
