"""Bit-depth reduction (Xu, Evans and Qi, NDSS 2018; Guo et al., ICLR 2018)."""

from __future__ import annotations

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms import squeezing


@card(
    "defense",
    paper="Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018",
    differentiable=False,
)
def bit_depth(model: Classifier, *, bits: int = 3) -> Defended:
    """Round every channel of every pixel to one of `2^bits` levels; BPDA rule: the gradient of the identity.

    Args:
        bits: number of bits that remain of the usual 8; 3 as in Guo et al., Countering Adversarial Images Using Input
            Transformations, ICLR 2018.

    Raises:
        InputError: not 1 <= bits <= 16.
    """
    if not 1 <= bits <= 16:
        raise InputError(f"bit_depth needs 1 to 16 bits, got {bits}")
    return defended(model, lambda x, _: squeezing.bit_depth(x, bits), bit_depth)
