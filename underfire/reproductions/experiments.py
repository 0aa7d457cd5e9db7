"""The names of the experiments, and where each of them is."""

from __future__ import annotations

MODULES: dict[str, str] = {
    "adv2": "underfire.reproductions.adv2.claims",
    "adv2-aid": "underfire.reproductions.adv2.aid",
    "adv2-cifar10": "underfire.reproductions.adv2.cifar10",
    "adv2-digits": "underfire.reproductions.adv2.digits",
    "adv2-ensemble": "underfire.reproductions.adv2.ensemble",
    "adv2-imagenet": "underfire.reproductions.adv2.imagenet",
    "adv2-imagenet-efficientnet": "underfire.reproductions.adv2.imagenet_efficientnet",
    "adv2-imagenet-efficientnet-mask": "underfire.reproductions.adv2.imagenet_efficientnet_mask",
    "adv2-imagenet-mask": "underfire.reproductions.adv2.imagenet_mask",
    "adv2-random-class": "underfire.reproductions.adv2.random_class",
    "adv2-random-patch": "underfire.reproductions.adv2.random_patch",
    "adv2-robust": "underfire.reproductions.adv2.robust",
    "adv2-skin-lesions": "underfire.reproductions.adv2.skin_lesions",
    "adv2-squeezing": "underfire.reproductions.adv2.squeezing",
    "adv2-stadv": "underfire.reproductions.adv2.stadv",
    "adv2-transfer": "underfire.reproductions.adv2.transfer",
    "around-or-through": "underfire.reproductions.transfer.around_or_through",
    "cross-technique": "underfire.reproductions.cross_technique",
    "deep-validation-attacks-mnist": "underfire.reproductions.detection.deep_validation_attacks_mnist",
    "deep-validation-cifar10": "underfire.reproductions.detection.deep_validation_cifar10",
    "deep-validation-mnist": "underfire.reproductions.detection.deep_validation_mnist",
    "detectors-adaptive-cifar10": "underfire.reproductions.detection.detectors_adaptive_cifar10",
    "detectors-adaptive-mnist": "underfire.reproductions.detection.detectors_adaptive_mnist",
    "detectors-skin-lesions": "underfire.reproductions.detection.detectors_skin_lesions",
    "distillation-broken": "underfire.reproductions.hardening.distillation_broken",
    "ensemble-adversarial": "underfire.reproductions.hardening.ensemble_adversarial",
    "fast-cifar10": "underfire.reproductions.hardening.fast_cifar10",
    "gap-of-robust-models": "underfire.reproductions.hardening.robust_gap.page",
    "interpretability-aware-cifar10": "underfire.reproductions.interpretability_aware_cifar10",
    "interpretability-aware-mnist": "underfire.reproductions.interpretability_aware_mnist",
    "interpreters": "underfire.reproductions.interpreters",
    "ml-loo-cifar10": "underfire.reproductions.detection.ml_loo_cifar10",
    "parseval": "underfire.reproductions.hardening.parseval",
    "physical-examples": "underfire.reproductions.physical_examples",
    "single-step-masking": "underfire.reproductions.hardening.single_step_masking",
    "trades-mnist": "underfire.reproductions.hardening.trades_mnist",
    "training-mnist-table": "underfire.reproductions.hardening.training_mnist.table",
    "transfer-attention": "underfire.reproductions.transfer.attention",
    "transfer-cifar10": "underfire.reproductions.transfer.cifar10",
    "transfer-defended": "underfire.reproductions.transfer.defended",
    "transfer-imagenet": "underfire.reproductions.transfer.imagenet",
}
"""The modules of the experiments by name; the function `run` of a module runs its experiment."""

PARTS: dict[str, tuple[str, ...]] = {
    "around-or-through": ("gradients", "square", "transferred"),
    "gap-of-robust-models": ("mnist", "mnist-trained", "trades", "cifar10"),
    "interpretability-aware-cifar10": ("normal", "adv", "trades", "intone", "int", "intadv", "int2", "int2adv"),
    "training-mnist-table": ("normal", "adv", "trades", "ig", "igsum", "intone", "int", "intadv", "int2", "int2adv"),
    "transfer-cifar10": ("resnet20", "resnet32", "resnet56", "wresnet"),
    "transfer-defended": ("composed", "single", "training"),
    "transfer-imagenet": (
        "ensembles",
        *(
            f"{name}{group}"
            for name in ("efficientnet", "mobilenet-v1", "mobilenet-v2", "squeezenet")
            for group in ("", "-modern")
        ),
    ),
}
"""Experiments that take hours have parts, each of them an experiment in `PARTS` of the module."""

MODULES |= {f"{whole}-{part}": f"{MODULES[whole]}:{part}" for whole, parts in PARTS.items() for part in parts}
