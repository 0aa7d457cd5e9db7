"""Change the class to a random one and the explanation to that of a third class (Table 8, Observation 6)."""

from __future__ import annotations

from underfire.ascent.target_maps import other_class
from underfire.reproductions.adv2.targets import towards
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Attack every system towards the clean map of another image of the sample."""
    return towards(
        other_class(),
        setting,
        title="ADV² towards the map of another class",
        source="section 5.1, Table 8, Figures 12 and 13",
        notes=["The paper reports that the maps of random classes hardly lower the success rate."],
    )
