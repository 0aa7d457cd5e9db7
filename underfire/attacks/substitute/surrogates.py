"""Substitutes: networks trained on an oracle's answers (Papernot et al., AsiaCCS 2017, and the refinements of 2016).

Papernot, McDaniel, Goodfellow, Jha, Celik and Swami: Practical Black-Box Attacks against Machine Learning, AsiaCCS
2017; Papernot, McDaniel and Goodfellow: Transferability in Machine Learning: from Phenomena to Black-Box Attacks using
Adversarial Samples, 2016 (the periodical step size, and reservoir sampling).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.queries import Queries, attach_partial_result
from underfire.errors import DataError, InputError, ModelError, Unsupported, nearest
from underfire.gradients.classes import logit_gradients
from underfire.hooks import frozen
from underfire.model import Classifier, Oracle
from underfire.validate import at_least_one

Architecture = str | Callable[[], nn.Module]


@dataclass(frozen=True)
class Labelled:
    """What was learned of an oracle by the time it failed; `OracleError.found` of an attack by a substitute.

    Attributes:
        substitute: the network trained so far; None before its first training.
        x: the images that the oracle named, `[N, C, H, W]`.
        y: what it named them, int64 `[N]`.
    """

    substitute: Classifier | None
    x: Tensor
    y: Tensor


def train_substitute(
    oracle: nn.Module | Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    classes: int | None = None,
    queries: int = 10_000,
    architecture: Architecture = "dnn",
    steps: int = 6,
    step_size: float = 0.1,
    period: int = 3,
    doublings: int = 3,
    reservoir: int = 400,
    epochs: int = 10,
    generator: Generator | None = None,
) -> Classifier:
    """A network trained on what an oracle calls the seeds, and images made of them near the network's boundaries.

    In every step the network is trained on all labelled images, and of each (after `doublings` steps, of a uniform
    sample of `reservoir`) a new image is made for the oracle to label, `x + λ sign(∂F_c(x) / ∂x)` with `c` what the
    oracle calls `x`. The sign of `λ` changes every `period` steps: `λ = step_size * (-1) ** floor(step / period)`.
    Without a limit, that is `N 2^doublings + reservoir (steps - doublings)` queries. Training goes on from the last
    weights, by Adam; the gradient is that of the logit, not of the probability, which vanishes on a confident network
    (ours).

    Args:
        oracle: an `Oracle`, any model, or a callable from images to classes `[B]`.
        x: the seeds, images `[N, C, H, W]` that the attacker has, at best some of every class.
        classes: how many there are, where the oracle is a mere callable.
        queries: how many images the oracle may be asked about in all; the last step takes what is left.
        architecture: `"dnn"` (two convolutions, two linear layers), `"lr"` (logistic regression), or a callable that
            makes a module of logits.
        steps: how often new images are made.
        step_size: how far their pixels are moved, the paper's λ.
        period: after how many steps they are moved the other way.
        doublings: the first steps, which make an image of every labelled one and so double their number.
        reservoir: how many images are made in each step after that.
        epochs: of training, in each step.

    Returns:
        The substitute, differentiable, in evaluation mode.

    Raises:
        OracleError: the oracle failed; the message says how many queries were spent, and `found` is a `Labelled`.
        InputError: an argument is out of its range, or `classes` is missing. ModelError: an answer is no class.
    """
    if not isinstance(oracle, nn.Module):
        if classes is None:
            raise InputError("classes must be given where the oracle is a callable: it says how many there are")
        oracle = Oracle(oracle, classes)
    if len(x) == 0:
        raise DataError("a substitute needs at least one seed")
    # The seeds share one budget; whose query one is does not matter.
    asked = Queries(oracle, x[:1], torch.zeros(1, dtype=torch.int64, device=x.device), queries)
    training = Training(asked, architecture, steps, step_size, period, doublings, reservoir, epochs, generator)
    with frozen(oracle):
        return training.run(x)


def drawn(count: int, size: int, generator: Generator | None = None, device: torch.device | None = None) -> Tensor:
    """Which `size` of `count` items a reservoir holds at the end, int64 `[min(count, size)]`.

    The first `size` fill it; item `i` after them draws a place from 0 to `i`, and takes it where it is in the
    reservoir. Here all draw at once, and the last to take a place has it.
    """
    kept = torch.arange(min(count, size), device=device)
    if count <= size:
        return kept
    later = torch.arange(size, count, device=device)
    place = (torch.rand(len(later), generator=generator, device=device) * (later + 1)).long()
    taken = place < size
    return kept.scatter_reduce(0, place[taken], later[taken], "amax")


@dataclass
class Training:
    """How a substitute is trained; see `train_substitute`."""

    asked: Queries
    architecture: Architecture
    steps: int
    step_size: float
    period: int
    doublings: int
    reservoir: int
    epochs: int
    generator: Generator | None

    def __post_init__(self) -> None:
        at_least_one(steps=self.steps, period=self.period, reservoir=self.reservoir, epochs=self.epochs)
        if self.doublings < 0 or not 0 < self.step_size <= 1:
            raise InputError(
                f"doublings must be at least 0 and step_size in (0, 1], got {self.doublings} and {self.step_size}"
            )
        if isinstance(self.architecture, str) and self.architecture not in ("dnn", "lr"):
            raise Unsupported(
                f"unknown architecture {self.architecture!r}; {nearest(self.architecture, ('dnn', 'lr'))}"
            )

    def run(self, x: Tensor) -> Classifier:
        """The substitute trained from the seeds `x`, of which the budget may not allow all."""
        known = Labelled(None, x[:0], torch.empty(0, dtype=torch.int64, device=x.device))
        with attach_partial_result(lambda: known):
            s = x[: int(self.asked.left.sum())]
            logits = self._ask(s)
            known = Labelled(None, s, logits.argmax(1))
            f = Classifier(built(self.architecture, s.shape[1:], logits.shape[1], self.generator).to(s)).eval()
            if (width := f(s[:1]).shape[1]) != logits.shape[1]:
                raise ModelError(f"the architecture has {width} outputs, but the model has {logits.shape[1]} classes")
            rate = 1e-2 if self.architecture == "lr" else 1e-3
            for rho in range(self.steps + 1):
                fit(f, known.x, known.y, self.epochs, self.generator, rate)
                known = Labelled(f, known.x, known.y)
                room = min(int(self.asked.left.sum()), len(known.x) if rho < self.doublings else self.reservoir)
                if rho == self.steps or room == 0:
                    break
                chosen = drawn(len(known.x), room, self.generator, x.device)
                s = self._augmented(f, known.x[chosen], known.y[chosen], rho, logits.shape[1])
                labels = self._ask(s).argmax(1)
                known = Labelled(f, torch.cat((known.x, s)), torch.cat((known.y, labels)))
        return f

    def _ask(self, x: Tensor) -> Tensor:
        """The model's logits; every image is charged to the first sample that may still ask."""
        last = self.asked.left.cumsum(0)
        whose = torch.searchsorted(last, torch.arange(len(x), device=x.device), right=True)
        return self.asked(x, whose)

    def _augmented(self, f: Classifier, x: Tensor, y: Tensor, rho: int, classes: int) -> Tensor:
        step = self.step_size * (-1) ** (rho // self.period)
        with frozen(f):
            parts = [
                logit_gradients(f, part, F.one_hot(own, classes).to(x))[1]
                for part, own in zip(x.split(512), y.split(512), strict=True)
            ]
        return (x + step * torch.cat(parts).sign()).clamp(0, 1)


def fit(
    f: nn.Module, x: Tensor, y: Tensor, epochs: int, generator: Generator | None = None, rate: float = 1e-3
) -> None:
    """Train on images and labels by Adam, 64 images at a time; the weights go on from where they are."""
    optimiser = torch.optim.Adam(f.parameters(), rate)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator, device=x.device).split(64):
                optimiser.zero_grad()
                F.cross_entropy(f(x[rows]), y[rows]).backward()
                optimiser.step()
    optimiser.zero_grad()


def built(architecture: Architecture, shape: torch.Size, classes: int, generator: Generator | None) -> nn.Module:
    """A network of this architecture for images `[C, H, W]`, its weights drawn from the generator alone."""
    if callable(architecture):
        return architecture()
    size = shape.numel()
    # On the meta device nothing is drawn: the first weights come from the generator alone.
    with torch.device("meta"):
        if architecture == "lr":
            net = nn.Sequential(nn.Flatten(), nn.Linear(size, classes))
        else:
            cells = min(4, *shape[1:])
            net = nn.Sequential(
                nn.Conv2d(shape[0], 32, 5, stride=2, padding=2),
                nn.ReLU(),
                nn.Conv2d(32, 64, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveMaxPool2d(cells),
                nn.Flatten(),
                nn.Linear(64 * cells**2, 200),
                nn.ReLU(),
                nn.Linear(200, classes),
            )
    device = generator.device if generator is not None else torch.get_default_device()
    net = net.to_empty(device=device)
    for parameter in net.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return net
