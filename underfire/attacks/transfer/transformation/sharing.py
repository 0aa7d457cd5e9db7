"""Keep trained transformation networks, so that several attacks on the same images train them only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from underfire import models
from underfire.ascent.objective import Start
from underfire.attacks.transfer.transformation.network import Weights
from underfire.model import Classifier, Count

_LIMIT = 2**24  # numbers that are kept for a model, 64 MB in float32

Kept = tuple[Weights, Tensor | None, Count]
"""The networks, the state of the generator after their training, and the passes of the training."""
_KEPT: WeakKeyDictionary[Classifier, dict[str, Kept]] = WeakKeyDictionary()
_LOCK = Lock()


def shared(start: Start, options: object, train: Callable[[], Weights]) -> Weights:
    """Return the networks of `train()`, or those of an earlier call that would be the same.

    They would be the same for the same model with the same weights, images, classes, projection and options, and the
    same state of the generator, which is set to its state after the training. The passes of the training count each
    time, so that the cost of an attack does not depend on what ran before. A model with random defences trains anew.

    Args:
        start: the samples.
        options: everything else that determines the networks; it is compared by its text.
        train: trains the networks.
    """
    model, generator = start.model, start.generator
    if type(model) is not Classifier:  # not its subclasses, which may be random
        return train()
    key = _key(start, options)
    with _LOCK:
        known = _KEPT.setdefault(model, {}).get(key)
    if known is not None:
        weights, state, spent = known
        if generator is not None and state is not None:
            generator.set_state(state)
        model.count_again(spent)
        return weights
    with model.counting() as spent:
        weights = train()
    state = None if generator is None else generator.get_state()
    with _LOCK:
        kept = _KEPT.setdefault(model, {})
        kept[key] = weights, state, spent
        while sum(w.numel() for each, _, _ in kept.values() for w in each) > _LIMIT:
            del kept[next(iter(kept))]  # the oldest
    return weights


def _key(start: Start, options: object) -> str:
    """Return a hash of what determines the networks; two far points stand for the projection."""
    digest = hashlib.sha256(f"{options!r} {start.x.dtype} {start.x.device}".encode())
    digest.update(models.fingerprint(start.model).encode())
    state = None if start.generator is None else start.generator.get_state()
    for tensor in (start.x, start.y, start.goal, start.project(start.x + 2), start.project(start.x - 2), state):
        content = b"" if tensor is None else repr(tuple(tensor.shape)).encode() + _bytes(tensor)
        digest.update(content)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
