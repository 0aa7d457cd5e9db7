"""Attack every detector on MNIST with and without knowledge of it."""

from __future__ import annotations

from underfire.reproductions.detection.adaptive import Contest, Sizes, measure
from underfire.reproductions.detection.adaptive_page import outcome
from underfire.reproductions.detection.mnist_network import network
from underfire.reproductions.registry import Outcome, Setting

CONTEST = Contest(
    network=network,
    train="mnist:{root}/mnist?split=train",
    test="mnist:{root}/mnist?split=test",
    eps=0.2,
    detectors={
        "softmax": {"name": "softmax"},
        "energy": {"name": "energy"},
        "feature squeezing": {"name": "feature_squeezing", "squeezers": "mnist"},
        "kernel density": {"name": "kernel_density"},
        "Bayesian uncertainty": {"name": "bayesian_uncertainty", "samples": 10},
        "KD+BU": {"name": "kernel_density_and_uncertainty", "samples": 10},
        "Mahalanobis": {"name": "mahalanobis"},
        "LID": {"name": "lid"},
        "Deep Validation": {"name": "deep_validation", "pooling": "mean_4"},
        "two interpreters": {"name": "ensemble_interpretation", "interpreters": ("gradient", "grad_cam")},
        "Deep Validation and squeezing": {
            "name": "combination",
            "detectors": (
                {"name": "deep_validation", "pooling": "mean_4"},
                {"name": "feature_squeezing", "squeezers": "mnist"},
            ),
        },
        "ML-LOO": {"name": "ml_loo"},
    },
    sizes={
        "quick": Sizes(fit=150, learned=6, choose=20, clean=8, attacked=4, steps=3),
        "default": Sizes(fit=1000, learned=100, choose=200, clean=200, attacked=100, steps=50),
        "full": Sizes(fit=10_000, learned=1000, choose=2000, clean=2000, attacked=1000, steps=200),
    },
    transferred=("Mahalanobis", "LID"),
)


def run(setting: Setting) -> Outcome:
    """Train the network if it is missing, fit the detectors, and attack the network alone and with each of them."""
    title = "Detectors on MNIST against attackers who know them"
    source = "none for this table; for CIFAR-10, see `detectors-adaptive-cifar10`"
    return outcome(CONTEST, setting, measure(CONTEST, setting), title, source)
