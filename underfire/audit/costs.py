"""The cost of an audit before it runs: passes of each cell, counted in short trials, and the seconds that they take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from underfire.audit import probes
from underfire.audit.binding import calls_model, parameters
from underfire.audit.graph import Cell
from underfire.audit.kinds.answer import entry_of
from underfire.audit.kinds.probe import budget_of
from underfire.audit.methods import interpreter_of, values_of
from underfire.audit.opening import is_random
from underfire.audit.preflight import try_attack
from underfire.audit.schema import AttackSpec, InterpreterSpec, MeasureSpec
from underfire.audit.target import Target
from underfire.audit.trials import Passes, Trials, tried
from underfire.errors import UnderfireError
from underfire.model import model_errors

_TIMED = 32  # the largest number of images in the pass that is timed
_PATIENCE = 1.0  # the seconds that such a pass may take


@dataclass(frozen=True)
class Cost:
    """The cost of all cells of one title.

    Attributes:
        kind: the kind of the cells.
        title: what they compute.
        label: the label of the method that they run, or their title.
        cells: how many there are.
        images: number of images that they pass through the model.
        passes: forward and backward passes for each of these images.
        seconds: the time that they take in this process.
        longest: the time that the longest of them takes, in seconds.
        slowest: the time for an image of the slowest of them, in seconds.
    """

    kind: str
    title: str
    label: str
    cells: int
    images: int
    passes: float
    seconds: float
    longest: float
    slowest: float


class Estimates:
    """Estimates of the cost of cells.

    The passes for one image follow from trials on two images; a timed pass of a batch gives the seconds of a pass.

    Args:
        target: the opened spec.
        trials: the passes of the methods of the spec, as `preflight` returns them.
    """

    def __init__(self, target: Target, trials: Trials) -> None:
        self._target, self._trials = target, trials
        self._counted: dict[tuple[str, ...], Passes] = {}
        self._paces: dict[str, Passes] = {}

    def costs(self, cells: Iterable[Cell]) -> list[Cost]:
        """Return the costs of cells, grouped by kind and title in the order of the plan."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            groups.setdefault((cell.kind, cell.title), []).append(cell)
        found = []
        for (kind, title), members in groups.items():
            passes = [self._passes(cell) for cell in members]
            images = sum(cell.images for cell in members)
            each_image = [self._seconds(each, cell) for each, cell in zip(passes, members, strict=True)]
            times = [seconds * cell.images for seconds, cell in zip(each_image, members, strict=True)]
            total = sum(sum(each) * cell.images for each, cell in zip(passes, members, strict=True))
            passed, timed = (images, total / max(1, images)), (sum(times), max(times), max(each_image))
            found.append(Cost(kind, title, _label(members[0]), len(members), *passed, *timed))
        return found

    def _seconds(self, passes: Passes, cell: Cell) -> float:
        if not any(passes):
            return 0.0
        return sum(count * seconds for count, seconds in zip(passes, self._pace(cell), strict=True))

    def _pace(self, cell: Cell) -> Passes:
        """Return the seconds of a forward and of a backward pass of the model that a cell uses."""
        options = named_model(cell)
        name = "" if options is None else repr(options["model"])
        if name not in self._paces:
            others = self._target.others
            model = self._target.model if options is None else others.open(entry_of(options))
            self._paces[name] = _pace(self._target if options is None else self._target.on(model))
        return self._paces[name]

    def _passes(self, cell: Cell) -> Passes:
        """Return the passes of a cell for one image; cells of the same method and measures share a trial."""
        method = (cell.options.get("measures"), cell.options.get("run"), _explained(cell), cell.options.get("samples"))
        what = (cell.kind, _label(cell), repr(method))
        if what not in self._counted:
            self._counted[what] = _passes(self._target, cell, self._trials) if cell.images else (0.0, 0.0)
        return self._counted[what]


def named_model(cell: Cell) -> Mapping[str, Any] | None:
    """Return the options of a cell that name the source or victim that it uses; None for the model of the audit."""
    if cell.kind in ("answer", "transfer"):
        return cell.options
    return cell.needs["clean"].options if cell.kind == "surrogate" else None


def through_random(cell: Cell, target: Target) -> bool:
    """Return whether each pass of a cell is an average over draws of a random defence."""
    options = named_model(cell) if "samples" in cell.options else None
    return options is not None and is_random(target.others.defended(entry_of(options)))


def _label(cell: Cell) -> str:
    """Return the label of the method that a cell runs, or the title of the cell."""
    if cell.kind == "evade":
        return f"{cell.about['label']}, knowing {cell.about['detector']}"
    key = {
        "craft": "label",
        "surrogate": "label",
        "fit_attack": "label",
        "explain": "interpreter",
        "fit": "detector",
        "score": "detector",
    }.get(cell.kind, "")
    return str(cell.about.get(key, cell.title))


def _pace(target: Target) -> Passes:
    """Return the seconds of a forward and of a backward pass for one image, in batches.

    A model without gradient is not called again, because each call may cost money: the preview has timed it.
    """
    if not target.has_gradient:
        return target.preview.seconds, 0.0

    def taken(x: torch.Tensor, gradient: bool = True) -> float:
        start = time.perf_counter()
        z = x.clone().requires_grad_(gradient)
        with model_errors(x), torch.set_grad_enabled(gradient):
            total = target.model(z).sum()
            if gradient:
                torch.autograd.grad(total, z)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return (time.perf_counter() - start) / len(x)

    x = target.preview.first.x.to(target.spec.device)
    taken(x)  # the first pass is slower than the others
    count = int(min(_TIMED, _PATIENCE / taken(x), len(target.data)))
    if count > len(x):
        x = target.data[target.spread(count)].x.to(target.spec.device)
    forward = min(taken(x, gradient=False) for _ in range(2))
    return forward, max(0.0, min(taken(x) for _ in range(2)) - forward)


def _explained(cell: Cell) -> Any:
    """Return the options of the interpreter whose maps a cell measures, or None."""
    return cell.needs["map_adv"].options["interpreter"] if "map_adv" in cell.needs else None


def _passes(target: Target, cell: Cell, trials: Trials) -> Passes:
    """Return the passes of one cell for one image; 0 for a method that does not work on this model."""
    if cell.kind in ("clean", "answer", "transfer"):
        return 1.0, 0.0
    if cell.kind in ("craft", "surrogate", "fit_attack"):
        forwards, backwards = trials.attacks.get(cell.about["label"], (0.0, 0.0))
        draws = cell.options["samples"] if through_random(cell, target) else 1
        return draws * (forwards + 1), draws * backwards  # the outcome takes one pass
    if cell.kind == "explain":
        return trials.interpreters.get(cell.about["interpreter"], (0.0, 0.0))
    if cell.kind in ("fit", "score"):
        return trials.detectors.get(cell.about["detector"], (0.0, 0.0))
    if cell.kind == "evade":  # each pass of the attack is one of classifier and detector
        forwards, backwards = trials.attacks.get(cell.about["label"], (0.0, 0.0))
        factor = trials.detectors.get(cell.about["detector"], (1.0, 0.0))[0]
        return factor * (forwards + 2), factor * backwards
    try:
        return _of_run(target, cell, trials) if cell.kind == "probe" else _of_measures(target, cell)
    except (UnderfireError, RuntimeError):  # the cell itself will say why
        return 0.0, 0.0


def _of_run(target: Target, cell: Cell, trials: Trials) -> Passes:
    """Return the passes of a run of the masking checks for one image."""
    name, eps = cell.options["run"], cell.options["eps"]
    entry = AttackSpec.model_validate(cell.options["attack"])
    plain, whole = probes.passes(name), (0.0, 0.0)
    if times := probes.length(name, budget_of(entry, eps, cell.options["seed"])):
        whole = trials.attacks.get(cell.about["label"]) or try_attack(target, entry, eps)
    return plain[0] + times * whole[0], plain[1] + times * whole[1]


def _of_measures(target: Target, cell: Cell) -> Passes:
    """Return the passes of all measures of a cell for one image, clean and attacked."""
    batch = target.preview.first.to(target.spec.device)
    total = [0.0, 0.0]
    for stated in cell.options["measures"]:
        entry = MeasureSpec.model_validate(stated)
        names = parameters(entry.card)
        if not calls_model(entry.card) or ("mask" in names and batch.mask is None):
            continue
        # arguments that stand for what the cell will have: random maps, and the clean images as attacked ones
        m = torch.rand(len(batch), 1, *batch.x.shape[2:], generator=torch.Generator().manual_seed(0)).to(batch.x)
        logits = target.preview.logits[: len(batch)].to(batch.x)
        known = {"model": target.model, "x": batch.x, "x_adv": batch.x, "y": batch.y, "m": m, "n": m, "goal": None}
        known |= {"logits": logits, "logits_adv": logits, "mask": batch.mask}
        if shown := _explained(cell):
            known["interpreter"] = interpreter_of(InterpreterSpec.model_validate(shown))
        given = [known[name] for name in names]

        def run(entry: MeasureSpec = entry, given: list[Any] = given, **short: int) -> None:
            entry.card.function(*given, **{**values_of(entry), **short})

        _, one = tried(target, entry, run)
        total = [2 * passes + before for passes, before in zip(one, total, strict=True)]  # clean, and after the attack
    return total[0], total[1]
