"""Attack the published TRADES network for MNIST by PGD of 40 and of 1,000 steps, and by AutoAttack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from underfire import data, models
from underfire.ascent.objectives import cross_entropy, log_odds
from underfire.attacks import autoattack, pgd
from underfire.measures.statistics import paired_difference, rate
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.attacked import Attack, Hits, Trial, accuracy, clean
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import above, as_results, as_table, signed

EPS, STEP = 0.3, 0.01
PUBLISHED = {"clean": 99.48, "PGD-40": 96.07}
"""Accuracy on all 10,000 test images in per cent, from the authors' README."""
WHOLE = ("clean", "PGD-40")
"""Attacks that are cheap enough for all test images."""


@dataclass(frozen=True)
class Sizes:
    """The size of a run.

    Attributes:
        whole: the number of images under PGD-40.
        images: the number of images under every attack.
        steps: steps of the long PGD.
        auto_steps, queries: steps of APGD and FAB, and queries of Square, of AutoAttack.
    """

    whole: int
    images: int
    steps: int = 1000
    auto_steps: int = 100
    queries: int = 5000


SIZES = {"quick": Sizes(40, 4, 20, 2, 10), "default": Sizes(10_000, 300), "full": Sizes(10_000, 10_000)}

_HOW = """All attacks have the size {eps:g} in L∞. *PGD-40* is the authors' own evaluation: steps of {step:g} on the
cross-entropy, no random start, and the last iterate counts. *PGD-{steps}* has more of the same steps: it starts at
random, climbs the log-odds, whose gradient has the signs of that of the cross-entropy, and counts every iterate.
*AutoAttack* is the standard version, with {auto_steps} steps and {queries} queries. *All three* counts an image as
correct if no attack changes it. The first {n} test images are the same for all of them. Accuracy in per cent, with its
95 % Clopper-Pearson interval."""


def run(setting: Setting) -> Outcome:
    """Attack the network; images that were attacked before are read from the work folder."""
    sizes = SIZES[setting.scale]
    uri = f"mnist:{setting.root}/mnist?split=test"
    batch = data.load(uri)[: sizes.whole].to(setting.device)
    weights = f"{setting.root}/weights/trades/mnist_small_cnn.safetensors"
    model = models.load(f"{weights}?arch=mnist_small_cnn", device=setting.device)
    store = Store.of(setting, "trades-mnist", asdict(sizes))
    trial = Trial(batch, store, setting.progress, part=50)
    found = {}
    for name, attack in attacks(sizes).items():
        found[name] = trial.correct(name, attack, model, n=None if name in WHOLE else sizes.images)
    spec = {"data": uri, "model": "mnist_small_cnn", "eps": EPS, "step_size": STEP, **asdict(sizes)}
    return outcome(sizes, found, spec | {"seed": setting.seed})


def attacks(sizes: Sizes) -> dict[str, Attack]:
    """Return the attacks by name."""
    steps: dict[str, Any] = {"eps": EPS, "step_size": STEP}
    return {
        "clean": clean,
        "PGD-40": partial(pgd, **steps, steps=40, objective=cross_entropy(), random_start=False, keep="last"),
        f"PGD-{sizes.steps}": partial(pgd, **steps, steps=sizes.steps, objective=log_odds(), keep="success"),
        "AutoAttack": partial(autoattack, eps=EPS, steps=sizes.auto_steps, queries=sizes.queries),
    }


def outcome(sizes: Sizes, found: Mapping[str, Hits], spec: Mapping[str, Any]) -> Outcome:
    """Return the outcome, from the images that are correct under each attack."""
    n = sizes.images
    first = {name: hits[:n] for name, hits in found.items()}
    first["all three"] = np.prod([hits for name, hits in first.items() if name != "clean"], axis=0)
    rows = []
    for name, hits in first.items():
        whole = accuracy(found[name]) if name in WHOLE else "–"
        rows.append([name, accuracy(hits), whole, f"{PUBLISHED[name]:.2f}" if name in PUBLISHED else "–"])
    weak = 1 - first["PGD-40"]
    more = [name for name in first if name not in WHOLE]
    claims = [above(f"{name} changes more images than PGD-40", 1 - first[name], weak) for name in more]
    taken = "; ".join(f"{name} {signed(paired_difference(first[name], first['PGD-40']))}" for name in more)
    how = _HOW.format(eps=EPS, step=STEP, n=n, **asdict(sizes))
    return Outcome(
        title="The published TRADES network for MNIST: what more budget takes",
        source="Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019, and the "
        "authors' README",
        spec=spec,
        columns=("attack", f"accuracy, n = {n}", f"accuracy, n = {sizes.whole}", "published, n = 10000"),
        rows=rows,
        notes=[
            how,
            f"Accuracy minus that under PGD-40, in points, on the same {n} images: {taken}.",
            as_table(claims),
        ],
        results={
            "accuracy": {name: rate(hits) for name, hits in first.items()},
            "whole": {name: rate(found[name]) for name in WHOLE},
            "claims": as_results(claims),
        },
    )
