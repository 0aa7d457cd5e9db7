"""Facts of a run besides its results: title, spec as YAML, environment, and the number of missing cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from underfire.audit.schema import AuditSpec, number
from underfire.report import words

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger


@dataclass(frozen=True)
class Facts:
    """The facts of a run besides its results, as texts for a page.

    Attributes:
        title: the model and the data.
        subtitle: the numbers of images and attacks, and the date.
        labels: names of the classes, or None.
        notes: what a reader must know about the data, as sentences.
        spec: the spec as YAML, without empty keys.
        environment: names and values.
        missing: number of cells that have no result yet or a damaged one.
        damaged: the files of the run folder that were changed, cut or deleted after they were written.
        planned: number of cells in the plan.
    """

    title: str
    subtitle: str
    labels: Sequence[str] | None
    notes: Sequence[str]
    spec: str
    environment: list[tuple[str, str]]
    missing: int
    damaged: Sequence[str]
    planned: int


def facts(ledger: Ledger) -> Facts:
    """Return the facts of a run."""
    spec, about = ledger.spec, ledger.environment
    labels = about.pop("labels", None)
    notes = about.pop("notes", None) or ()
    about.pop("answered", None)  # one of the notes says so
    about["classes"] = about.get("classes") or (len(labels) if labels else None)
    attacks = f"{len(spec.attacks)} attack{'s' * (len(spec.attacks) != 1)}"
    parts = [f"{about['images']} images" if about.get("images") else "", attacks, str(about.get("started", ""))[:10]]
    return Facts(
        title=f"{spec.model.uri} on {spec.data.uri}",
        subtitle=" · ".join(filter(None, parts)),
        labels=labels,
        notes=notes,
        spec=spec_yaml(spec),
        environment=[(key, str(value)) for key, value in about.items() if value is not None],
        missing=ledger.missing,
        damaged=sorted(ledger.damaged.values()),
        planned=ledger.planned,
    )


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that writes lists of plain values on one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        plain = not any(isinstance(value, (dict, list)) for value in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain)


def spec_yaml(spec: AuditSpec) -> str:
    """Return the spec as YAML without None and empty lists; `load_spec` reads it as the same spec."""
    drawn = {"chosen", "looked", "available"}  # a sample is known by its hash
    content = _filled(spec.model_dump(exclude={"sample": drawn} if spec.sample else None))
    for entry in content["attacks"]:
        if "eps" in entry:
            entry["eps"] = [_fraction(entry["norm"], eps) for eps in entry["eps"]]
    norms = {entry["label"]: entry["norm"] for entry in content["attacks"] if "label" in entry}
    for gate in content.get("gates", []):
        if "eps" in gate:
            gate["eps"] = _fraction(gate.get("norm") or norms.get(gate.get("attack"), ""), gate["eps"])
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _fraction(norm: str, eps: float) -> str | float:
    """Return `eps` as a fraction of 255 if that is the same number, and unchanged otherwise."""
    text = words.size(norm, eps)
    return text if "/" in text and number(text) == eps else eps


def _filled(value: Any) -> Any:
    """Return `value` without keys whose value is None or an empty list."""
    if isinstance(value, dict):
        return {key: _filled(part) for key, part in value.items() if part is not None and part != []}
    return [_filled(part) for part in value] if isinstance(value, list) else value
