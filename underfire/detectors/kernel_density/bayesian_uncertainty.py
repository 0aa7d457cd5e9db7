"""Bayesian uncertainty (Feinman et al. 2017): predictions that vary under dropout are suspicious."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from underfire.catalog import card
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import Evaluated
from underfire.detectors.kernel_density.kernel_density import PAPER
from underfire.errors import Unsupported
from underfire.hooks import readable_layers
from underfire.hooks.networks import remove_at_exit
from underfire.learning import drawn_seed
from underfire.model import Classifier
from underfire.validate import at_least

_DROPOUTS = (nn.Dropout, nn.Dropout2d)


@card("detector", name="bayesian_uncertainty", paper=PAPER, differentiable=True)
class BayesianUncertainty(Detector):
    """Score an image by how much the probabilities vary over passes with dropout.

    The score is the variance of the probability of a class over the passes, averaged over the classes. All images
    share the units that a pass drops, so that a score does not depend on the other images. Nothing is learned from
    clean images but which units are dropped.

    Args:
        samples: the number of passes; the paper takes 50.

    Raises:
        InputError: there are fewer than two passes.
    """

    def __init__(self, *, samples: int = 50, generator: Generator | None = None) -> None:
        self.samples, self.generator = samples, generator
        at_least(2, samples=samples)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options; a file needs no generator, since the fit has drawn from it."""
        return {"samples": self.samples}

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        if not _dropouts(model):
            raise Unsupported(f"{self.name} needs a network with a layer nn.Dropout above 0, this one has none")
        return {"seed": torch.tensor(drawn_seed(self.generator))}

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        return uncertainty(model, inputs.x, self.samples, int(learned["seed"]))


def uncertainty(model: Classifier, x: Tensor, samples: int, seed: int) -> Tensor:
    """Return the variance of the probabilities over passes with dropout, averaged over the classes, `[B]`."""
    with random_dropout(model, torch.Generator().manual_seed(seed)):
        probabilities = torch.stack([model(x).softmax(1) for _ in range(samples)])
    return probabilities.var(0, correction=0).mean(1)


def _dropouts(model: nn.Module) -> list[nn.Module]:
    return [module for _, module in readable_layers(model) if isinstance(module, _DROPOUTS) and 0 < module.p < 1]


@contextmanager
def random_dropout(model: nn.Module, generator: Generator) -> Iterator[None]:
    """Let the dropout layers of a model drop units inside the block, though the model is in evaluation mode.

    A pass drops the same units of all images; a layer that drops whole maps still does.
    """

    def drop(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> Tensor:
        x: Tensor = inputs[0]
        assert isinstance(module, _DROPOUTS)
        shape = (1, *x.shape[1:2], *[1] * (x.dim() - 2)) if isinstance(module, nn.Dropout2d) else (1, *x.shape[1:])
        kept = torch.rand(shape, generator=generator, dtype=torch.float64) >= module.p
        return x * kept.to(x) / (1 - module.p)

    with ExitStack() as stack:
        for module in _dropouts(model):
            stack.enter_context(remove_at_exit(module.register_forward_hook(drop)))
        yield
