"""Guards of a training: they read the metrics of every validation, and may stop it or change its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from underfire.errors import InputError, nearest
from underfire.learning.reports import Report
from underfire.validate import at_least, at_least_one, check_choice

if TYPE_CHECKING:
    from underfire.learning.checkpoints import State


class Verdict(NamedTuple):
    """The verdict of a guard after a validation: a sentence or nothing, and whether the training stops."""

    note: str = ""
    stop: bool = False


class Guard:
    """A part of the loop that judges the metrics of each validation; it does nothing unless a subclass does."""

    def begin(self, state: State) -> None:
        """Forget an earlier training."""

    def judge(self, report: Report, state: State) -> Verdict:
        """Return the verdict on the metrics of a validation; the guard may change the weights of the state."""
        return Verdict()

    def end(self, state: State) -> None:
        """Change the weights after the last step."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold to continue."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""


@dataclass(eq=False)
class KeepBest(Guard):
    """Keep the weights with the best value of a metric; at the end, the network has them.

    If the network has a moving average, the averaged weights are those that are measured and kept.

    Attributes:
        metric: the name of the metric.
        patience: number of validations in a row without a better value after which the training stops; None never stops
            it.
        smallest: whether the smallest value is the best one.

    Source: Rice, Wong and Kolter, Overfitting in adversarially robust deep learning, ICML 2020: robust accuracy falls
    long before the end of a training.
    """

    metric: str
    patience: int | None = None
    smallest: bool = False
    _best: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _waited: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.patience is not None:
            at_least_one(patience=self.patience)

    def begin(self, state: State) -> None:
        """Forget an earlier training."""
        self._best, self._waited = {}, 0

    def judge(self, report: Report, state: State) -> Verdict:
        """Keep better weights, and stop after too many validations without them; NaN is never better.

        Raises:
            InputError: the metric is not measured.
        """
        value = torch.tensor(_metric(report, self.metric), dtype=torch.float64)
        sign = -1 if self.smallest else 1
        if not value.isnan() and (not self._best or sign * value > sign * self._best["value"]):
            weights = {f"weights.{name}": weight for name, weight in state.measured_weights().items()}
            self._best, self._waited = {"value": value, "step": torch.tensor(report.step), **weights}, 0
            return Verdict()
        self._waited += 1
        if self.patience is None or self._waited < self.patience:
            return Verdict()
        note = f"{self.metric} was not better in {self._waited} validations"
        if self._best:
            note += f"; the best was {float(self._best['value']):.4g} after step {int(self._best['step'])}"
        return Verdict(note, stop=True)

    def end(self, state: State) -> None:
        """Give the network the best weights."""
        if self._best:
            weights = {name: weight for name, weight in self._best.items() if name.startswith("weights.")}
            state.network.load_state_dict({name.removeprefix("weights."): w for name, w in weights.items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Return the best weights, and the number of validations since."""
        return {"waited": torch.tensor(self._waited), **self._best}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._waited = int(state["waited"])
        self._best = {name: value for name, value in state.items() if name != "waited"}


Then = Literal["say", "stop", "go_back"]


@dataclass(eq=False)
class MaskingGuard(Guard):
    """Notice that a model hides its gradient from a weak attack: it is accurate under it, and not under a strong one.

    A training on single-step images reaches a degenerate minimum where one step makes images that are far from the
    worst ones in the ball (Tramèr et al.); when it happens suddenly, it is called catastrophic overfitting (Wong et
    al.). The two metrics are then far apart.

    Attributes:
        weak: the metric of the weak attack, usually the one that the training uses.
        strong: the metric of the strong attack.
        gap: by how much the first may exceed the second.
        then: `"say"` notes it, `"stop"` also restores the last good weights and stops, `"go_back"` also restores the
            last good weights and goes on from them with the next images and random numbers. Weights without the gap are
            good; before the first validation, those at the start.
        limit: number of times that the training goes back before it stops.

    Source: Tramèr et al., Ensemble Adversarial Training, ICLR 2018; Wong, Rice and Kolter, Fast is better than free,
    ICLR 2020, whose code keeps the weights of the epoch before the accuracy under PGD falls by more than 0.2.
    """

    weak: str = "accuracy under fgsm"
    strong: str = "accuracy under pgd"
    gap: float = 0.2
    then: Then = "say"
    limit: int = 3
    _good: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _step: int = field(default=0, init=False, repr=False)
    _times: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice(get_args(Then), then=self.then)
        at_least(0, gap=self.gap, limit=self.limit)

    def begin(self, state: State) -> None:
        """Keep the first weights, if the training may go back to them."""
        self._good = {} if self.then == "say" else state.weights()
        self._step = self._times = 0

    def judge(self, report: Report, state: State) -> Verdict:
        """Compare the two metrics, and act on a gap.

        Raises:
            InputError: a metric is not measured.
        """
        weak, strong = _metric(report, self.weak), _metric(report, self.strong)
        if not weak - strong > self.gap:
            if self.then != "say":
                self._good, self._step = state.weights(), report.step
            return Verdict()
        note = (
            f"after step {report.step}, {self.weak} is {weak:.3g}, and {self.strong} {strong:.3g}: the model hides its "
            "gradient from the weak attack (catastrophic overfitting)"
        )
        if self.then == "say":
            return Verdict(note)
        state.set_weights(self._good)
        self._times += 1
        note += f"; the weights are those after step {self._step} again"
        return Verdict(note, stop=self.then == "stop" or self._times > self.limit)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the last good weights, and the number of times that the training went back."""
        return {"step": torch.tensor(self._step), "times": torch.tensor(self._times), **self._good}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._step, self._times = int(state["step"]), int(state["times"])
        self._good = {name: value for name, value in state.items() if name not in ("step", "times")}


def _metric(report: Report, name: str) -> float:
    """Return a metric of a report.

    Raises:
        InputError: it was not measured.
    """
    if name not in report.metrics:
        raise InputError(f"the metric {name!r} is not measured; {nearest(name, report.metrics)}")
    return report.metrics[name]
