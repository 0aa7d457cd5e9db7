"""Attacks, one published method per file: `name(model, x, y, *, goal=None, eps=..., ..., generator=None) -> x'`.

A transfer attack that is not listed, such as `mi_di_ti`, is made when it is first used: see `attacks.transfer`.
"""

from collections.abc import Callable

from torch import Tensor

from underfire.attacks.acg import acg
from underfire.attacks.adv2 import adv2, adv2_ensemble, adv2_squeezing
from underfire.attacks.adv2_black_box import adv2_black_box
from underfire.attacks.adversarial_patch import adversarial_patch
from underfire.attacks.adversarial_transformation import adversarial_transformation
from underfire.attacks.affine import affine
from underfire.attacks.apgd import apgd
from underfire.attacks.autoattack import autoattack
from underfire.attacks.bim import bim
from underfire.attacks.boundary import boundary
from underfire.attacks.carlini_wagner import carlini_wagner
from underfire.attacks.corner_cases import corner_cases
from underfire.attacks.ddn import ddn
from underfire.attacks.decision_tree import decision_tree
from underfire.attacks.deepfool import deepfool
from underfire.attacks.ead import ead
from underfire.attacks.ensemble_transfer import ensemble_transfer
from underfire.attacks.eot import eot
from underfire.attacks.explanation_and_prediction import explanation_and_prediction
from underfire.attacks.explanation_only import explanation_only
from underfire.attacks.explanation_only_black_box import explanation_only_black_box
from underfire.attacks.fab import fab
from underfire.attacks.fgsm import fgsm
from underfire.attacks.fgvm import fgvm
from underfire.attacks.finite_differences import finite_differences
from underfire.attacks.fmn import fmn
from underfire.attacks.fooling_images import fooling_images
from underfire.attacks.hop_skip_jump import hop_skip_jump
from underfire.attacks.illc import illc
from underfire.attacks.jsma import jsma
from underfire.attacks.lbfgs import lbfgs
from underfire.attacks.nes import nes
from underfire.attacks.one_pixel import one_pixel
from underfire.attacks.pgd import pgd
from underfire.attacks.photometric import photometric
from underfire.attacks.rand_fgsm import rand_fgsm
from underfire.attacks.random_noise import random_noise
from underfire.attacks.recipe import recipe
from underfire.attacks.sigma_zero import sigma_zero
from underfire.attacks.spsa import spsa
from underfire.attacks.square import square
from underfire.attacks.st_adv import st_adv
from underfire.attacks.step_ll import step_ll
from underfire.attacks.substitute import substitute
from underfire.attacks.transfer import (
    admix,
    at_si_ni_ti_dim,
    ata,
    atta,
    bsr,
    di_fgsm,
    dim,
    logit_attack,
    mi_fgsm,
    ni_fgsm,
    ops,
    pgn,
    sgm,
    si_fgsm,
    si_ni_ti_dim,
    sia,
    sim,
    ssm,
    svre,
    tap,
    tap_ata,
    ti_dim,
    ti_fgsm,
    tim,
    vmi_fgsm,
    vni_fgsm,
)
from underfire.attacks.uap import uap
from underfire.attacks.zoo import zoo
from underfire.catalog import composed
from underfire.errors import InputError

__all__ = [
    "acg",
    "admix",
    "adv2",
    "adv2_black_box",
    "adv2_ensemble",
    "adv2_squeezing",
    "adversarial_patch",
    "adversarial_transformation",
    "affine",
    "apgd",
    "at_si_ni_ti_dim",
    "ata",
    "atta",
    "autoattack",
    "bim",
    "boundary",
    "bsr",
    "carlini_wagner",
    "corner_cases",
    "ddn",
    "decision_tree",
    "deepfool",
    "di_fgsm",
    "dim",
    "ead",
    "ensemble_transfer",
    "eot",
    "explanation_and_prediction",
    "explanation_only",
    "explanation_only_black_box",
    "fab",
    "fgsm",
    "fgvm",
    "finite_differences",
    "fmn",
    "fooling_images",
    "hop_skip_jump",
    "illc",
    "jsma",
    "lbfgs",
    "logit_attack",
    "mi_fgsm",
    "nes",
    "ni_fgsm",
    "one_pixel",
    "ops",
    "pgd",
    "pgn",
    "photometric",
    "rand_fgsm",
    "random_noise",
    "recipe",
    "sgm",
    "si_fgsm",
    "si_ni_ti_dim",
    "sia",
    "sigma_zero",
    "sim",
    "spsa",
    "square",
    "ssm",
    "st_adv",
    "step_ll",
    "substitute",
    "svre",
    "tap",
    "tap_ata",
    "ti_dim",
    "ti_fgsm",
    "tim",
    "uap",
    "vmi_fgsm",
    "vni_fgsm",
    "zoo",
]


def __getattr__(name: str) -> Callable[..., Tensor]:
    try:
        found = composed("attack", name)
    except InputError as error:
        raise AttributeError(str(error)) from None
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found.function
