"""Time a guard over the classifier behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.setting import cifar_resnet20
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.detectors import Detector, FeatureSqueezing, Guard, Softmax
from underfire.measures.detection import threshold
from underfire.records import Batch

IMAGES, SQUEEZERS = 256, ("bit_depth_5", "median_2")


def measure(rounds: int = 7) -> dict[str, Any]:
    """Measure the seconds of the classes of one batch, by the classifier and by a guard of each detector before it."""
    model, x, y = cifar_resnet20(IMAGES)
    detectors: dict[str, Detector] = {"softmax": Softmax(), "squeezing": FeatureSqueezing(squeezers=SQUEEZERS)}
    contestants: dict[str, Callable[[], object]] = {"bare": lambda: model.predict(x)}
    for name, detector in detectors.items():
        detector.fit(model, Batch(x[:32], y[:32], tuple(map(str, range(32)))))
        guard = Guard(model, detector, threshold(detector.score(model, x[32:96]), 0.05))
        contestants[name] = partial(guard.decide, x)
    seconds = in_turn(contestants, rounds=rounds)
    return {"seconds": seconds, "over bare": {name: ratio(seconds[name], seconds["bare"]) for name in detectors}}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the times of the guards."""
    squeezing = f"feature squeezing, {len(SQUEEZERS)} squeezers"
    passes = {"softmax": ("softmax", 1), "squeezing": (squeezing, 1 + len(SQUEEZERS))}
    return [
        (
            f"guard ({what}), ResNet-20, batch of {IMAGES}: time of its decisions over bare passes",
            spread(found["over bare"][name]),
            f"≤ {1.2 * count:.1f}",
        )
        for name, (what, count) in passes.items()
    ]
