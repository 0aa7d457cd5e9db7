"""Turn sources and victims of a Python caller into entries of a spec, and keep their models by URI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from underfire.defenses import Defended
from underfire.errors import ModelError
from underfire.hooks import unwrap
from underfire.live.entries import several
from underfire.live.models import classifier
from underfire.model import Classifier

_KEYS = ("model", "ensemble", "defenses")


def other_entries(given: Any, device: str | None, models: dict[str, Classifier]) -> list[Any]:
    """Return sources or victims as entries of a spec; models that are objects are added to `models`.

    Args:
        given: one or several, or a mapping from labels to them. Each is a model, a URI, or a mapping with keys of a
            spec, whose `model` or `ensemble` may be objects.
        device: where to compute; None leaves every model where it is.
        models: models by their URI.

    Raises:
        ModelError: one is not a model.
    """
    if isinstance(given, Mapping) and not set(_KEYS) & set(given):
        return [{**_entry(one, device, models), "label": label} for label, one in given.items()]
    return [_entry(one, device, models) for one in several(given)]


def _entry(given: Any, device: str | None, models: dict[str, Classifier]) -> dict[str, Any]:
    """Return one source or victim as an entry of a spec."""
    if not isinstance(given, Mapping):
        return {"model": _model(given, device, models)}
    entry = dict(given)
    if entry.get("model") is not None:
        entry["model"] = _model(entry["model"], device, models)
    if "ensemble" in entry:
        entry["ensemble"] = [_model(one, device, models) for one in several(entry["ensemble"])]
    if "defenses" in entry:
        entry["defenses"] = list(several(entry["defenses"]))
    return entry


def _model(given: Any, device: str | None, models: dict[str, Classifier]) -> Any:
    """Return a model as a spec has it: a URI or its keys as they are, and an object by a URI of its own."""
    if isinstance(given, (str, Mapping)):
        return given
    if not isinstance(given, nn.Module):
        raise ModelError(f"a source or victim is a model, a URI or a mapping, got {type(given).__name__}")
    own = classifier(given, device, {})
    known = next((uri for uri, model in models.items() if model is own), None)
    name = " + ".join([type(unwrap(own)).__name__, *(own.defenses if isinstance(own, Defended) else ())])
    uri = known or f"object:{len(models)}:{name}"
    models[uri] = own
    return uri
