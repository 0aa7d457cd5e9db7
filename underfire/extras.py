"""Import optional packages."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from underfire.errors import MissingExtra

_OPERATORS: list[Any] = []  # a torch library disappears with the last reference to it


def import_extra(name: str) -> Any:
    """Return the module called `name` of a package that may be missing.

    Raises:
        MissingExtra: the package is not installed.
    """
    try:
        try:
            import_module(name.partition(".")[0])
            return import_module(name)
        except (RuntimeError, ModuleNotFoundError) as error:
            if not _lacks_operators(error):
                raise
            declare_missing_operators()
            return import_module(name)
    except ImportError as error:
        raise MissingExtra(name.partition(".")[0]) from error


def declare_missing_operators() -> None:
    """Declare the two operators that a build of torchvision for another torch lacks, so that it can be imported.

    It does nothing if torchvision is not installed, or can be imported as it is. The operators belong to object
    detectors (non-maximum suppression); no classifier calls them.
    """
    import torch

    try:
        import_module("torchvision")
    except ImportError:
        return
    except RuntimeError as error:
        if _OPERATORS or not _lacks_operators(error):
            raise
        for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)


def _lacks_operators(error: BaseException | None) -> bool:
    """Return whether an import failed because torchvision does not fit torch; the cause may be inside."""
    return error is not None and ("torchvision::nms" in str(error) or _lacks_operators(error.__cause__))
