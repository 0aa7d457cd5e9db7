"""Time a guard over the classifier behind it."""

from __future__ import annotations

from typing import Any

from benchmarks.setting import cifar_resnet20
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.detectors import FeatureSqueezing, Guard
from underfire.measures.detection import threshold
from underfire.records import Batch

IMAGES, SQUEEZERS = 256, ("bit_depth_5", "median_2")


def measure(rounds: int = 3) -> dict[str, Any]:
    """Measure the seconds of the classes of one batch, by the classifier and by the guard in front of it."""
    model, x, y = cifar_resnet20(IMAGES)
    detector = FeatureSqueezing(squeezers=SQUEEZERS).fit(model, Batch(x[:32], y[:32], tuple(map(str, range(32)))))
    guard = Guard(model, detector, threshold(detector.score(model, x[32:96]), 0.05))
    seconds = in_turn({"bare": lambda: model.predict(x), "guard": lambda: guard.decide(x)}, rounds=rounds)
    return {"seconds": seconds, "over bare": ratio(seconds["guard"], seconds["bare"])}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the row of the time of the guard."""
    what = f"feature squeezing, {len(SQUEEZERS)} squeezers"
    setting = f"guard ({what}), ResNet-20, batch of {IMAGES}: time of its decisions over bare passes"
    return [(setting, spread(found["over bare"]), f"≤ {1.2 * (1 + len(SQUEEZERS)):.1f}")]
