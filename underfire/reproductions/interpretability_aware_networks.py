"""Attack the published networks of Boopathy et al. 2020 by PGD-200 at several radii, and compare with their table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from underfire import data, models
from underfire.ascent.objectives import cross_entropy
from underfire.attacks import pgd
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.curves import curves
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Outcome, Setting

STEPS = 200
_EXACT, _ONE_IMAGE = 5e-4, 5.5e-3


@dataclass(frozen=True)
class Row:
    """A row of the published table.

    Attributes:
        label: its name in the paper.
        accuracies: the published accuracy at each radius; None if the network is not in the table.
    """

    label: str
    accuracies: tuple[float, ...] | None


@dataclass(frozen=True)
class Part:
    """The part of a table that a quick run computes.

    Attributes:
        networks: the names of the networks.
        images, steps: the number of images, and of steps of PGD.
    """

    networks: tuple[str, ...]
    images: int
    steps: int


@dataclass(frozen=True)
class Table:
    """One data set of the published table.

    Attributes:
        name: the name of the experiment.
        title: the title of its page.
        family: the first part of the names of the weights.
        data: the URI of the test images in the official order, with `{root}` for the folder of data and weights.
        test_set: the same in words.
        radii: the radii of the attack, by their names on the page.
        rows: the rows of the table, by the last part of the names of the weights.
        quick: what a quick run computes.
    """

    name: str
    title: str
    family: str
    data: str
    test_set: str
    radii: Mapping[str, float]
    rows: Mapping[str, Row]
    quick: Part


def authors_images(uri: str, n: int = 200) -> Batch:
    """Return the authors' test images: the first of a permutation of the test set with NumPy's seed 99."""
    order = np.random.RandomState(99).permutation(10_000)[:n]
    return data.load(uri)[torch.from_numpy(order)]


def network(table: Table, name: str, root: Path, device: str) -> Classifier:
    """Return the published network of a row of the table."""
    arch = f"{table.family}_{name}"
    return models.load(f"{root / 'weights' / 'interpretability_aware' / arch}.safetensors?arch={arch}", device=device)


def correct(model: Classifier, batch: Batch, eps: float, steps: int = STEPS) -> Tensor:
    """Return which images the model classifies correctly under the authors' attack of size `eps`, bool `[B]`.

    The attack is PGD on the cross-entropy with steps of 0.01, without a random start; its last iterate counts.
    """
    device = next(model.parameters()).device
    x, y = batch.x.to(device), batch.y.to(device)
    if eps > 0:
        x = pgd(
            model,
            x,
            y,
            eps=eps,
            steps=steps,
            step_size=0.01,
            objective=cross_entropy(),
            random_start=False,
            keep="last",
        )
    return (model.predict(x).argmax(1) == y).cpu()


def compare(table: Table, setting: Setting, names: Sequence[str] = ()) -> Outcome:
    """Attack the networks of the table at all radii; nothing is random, so the seed has no effect.

    Args:
        table: the table.
        setting: the setting of the experiment.
        names: the networks; none takes all of them.
    """
    part = table.quick if setting.quick else Part(tuple(table.rows), 200, STEPS)
    part = replace(part, networks=tuple(names) or part.networks)
    return outcome(table, part, attacked(table, part, setting))


def attacked(table: Table, part: Part, setting: Setting) -> dict[str, list[Tensor]]:
    """Return which images each published network classifies correctly at each radius.

    They are kept in the work folder, so that an interrupted run continues.
    """
    batch = authors_images(table.data.format(root=setting.root), part.images)
    store = Store.of(setting, table.name, {"images": part.images, "steps": part.steps})
    found: dict[str, list[Tensor]] = {name: [] for name in part.networks}
    cells = [(name, radius) for name in part.networks for radius in table.radii]
    with without_denormals():
        for done, (name, radius) in enumerate(cells):
            setting.progress(done, len(cells), f"{table.rows[name].label}, eps {radius}")

            def compute(name: str = name, eps: float = table.radii[radius]) -> dict[str, Tensor]:
                model = network(table, name, setting.root, setting.device)
                return {"correct": correct(model, batch, eps, part.steps)}

            found[name].append(store.tensors(f"{name}, {radius}", compute)["correct"])
    setting.progress(len(cells), len(cells), "done")
    return found


def outcome(table: Table, part: Part, found: Mapping[str, Sequence[Tensor]]) -> Outcome:
    """Return the outcome, from which images each network classifies correctly at each radius."""
    ours = {name: [float(hits.float().mean()) for hits in columns] for name, columns in found.items()}
    published = {name: row.accuracies for name, row in table.rows.items() if name in found and row.accuracies}
    pairs = [pair for name, values in published.items() for pair in zip(ours[name], values, strict=True)]
    equal, near = (sum(abs(a - b) < limit for a, b in pairs) for limit in (_EXACT, _ONE_IMAGE))
    counted = f"{equal} of the {len(pairs)} published cells are equal to the digit"
    if near > equal:
        counted += f", and {near - equal} more are one image ({1 / part.images:g}) away"
    said = "Accuracy against the size of the attack: ours with its 95 % band, and the published values as circles"
    several = len(ours) > 1  # a part with one network has no picture
    picture = f"\n\n{said}.\n\n![{said}]({table.name}-curves.svg)" if several else ""
    drawn = {table.rows[name].label: list(map(rate, columns)) for name, columns in found.items()}
    of_paper = {table.rows[name].label: values for name, values in published.items()}
    return Outcome(
        title=table.title,
        source="Boopathy et al., Proper Network Interpretability Helps Adversarial Robustness, ICML 2020",
        spec={
            "data": f"the first {part.images} of NumPy's RandomState(99).permutation(10000) of the {table.test_set}",
            "attack": {
                "name": "pgd",
                "steps": part.steps,
                "step_size": 0.01,
                "objective": "cross_entropy",
                "random_start": False,
            },
            "radii": list(table.radii.values()),
            "networks": part.networks,
        },
        columns=("network", *(f"eps {radius}" for radius in table.radii)),
        rows=[
            [table.rows[name].label, *map(cell, values, published.get(name) or (None,) * len(values))]
            for name, values in ours.items()
        ],
        notes=[f"{counted}. {_reading(table, found)}{picture}", *swapped(table, ours, published)],
        results={
            name: {"ours": values, "published": published.get(name), "rates": list(map(rate, found[name]))}
            for name, values in ours.items()
        },
        pictures={"curves": curves(table.radii, drawn, of_paper)} if several else {},
    )


def _reading(table: Table, found: Mapping[str, Sequence[Tensor]]) -> str:
    """Return how the cells are read, and how exact they are for the whole test set."""
    rates = [rate(hits) for columns in found.values() for hits in columns]
    widest = max(rates, key=lambda one: one.high - one.low)
    missing = any(table.rows[name].accuracies is None for name in found)
    star = "; networks that are not in the published table have a star" if missing else ""
    return f"""A cell that differs from the published value shows that value in brackets{star}. Each cell is an accuracy
over the same {widest.n} images as the authors', so there is no sampling error between the two. As an estimate for all
test images, a cell has a 95 % interval; the widest is {widest.value:.3f} [{widest.low:.3f}, {widest.high:.3f}]."""


def swapped(
    table: Table, ours: Mapping[str, Sequence[float]], published: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Yield a sentence for each two networks whose published values at one radius are those of the other."""
    for a, b in combinations(published, 2):
        for place, radius in enumerate(table.radii):
            own = abs(ours[a][place] - published[a][place]) < _EXACT
            crossed = [(ours[a][place], published[b][place]), (ours[b][place], published[a][place])]
            if own or any(abs(x - z) >= _EXACT for x, z in crossed):
                continue
            elsewhere = [
                abs(ours[name][i] - published[name][i])
                for name in (a, b)
                for i in range(len(table.radii))
                if i != place
            ]
            first, second = table.rows[a].label, table.rows[b].label
            near = "; at all other radii both agree with the table" if max(elsewhere) < _ONE_IMAGE else ""
            yield (
                f"The published table seems to exchange the values of {first} and {second} at eps {radius}: the "
                f"accuracy of each network here is the published one of the other{near}."
            )


def cell(ours: float, published: float | None) -> str:
    """Return a cell of the table, with the published value if it differs."""
    if published is None:
        return f"{ours:.3f}\\*"
    return f"{ours:.3f}" if abs(ours - published) < _EXACT else f"{ours:.3f} ({published:.3f})"


@contextmanager
def without_denormals() -> Iterator[None]:
    """Round the smallest floats to zero inside the block; a CPU computes with them slowly."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
