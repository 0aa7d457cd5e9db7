"""List the claims of the paper on ADV² and of its talk, with the experiments that measure each."""

from __future__ import annotations

from dataclasses import dataclass

from underfire.reproductions.adv2 import comparisons
from underfire.reproductions.adv2.comparisons import Compare


@dataclass(frozen=True)
class Claim:
    """A claim, what the paper has for it, and how the results of experiments decide it.

    Attributes:
        name: where it is stated.
        text: the claim.
        published: the paper's figures.
        wanted: what the figures must be here.
        experiments: the experiments that measure it; those that have a result are used.
        compare: returns the comparisons with one experiment's results.
        differs: what differs here from the paper and may be why a comparison fails.
    """

    name: str
    text: str
    published: str
    wanted: str
    experiments: tuple[str, ...]
    compare: Compare
    differs: str


_PHOTOGRAPHS = tuple(f"adv2-imagenet{network}{of}" for network in ("", "-efficientnet") for of in ("", "-mask"))
_MAIN = (*_PHOTOGRAPHS, "adv2-cifar10", "adv2-digits")
_STEPS = "Here ADV² has 80 to 250 steps in all, in the paper 1,000 or more."
_DISTILLED = "Here RTS^A is trained for 300 steps, and ADV² knows all its weights."

CLAIMS = (
    Claim(
        "Observation 1",
        "ADV² deceives the classifier as well as PGD does.",
        "success 96 to 100 %, confidence 0.98 to 1.0",
        "success and confidence ≥ 0.95",
        _MAIN,
        comparisons.deceives,
        _STEPS,
    ),
    Claim(
        "Observation 2",
        "The maps of ADV² inputs are highly similar to the benign ones.",
        "map L1 more than 60 % below PGD's, IoU above 0.5 and more than 40 % above PGD's, for every interpreter",
        "map L1 ≤ 0.4 of PGD's and lower, IoU ≥ 0.5 and ≥ 1.4 times PGD's",
        _MAIN,
        comparisons.misleads,
        _STEPS,
    ),
    Claim(
        "Observation 3",
        "Feature squeezing detects basic ADV² and PGD alike.",
        "differences below 2 % for local smoothing",
        "differences ≤ 0.02 for median filters",
        ("adv2-squeezing",),
        comparisons.as_detectable,
        "With about fifty images, one image is two per cent.",
    ),
    Claim(
        "Observation 4",
        "An adaptive ADV² evades feature squeezing, and its maps are as near as those of the basic one.",
        "the detection rate drops significantly; little impact on the maps",
        "mean detection rate ≤ half, success ≥ 0.95, map L1 of CAM ≤ 0.4 of PGD's",
        ("adv2-squeezing",),
        comparisons.evades,
        _STEPS,
    ),
    Claim(
        "Observation 5",
        "ADV² can be built on other attacks, such as StAdv.",
        "success and maps as with PGD",
        "success at most 0.05 below that of StAdv, map L1 lower than StAdv's",
        ("adv2-stadv",),
        comparisons.as_on_pixels,
        "Here the displacement of a pixel is bounded; the paper bounds none.",
    ),
    Claim(
        "Observation 6",
        "Prediction and explanation can be driven to arbitrary, unrelated targets.",
        "random patches and random classes hardly lower the success; the maps are like the targets",
        "success ≥ 0.95, L1 to the target lower than PGD's",
        ("adv2-random-patch", "adv2-random-class"),
        comparisons.reaches_targets,
        _STEPS,
    ),
    Claim(
        "Observation 7",
        "Attacks transfer little between interpreters.",
        "the maps of another interpreter are about as far as under PGD",
        "map L1 nearer to PGD's than to that of the attacked interpreter",
        ("adv2-transfer",),
        comparisons.transfers_little,
        "Here the encoder of RTS is the classifier itself, whose features CAM reads, too.",
    ),
    Claim(
        "Observation 8, first half",
        "Interpreters see distinct aspects of a network; GRAD, made of the gradient that attacks use, resists most.",
        "the lowest IoU of all interpreters is that of GRAD",
        "IoU of GRAD ≤ that of every other interpreter",
        _MAIN,
        comparisons.grad_resists,
        "Here the networks are smaller, and every interpreter has its own number of steps.",
    ),
    Claim(
        "Observation 8, second half",
        "ADV² in the training of an interpreter narrows the gap.",
        "map L1 under ADV² 0.01 of RTS, 0.10 of RTS^A; between the two 0.03; larger under noise",
        "map L1 under ADV² twice RTS's and higher; on clean images ≤ 0.05; under noise higher",
        ("adv2-aid",),
        comparisons.distilled,
        _DISTILLED,
    ),
    Claim(
        "Finding 1",
        "Interpretability gives limited security: both can be deceived together.",
        "Observations 1 and 2",
        "as Observations 1 and 2",
        _MAIN,
        comparisons.deceives_and_misleads,
        _STEPS,
    ),
    Claim(
        "Finding 2",
        "Prediction and interpretation are only partially aligned.",
        "no number; here the gap, 1 for independence",
        "gap ≥ 0.5 of networks that are trained as usual",
        ("adv2-robust",),
        comparisons.gap_is_open,
        "The paper has no measure of the gap.",
    ),
    Claim(
        "Finding 3",
        "Adversarial training of the interpreter may make it robust.",
        "Observation 8, second half",
        "as Observation 8, second half",
        ("adv2-aid",),
        comparisons.distilled,
        _DISTILLED,
    ),
    Claim(
        "Section 4, medical case",
        "ADV² deceives a classifier of skin lesions and its explanations.",
        "maps visually indiscernible from the benign ones (Figure 7)",
        "as Observations 1 and 2; mass on the lesion nearer to the clean one than under PGD",
        ("adv2-skin-lesions",),
        comparisons.stays_on_lesion,
        "Here the classifier is a linear head on a network for ImageNet, and RTS is not trained for it.",
    ),
    Claim(
        "Section 5.3, defence 1",
        "Complementary interpreters together may reveal ADV².",
        "no number: left to future work, as is the attack on all of them",
        "more attacks are flagged than clean images",
        ("adv2-ensemble",),
        comparisons.is_noticed,
        "ADV² on all interpreters knows the ensemble.",
    ),
)
