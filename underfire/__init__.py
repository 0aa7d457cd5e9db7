"""Put a classifier and its explanations under fire, and report what survives.

A part of the package is imported when it is first used, so that `import underfire` alone does not load torch. `__all__`
lists what can be reached from here; `find(kind, name)` returns any method of the catalogue.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from underfire import (
        ascent,
        attacks,
        attribution,
        audit,
        catalog,
        data,
        defenses,
        detectors,
        errors,
        figures,
        gradients,
        hooks,
        interpreters,
        measures,
        models,
        records,
        report,
        training,
        transforms,
    )
    from underfire.catalog import Card, card, cards, find
    from underfire.errors import UnderfireError
    from underfire.model import Classifier, Oracle
    from underfire.records import Batch, Check, Interval

__version__ = "0.1.0"

_HOMES = {
    "Card": "catalog",
    "card": "catalog",
    "cards": "catalog",
    "find": "catalog",
    "UnderfireError": "errors",
    "Classifier": "model",
    "Oracle": "model",
    "Batch": "records",
    "Check": "records",
    "Interval": "records",
}

__all__ = [
    "Batch",
    "Card",
    "Check",
    "Classifier",
    "Interval",
    "Oracle",
    "UnderfireError",
    "__version__",
    "ascent",
    "attacks",
    "attribution",
    "audit",
    "card",
    "cards",
    "catalog",
    "data",
    "defenses",
    "detectors",
    "errors",
    "figures",
    "find",
    "gradients",
    "hooks",
    "interpreters",
    "measures",
    "models",
    "records",
    "report",
    "training",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"underfire.{_HOMES[name]}"), name)
    elif name in __all__:
        value = import_module(f"underfire.{name}")
    else:
        raise AttributeError(f"module 'underfire' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
