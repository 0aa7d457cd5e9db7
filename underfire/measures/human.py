"""Compute the information transfer rate and the trust coefficient of people who predict a model's decisions.

Schmidt and Biessmann, Quantifying Interpretability and Trust in Machine Learning Systems, AAAI Workshop on Network
Interpretability for Deep Learning 2019. Annotators see images, with or without an explanation, and predict the class
that the model decides. With their answers â, the model's predictions ŷ, the true labels y and the mean time t of an
answer,

    ITR = I(â; ŷ) / t,    T = ITR of the predictions / ITR of the labels = I(â; ŷ) / I(â; y).

From few answers, the mutual information I is overestimated: by about (K - 1)² / 2n nats for K classes and n independent
answers. There are two corrections. `"miller-madow"` (Miller 1955) adds (occupied cells - 1) / 2n nats to every entropy.
`"jackknife"` (Quenouille 1956; Zahl 1977) leaves out each answer in turn; it corrects more if many pairs of classes
have never been seen. Both keep I between 0 and log2 of the smaller number of classes seen. No correction replaces
a sufficient number of answers: 10 classes need some hundreds of answers, 4 classes about sixty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.statistics import student_mean
from underfire.records import Interval

_PAPER = (
    "Schmidt and Biessmann, Quantifying Interpretability and Trust in Machine Learning Systems, "
    "AAAI Workshop on Network Interpretability for Deep Learning 2019"
)
CORRECTIONS = ("none", "miller-madow", "jackknife")
_TINY = 1e-12  # bits: a mutual information below this is zero up to rounding


@dataclass(frozen=True)
class Estimate:
    """An estimate with one share for each answer, or each annotator, from which its interval is computed.

    Attributes:
        value: the estimate; nan if it is undefined.
        shares: for every answer, or every annotator, the estimate plus its first-order influence, float64 `[n]`; their
            mean is `value`. Their spread gives the interval (Tukey 1958), since resampling the answers would increase
            the bias of a mutual information.
        why: why the estimate is undefined, in one line; empty if it is defined.
    """

    value: float
    shares: Tensor
    why: str = ""

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the estimate with Student's interval of its shares, cut off at 0."""
        if self.why:
            return Interval(math.nan, math.nan, math.nan, len(self.shares))
        found = student_mean(self.shares, confidence)
        return Interval(self.value, max(found.low, 0.0), found.high, found.n)  # max(nan, 0) is nan


@card("measure", paper=_PAPER, higher_is_better=True, whole=True)
def information_transfer_rate(
    answers: Tensor, predictions: Tensor, seconds: Tensor, *, correction: str = "none"
) -> float:
    """Return the information of the answers about the model's decisions, in bits per second; nan where undefined.

    Args:
        answers: the class that the annotator said the model would give, int64 `[n]`.
        predictions: the class that the model gave, int64 `[n]`.
        seconds: how long each answer took, `[n]`, positive.
        correction: of the mutual information, `"none"` as published, `"miller-madow"` or `"jackknife"`.

    Raises:
        InputError: the lengths differ, a time is not positive and finite, or the correction is unknown.
    """
    return transfer_rate(answers, predictions, seconds, correction=correction).value


@card("measure", paper=_PAPER, higher_is_better=False, whole=True)
def trust_coefficient(answers: Tensor, predictions: Tensor, labels: Tensor, *, correction: str = "none") -> float:
    """Return the information of the answers about the predictions, divided by that about the true labels; or nan.

    At 1 both are equal. Above 1, annotators follow the model even where it is wrong, which is why lower is better.
    Below 1, they follow their own judgement rather than the model. The times of the two rates cancel.

    Args:
        answers: the class that the annotator said the model would give, int64 `[n]`.
        predictions: the class that the model gave, int64 `[n]`.
        labels: the true class, int64 `[n]`.
        correction: of the mutual information, `"none"` as published, `"miller-madow"` or `"jackknife"`.

    Raises:
        InputError: the lengths differ, or the correction is unknown.
    """
    return trust(answers, predictions, labels, correction=correction).value


def transfer_rate(
    answers: Tensor,
    predictions: Tensor,
    seconds: Tensor,
    *,
    annotators: Tensor | None = None,
    correction: str = "none",
) -> Estimate:
    """Return the information transfer rate with its shares; arguments are those of `information_transfer_rate`.

    `annotators` says who gave each answer, int64 `[n]`; then each annotator has one share, in the order of their
    numbers. Without it, each answer has one share.
    """
    t = seconds.detach().double().cpu()
    _check(answers, predictions, correction, t)
    if t.numel() and not bool(((t > 0) & t.isfinite()).all()):
        worst = t[~((t > 0) & t.isfinite())][0].item()
        raise InputError(f"seconds must be positive and finite, got {worst}")
    if why := _undefined(predictions, "the model gives one class to every image, so there is nothing to reproduce"):
        return _no_figure(annotators, len(t), why)
    bits, each = _information(answers, predictions, correction)
    rate = bits / t.mean().item()
    influence = (each - each.mean() - rate * (t - t.mean())) / t.mean()
    return Estimate(rate, _shares(rate, influence, annotators))


def trust(
    answers: Tensor,
    predictions: Tensor,
    labels: Tensor,
    *,
    annotators: Tensor | None = None,
    correction: str = "none",
) -> Estimate:
    """Return the trust coefficient with its shares; arguments are those of `trust_coefficient` and `transfer_rate`."""
    _check(answers, predictions, correction, labels)
    if why := _undefined(labels, "every image has the same label, so the answers cannot tell about it"):
        return _no_figure(annotators, len(labels), why)
    of_model, each_of_model = _information(answers, predictions, correction)
    of_label, each_of_label = _information(answers, labels, correction)
    if of_label < _TINY:
        return _no_figure(annotators, len(labels), "the answers say nothing about the labels, so there is no ratio")
    ratio = of_model / of_label
    influence = (each_of_model - each_of_model.mean() - ratio * (each_of_label - each_of_label.mean())) / of_label
    return Estimate(ratio, _shares(ratio, influence, annotators))


def mutual_information(a: Tensor, b: Tensor, *, correction: str = "none") -> float:
    """Return the mutual information of two lists of classes, int64 `[n]` each, in bits; nan for empty ones."""
    _check(a, b, correction)
    return _information(a, b, correction)[0] if len(a) else math.nan


def difference(after: Estimate, before: Estimate, confidence: float = 0.95) -> tuple[Interval, str]:
    """Return the paired difference `after - before` of the same annotators with Student's interval.

    The second value says why the difference is undefined; it is empty if it is defined.
    """
    n = len(after.shares)
    why = after.why or before.why or ("a paired comparison needs two annotators or more" if n < 2 else "")
    if after.why or before.why:
        return Interval(math.nan, math.nan, math.nan, n), why
    if n != len(before.shares):
        raise InputError(f"a paired comparison needs the same annotators, got {n} and {len(before.shares)}")
    return student_mean(after.shares - before.shares, confidence), why


def _information(a: Tensor, b: Tensor, correction: str) -> tuple[float, Tensor]:
    """Return the mutual information I in bits, and the jackknife's pseudo-value of every answer k, float64 `[n]`.

    The pseudo-value is n I - (n - 1) I₋ₖ, where I₋ₖ leaves out answer k.
    """
    n = len(a)
    a, b = (torch.unique(v.detach().cpu(), return_inverse=True)[1] for v in (a, b))
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    joint = torch.bincount(a * columns + b, minlength=rows * columns).view(rows, columns).double()
    of_a, of_b = joint.sum(1), joint.sum(0)

    def total(count: Tensor) -> Tensor:
        return torch.special.xlogy(count, count) / math.log(2)

    def less(count: Tensor) -> Tensor:  # the fall of `total` when one answer is left out
        return total(count) - total(count - 1)

    whole = total(joint).sum() - total(of_a).sum() - total(of_b).sum()
    plain = math.log2(n) + whole.item() / n
    bits = max(plain, 0.0)  # rounding can make it negative
    without = (whole - less(joint[a, b]) + less(of_a[a]) + less(of_b[b])) / max(n - 1, 1) + math.log2(max(n - 1, 1))
    each = n * plain - (n - 1) * without
    if correction == "miller-madow":
        bits = plain + (rows + columns - int(joint.count_nonzero()) - 1) / (2 * n * math.log(2))
    elif correction == "jackknife":
        bits = each.mean().item()
    return min(max(bits, 0.0), math.log2(min(rows, columns))), each


def _shares(value: float, influence: Tensor, annotators: Tensor | None) -> Tensor:
    """Return the shares of an estimate (see `Estimate`) from the influence of every answer, `[n]`."""
    if annotators is None:
        return value + influence
    who = torch.unique(annotators.cpu(), return_inverse=True)[1]
    sums = torch.zeros(int(who.max()) + 1, dtype=influence.dtype).index_add(0, who, influence)
    return value + sums * len(sums) / len(influence)


def _undefined(classes: Tensor, constant: str) -> str:
    """Return why an estimate is undefined, `constant` if all classes are equal; empty if it is defined."""
    if len(classes) < 2:
        return f"it takes two answers or more, there {'is one' if len(classes) else 'are none'}"
    return constant if bool((classes == classes[0]).all()) else ""


def _no_figure(annotators: Tensor | None, n: int, why: str) -> Estimate:
    """Return an undefined estimate, all nan."""
    size = n if annotators is None else len(torch.unique(annotators))
    return Estimate(math.nan, torch.full((size,), math.nan, dtype=torch.float64), why)


def _check(a: Tensor, b: Tensor, correction: str, third: Tensor | None = None) -> None:
    """Raise InputError unless the lists have one length, the first two hold classes, and the correction is known."""
    if correction not in CORRECTIONS:
        raise InputError(f"correction must be one of {', '.join(CORRECTIONS)}, got {correction!r}")
    lists = [a, b] if third is None else [a, b, third]
    if any(v.dim() != 1 or len(v) != len(a) for v in lists):
        raise InputError(f"the lists must have one length [n], got {', '.join(str(tuple(v.shape)) for v in lists)}")
    if any(v.is_floating_point() for v in (a, b)):
        raise InputError(f"classes must be whole numbers, got {a.dtype} and {b.dtype}")
