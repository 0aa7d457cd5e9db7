"""Turn models of a Python caller into classifiers, and their options into plain values of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from underfire.errors import InputError, ModelError
from underfire.model import Classifier
from underfire.models import load


def plain(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model as plain values, as a spec has them."""
    return {
        key: value if value is None or isinstance(value, (int, float)) else list(value) for key, value in own.items()
    }


def class_names(classes: Any) -> list[str] | dict[str, str] | None:
    """Return names of classes as a spec has them, or raise InputError if they are none."""
    names = dict(classes) if isinstance(classes, Mapping) else classes if classes is None else list(classes)
    words = [*names, *(names.values() if isinstance(names, dict) else ())] if names is not None else []
    if isinstance(classes, str) or not all(isinstance(word, str) for word in words):
        raise InputError(f"classes must be a list of names or a mapping from names to names, got {classes!r:.80}")
    return names


def classifier(model: Any, device: str | None, own: Mapping[str, Any]) -> Classifier:
    """Return a classifier with its own options, on `device` if that is given."""
    if isinstance(model, str):
        return load(model, device=device or "cpu", **own)
    if isinstance(model, Classifier) and own:
        raise ModelError(f"a Classifier has its own {', '.join(own)}; give these options to uf.Classifier")
    if not isinstance(model, nn.Module):
        advice = "wrap a function that names classes as uf.Oracle(function, classes=K)"
        raise ModelError(f"the model must be a module or a Classifier, got {type(model).__name__}; {advice}")
    classifier = model if isinstance(model, Classifier) else Classifier(model, **own)
    return classifier if device is None else classifier.to(device)
