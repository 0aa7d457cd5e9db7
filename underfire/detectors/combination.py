"""Combine several detectors in one score: the largest standardised score, or a logistic regression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from underfire.catalog import card, find
from underfire.detectors.detector import Detector, Fit
from underfire.detectors.evaluated import Evaluated, evaluate
from underfire.detectors.fitting import fit_together
from underfire.detectors.regression import fit_regression, log_odds
from underfire.errors import DataError, InputError, shown
from underfire.hooks import Probe
from underfire.model import Classifier
from underfire.records import Batch
from underfire.transforms.rounding import replaced
from underfire.validate import check_choice

_CHUNK = 64  # inputs that the detectors score at once while a combination learns


@card(
    "detector",
    name="combination",
    paper="Feinman, Curtin, Shintre and Gardner, Detecting Adversarial Samples from Artifacts, 2017: the logistic "
    "regression; the largest score is our choice",
    differentiable=True,
)
class Combination(Detector):
    """Score an image by several detectors together: the largest of their scores, or a logistic regression.

    The detectors learn from two thirds of the inputs. On the other third, their scores are measured: these inputs are
    new to them, as later ones will be. With `"z_score"` and `"p_value"`, the combination is the largest score after
    each is converted to the same scale. With `"logistic"`, it is the log-odds of a logistic regression on the scores of
    clean and attacked images. A file of a fitted combination holds all its detectors.

    Args:
        detectors: two or more of: the name of a detector, or a mapping of its `name` and its options.
        rule: `"z_score"`, in standard deviations above the mean of clean images; `"p_value"`, minus the logarithm of
            the share of clean images that are at least as suspicious, with the gradient of `"z_score"` (BPDA); or
            `"logistic"`.

    Raises:
        InputError: there are fewer than two detectors, one is unknown or given twice. Unsupported: the rule is unknown.
    """

    labelled = True

    def __init__(
        self,
        *,
        detectors: tuple[str | Mapping[str, Any], ...] = ("kernel_density", "mahalanobis"),
        rule: str = "z_score",
    ) -> None:
        check_choice(("z_score", "p_value", "logistic"), rule=rule)
        self.detectors, self.rule = detectors, rule
        self.members = _named(detectors)
        self.least = max(3, math.ceil(1.5 * max(member.least for member in self.members)))  # they learn from two thirds

    @property
    def supervised(self) -> bool:
        """Return whether a fit needs attacked inputs."""
        return self.rule == "logistic" or any(member.supervised for member in self.members)

    @property
    def differentiable(self) -> bool:
        """Return whether gradients flow from the score to the input: those of all its detectors do."""
        return all(member.differentiable for member in self.members)

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        return tuple(dict.fromkeys(probe for member in self.members for probe in member._probes(model, x)))

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        # every third input of each label measures the scores, the others are learned
        parts = {True: _part(clean, True), False: _part(clean, False)}
        theirs = {rest: _part(attacked, rest) if attacked is not None else None for rest in (True, False)}
        known = theirs[False]
        members = self.members
        fit_together(members, model, parts[False], known)
        learned = dict[str, Tensor]()
        for number, member in enumerate(members):
            own = member.fitted().probes
            learned |= {f"{number}.{name}": tensor for name, tensor in (member.learned or {}).items()}
            learned[f"{number}"] = torch.tensor([list(clean.features).index(probe) for probe in own]).long()
        scores = self._scores(model, parts[True].x)
        if self.rule == "logistic":
            unusual = theirs[True]
            if unusual is None or not len(unusual):
                raise DataError(f"{self.name} learns from three or more attacked inputs, got {len(known or ())}")
            return learned | fit_regression(scores, self._scores(model, unusual.x))
        if self.rule == "p_value":
            return learned | {"sorted": scores.sort(0).values.T.contiguous()}
        return learned | {"mean": scores.mean(0), "scale": scores.std(0, correction=0)}

    def _scores(self, model: Classifier, x: Tensor) -> Tensor:
        """Return the score of each detector, `[n, M]`; only a chunk of the inputs is scored at once."""
        probes = tuple(dict.fromkeys(probe for member in self.members for probe in member.fitted().probes))
        found = []
        for part in x.split(_CHUNK):
            inputs = evaluate(model, part, probes)
            found.append(torch.stack([member.score_evaluated(model, inputs) for member in self.members], 1))
        return torch.cat(found)

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        about = self.fitted()
        for number, member in enumerate(self.members):
            if member.learned is None:  # the combination was loaded from a file
                probes = tuple(about.probes[i] for i in learned[f"{number}"].tolist())
                member.about = Fit(about.classes, about.shape, about.model, probes)
                prefix = f"{number}."
                member.learned = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in (self.learned or {}).items()
                    if name.startswith(prefix)
                }
        scores = torch.stack([member.score_evaluated(model, inputs) for member in self.members], 1)
        if self.rule == "logistic":
            return log_odds(scores, learned)
        if self.rule == "z_score":
            return _largest(scores, learned["mean"], learned["scale"])
        known = learned["sorted"]  # [M, n]
        below = torch.searchsorted(known, scores.detach().T.contiguous())
        share = (known.shape[1] - below + 1) / (known.shape[1] + 1)
        rarest = (-share.to(scores.dtype).log()).amax(0)
        # a rank has no gradient; that of the largest standardised score takes its place (BPDA)
        scale = known.std(1, correction=0)
        return replaced(_largest(scores, known.mean(1), scale), rarest) if scores.requires_grad else rarest


def _largest(scores: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return the largest of the standardised scores `[B, M]`, `[B]`; a score that never varied keeps its scale."""
    return ((scores - mean) / torch.where(scale > 0, scale, torch.ones_like(scale))).amax(1)


def _part(inputs: Evaluated, rest: bool) -> Batch:
    """Return every third of the inputs of each label, or the others."""
    assert inputs.y is not None
    order = inputs.y.sort(stable=True).indices
    position = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    first = torch.searchsorted(inputs.y[order], inputs.y)  # the position of the first input of the label
    kept = (((position - first) % 3 == 2) == rest).nonzero().flatten()
    return Batch(inputs.x[kept], inputs.y[kept], tuple(inputs.ids[i] for i in kept.tolist()))


def _named(entries: Any) -> list[Detector]:
    """Return new detectors by names, or by mappings of a name and options."""
    if not isinstance(entries, (list, tuple)) or len(entries) < 2:
        raise InputError(f"a combination needs a list of two or more detectors, got {shown(entries)}")
    if any(one in entries[:i] for i, one in enumerate(entries)):
        raise InputError(f"a combination needs different detectors, got {shown(entries)}")
    members = []
    for entry in entries:
        name, options = (entry.get("name"), dict(entry)) if isinstance(entry, Mapping) else (entry, {})
        if not isinstance(name, str):
            raise InputError(f"a detector is a name, or a mapping such as {{name: lid, k: 10}}, got {shown(entry)}")
        options.pop("name", None)
        found = find("detector", name)
        made: Any = found.with_options(**found.check(options))
        if not isinstance(made, Detector):
            raise InputError(f"{name} cannot be combined, because it does not extend underfire.detectors.Detector")
        members.append(made)
    return members
