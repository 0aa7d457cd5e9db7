"""Compare ADV² with PGD on ImageNet photographs, for MobileNet v1 and the interpreters of the paper."""

from __future__ import annotations

from underfire.reproductions.adv2.masking_models import note, with_rts
from underfire.reproductions.adv2.system import MOBILENET, System
from underfire.reproductions.adv2.table import compare
from underfire.reproductions.registry import Outcome, Setting

_WHY = """The paper reports that ADV² lowers the L1 distance by more than 60 % for every interpreter and gets an IoU
above 0.5 for all, on ResNet-50 and DenseNet-169, whose weights are not available here. As in the authors' code, the
gradient map that is attacked is averaged over squares of 4 pixels."""


def run(setting: Setting) -> Outcome:
    """Audit MobileNet v1 on photographs."""
    return on_photographs("MobileNet v1", with_rts(MOBILENET, setting), setting, note(setting.scale))


def on_photographs(name: str, system: System, setting: Setting, *notes: str, maps: str = "") -> Outcome:
    """Compare ADV² with PGD on a network of photographs; `maps` is a single interpreter for the title."""
    subject = ", ".join(filter(None, (name, maps)))
    return compare(
        {name: system},
        setting,
        title=f"ADV² on ImageNet photographs and {subject}: the class changes, the explanation stays",
        notes=[_WHY, *notes],
    )
