"""The entries of a spec: check them against the catalogue, fill in defaults, and return the methods that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from underfire.audit.binding import RESERVED, usable
from underfire.audit.entries import card_at, checked_options, distinct
from underfire.audit.fitted_files import complete_file, loaded
from underfire.audit.others import complete_others
from underfire.audit.schema import (
    NEEDS,
    AttackSpec,
    AuditSpec,
    DefenseSpec,
    DetectorSpec,
    GateSpec,
    InterpreterSpec,
    MeasureSpec,
    key_path,
)
from underfire.audit.sizes import size
from underfire.audit.values import unwrap
from underfire.catalog import Card, cards, find
from underfire.errors import InputError, SpecError, nearest, shown

STANDARD_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0, "l0": 24.0}
"""The sizes at which robustness on CIFAR-10 is usually compared; the default of attacks of minimum size."""

FALSE_POSITIVES = 0.05
"""The share of clean images that a detector may flag, where a spec states none."""

_ENTRY_KEYS = ("name", "label", "norm", "eps", "goal", "interpreter", "generator")


def complete(spec: AuditSpec) -> AuditSpec:
    """Return the spec with the default norms, sizes and labels filled in.

    Raises:
        SpecError: a method, option, norm, label or gate is wrong; the message is one line and names the key.
    """
    interpreters = [
        complete_interpreter(entry, key_path("interpreters", i)) for i, entry in enumerate(spec.interpreters)
    ]
    distinct("interpreters", [entry.title for entry in interpreters])
    known = {entry.title: entry for entry in interpreters}
    attacks = [complete_attack(entry, known, key_path("attacks", i)) for i, entry in enumerate(spec.attacks)]
    distinct("attacks", [entry.title for entry in attacks])
    measures = [_measure(entry, key_path("measures", i)) for i, entry in enumerate(spec.measures)]
    distinct("measures", [entry.title.lower() for entry in measures])  # columns of tables, whose case SQL ignores
    detectors = [
        complete_detector(entry, known, attacks, key_path("detectors", i)) for i, entry in enumerate(spec.detectors)
    ]
    distinct("detectors", [entry.title for entry in detectors])
    if any(not one.file for one in detectors) and spec.held_out is None and spec.data.n is None:
        raise SpecError("'held_out' is missing: detectors learn from images that are not attacked, and 'n' leaves none")
    if len(set(spec.seeds)) < len(spec.seeds):
        raise SpecError(f"'seeds' holds a seed twice: {shown(spec.seeds)}")
    methods = {"attacks": attacks, "interpreters": interpreters, "detectors": detectors, "measures": measures}
    rate = spec.false_positive_rate or (FALSE_POSITIVES if detectors else None)
    done = spec.model_copy(update={**methods, "false_positive_rate": rate, **complete_others(spec)})
    for i, gate in enumerate(spec.gates):
        _gate(key_path("gates", i), gate, done)
    return done


def complete_interpreter(entry: InterpreterSpec, path: str, *, maps_only: bool = True) -> InterpreterSpec:
    """Return an interpreter with its default label and checked options.

    Args:
        entry: the interpreter.
        path: the key of the entry in the spec, for error messages.
        maps_only: whether to refuse an interpreter that does not return maps.

    Raises:
        SpecError: the interpreter is unknown, has a wrong option, or does not return maps with `maps_only`.
    """
    method = card_at(key_path(path, "name"), entry)
    gives = method.facts.gives
    if maps_only and gives != "map":
        raise SpecError(f"{key_path(path, 'name')!r}: {entry.name} gives {gives}, and only maps can be used here")
    options = checked_options(path, method, entry.options, ("label",))
    return InterpreterSpec(name=entry.name, label=entry.title, **entry.own, **options)


def complete_detector(
    entry: DetectorSpec, known: Mapping[str, InterpreterSpec], attacks: Sequence[AttackSpec], path: str
) -> DetectorSpec:
    """Return a detector with its default label, checked options, and the attacks that it learns from.

    Args:
        entry: the detector.
        known: the interpreters of the spec by label, to which an option `interpreters` may refer.
        attacks: the complete attacks of the spec.
        path: the key of the entry in the spec, for error messages.

    Raises:
        SpecError: the detector is unknown, has a wrong option, cannot be saved, or learns from no attack of the spec.
    """
    method = card_at(key_path(path, "name"), entry)
    if entry.file is not None:
        return complete_file(entry, path)
    if not hasattr(method.function, "save"):
        raise SpecError(
            f"{key_path(path, 'name')!r}: {entry.name} has no save and load, so that an audit cannot run it"
        )
    options = checked_options(path, method, _several(entry.options, known), ("label", "aware", "learns_from", "file"))
    try:
        made: Any = method.with_options(**method.check(unwrap(options)))
    except InputError as error:
        raise SpecError(f"{path!r}: {error}") from None
    labels = _learned(entry, getattr(made, "supervised", method.facts.supervised), attacks, path)
    facts: dict[str, Any] = {"label": entry.title, "aware": entry.aware, "learns_from": labels}
    return DetectorSpec(name=entry.name, **facts, **entry.own, **options)


def _learned(entry: DetectorSpec, supervised: bool, attacks: Sequence[AttackSpec], path: str) -> list[str] | None:
    """Return the labels of the attacks that a supervised detector learns from; None for any other detector."""
    place = key_path(path, "learns_from")
    if not supervised:
        if entry.learns_from is not None:
            raise SpecError(f"{place!r} has no meaning for {entry.title}, which learns from clean images; leave it out")
        return None
    usable = [attack.title for attack in attacks if not attack.card.facts.keeps_prediction]
    for label in entry.learns_from or ():
        if label not in usable:
            hint = nearest(label, usable)
            raise SpecError(f"{place!r}: no attack that changes the prediction has the label {shown(label)}; {hint}")
    if not usable:
        raise SpecError(f"{path!r}: {entry.name} learns from attacked images, and no attack changes the prediction")
    return list(dict.fromkeys(entry.learns_from or usable))


def complete_attack(entry: AttackSpec, known: Mapping[str, InterpreterSpec], path: str) -> AttackSpec:
    """Return an attack with its default norm, sizes and label, and with checked options.

    Args:
        entry: the attack.
        known: the interpreters of the spec by label, to which `entry.interpreter` and an option `interpreters` may
            refer.
        path: the key of the entry in the spec, for error messages.

    Raises:
        SpecError: the attack is unknown, or does not support the norm, the goal, the interpreter or an option.
    """
    method = card_at(key_path(path, "name"), entry)
    fields = [name for name in _ENTRY_KEYS if name in ("label", "goal") or name in method.options]
    options = checked_options(path, method, _several(entry.options, known), fields)
    norms = method.facts.norms
    norm = entry.norm or (_default(method, "norm") or norms[0])
    if norm not in norms:
        raise SpecError(f"{key_path(path, 'norm')!r}: {entry.name} has no norm {shown(norm)}; {nearest(norm, norms)}")
    if "eps" not in method.options:
        raise SpecError(
            f"{key_path(path, 'name')!r}: {entry.name} has no eps, but an audit compares attacks at a given size"
        )
    eps = entry.eps or [_default(method, "eps") or STANDARD_EPS[norm]]
    if len(set(eps)) < len(eps):
        raise SpecError(f"{key_path(path, 'eps')!r} holds a size twice: {shown(eps)}")
    if (mode := "untargeted" if entry.goal == "untargeted" else "targeted") not in method.facts.goals:
        raise SpecError(f"{key_path(path, 'goal')!r}: {entry.name} has no {mode} mode, got {entry.goal!r}")
    aim = _aim(key_path(path, "interpreter"), method, entry.interpreter, known)
    parts = [entry.name, aim.title if aim else "", norm, "" if entry.goal == "untargeted" else entry.goal]
    label = entry.label or " ".join(filter(None, parts))
    options |= entry.own
    return AttackSpec(name=entry.name, label=label, norm=norm, eps=eps, goal=entry.goal, interpreter=aim, **options)


def interpreter_of(entry: InterpreterSpec) -> Callable[..., Any]:
    """Return the interpreter `(model, x, y) -> map` of an entry, with its options bound."""
    return entry.card.with_options(**values_of(entry))


def detector_of(entry: DetectorSpec) -> Any:
    """Return a new detector of an entry, which is fitted only if the entry names its file."""
    return loaded(entry) if entry.file else entry.card.with_options(**values_of(entry))


def attack_of(entry: AttackSpec, eps: float) -> Callable[..., Any]:
    """Return the attack `(model, x, y, *, goal, generator) -> x'` of an entry at one size, with its options bound."""
    method = entry.card
    given = {"norm": entry.norm, "eps": eps, **values_of(entry)}
    if entry.interpreter is not None:
        given["interpreter"] = interpreter_of(entry.interpreter)
    return partial(method.function, **{name: value for name, value in given.items() if name in method.options})


def values_of(entry: AttackSpec | InterpreterSpec | DetectorSpec | MeasureSpec | DefenseSpec) -> dict[str, Any]:
    """Return the options of a complete entry as its method accepts them: lists as tuples, parts as objects."""
    method = entry.card
    return dict(method.check(unwrap(entry.options), elsewhere=list(method.options)))


def of_batch(entry: AttackSpec) -> bool:
    """Return whether the target map of an image depends on the other images of its cell."""
    return bool(getattr(values_of(entry).get("target"), "of_batch", False))


# --- entries ---------------------------------------------------------------------------------------------------------


def _measure(entry: MeasureSpec, path: str) -> MeasureSpec:
    """Return a measure with its default label and checked options."""
    names = usable()
    if entry.name not in names:
        raise SpecError(
            f"{key_path(path, 'name')!r}: an audit cannot compute {shown(entry.name)}; {nearest(entry.name, names)}"
        )
    method = find("measure", entry.name)
    options = checked_options(path, method, entry.options, ("label",))
    if entry.title.lower() in RESERVED and (options or entry.title != entry.name):
        raise SpecError(f"{path!r}: the report needs {entry.title!r} without options; give this entry another label")
    return MeasureSpec(name=entry.name, label=entry.title, **options)


def _aim(
    path: str, method: Card[Any], entry: InterpreterSpec | None, known: Mapping[str, InterpreterSpec]
) -> InterpreterSpec | None:
    """Return the complete entry of the interpreter that an attack is aimed at; None for a plain attack."""
    if "interpreter" not in method.options:
        if entry is not None:
            raise SpecError(f"{path!r}: {method.name} is not aimed at an explanation; adv2 is")
        return None
    queries_only = method.facts.knowledge == "black-box"  # such an attack needs no gradients of maps
    usable_here = [
        card.name
        for card in cards("interpreter")
        if card.facts.gives == "map" and (queries_only or card.facts.steerable)
    ]
    if entry is None:
        choices = ", ".join(usable_here)
        raise SpecError(f"{path!r} is missing: {method.name} is aimed at an explanation, one of {choices}")
    if not entry.options and not entry.label:
        entry = _named(entry.name, known) or entry
    entry = complete_interpreter(entry, path)
    if not (queries_only or entry.card.facts.steerable):
        reason = f"{entry.name} is not differentiable, so {method.name} cannot attack it"
        raise SpecError(f"{path!r}: {reason}; use adv2_black_box, or one of {', '.join(usable_here)}")
    return entry


def _named(name: str, known: Mapping[str, InterpreterSpec]) -> InterpreterSpec | None:
    """Return the interpreter of the spec with this label, or the only one with this name; None if there is none."""
    named = [entry for entry in known.values() if entry.name == name]
    return known.get(name) or (named[0] if len(named) == 1 else None)


def _several(options: Mapping[str, Any], known: Mapping[str, InterpreterSpec]) -> dict[str, Any]:
    """Return options in whose list `interpreters` those of the spec stand with their options."""
    given = options.get("interpreters")
    if not isinstance(given, (list, tuple)):
        return dict(options)
    found = [(one, _named(one, known) if isinstance(one, str) else None) for one in given]
    full = [one if entry is None or entry.own else _written(entry) for one, entry in found]
    return {**options, "interpreters": full}


def _written(entry: InterpreterSpec) -> Any:
    """Return an interpreter as an entry of a list: its name, or with options a mapping."""
    return {"name": entry.name, **entry.options} if entry.options else entry.name


def _gate(path: str, gate: GateSpec, spec: AuditSpec) -> None:
    """Raise SpecError if a gate lacks a key, has a key too many, or names something that is not in the spec."""
    for key in ("at_least", "at_most", "attack", "norm", "eps", "interpreter"):
        value, needed = getattr(gate, key), key in NEEDS[gate.measure]
        if (value is not None) != needed:
            what = "is missing; the gate needs it" if needed else f"has no meaning for {gate.measure}; leave it out"
            raise SpecError(f"{key_path(path, key)!r} {what}")
    by_label = {entry.title: entry for entry in spec.attacks}
    if gate.attack is not None and gate.attack not in by_label:
        hint = nearest(gate.attack, by_label)
        raise SpecError(f"{key_path(path, 'attack')!r}: no attack has the label {shown(gate.attack)}; {hint}")
    titles = [entry.title for entry in spec.interpreters]
    if gate.interpreter is not None and gate.interpreter not in titles:
        hint = nearest(gate.interpreter, titles)
        raise SpecError(
            f"{key_path(path, 'interpreter')!r}: no interpreter has the label {shown(gate.interpreter)}; {hint}"
        )
    entries = [by_label[gate.attack]] if gate.attack else [entry for entry in spec.attacks if entry.norm == gate.norm]
    sizes = sorted({eps for entry in entries for eps in entry.eps})
    if gate.norm is not None and not entries:
        raise SpecError(f"{key_path(path, 'norm')!r}: no attack has norm {shown(gate.norm)}")
    if gate.eps is not None and gate.eps not in sizes:
        norm = entries[0].norm if entries else ""
        choices = ", ".join(size(str(norm), eps) for eps in sizes)
        raise SpecError(
            f"{key_path(path, 'eps')!r}: no attack has the size {size(str(norm), gate.eps)}; choices: {choices}"
        )


def _default(method: Card[Any], name: str) -> Any:
    return method.options[name].default if name in method.options else None
