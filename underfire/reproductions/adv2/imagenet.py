"""Compare ADV² with PGD on ImageNet photographs, for two networks and the interpreters of the paper."""

from __future__ import annotations

from underfire.reproductions.adv2.masking_models import note, with_rts
from underfire.reproductions.adv2.system import EFFICIENTNET, MOBILENET
from underfire.reproductions.adv2.table import compare
from underfire.reproductions.registry import Outcome, Setting

_WHY = """The paper reports that ADV² lowers the L1 distance by more than 60 % for every interpreter and gets an IoU
above 0.5 for all, on ResNet-50 and DenseNet-169, whose weights are not available here. As in the authors' code, the
gradient map that is attacked is averaged over squares of 4 pixels."""


def run(setting: Setting) -> Outcome:
    """Audit MobileNet v1 and EfficientNet-lite0 on the same photographs."""
    systems = {"MobileNet v1": MOBILENET, "EfficientNet-lite0": EFFICIENTNET}
    return compare(
        {name: with_rts(system, setting) for name, system in systems.items()},
        setting,
        title="ADV² on ImageNet photographs: the class changes, the explanation stays",
        notes=[_WHY, note(setting.scale)],
    )
