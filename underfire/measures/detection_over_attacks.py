"""Detection over several attacks and budgets: the worst attack beside the mean, and what a budget can attain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from underfire.errors import DataError, InputError, shown
from underfire.measures.detection import auroc
from underfire.measures.statistics import as_vector, checked_level, clopper_pearson, rate
from underfire.records import Batch, Check, Interval

if TYPE_CHECKING:
    from torch import Tensor

Figure = Callable[..., Interval]
"""A function `(clean, attacked, ..., confidence) -> Interval` of scores that is the better the higher it is."""


@dataclass(frozen=True)
class OverAttacks:
    """A figure of one detector for every attack.

    Attributes:
        each: the figure for each attack by name, with its interval.
        worst: the name of the attack with the lowest figure.
        least: that lowest figure. Its interval holds for the lowest of the true figures.
        mean: the mean over the attacks, each with the same weight.
    """

    each: dict[str, Interval]
    worst: str
    least: Interval
    mean: Interval


def over_attacks(
    clean: Tensor | ArrayLike,
    attacked: Mapping[str, Tensor | ArrayLike],
    figure: Figure = auroc,
    confidence: float = 0.95,
    **options: Any,
) -> OverAttacks:
    """Return a figure for each of several attacks, the worst case over them and their mean.

    An attacker chooses the attack, so the worst case counts. The lowest of several estimates is lower than the lowest
    true figure tends to be; the intervals of `least` and `mean` are therefore made from intervals of all attacks that
    hold at the same time (Bonferroni), and are wide if there are many attacks. Attacks without a scored input are left
    out of both.

    Args:
        clean: scores of clean inputs, which all attacks share, `[n]`.
        attacked: scores of attacked inputs by the name of the attack, `[m]` each.
        figure: what is measured, such as `auroc`, `tpr_at` or `average_precision`.
        confidence: the confidence of every interval in (0, 1).
        options: further arguments of `figure`.

    Raises:
        InputError: there is no attack. DataError: no attack has a scored input.
    """
    level = checked_level(confidence)
    if not attacked or not hasattr(attacked, "items"):
        raise InputError(f"attacked must be scores by the name of the attack, got {shown(attacked)}")
    each = {name: figure(clean, scores, confidence=level, **options) for name, scores in attacked.items()}
    known = [name for name, found in each.items() if not np.isnan(found.value)]
    if not known:
        raise DataError(f"no attack of {', '.join(attacked)} has a scored input")
    together = 1 - (1 - level) / len(known)
    wide = [figure(clean, attacked[name], confidence=together, **options) for name in known]
    worst = min(known, key=lambda name: each[name].value)
    parts = {part: [getattr(found, part) for found in wide] for part in ("value", "low", "high", "n")}
    least = Interval(min(parts["value"]), min(parts["low"]), min(parts["high"]), each[worst].n)
    value, low, high = (float(np.mean(parts[part])) for part in ("value", "low", "high"))
    mean = Interval(value, low, high, sum(parts["n"]))
    return OverAttacks(each, worst, least, mean)


@dataclass(frozen=True)
class OverBudgets:
    """The share of images that evade a detector at each budget of an attack.

    Attributes:
        measured: the share of images that fool the model and are not flagged, by budget.
        attainable: the share that does so at this budget or at a smaller one, by budget.
        check: whether the measured share falls nowhere, so far as the images can tell.
    """

    measured: dict[float, Interval]
    attainable: dict[float, Interval]
    check: Check


def over_budgets(
    evaded: Mapping[float, Tensor | ArrayLike],
    confidence: float = 0.95,
    *,
    written: Callable[[float], str] = "{:g}".format,
) -> OverBudgets:
    """Check that no more images evade a detector at a small budget than at a larger one.

    A detector may well flag a small change less often than a large one, so the detection rate of one attack need not
    fall or rise with its size. But an attacker with a budget can use every smaller one. The share of images that evade
    the detector, which fool the model and are not flagged, can therefore not fall with the budget of the *strongest*
    attack. Where the measured share falls, the attack at the larger budget was not the strongest: it does not know the
    detector, or its steps are too long. Then the rate at that budget is a bound that the smaller one already beats, and
    `attainable` is the number to report. The check compares, for every two neighbouring budgets, the images that evade
    the detector at one of them only (sign test); it fails if the fall is significant.

    Args:
        evaded: whether each image evades the detector, bool `[n]`, by budget, of the same images in the same order.
        confidence: the confidence of every interval and of the test in (0, 1).
        written: how a budget is written in the message.

    Raises:
        InputError: there is no budget, or the numbers of images differ.

    Source: the check that users of DEEPSEC missed (Carlini, A Critique of the DeepSec Platform, 2019), here for
        detectors.
    """
    level = checked_level(confidence)
    if not evaded or not hasattr(evaded, "items"):
        raise InputError(f"evaded must hold bools by budget, got {shown(evaded)}")
    hits: dict[float, NDArray[np.bool_]] = {eps: as_vector(evaded[eps]) > 0.5 for eps in sorted(evaded)}
    if len({len(hit) for hit in hits.values()}) > 1:
        raise InputError(f"every budget must have the same images, got {[len(hit) for hit in hits.values()]}")
    best = np.logical_or.accumulate(list(hits.values()))
    falls = [(*pair, *_fall(hits[pair[0]], hits[pair[1]], level)) for pair in zip(hits, list(hits)[1:], strict=False)]
    small, large, lost, certain = max(falls, key=lambda fall: (fall[3], fall[2]), default=(0.0, 0.0, 0.0, False))
    detail = "No significant fall: the attack is at least as strong with a larger budget."
    if certain:
        detail = (
            f"From eps {written(small)} to {written(large)}, the share of images that evade the detector falls by "
            f"{100 * lost:.1f} %, although the larger budget contains the smaller one: the attack is not the strongest "
            f"at eps {written(large)}."
        )
    return OverBudgets(
        {eps: rate(hit, level) for eps, hit in hits.items()},
        {eps: rate(hit, level) for eps, hit in zip(hits, best, strict=True)},
        Check("larger_budget", not certain, lost, 0.0, detail),
    )


def over_knowledge(
    unaware: Tensor | ArrayLike, aware: Tensor | ArrayLike, eps: float | str = 0.0, confidence: float = 0.95
) -> Check:
    """Check that an attack that knows a detector evades it at least as often as the same attack that does not.

    What an attacker can do without knowing a detector, they can do with knowing it. So the share of images that evade
    the detector can fall only if the attack that knows it is not the strongest: the gradient of the score may be
    masked, or too few steps remain for the prediction. The check is the sign test of `over_budgets`.

    Args:
        unaware: whether each image evades the detector after the attack that does not know it, bool `[n]`.
        aware: the same after the attack that knows it.
        eps: the size of both, as a number or as the message should write it.
        confidence: the confidence of the test in (0, 1).

    Raises:
        InputError: the numbers of images differ.
    """
    without, known = as_vector(unaware) > 0.5, as_vector(aware) > 0.5
    if len(without) != len(known):
        raise InputError(f"both attacks must have the same images, got {len(without)} and {len(known)}")
    lost, certain = _fall(without, known, checked_level(confidence))
    detail = "No significant fall: the attack that knows the detector is at least as strong."
    if certain:
        detail = (
            f"At eps {eps if isinstance(eps, str) else f'{eps:g}'}, the attack that knows the detector evades it on "
            f"{100 * lost:.1f} % of the images less than the one that does not know it, so it is not the strongest; "
            "the share at any size counts both."
        )
    return Check("knowledge", not certain, lost, 0.0, detail)


def _fall(small: NDArray[np.bool_], large: NDArray[np.bool_], level: float) -> tuple[float, bool]:
    """Return by how much the share falls from the small to the large budget, and whether the fall is significant."""
    lost, won = int((small & ~large).sum()), int((large & ~small).sum())
    certain = lost > won and clopper_pearson(lost, lost + won, 1 - 2 * (1 - level)).low > 0.5
    return (lost - won) / max(len(small), 1), certain


class Learns(Protocol):
    """A detector that learns from clean and attacked inputs."""

    def fit(self, model: Any, clean: Batch, attacked: Batch | None = None, /) -> Any:
        """Learn from inputs."""

    def score(self, model: Any, x: Tensor, /) -> Tensor:
        """Return the scores of inputs `x`, `[B]`."""


def leave_one_attack_out(
    detector: Callable[[], Learns],
    model: Any,
    clean: tuple[Batch, Batch],
    attacked: Mapping[str, tuple[Batch, Batch]],
    figure: Figure = auroc,
    confidence: float = 0.95,
    chunk: int = 256,
) -> dict[str, dict[str, Interval]]:
    """Fit a detector to all attacks but one, for each of them, and measure how well it sees every attack.

    A detector that learns from attacks is easily measured on those that it has seen. Row `pgd` of the table is the
    detector that has not seen PGD; its entry in column `pgd` is the figure that counts.

    Args:
        detector: returns a new detector that is not fitted; one that learns from clean inputs alone gives equal rows.
        model: the classifier.
        clean: clean inputs to fit to and to evaluate on, which must be different samples (by `ids`).
        attacked: the attacked inputs to fit to and to evaluate on, by the name of the attack, made from these samples.
        figure: what is measured.
        confidence: the confidence of the intervals in (0, 1).
        chunk: number of inputs that are scored at once.

    Returns:
        The figures, `table[attack left out][attack]`.

    Raises:
        InputError: there are fewer than two attacks. DataError: samples are used to fit and to evaluate.
    """
    if len(attacked) < 2 or not hasattr(attacked, "items"):
        raise InputError(f"leave_one_attack_out needs two or more attacks, got {shown(list(attacked))}")
    fit_to = {name for batch in (clean[0], *(pair[0] for pair in attacked.values())) for name in batch.ids}
    used = {name for batch in (clean[1], *(pair[1] for pair in attacked.values())) for name in batch.ids}
    if fit_to & used:
        both = sorted(fit_to & used)
        raise DataError(f"{len(both)} samples are used both to fit and to evaluate, such as {both[0]!r}")
    table: dict[str, dict[str, Interval]] = {}
    for left_out in attacked:
        # fit to the other attacks
        others = [pair[0] for name, pair in attacked.items() if name != left_out]
        found = detector()
        found.fit(model, clean[0], _joined(others))
        # evaluate on all
        usual = _scores(found, model, clean[1].x, chunk)
        table[left_out] = {
            name: figure(usual, _scores(found, model, pair[1].x, chunk), confidence=confidence)
            for name, pair in attacked.items()
        }
    return table


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return several batches as one."""
    ids = tuple(name for batch in batches for name in batch.ids)
    return Batch(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]), ids)


def _scores(detector: Learns, model: Any, x: Tensor, chunk: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([detector.score(model, part) for part in x.split(chunk)])
