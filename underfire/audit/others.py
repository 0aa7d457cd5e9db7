"""Complete the sources, the victims and the sample of a spec."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, TypeVar

from underfire.audit.entries import card_at, checked_options, distinct
from underfire.audit.schema import AuditSpec, DefenseSpec, ModelSpec, SampleSpec, SourceSpec, VictimSpec, key_path
from underfire.errors import SpecError

Entry = TypeVar("Entry", bound=SourceSpec)

DRAWS = 5
"""Passes of each adversarial image through a random victim, if the spec does not state `draws`."""


def complete_others(spec: AuditSpec) -> dict[str, Any]:
    """Return the keys of a spec about its sources and victims, with their defaults; empty if it has neither.

    Raises:
        SpecError: a defence or an option of it is wrong, two labels are equal, or a key needs victims.
    """
    if not (spec.sources or spec.victims):
        for key in ("sample", "draws"):
            if getattr(spec, key) is not None:
                raise SpecError(f"{key!r} has no meaning without 'victims' or 'sources'; leave it out")
        return {}
    sources = [_named(entry, spec, key_path("sources", i)) for i, entry in enumerate(spec.sources or [SourceSpec()])]
    distinct("sources", [entry.title for entry in sources])
    victims = [_victim(entry, spec, key_path("victims", i)) for i, entry in enumerate(spec.victims or [VictimSpec()])]
    distinct("victims", [entry.title for entry in victims])
    sample = spec.sample or SampleSpec(seed=spec.data.seed)
    if sample.hash is not None and sample.n is None:
        raise SpecError("'sample.n' is missing: a hash names the sample of so many images")
    return {"sources": sources, "victims": victims, "sample": sample, "draws": spec.draws or DRAWS}


def _named(entry: Entry, spec: AuditSpec, path: str, *parts: str) -> Entry:
    """Return a source or a victim with its model and its label, which consists of the models' names and of `parts`."""
    if entry.model is not None and entry.ensemble:
        raise SpecError(f"{key_path(path, 'ensemble')!r}: give a model or an ensemble, not both")
    if entry.weights and len(entry.weights) != len(entry.ensemble):
        count = f"{len(entry.ensemble)} numbers, one per model of the ensemble" if entry.ensemble else "an ensemble"
        raise SpecError(f"{key_path(path, 'weights')!r} needs {count}, got {len(entry.weights)}")
    if entry.model is None and not entry.ensemble:
        entry = entry.model_copy(update={"model": spec.model})
    names = " & ".join(short_name(model) for model in entry.models)
    return entry.model_copy(update={"label": entry.label or " + ".join([names, *parts])})


def _victim(entry: VictimSpec, spec: AuditSpec, path: str) -> VictimSpec:
    """Return a victim with its model and its label, and with checked defences."""
    defenses = []
    for i, given in enumerate(entry.defenses):
        place = key_path("defenses", i)
        card = card_at(f"{path}.{key_path(place, 'name')}", given)
        options = checked_options(f"{path}.{place}", card, given.options, ("label",))
        defenses.append(DefenseSpec(name=given.name, label=given.title, **given.own, **options))
    named = _named(entry, spec, path, *(defense.title for defense in defenses))
    return named.model_copy(update={"defenses": defenses})


def short_name(model: ModelSpec) -> str:
    """Return the name of a model for a reader: that of the zoo or of the file, without folders and options.

    >>> short_name(ModelSpec(uri="weights/resnet20_cifar10.safetensors?arch=resnet20_cifar10"))
    'resnet20_cifar10'
    """
    place = model.uri.partition("?")[0]
    path = PurePath(place.rpartition(":")[2])
    return (path.stem if path.suffix[1:2].isalpha() else path.name) or place
