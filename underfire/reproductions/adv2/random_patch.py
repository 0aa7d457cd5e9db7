"""Change the class to a random one and the explanation to a random patch (Figure 11, Table 7, Observation 6)."""

from __future__ import annotations

from underfire.ascent.target_maps import random_patch
from underfire.reproductions.adv2.targets import towards
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Attack every system towards a rectangle or a circle of random size, angle and place."""
    return towards(
        random_patch(),
        setting,
        title="ADV² towards a random patch",
        source="section 5.1, Figure 11",
        notes=["The paper reports that random patches hardly lower the success rate."],
    )
