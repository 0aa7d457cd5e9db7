"""Check that the sources and the victims of a spec fit its model and its images, and are better than guessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from underfire.audit.accuracy import check_accuracy
from underfire.audit.schema import SourceSpec, VictimSpec, key_path
from underfire.audit.target import Target
from underfire.classes import match
from underfire.errors import ModelError, SpecError, UnderfireError
from underfire.records import Batch

_IMAGES = 64  # images on which each model is tried


def check_others(target: Target) -> None:
    """Try every source and every victim of a spec on a few of its images.

    Raises:
        SpecError: a model cannot be loaded, does not take the images, has other classes than the model of the audit, or
            is no better than guessing; the message names the source or the victim.
    """
    spec = target.spec
    if not spec.victims:
        return
    batch, checked = target.data[target.spread(_IMAGES)].to(spec.device), list[dict[str, Any]]()
    for role, entries in (("sources", spec.sources), ("victims", spec.victims)):
        for i, entry in enumerate(entries):
            try:
                if (identity := target.others.identity(entry)) in checked:
                    continue  # a source that is a victim too
                _check(target, entry, batch)
                checked.append(identity)
            except UnderfireError as error:
                raise SpecError(f"{key_path(role, i)!r} ({entry.title}): {error}") from None


def _check(target: Target, entry: SourceSpec, batch: Batch) -> None:
    """Raise ModelError if a source or a victim does not fit the model and the images of an audit."""
    model = target.others.open(entry)
    if model.domain.name != target.model.domain.name:
        raise ModelError(
            f"it takes inputs of {model.domain.name}, and the model of the audit {target.model.domain.name}"
        )
    stated = next((one.labels for one in entry.models if one.labels), None)
    _check_names(stated or model.labels, target.labels)
    size = "x".join(map(str, batch.x.shape[1:]))
    advice = "; `resize: PIXELS` scales them for it" if isinstance(entry, VictimSpec) and entry.resize is False else ""
    if model.size is not None and model.size != tuple(batch.x.shape[2:]):
        raise ModelError(f"it takes images of {'x'.join(map(str, model.size))}, and the audit has {size}{advice}")
    try:
        logits = model.predict(batch.x, chunk=target.spec.batch_size)
    except ModelError as error:
        raise ModelError(f"it does not take the images of the source, {size}{advice} ({error})") from None
    if logits.shape[1] != target.outputs:
        raise ModelError(f"it has {logits.shape[1]} classes, and the model of the audit {target.outputs}")
    try:
        check_accuracy(logits, batch.y)
    except ModelError as error:
        raise ModelError(f"{error} The images are {size}{advice if model.size is None else ''}") from None


def _check_names(names: Sequence[str] | None, known: Sequence[str] | None) -> None:
    """Raise ModelError if a model has other classes than the audit, or the same ones in another order."""
    if names is None or known is None or len(names) != len(known):  # their numbers are compared later
        return
    order = match(names, known)
    if None in order:
        other = names[order.index(None)]
        raise ModelError(f"it has other classes than the audit, such as {other!r}")
    if order == list(range(len(known))):
        return
    raise ModelError("it has the classes of the audit in another order")
