"""Compare ADV² with PGD on the embedded digits, for all interpreters of the paper and Grad-CAM."""

from __future__ import annotations

from underfire.reproductions.adv2.system import DIGITS
from underfire.reproductions.adv2.table import compare
from underfire.reproductions.registry import Outcome, Setting

NEEDS_DATA = False  # the network and the images come with the package


def run(setting: Setting) -> Outcome:
    """Audit the embedded network; the masking model of RTS comes with the package."""
    return compare(
        {"cluttered digits": DIGITS},
        setting,
        title="ADV² on the embedded digits: the class changes, the explanation stays",
        notes=["The paper has no such network: its figures are for ImageNet."],
    )
