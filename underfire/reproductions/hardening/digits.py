"""Train the small networks for MNIST that several experiments share: undefended ones and hardened ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from underfire import training
from underfire.model import Classifier
from underfire.models.architectures.small import badnet, certified_small, trades_small
from underfire.reproductions.hardening.networks import Workshop, multilayer
from underfire.reproductions.registry import Setting
from underfire.training import Plan

EPS = 0.3
PLAN = Plan(optimiser="adam", rate=2e-3, weight_decay=0.0)
TEST = "mnist:{root}/mnist?split=test"


@dataclass(frozen=True)
class Sizes:
    """The size of a run.

    Attributes:
        train: the number of training images.
        epochs: passes over them.
        images: the number of attacked test images.
        held_out: epochs of the network that only attackers know.
        steps: steps of PGD.
    """

    train: int
    epochs: float
    images: int
    held_out: float
    steps: int = 40


SIZES = {
    "quick": Sizes(256, 2, 20, 1, 2),
    "default": Sizes(60_000, 6, 1000, 2),
    "full": Sizes(60_000, 20, 10_000, 20),
}


@dataclass(frozen=True)
class Digits:
    """The networks of a run, each trained when it is first needed.

    Attributes:
        workshop: the training images, and the folder of the networks.
        sizes: the size of the run.
    """

    workshop: Workshop
    sizes: Sizes

    @classmethod
    def of(cls, setting: Setting, sizes: Sizes) -> Digits:
        """Return the networks of a run."""
        return cls(Workshop.of(setting, "mnist:{root}/mnist?split=train", sizes.train), sizes)

    @property
    def plan(self) -> Plan:
        """The plan of every training."""
        return replace(PLAN, epochs=self.sizes.epochs)

    def undefended(self) -> Classifier:
        """Return the network that the defences start from: two convolutions of stride 2 and two linear layers."""
        return self.workshop.network("mnist-small-standard", _small, training.standard, self.plan)

    def pooled(self) -> Classifier:
        """Return an undefended network with two convolutions of 5 x 5, average pooling and two linear layers."""
        return self.workshop.network("mnist-pooled-standard", partial(badnet, 1, 28), training.standard, self.plan)

    def linear(self) -> Classifier:
        """Return an undefended network of four linear layers of 300 units with dropout, model D of Tramer et al."""
        build = partial(multilayer, 784, 300, dropout=0.5)
        return self.workshop.network("mnist-linear-standard", build, training.standard, self.plan)

    def held_out(self) -> Classifier:
        """Return an undefended network that no training knows, for black-box attacks."""
        return four_convolutions(self.workshop, self.sizes.held_out)

    def single_step(self) -> Classifier:
        """Return a network that was trained on clean images and on those of FGSM (Goodfellow et al.)."""
        options = {"attack": "fgsm", "eps": EPS, "clean_weight": 0.5}
        return self.workshop.network("mnist-small-fgsm", _small, training.adversarial, self.plan, **options)

    def many_steps(self) -> Classifier:
        """Return a network that was trained on the images of PGD with 7 steps (Madry et al.)."""
        options = {"attack": "pgd", "eps": EPS, "steps": 7, "step_size": 0.1}
        return self.workshop.network("mnist-small-pgd", _small, training.adversarial, self.plan, **options)

    def ensemble(self) -> Classifier:
        """Return a network that was trained on FGSM of the two other undefended networks and of itself."""
        return self.workshop.network(
            "mnist-small-ensemble",
            _small,
            training.ensemble_adversarial,
            replace(self.plan, epochs=2 * self.sizes.epochs),
            sources=[self.pooled(), self.linear()],
            eps=EPS,
        )


def four_convolutions(workshop: Workshop, epochs: float) -> Classifier:
    """Return an undefended network with the layers of Carlini and Wagner's, with dropout."""
    plan = replace(PLAN, epochs=epochs)
    return workshop.network("mnist-cnn-standard", partial(trades_small, 0.5), training.standard, plan)


_small = partial(certified_small, 1, 28)
