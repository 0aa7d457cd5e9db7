"""Attack every detector on CIFAR-10 with and without knowledge of it."""

from __future__ import annotations

from dataclasses import replace

from underfire.model import Classifier
from underfire.reproductions.detection import ml_loo_cifar10
from underfire.reproductions.detection.adaptive import Contest, Sizes, measure
from underfire.reproductions.detection.adaptive_page import outcome
from underfire.reproductions.detection.learned_detectors import BLOCKS, with_dropout
from underfire.reproductions.registry import Outcome, Setting


def network(setting: Setting) -> Classifier:
    """Return ResNet-20 with its public weights, and with dropout before its last layer for KD+BU."""
    return with_dropout(ml_loo_cifar10.network(setting))


CONTEST = Contest(
    network=network,
    train="parquet:{root}/cifar10-train.parquet",
    test="parquet:{root}/cifar10-test.parquet",
    eps=8 / 255,
    detectors={
        "softmax": {"name": "softmax"},
        "energy": {"name": "energy"},
        "feature squeezing": {"name": "feature_squeezing", "squeezers": "cifar10"},
        "kernel density": {"name": "kernel_density"},
        "KD+BU": {"name": "kernel_density_and_uncertainty", "samples": 5},
        "Mahalanobis": {"name": "mahalanobis", "layers": BLOCKS},
        "LID": {"name": "lid", "layers": BLOCKS},
        "Deep Validation": {"name": "deep_validation", "layers": BLOCKS},
        "two interpreters": {"name": "ensemble_interpretation", "interpreters": ("gradient", "grad_cam")},
        "Deep Validation and Mahalanobis": {
            "name": "combination",
            "detectors": ({"name": "deep_validation", "layers": BLOCKS}, {"name": "mahalanobis", "layers": BLOCKS}),
        },
        "ML-LOO": {"name": "ml_loo", "layers": BLOCKS},
    },
    sizes={
        "quick": Sizes(fit=150, learned=4, choose=20, clean=8, attacked=4, steps=2),
        "default": Sizes(fit=1000, learned=100, choose=200, clean=200, attacked=50, steps=50),
        "full": Sizes(fit=10_000, learned=1000, choose=1000, clean=1000, attacked=500, steps=200),
    },
    transferred=("Mahalanobis", "LID"),
)
PUBLISHED = """Athalye, Carlini and Wagner (Obfuscated Gradients Give a False Sense of Security, ICML 2018) bring the
accuracy of a network behind LID to 5 % on CIFAR-10 at 0.031; the cell to compare is the accuracy of LID under the aware
attacker."""
_CUT = """ML-LOO is left out: an image costs it 3,073 passes. `--full` has it."""


def run(setting: Setting) -> Outcome:
    """Fit the detectors, and attack the network alone and with each of them; ML-LOO only at the full size."""
    contest, cut = CONTEST, []
    if setting.scale != "full":
        contest = replace(CONTEST, detectors={k: v for k, v in CONTEST.detectors.items() if k != "ML-LOO"})
        cut = [_CUT]
    title = "Detectors on CIFAR-10 against attackers who know them"
    source = "Athalye, Carlini and Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018"
    found = outcome(contest, setting, measure(contest, setting), title, source)
    return replace(found, notes=[*found.notes, PUBLISHED, *cut])
