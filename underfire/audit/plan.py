"""A spec as a list of independent cells, each named by a hash of all that determines its result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from underfire import __version__
from underfire.audit import masking
from underfire.audit.ledger import SCHEMA
from underfire.audit.spec import AttackSpec, AuditSpec
from underfire.audit.target import Target, open_target
from underfire.catalog import find

Kind = Literal["clean", "attack", "masking"]


@dataclass(frozen=True)
class Cell:
    """One independent part of an audit.

    Attributes:
        key: sha256 of all that determines the result; the name of its folder in the ledger.
        kind: the model's answers to clean images, one attack at one size, or the checks against gradient masking.
        entry: the attack; None in a clean cell.
        eps: its size, in units of the image in the attack's norm.
        smaller: further sizes, largest first, that are read off the same result: what an attack of minimum size needs.
        seed: of everything random.
        shard: which part of the images, and of how many.
        images: how many images it works on.
        gallery: how many of them are kept as images.
    """

    key: str
    kind: Kind
    entry: AttackSpec | None
    eps: float
    seed: int
    shard: tuple[int, int]
    images: int
    gallery: int
    smaller: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """What it does, for a reader."""
        if self.kind == "attack" and self.entry is not None:
            return f"{self.entry.title} at eps {', '.join(f'{eps:.4g}' for eps in (self.eps, *self.smaller))}"
        return {"clean": "clean images", "masking": "masking checks"}.get(self.kind, self.kind)

    def as_dict(self) -> dict[str, Any]:
        """The cell as plain values, for the ledger."""
        entry = self.entry
        return {
            "key": self.key,
            "kind": self.kind,
            "label": entry.title if entry else "",
            "norm": entry.norm if entry else None,
            "eps": self.eps,
            "smaller": list(self.smaller),
            "seed": self.seed,
            "shard": list(self.shard),
            "images": self.images,
        }


def plan(spec: AuditSpec, target: Target | None = None) -> list[Cell]:
    """The cells of a complete spec: clean ones first, then every attack, size, seed and shard, then the masking checks.

    Args:
        spec: as `load_spec` or `parse_spec` gives it.
        target: the spec, opened; None opens it.
    """
    target = target or open_target(spec)
    return list(_cells(spec, target))


def _cells(spec: AuditSpec, target: Target) -> Iterator[Cell]:
    count = len(target.data)
    shards = math.ceil(count / spec.shard_size)
    shared = {
        "schema": SCHEMA,
        "underfire": __version__,
        "model": [spec.model.model_dump(), target.weights],
        "data": [spec.data.model_dump(), target.look.digest],
        "batch_size": spec.batch_size,
        "device": spec.device,
    }

    def cell(
        kind: Kind,
        entry: AttackSpec | None = None,
        eps: float = 0.0,
        seed: int = 0,
        shard: int | None = None,
        smaller: tuple[float, ...] = (),
    ) -> Cell:
        part = (0, 1) if shard is None else (shard, shards)
        images = masking.IMAGES if shard is None else len(range(shard, count, shards))
        gallery = spec.gallery if kind == "attack" and shard == 0 else 0
        maps = [entry.model_dump() for entry in spec.interpreters] if kind == "attack" else []
        what = [kind, entry and {**entry.model_dump(), "eps": None}, [eps, *smaller], seed, part, gallery, maps]
        text = json.dumps([shared, what], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        return Cell(key, kind, entry, eps, seed, part, min(images, count), gallery, smaller)

    for shard in range(shards):
        yield cell("clean", shard=shard)
    for entry in spec.attacks:
        facts = find("attack", entry.name).facts
        random = facts.random or entry.goal == "random-target"
        # One run of an attack of minimum size answers for every size; any other attack runs once for each.
        descending = tuple(sorted(entry.eps, reverse=True))
        for sizes in [descending] if facts.minimal else [(eps,) for eps in entry.eps]:
            for seed in spec.seeds if random else spec.seeds[:1]:
                for shard in range(shards):
                    yield cell("attack", entry, sizes[0], seed, shard, sizes[1:])
    if spec.masking:
        entry = masking.subject(spec)
        yield cell("masking", entry, sorted(entry.eps)[len(entry.eps) // 2], spec.seeds[0])
