"""Train the ten networks of the MNIST table of Boopathy et al. 2020 anew, and attack them beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from underfire.measures.statistics import rate
from underfire.reproductions.hardening.training_mnist.networks import Trained
from underfire.reproductions.hardening.training_mnist.recipes import EPS, RECIPES, Schedule
from underfire.reproductions.interpretability_aware_mnist import TABLE
from underfire.reproductions.interpretability_aware_networks import (
    STEPS,
    Part,
    attacked,
    authors_images,
    cell,
    correct,
    without_denormals,
)
from underfire.reproductions.registry import Experiment, Outcome, Setting, table
from underfire.reproductions.transfer.claims import Decision, above, as_results, as_table

BEST, FAR = "int2adv", ("0.35", "0.4")
"""The network that must have the highest accuracy, and the radii at which it must."""

_QUICK = Part(("normal", BEST), 20, 2)
_PUBLISHED = "Boopathy et al., Proper Network Interpretability Helps Adversarial Robustness, ICML 2020"

Hits = Mapping[str, Sequence[Tensor]]
"""The images that are classified correctly at each radius, by the name of the network."""


def run(setting: Setting) -> Outcome:
    """Train all networks, attack them and the published ones, and compare."""
    return page(setting, _part(setting), "")


def _only(name: str) -> Experiment:
    """Return the experiment that trains one network."""
    what = f"The network {TABLE.rows[name].label} of the MNIST table, trained anew"
    note = "A part of `training-mnist-table`, whose page has all of the table and what must hold."

    def run(setting: Setting) -> Outcome:
        whole = _part(setting)
        return page(setting, Part((name,), whole.images, whole.steps), note)

    return Experiment(f"{what} (a part of training-mnist-table).", run)


PARTS = {name: _only(name) for name in RECIPES}
"""The parts by name: one for each network."""


def _part(setting: Setting) -> Part:
    """Return what a run computes."""
    return _QUICK if setting.quick else Part(tuple(RECIPES), 200, STEPS)


def page(setting: Setting, part: Part, note: str) -> Outcome:
    """Train and attack the networks of a part, and return its outcome.

    Args:
        note: a paragraph that comes first; empty without one.
    """
    trained = Trained(setting)
    with without_denormals():
        ours = {name: _hits(trained, name, part) for name in part.networks}
    published = attacked(TABLE, part, setting)
    losses = {name: trained.losses(name) for name in part.networks}
    decisions = [decided(ours, radius) for radius in FAR] if len(ours) > 1 else []
    label = {name: TABLE.rows[name].label for name in part.networks}
    of_one = f": {label[part.networks[0]]}" if len(part.networks) == 1 else ""
    verdict = [as_table(decisions), _PUBLISHED_CLAIM] if decisions else []
    return Outcome(
        title=f"Interpretability-aware training on MNIST, trained anew{of_one}",
        source=_PUBLISHED,
        spec={
            "data": f"the first {part.images} of NumPy's RandomState(99).permutation(10000) of the MNIST test set",
            "attack": {"name": "pgd", "steps": part.steps, "step_size": 0.01, "objective": "cross_entropy"},
            "radii": list(TABLE.radii.values()),
            "trainings": {name: asdict(RECIPES[name]) for name in part.networks},
            "schedule": asdict(trained.schedule),
            "seed": setting.seed,
        },
        columns=("network", "weights", *(f"eps {radius}" for radius in TABLE.radii)),
        rows=[row for name in part.networks for row in _rows(name, ours[name], published[name])],
        notes=[
            *filter(None, [note]),
            *verdict,
            reading(ours, published, part),
            schedule(trained.schedule),
            curve(losses),
        ],
        results={
            "ours": {name: list(map(rate, hits)) for name, hits in ours.items()},
            "published weights": {name: list(map(rate, hits)) for name, hits in published.items()},
            "losses": losses,
            "decisions": as_results(decisions),
        },
    )


def _hits(trained: Trained, name: str, part: Part) -> list[Tensor]:
    """Return which images a trained network classifies correctly at each radius, kept beside its weights."""
    batch = authors_images(TABLE.data.format(root=trained.setting.root), part.images)
    model, store = trained.network(name), trained.store(name)
    found = []
    for done, (radius, eps) in enumerate(TABLE.radii.items()):
        trained.setting.progress(done, len(TABLE.radii), f"{TABLE.rows[name].label}, eps {radius}")
        hits = store.tensors(
            f"{part.images} images, {part.steps} steps, eps {radius}",
            lambda eps=eps: {"correct": correct(model, batch, eps, part.steps)},  # type: ignore[misc]
        )
        found.append(hits["correct"])
    return found


def decided(ours: Hits, radius: str) -> Decision:
    """Return whether the network `BEST` has the highest accuracy at a radius, against the best other network."""
    place = list(TABLE.radii).index(radius)
    rows = {name: np.asarray(hits[place], dtype=float) for name, hits in ours.items()}
    best = rows.pop(BEST)
    other = max(rows, key=lambda name: rows[name].mean())
    claim = f"{TABLE.rows[BEST].label} is the highest at eps {radius}; the next is {TABLE.rows[other].label}"
    return above(claim, best, rows[other])


def _rows(name: str, ours: Sequence[Tensor], published: Sequence[Tensor]) -> list[list[str]]:
    """Return the two rows of a network: trained here, and the published weights beside the paper's numbers."""
    row = TABLE.rows[name]
    cells = (f"{float(hits.float().mean()):.3f}" for hits in ours)
    beside = (
        cell(float(hits.float().mean()), paper) for hits, paper in zip(published, row.accuracies or (), strict=True)
    )
    return [[row.label, "trained here", *cells], [row.label, "published", *beside]]


_PUBLISHED_CLAIM = """In the paper, Int2-Adv is the highest at both radii: .655 and .620, and Int2 is next with .555 and
.385."""


def reading(ours: Hits, published: Hits, part: Part) -> str:
    """Return how the cells are read, and how far the networks are from the published ones."""
    near = [place for place, eps in enumerate(TABLE.radii.values()) if eps <= EPS]
    apart = {
        name: max(abs(float(ours[name][i].float().mean() - published[name][i].float().mean())) for i in near)
        for name in ours
    }
    within = [TABLE.rows[name].label for name, most in apart.items() if most < 0.0205]
    widest = max((rate(hits) for row in ours.values() for hits in row), key=lambda one: one.high - one.low)
    return f"""Each cell is an accuracy under PGD of {part.steps} steps of .01, over the authors' {part.images} images.
*Published* are the published weights under the same attack; where the paper's number differs, it is in brackets. As an
estimate for all test images, a cell has a 95 % interval; the widest is {widest.value:.3f} [{widest.low:.3f},
{widest.high:.3f}]. Up to eps {EPS}, {", ".join(within) or "no network"} {"is" if len(within) < 2 else "are"} within two
points of the published weights at every radius."""


def schedule(used: Schedule) -> str:
    """Return the schedule of the trainings in words, beside that of the authors."""
    size = "2.5 eps / steps" if used.step_size is None else f"{used.step_size}"
    first, last = used.ramp
    return f"""**The schedule.** All begin with the same random weights. Epochs: {_by_method(used.epochs)}. Adam
with the rate {_by_method(used.rate)} ({used.change}), in batches of {used.batch_size}. Inner attacks have
{used.steps} steps of {size}; their eps grows from 0 to {EPS} between the shares {first:.2g} and {last:.2g} of the
training. Integrated gradients have {used.points[0]} points in the loss and {used.points[1]} in the inner attack. The
weight of the divergence of TRADES is 1. The authors have 100 epochs, the rate 1e-4, 40 steps of .01, an eps that grows
between the shares 0.017 and 0.083, and 50 and 10 points; `--full` trains so."""


def _by_method(values: Mapping[str, float]) -> str:
    """Return a number, or several by method."""
    if len(values) == 1:
        return f"{values['others']:g}"
    return ", ".join(f"{value:g} ({method})" for method, value in values.items())


def curve(losses: Mapping[str, Sequence[float]]) -> str:
    """Return a table of the loss while it falls: where it still falls fast, a longer training would go on."""
    shares = (0.25, 0.5, 0.75, 0.9, 1.0)
    rows: list[list[Any]] = [
        [TABLE.rows[name].label, *(f"{row[max(0, round(share * len(row)) - 1)]:.3f}" for share in shares)]
        for name, row in losses.items()
    ]
    head = ("network", *(f"up to {share:.0%}" for share in shares))
    return (
        "**The loss** of the training, each the mean over a twentieth of it; those of two methods do not compare.\n\n"
        + table(head, rows)
    )
