"""Audits: plan a spec as a graph of independent cells, compute the cells, and summarise their results.

The package can be called: `underfire.audit(model, data, attacks=[...])` audits objects of a Python session, as
`underfire.live.audit` describes.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package that can be called; the function is imported by its name, because it is above this package."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `underfire.live.audit`, which audits objects of a Python session and returns their results."""
        return import_module("underfire.live").audit(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(import_module("underfire.live").audit)


sys.modules[__name__].__class__ = _Package
