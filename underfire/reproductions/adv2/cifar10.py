"""Compare ADV² with PGD on CIFAR-10, for all interpreters of the paper and Grad-CAM of ResNet-56."""

from __future__ import annotations

from underfire.reproductions.adv2.system import CIFAR10
from underfire.reproductions.adv2.table import compare
from underfire.reproductions.registry import Outcome, Setting


def run(setting: Setting) -> Outcome:
    """Audit ResNet-56; the masking model of RTS comes with the package."""
    return compare(
        {"ResNet-56": CIFAR10},
        setting,
        title="ADV² on CIFAR-10: the class changes, the explanation stays",
        notes=["The published figures are for ImageNet; the paper has no table for CIFAR-10."],
    )
