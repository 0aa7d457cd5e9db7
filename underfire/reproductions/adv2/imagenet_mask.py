"""Compare ADV² with PGD on ImageNet photographs, for MobileNet v1 and MASK."""

from __future__ import annotations

from underfire.reproductions.adv2.imagenet import on_photographs
from underfire.reproductions.adv2.system import MOBILENET, masked, note_on_mask
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Audit MobileNet v1 with MASK."""
    system = masked(MOBILENET)
    return on_photographs("MobileNet v1", system, setting, note_on_mask(system, setting), maps="MASK")
