"""The five published variants of interpretability-aware training, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from underfire.training.interpretability_aware.discrepancy import Others

VariantName = Literal["int_one_class", "int", "int_adv", "int2", "int2_adv"]


@dataclass(frozen=True)
class Variant:
    """One variant: what its inner attack maximises, and whose cross-entropy it minimises.

    Attributes:
        others: the classes beside the label whose maps count.
        attacks: the inner attack maximises the discrepancy, both losses, or the cross-entropy alone (PGD).
        perturbed: whether the cross-entropy is that of the perturbed images, and not of the clean ones.
    """

    others: Others
    attacks: Literal["discrepancy", "both", "cross_entropy"]
    perturbed: bool


VARIANTS: dict[str, Variant] = {
    "int_one_class": Variant("none", "discrepancy", perturbed=False),
    "int": Variant("weighted", "discrepancy", perturbed=False),
    "int_adv": Variant("weighted", "both", perturbed=True),
    "int2": Variant("weighted", "cross_entropy", perturbed=False),
    "int2_adv": Variant("weighted", "cross_entropy", perturbed=True),
}
