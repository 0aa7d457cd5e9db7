"""Time the certificates of randomised smoothing over bare passes."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch

from benchmarks.setting import cifar_resnet20
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.defenses import randomised_smoothing
from underfire.hooks import frozen

IMAGES, GROUP, SELECT, DRAWS, CHUNK = 100, 20, 100, 1000, 250


def certify() -> dict[str, Any]:
    """Measure the seconds of CERTIFY and of as many bare passes in batches of the same size, group by group."""
    model, x, _ = cifar_resnet20(IMAGES)
    made = randomised_smoothing(model, sigma=0.25, chunk=CHUNK)
    batches = [x[torch.arange(n) % GROUP] for total in (SELECT, DRAWS) for n in _sizes(total * GROUP)]
    groups = cycle(x.split(GROUP))  # the first round, which is not counted, is that of a group too

    def bare() -> None:
        with frozen(model), torch.no_grad():
            for batch in batches:
                model(batch)

    def certify_group() -> None:
        made.certify(next(groups), n0=SELECT, n=DRAWS)

    seconds = in_turn({"bare": bare, "certify": certify_group}, rounds=IMAGES // GROUP)
    return {"images": IMAGES, "seconds": seconds, "over bare": ratio(seconds["certify"], seconds["bare"])}


def _sizes(total: int) -> list[int]:
    """Return the sizes of the batches of `total` images."""
    return [CHUNK] * (total // CHUNK) + [total % CHUNK] * bool(total % CHUNK)


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the row of the time of randomised smoothing."""
    setting = (
        f"randomised smoothing, ResNet-20, {found['images']} images, n = {DRAWS:,}: time of certify over bare passes"
    )
    return [(setting, spread(found["over bare"]), "≤ 1.1")]
