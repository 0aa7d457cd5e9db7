"""Compare ADV² with PGD on ImageNet photographs, for EfficientNet-lite0 and MASK."""

from __future__ import annotations

from underfire.reproductions.adv2.imagenet import on_photographs
from underfire.reproductions.adv2.system import EFFICIENTNET, masked
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Audit EfficientNet-lite0 with MASK."""
    return on_photographs("EfficientNet-lite0", masked(EFFICIENTNET), setting)
