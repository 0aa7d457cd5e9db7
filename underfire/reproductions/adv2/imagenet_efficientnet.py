"""Compare ADV² with PGD on the same photographs, for EfficientNet-lite0, the second network."""

from __future__ import annotations

from underfire.reproductions.adv2.imagenet import on_photographs
from underfire.reproductions.adv2.masking_models import note, with_rts
from underfire.reproductions.adv2.system import EFFICIENTNET
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Audit EfficientNet-lite0 on photographs."""
    return on_photographs("EfficientNet-lite0", with_rts(EFFICIENTNET, setting), setting, note(setting.scale))
