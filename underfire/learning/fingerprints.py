"""The fingerprint of the classifier that a trained network or a fitted detector belongs to."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from underfire import models
from underfire.hooks import unwrap
from underfire.hooks.networks import version
from underfire.model import Classifier, Ensemble

# For each network: address and version of its tensors, its normalisation, and the fingerprint that belongs to them.
_SEEN: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def model_fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of a classifier's parameters and normalisation, the same in float32 and in float64.

    The fingerprint is remembered until a tensor of the model changes. Functions without tensors have the same one.
    """
    core = unwrap(model)
    shift = {key: getattr(model, key).flatten().tolist() for key in ("mean", "std") if hasattr(model, key)}
    tensors = [*core.parameters(), *core.buffers()]
    now = (str(shift), *((t.data_ptr(), version(t)) for t in tensors))
    if core not in _SEEN or _SEEN[core][0] != now:
        plain = core
        if any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors):
            plain = copy.deepcopy(core).float()
        _SEEN[core] = now, models.fingerprint(model if isinstance(model, Ensemble) else Classifier(plain, **shift))
    return _SEEN[core][1]
