"""Choose the sample of a transfer audit: images that every source and every victim classifies correctly.

The classes have as many images each as possible: in turn, each class gives its next image in the order of the seed. The
sample has a hash of the names, the labels and the pixels of its images. A run folder keeps its samples, so that a spec
that names a hash gets the same images again, even with further victims.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import torch
from torch import Tensor

from underfire.audit.kinds.answer import CHUNK, draws_of
from underfire.audit.opening import seed_for
from underfire.audit.schema import AuditSpec, SampleSpec
from underfire.audit.seals import seal, unseal
from underfire.audit.store import Store
from underfire.audit.target import Target
from underfire.errors import DataError
from underfire.records import Batch

_LOOK = 128  # images that are classified at once


def with_sample(spec: AuditSpec, target: Target, store: Store) -> tuple[AuditSpec, Target]:
    """Return the spec with its sample drawn, and the target with the images of the sample alone.

    Without a number of images, and without victims, both are returned as they are.

    Raises:
        DataError: too few images are classified correctly by all models, or the hash of the spec is not that of the
            sample.
    """
    sample = spec.sample
    if sample is None or sample.n is None:
        return spec, target
    if sample.chosen is not None:  # the target was opened with it
        drawn, images = sample, target.data
    else:
        drawn = _kept(store, sample.hash or _request(target), sample) or draw(target)
        images = target.data.select(torch.tensor(drawn.chosen), f"sample n={sample.n} seed={sample.seed}")
    found = hash_of(images.batches(_LOOK))
    if sample.hash not in (None, found):
        advice = "the models or the data have changed; without `hash` another sample is drawn"
        raise DataError(f"the sample of {sample.n} images has the hash {found} and not {sample.hash}: {advice}")
    note = (
        f"The audit attacks {len(images)} images that all its models classify correctly, balanced over the classes, so "
        f"that the accuracy without an attack is 100 %. {drawn.available} of {drawn.looked} images were available."
    )
    spec = spec.model_copy(update={"sample": drawn.model_copy(update={"hash": found})})
    return spec, replace(target, spec=spec, data=images.noted(note))


def draw(target: Target) -> SampleSpec:
    """Return the sample of a spec, drawn anew, without its hash.

    Images are classified in the order of the seed until every class has as many as it should have.

    Raises:
        DataError: too few images are classified correctly by all models.
    """
    spec, sample = target.spec, target.spec.sample
    assert sample is not None and sample.n is not None
    order = torch.randperm(len(target.data), generator=torch.Generator().manual_seed(sample.seed))
    classes, looked = dict[int, list[int]](), 0
    alone = {entry.title: 0 for entry in (*spec.sources, *spec.victims)}
    for part in order.split(_LOOK):
        batch = target.data[part].to(spec.device)
        right = torch.ones(len(batch), dtype=torch.bool, device=spec.device)
        for title, one in _right(target, batch).items():
            alone[title] += int(one.sum())
            right &= one
        for place, label in zip(part[right.cpu()].tolist(), batch.y[right].tolist(), strict=True):
            classes.setdefault(label, []).append(place)
        looked += len(batch)
        share = math.ceil(sample.n / target.outputs)
        if sum(min(share, len(places)) for places in classes.values()) >= sample.n:
            break
    available = sum(map(len, classes.values()))
    if available < sample.n:
        each = ", ".join(f"{title} {count}" for title, count in alone.items())
        raise DataError(
            f"the sample needs {sample.n} images that all models classify correctly; of {looked} images there are "
            f"{available} ({each})"
        )
    chosen = balanced(classes, sample.n)
    return sample.model_copy(update={"chosen": chosen, "looked": looked, "available": available})


def balanced(classes: Mapping[int, Sequence[int]], n: int) -> list[int]:
    """Return `n` places, ascending: in turn, every class gives its next one, until it has none left.

    >>> balanced({0: [5, 1, 7], 1: [2], 2: [9, 4]}, 5)
    [1, 2, 4, 5, 9]
    """
    rounds = zip_longest(*(classes[label] for label in sorted(classes)))
    return sorted([place for turn in rounds for place in turn if place is not None][:n])


def hash_of(batches: Iterable[Batch]) -> str:
    """Return a hash of images with their names and labels, which does not depend on their order."""
    each = []
    for batch in batches:
        for name, x, y in zip(batch.ids, batch.x.cpu(), batch.y.tolist(), strict=True):
            each.append(hashlib.sha256(repr((name, y)).encode() + x.contiguous().numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(each)).encode()).hexdigest()[:16]


def keep_sample(store: Store, target: Target) -> None:
    """Write the sample of a run to its folder, for later specs that name its hash or ask for the same.

    Raises:
        LedgerError: the store cannot be written.
    """
    sample = target.spec.sample
    if sample is not None and sample.chosen is not None:
        for name in (str(sample.hash), _request(target)):
            store.put_head(f"sample-{name}.json", seal(sample.model_dump()))


def _kept(store: Store, name: str, sample: SampleSpec) -> SampleSpec | None:
    """Return the sample of a run folder by its hash, or by the hash of what was asked for; None if it has none."""
    content = store.get_head(f"sample-{name}.json")
    try:
        found = None if content is None else SampleSpec.model_validate(unseal(content))
    except ValueError:  # damaged: draw it again
        return None
    return found if found is not None and (found.n, found.seed) == (sample.n, sample.seed) else None


def _request(target: Target) -> str:
    """Return a hash of what determines a sample that is drawn anew, but for the content of the data."""
    spec, sample = target.spec, target.spec.sample
    assert sample is not None
    models = sorted({json.dumps(target.others.identity(e), sort_keys=True) for e in (*spec.sources, *spec.victims)})
    content = [spec.data.model_dump(), sample.n, sample.seed, spec.draws, spec.device, models]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _right(target: Target, batch: Batch) -> dict[str, Tensor]:
    """Return which images of a batch every source and victim classifies correctly, bool `[B]`, by title."""
    found, known = dict[str, Tensor](), dict[str, Tensor]()
    for entry in (*target.spec.sources, *target.spec.victims):
        text = repr(target.others.identity(entry))  # a source may be a victim too
        if text not in known:
            model = target.others.open(entry, seed_for("clean", batch.ids[0]))
            draws = draws_of(entry, target.spec, target)
            hits = [model.predict(batch.x, chunk=CHUNK).argmax(1) == batch.y for _ in range(draws)]
            known[text] = torch.stack(hits).float().mean(0) > 0.5
        found[entry.title] = known[text]
    return found
