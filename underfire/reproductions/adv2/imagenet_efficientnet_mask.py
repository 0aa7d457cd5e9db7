"""Compare ADV² with PGD on ImageNet photographs, for EfficientNet-lite0 and MASK."""

from __future__ import annotations

from underfire.reproductions.adv2.imagenet import on_photographs
from underfire.reproductions.adv2.system import EFFICIENTNET, masked, note_on_mask
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Audit EfficientNet-lite0 with MASK."""
    system = masked(EFFICIENTNET)
    return on_photographs("EfficientNet-lite0", system, setting, note_on_mask(system, setting), maps="MASK")
