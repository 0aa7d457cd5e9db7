"""The cost of an audit before it runs: passes of each cell, counted in short trials, and the seconds that they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from underfire.audit.binding import asks, parameters
from underfire.audit.graph import Cell
from underfire.audit.masking import NES_PASSES, passes_of_checks
from underfire.audit.methods import attack_of, interpreter_of, values_of
from underfire.audit.schema import AttackSpec, InterpreterSpec, MeasureSpec
from underfire.audit.target import Target
from underfire.catalog import Card
from underfire.errors import UnderfireError

MINUTE = 60.0
"""The time in seconds that a cell should take at most, so that a killed run loses little."""

_TIMED = 32  # the number of images in the pass that is timed
_FACTORS = ("binary_search_steps", "restarts")  # options by which all passes are multiplied
Passes = tuple[float, float]
"""The numbers of forward and backward passes for one image."""


@dataclass(frozen=True)
class Cost:
    """The cost of all cells of one title.

    Attributes:
        kind: the kind of the cells.
        title: what they compute.
        cells: how many there are.
        images: number of images that they pass through the model.
        passes: forward and backward passes for each of these images.
        seconds: the time that they take in this process.
        longest: the time that the longest of them takes, in seconds.
    """

    kind: str
    title: str
    cells: int
    images: int
    passes: float
    seconds: float
    longest: float


def costs(target: Target, cells: Iterable[Cell]) -> list[Cost]:
    """Return the costs of cells, grouped by kind and title in the order of the plan.

    Trials on a few images count the passes for one image, with few steps from which those of all steps follow; a timed
    pass of a batch then gives the seconds. Methods that stop early take less.
    """
    forward, backward = _seconds(target)
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.kind, cell.title), []).append(cell)
    counted: dict[str, Passes] = {}
    found = []
    for (kind, title), members in groups.items():
        cell = members[0]
        what = str((kind, {key: value for key, value in cell.options.items() if key not in ("shard", "seed")}))
        if what not in counted:
            counted[what] = _passes(target, cell) if cell.images else (0.0, 0.0)
        passes = counted[what]
        images = sum(member.images for member in members)
        one = passes[0] * forward + passes[1] * backward
        longest = one * max(member.images for member in members)
        found.append(Cost(kind, title, len(members), images, sum(passes), one * images, longest))
    return found


def shard_size(size: int, found: Iterable[Cost]) -> int:
    """Return the number of images in a cell with which no cell takes more than about a minute, at most `size`."""
    longest = max((cost.longest for cost in found if cost.kind != "masking"), default=0.0)
    return size if longest <= MINUTE else max(1, int(size * MINUTE / longest))


def _seconds(target: Target) -> Passes:
    """Return the seconds of a forward and of a backward pass for one image, in batches."""
    count = min(_TIMED, target.spec.shard_size, len(target.data))
    x = target.data[target.spread(count)].x.to(target.spec.device)

    def taken(gradient: bool) -> float:
        start = time.perf_counter()
        z = x.clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            total = target.model(z).sum()
        if total.requires_grad:
            torch.autograd.grad(total, z, allow_unused=True)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return (time.perf_counter() - start) / len(x)

    taken(True)  # the first pass is slower than the others
    forward = min(taken(False) for _ in range(2))
    return forward, max(0.0, min(taken(True) for _ in range(2)) - forward)


def _passes(target: Target, cell: Cell) -> Passes:
    """Return the passes of one cell for one image."""
    if cell.kind == "clean":
        return 1.0, 0.0
    if cell.kind in ("craft", "masking"):
        aim = cell.options.get("interpreter", cell.options["attack"].get("interpreter"))
        entry = AttackSpec.model_validate({**cell.options["attack"], "interpreter": aim})
        forwards, backwards = _of_attack(target, entry, cell)
        if cell.kind == "craft":
            return forwards + 1, backwards  # the outcome takes one pass
        steps = _value(entry.card, entry, "steps")
        times = passes_of_checks(steps) / steps
        return forwards * times + NES_PASSES, backwards * times
    if cell.kind == "explain":
        chosen = InterpreterSpec.model_validate(cell.options["interpreter"])
        return _of_interpreter(target, chosen)
    if cell.kind == "measure":
        return _of_measures(target, cell)
    return 0.0, 0.0


def _of_attack(target: Target, entry: AttackSpec, cell: Cell) -> Passes:
    """Return the passes of an attack for one image, at the size of the cell."""
    size = max(cell.options["sizes"]) if "sizes" in cell.options else cell.options["eps"]
    batch = target.preview.first.to(target.spec.device)
    goal = None if entry.goal == "untargeted" else (batch.y + 1) % target.preview.logits.shape[1]
    queries = _value(entry.card, entry, "queries")
    attack = attack_of(entry, size)

    def run(**short: int) -> None:
        generator = torch.Generator(batch.x.device).manual_seed(0)
        attack(target.model, batch.x, batch.y, goal=goal, generator=generator, **{**entry.card.facts.quick, **short})

    if queries:
        return float(queries), 0.0
    return _extrapolated(target, run, _counts(entry.card, entry))


def _of_interpreter(target: Target, entry: InterpreterSpec) -> Passes:
    """Return the passes of an interpreter for one image."""
    batch = target.preview.first.to(target.spec.device)
    chosen = interpreter_of(entry)
    counts = {} if entry.card.fitted else _counts(entry.card, entry)
    return _extrapolated(target, lambda **short: chosen(target.model, batch.x, batch.y, **short), counts)


def _of_measures(target: Target, cell: Cell) -> Passes:
    """Return the passes of all measures of a cell for one image, clean and attacked."""
    batch = target.preview.first.to(target.spec.device)
    total = [0.0, 0.0]
    for stated in cell.options["measures"]:
        entry = MeasureSpec.model_validate(stated)
        if not asks(entry.card):
            continue
        # arguments that stand for what the cell will have: random maps, and the clean images as attacked ones
        m = torch.rand(len(batch), 1, *batch.x.shape[2:], generator=torch.Generator().manual_seed(0)).to(batch.x)
        logits = target.preview.logits[: len(batch)].to(batch.x)
        known = {"model": target.model, "x": batch.x, "x_adv": batch.x, "y": batch.y, "m": m, "n": m, "goal": None}
        known |= {"logits": logits, "logits_adv": logits, "mask": batch.mask}
        if "map_adv" in cell.needs:
            shown = InterpreterSpec.model_validate(cell.needs["map_adv"].options["interpreter"])
            known["interpreter"] = interpreter_of(shown)
        given = [known[name] for name in parameters(entry.card)]
        if any(value is None for name, value in zip(parameters(entry.card), given, strict=True) if name == "mask"):
            continue

        def run(entry: MeasureSpec = entry, given: list[Any] = given, **short: int) -> None:
            entry.card.function(*given, **{**values_of(entry), **short})

        one = _extrapolated(target, run, _counts(entry.card, entry))
        total = [2 * passes + before for passes, before in zip(one, total, strict=True)]  # clean, and after the attack
    return total[0], total[1]


def _value(card: Card[Any], entry: Any, name: str) -> int:
    """Return the value of an option that is a count; 0 if the method does not have it or finds it itself."""
    default = card.options[name].default if name in card.options else 0
    value = entry.options.get(name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _counts(card: Card[Any], entry: Any) -> dict[str, int]:
    """Return the options that set how often a method passes images through the model, by name."""
    names = [name for name in card.options if name.endswith("steps") or name in ("samples", "restarts")]
    return {name: value for name in names if (value := _value(card, entry, name))}


def _extrapolated(target: Target, run: Callable[..., object], counts: Mapping[str, int]) -> Passes:
    """Return the passes for one image, from runs with all counts at 1 and with one count at 2."""

    def counted(**short: int) -> torch.Tensor:
        with target.model.counting() as count:
            run(**short)
        return torch.tensor([count.forwards, count.backwards]) / len(target.preview.first)

    least = dict.fromkeys(counts, 1)
    first = counted(**least)
    total = first.clone()
    for name, value in counts.items():
        if value > 1 and name not in _FACTORS:
            try:
                total += (counted(**{**least, name: 2}) - first).clamp(min=0) * (value - 1)
            except UnderfireError:  # the method needs this count to be 1, or larger
                continue
    total *= prod(value for name, value in counts.items() if name in _FACTORS)
    return float(total[0]), float(total[1])
