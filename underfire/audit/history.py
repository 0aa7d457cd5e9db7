"""The history of a run folder: heads of earlier plans, and results that the current plan does not use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from underfire.audit.ledger import HEAD, Ledger, read_head
from underfire.audit.store import Damaged, Store
from underfire.errors import LedgerError


def keep_head(store: Store, head: dict[str, Any]) -> None:
    """Keep the head of an earlier plan as `ledger-TIME.json`, if the plan of `head` is another one.

    `Ledger` does not read it; renamed to `ledger.json`, it shows the earlier results as long as their cells exist.

    Raises:
        LedgerError: the store cannot be written.
    """
    content = store.get_head(HEAD)
    try:
        old = read_head(store, store.url) if content is not None else None
    except LedgerError:
        return  # a damaged head is written anew
    if old is None or content is None or _plan(old) == _plan(head):
        return
    store.put_head(f"ledger-{stamp(old)}.json", content)


def stamp(head: dict[str, Any]) -> str:
    """Return the time at which a run started, as a part of a file name, such as `20260131T093000`."""
    started = str(head.get("environment", {}).get("started", "")).partition("+")[0]
    return re.sub(r"[^\dT]", "", started) or "unknown"


def _plan(head: dict[str, Any]) -> set[str]:
    return {cell["key"] for cell in head.get("cells", [])}


def same_plan(before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
    """Return whether two heads plan the same cells; True if there was no head before."""
    return before is None or _plan(before) == _plan(after)


@dataclass(frozen=True)
class Stale:
    """Results in a run folder that the current plan does not use.

    Attributes:
        keys: their keys.
        bytes: their size; a result whose manifest is damaged counts as 0.
    """

    keys: tuple[str, ...]
    bytes: int


def stale(ledger: Ledger) -> Stale:
    """Return the results in the folder of a run that its current plan does not use.

    Raises:
        LedgerError: the folder cannot be read.
    """
    store, planned = Store(ledger.path), _plan(ledger.about)
    there = store.keys()
    keys = sorted(key for key in there if key.partition("-")[0] not in planned)
    return Stale(tuple(keys), sum(_size(store, key) for key in keys))


def _size(store: Store, key: str) -> int:
    try:
        return store.size(key)
    except Damaged:
        return 0


def clean(ledger: Ledger) -> Stale:
    """Delete the results in the folder of a run that its current plan does not use, and return what was deleted.

    Raises:
        LedgerError: the folder cannot be written.
    """
    found = stale(ledger)
    store = Store(ledger.path)
    for key in found.keys:
        store.delete(key)
    return found
