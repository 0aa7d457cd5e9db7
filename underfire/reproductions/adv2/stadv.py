"""Build ADV² on StAdv, which displaces pixels instead of changing them, and compare it with StAdv alone."""

from __future__ import annotations

from dataclasses import replace

from underfire.reproductions.adv2.system import CIFAR10, DIGITS, Framework, System
from underfire.reproductions.adv2.table import compare
from underfire.reproductions.registry import Outcome, Setting

_SHARE = 0.025  # of the side of an image: the largest displacement (Laidlaw and Feizi, NeurIPS 2019)

_LEAD = 3.0  # in logits; a lead of 3 over one rival is a probability of 0.95, the confidence that ADV² wants

_WHY = """Both attacks displace pixels by at most 2.5 % of the side of an image along either axis, and have the flow
loss with the paper's weight, 5e-4; StAdv is the smoothest flow with a lead of 3 logits, about the confidence of ADV².
The paper sets no limit, and reports for ResNet-50 that StAdv-based ADV² is as successful as StAdv (Table 6) with maps
like the benign ones (Figure 9, Observation 5)."""


def run(setting: Setting) -> Outcome:
    """Audit StAdv and ADV² on flow fields, on the digits and on CIFAR-10."""
    systems = {"cluttered digits": _warped(DIGITS, 64), "ResNet-56": _warped(CIFAR10, 32)}
    title = "ADV² on StAdv: the image is warped, the explanation stays"
    return compare(systems, setting, title=title, notes=[_WHY])


def _warped(system: System, side: int) -> System:
    """Return the system under attacks that displace the pixels of images with sides of `side` pixels."""
    options = {"keep": "best", "weight": 5e-4, "confidence": _LEAD}
    base = Framework("StAdv", "st_adv", options, {"norm": "flow"}, _SHARE * side)
    return replace(system, framework=base)
