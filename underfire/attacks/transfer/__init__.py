"""Transfer attacks: names composed of tokens, each of which is a published idea; see `tokens.TOKENS`."""

from underfire.attacks.transfer.published import (
    di_fgsm,
    dim,
    mi_fgsm,
    ni_fgsm,
    si_fgsm,
    si_ni_ti_dim,
    sim,
    ti_dim,
    ti_fgsm,
    tim,
    vmi_fgsm,
    vni_fgsm,
)

__all__ = [
    "di_fgsm",
    "dim",
    "mi_fgsm",
    "ni_fgsm",
    "si_fgsm",
    "si_ni_ti_dim",
    "sim",
    "ti_dim",
    "ti_fgsm",
    "tim",
    "vmi_fgsm",
    "vni_fgsm",
]
