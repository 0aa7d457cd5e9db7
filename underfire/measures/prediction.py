"""Predictions and the success of an attack, from logits `[B, K]` and classes int64 `[B]`."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import wide

_ADV2 = "Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020"


def _checked(logits: Tensor, y: Tensor) -> Tensor:
    """Return the classes as a column `[B, 1]` on the device of the logits.

    Raises:
        InputError: classes and logits do not fit.
    """
    if logits.dim() != 2 or y.shape != logits.shape[:1]:
        raise InputError(f"logits [B, K] and classes [B] do not fit: got {tuple(logits.shape)} and {tuple(y.shape)}")
    classes = logits.shape[1]
    if y.numel() and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise InputError(f"classes must lie in 0 … {classes - 1}, got {int(y.min())} … {int(y.max())}")
    return y.to(logits.device)[:, None]


@card("measure", paper=_ADV2, table="rows", higher_is_better=False, limits=(0.0, 1.0))
def success(logits_adv: Tensor, y: Tensor, goal: Tensor | None = None) -> Tensor:
    """Return whether the attack worked, bool `[B]`: the prediction is not `y`, or it is `goal` if one is given.

    A row with a logit that is NaN or infinite is not a success. The attack success rate is `statistics.rate` of this
    over the samples that the clean model classifies correctly.
    """
    wanted = _checked(logits_adv, y if goal is None else goal)[:, 0]
    prediction = logits_adv.argmax(1)
    return (prediction != wanted if goal is None else prediction == wanted) & logits_adv.isfinite().all(1)


@card("measure", paper=_ADV2, table="rows", higher_is_better=False, limits=(0.0, 1.0))
def confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Return the softmax probability of class `y`, `[B]`.

    If `y` is the class that an attack reached, this is the misclassification confidence of the paper.
    """
    return wide(logits).softmax(1).gather(1, _checked(logits, y))[:, 0]


@card(
    "measure",
    paper="Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017",
    table="rows",
    higher_is_better=True,
)
def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of class `y` minus the largest other logit, `[B]`; negative if the prediction is not `y`."""
    column = _checked(logits, y)
    if logits.shape[1] < 2:
        raise InputError("a margin needs at least two classes, got logits of one")
    z = wide(logits)
    return (z.gather(1, column) - z.scatter(1, column, -torch.inf).amax(1, keepdim=True))[:, 0]


@card(
    "measure",
    paper="Carlini et al., On Evaluating Adversarial Robustness, 2019",
    higher_is_better=True,
    limits=(0.0, 1.0),
)
def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return the share of samples whose largest logit is that of class `y`; nan for an empty batch.

    A sample with a logit that is NaN or infinite does not count as right.
    """
    column = _checked(logits, y)
    return ((logits.argmax(1) == column[:, 0]) & logits.isfinite().all(1)).double().mean().item()
