"""The transfer attacks with a published name; every other combination of tokens has its own name too."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from underfire.attacks.transfer.composing import compose, stated
from underfire.catalog import card


def published(name: str) -> Callable[..., Tensor]:
    """Put the attack of a name that consists of tokens into the catalogue, and return it."""
    attack = compose(name, __name__)
    assert attack is not None, name
    return card("attack", **stated(name))(attack)


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
