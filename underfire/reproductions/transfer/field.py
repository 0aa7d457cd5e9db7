"""Success rates of transfer attacks on ImageNet that the field reports, with a ResNet-50 as the source.

Source: Trustworthy-AI-Group, TransferAttack (repository, 2026-02): 1,000 images, L∞ eps 16/255, 10 steps of 1.6/255;
success in per cent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from underfire.reproductions.registry import table
from underfire.reproductions.transfer.grid import Fooled

VICTIMS = ("VGG-16", "MobileNet v2", "Inception v3")

#: White-box success, and that on the three convolutional victims.
PUBLISHED: dict[str, tuple[float, float, float, float]] = {
    "FGSM": (49.2, 54.6, 48.2, 32.8),
    "I-FGSM (BIM)": (99.6, 36.5, 33.6, 17.7),
    "MI-FGSM": (99.9, 57.9, 53.4, 37.4),
    "NI-FGSM": (100, 66.5, 59.3, 38.9),
    "VMI-FGSM": (99.6, 70.8, 66.9, 57.3),
    "DIM": (98.7, 71.0, 66.2, 57.1),
    "TIM": (97.8, 57.9, 46.9, 38.9),
    "SIM": (100, 70.2, 64.4, 52.1),
    "Admix": (100, 79.9, 77.7, 67.7),
    "SSM": (98, 88.8, 86.4, 83.1),
    "PGN": (98.7, 88.7, 86.3, 85.5),
    "SIA": (99.4, 94.3, 92.7, 83.1),
    "BSR": (99, 96.8, 95.6, 90.8),
    "OPS": (99.8, 98.8, 98.6, 98.7),
    "TAP": (99.9, 93.4, 93.8, 64.8),
    "ATTA": (99.9, 59.7, 52.0, 39.9),
    "ATA": (99.8, 35.8, 35.1, 19.2),
}


def beside(means: Mapping[str, Fooled]) -> str:
    """Return a Markdown table of the means of an experiment beside the field's, both in per cent."""
    rows = []
    for label, values in means.items():
        known = PUBLISHED.get(label)
        theirs = ["–"] * 4 if known is None else [f"{np.mean(known[1:]):.1f}", *(f"{v:.1f}" for v in known[1:])]
        rows.append([label, f"{100 * np.mean(values):.1f}", *theirs])
    head = "**Beside the field's table** (ResNet-50 as the source, other networks and images, so that orders compare)"
    return f"{head}\n\n" + table(("attack", "ours, mean", "theirs, mean", *VICTIMS), rows)
