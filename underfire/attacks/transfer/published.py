"""The transfer attacks with a published name; every other combination of tokens has its own name too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from underfire.attacks.transfer.composing import compose, stated
from underfire.attacks.transfer.transformation import train_transformation
from underfire.catalog import card


def published(
    tokens: str, name: str | None = None, *, train: Callable[..., Any] | None = None, **defaults: Any
) -> Callable[..., Tensor]:
    """Put an attack that consists of tokens into the catalogue, and return it.

    Args:
        tokens: the tokens, joined by underscores.
        name: its name; None is the tokens.
        train: the function that trains the network of the attack on a data set.
        defaults: values of options that replace the defaults.
    """
    attack = compose(tokens, __name__, title=name, **defaults)
    assert attack is not None, tokens
    return card("attack", **stated(tokens), train=train)(attack)


mi_fgsm = published("mi_fgsm")
ni_fgsm = published("ni_fgsm")
di_fgsm = published("di_fgsm")
ti_fgsm = published("ti_fgsm")
si_fgsm = published("si_fgsm")
vmi_fgsm = published("vmi_fgsm")
vni_fgsm = published("vni_fgsm")
dim = published("dim")
tim = published("tim")
sim = published("sim")
ti_dim = published("ti_dim")
si_ni_ti_dim = published("si_ni_ti_dim")
tap = published("tap")
ata = published("ata")
tap_ata = published("tap_ata")
atta = published("atta", train=train_transformation)
at_si_ni_ti_dim = published("at_si_ni_ti_dim")
svre = published("svre")
logit_attack = published(
    "mi_di_ti_logit", "logit_attack", steps=300, step_size=2 / 255, probability=0.7, size=5
)  # the constants of Zhao, Liu and Larson, NeurIPS 2021
admix = published("admix")
ssm = published("ssm")
sia = published("sia")
bsr = published("bsr")
pgn = published("pgn")
ops = published("ops")
sgm = published("sgm")
