"""Training of substitutes: networks trained on an oracle's answers (Papernot et al., AsiaCCS 2017, and 2016).

Papernot, McDaniel, Goodfellow, Jha, Celik and Swami: Practical Black-Box Attacks against Machine Learning, AsiaCCS
2017; Papernot, McDaniel and Goodfellow: Transferability in Machine Learning: from Phenomena to Black-Box Attacks using
Adversarial Samples, 2016 (the periodic change of the sign of the step, and reservoir sampling).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire import learning
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.errors import DataError, InputError, ModelError, Unsupported, nearest
from underfire.gradients.classes import logit_gradients
from underfire.hooks import frozen
from underfire.learning import Shuffled
from underfire.model import Classifier, Oracle
from underfire.validate import at_least_one, default_generator

Architecture = str | Callable[[], nn.Module]


@dataclass(frozen=True)
class Labelled:
    """Hold the results that were learned of an oracle before it failed; an attack reports them in `OracleError.found`.

    Attributes:
        substitute: the network trained so far; None before its first training.
        x: the images that the oracle labelled, `[N, C, H, W]`.
        y: their labels, int64 `[N]`.
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
    """Train a network on an oracle's labels of some seeds, and of images made near the network's boundaries.

    In every step the network `F` is trained on all labelled images. Then a new image is made from each of them (after
    `doublings` steps, from a uniform sample of `reservoir` of them) and labelled: `x + λ sign(∂F_c(x) / ∂x)`, where `c`
    is the oracle's label of `x`. The sign of `λ` changes every `period` steps:
    `λ = step_size * (-1) ** floor(step / period)`. Without a limit, `N` seeds cost
    `N 2^doublings + reservoir (steps - doublings)` queries. Each training continues from the last weights, by Adam. The
    gradient is that of the logit (ours), because that of the probability vanishes on a confident network.

    Args:
        oracle: an `Oracle`, any model, or a callable from images to classes `[B]`.
        x: the seeds, images `[N, C, H, W]` that the attacker has, preferably some of every class.
        classes: number of classes; needed if the oracle is a callable.
        queries: number of images that the oracle may classify; the last step uses the remaining number.
        architecture: `"dnn"` (two convolutions, two linear layers), `"lr"` (logistic regression), or a callable that
            returns a module of logits.
        steps: how often new images are made.
        step_size: distance in each entry of the new images from the labelled ones, the paper's λ.
        period: number of steps after which the sign of λ changes.
        doublings: number of first steps that make a new image from every labelled one, and so double their number.
        reservoir: number of images made in each step after that.
        epochs: number of training epochs in each step.
        generator: source of the initial weights, the order of the training images, and the reservoir.

    Returns:
        The substitute, differentiable, in evaluation mode.

    Raises:
        OracleError: the oracle failed; the message says how many queries were spent, and `found` is a `Labelled`.
        InputError: an option is out of its range, or `classes` is missing. ModelError: an answer is not a class.
    """
    generator = default_generator(generator, x.device)
    if not isinstance(oracle, nn.Module):
        if classes is None:
            raise InputError("classes must be given where the oracle is a callable: it says how many there are")
        oracle = Oracle(oracle, classes)
    if len(x) == 0:
        raise DataError("a substitute needs at least one seed")
    # All queries count for the first seed, because they share one budget.
    query = Queries(oracle, x[:1], torch.zeros(1, dtype=torch.int64, device=x.device), queries)
    training = Training(query, architecture, steps, step_size, period, doublings, reservoir, epochs, generator)
    with frozen(oracle):
        return training.run(x)


def drawn(count: int, size: int, generator: Generator | None = None, device: torch.device | None = None) -> Tensor:
    """Return which `size` of `count` items reservoir sampling keeps, int64 `[min(count, size)]`.

    The first `size` items fill the reservoir; item `i` after them draws a place from 0 to `i`, and takes it if the
    reservoir has that place. Here all items draw at once, and the last item that takes a place keeps it.
    """
    kept = torch.arange(min(count, size), device=device)
    if count <= size:
        return kept
    later = torch.arange(size, count, device=device)
    place = (torch.rand(len(later), generator=generator, device=device, dtype=torch.float32) * (later + 1)).long()
    taken = place < size
    return kept.scatter_reduce(0, place[taken], later[taken], "amax")


@dataclass
class Training:
    """One training of a substitute: the options of `train_substitute`, and the queries."""

    query: Queries
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
        """Return the substitute trained from the seeds `x`, of which as many are used as there are queries."""
        known = Labelled(None, x[:0], torch.empty(0, dtype=torch.int64, device=x.device))
        with attach_partial_result(lambda: known):
            # label the seeds, and make a network of as many classes
            s = x[: int(self.query.left.sum())]
            logits = self._query_oracle(s)
            known = Labelled(None, s, logits.argmax(1))
            f = Classifier(built(self.architecture, s.shape[1:], logits.shape[1], self.generator).to(s)).eval()
            if (width := f(s[:1]).shape[1]) != logits.shape[1]:
                raise ModelError(f"the architecture has {width} outputs, but the model has {logits.shape[1]} classes")
            rate = 1e-2 if self.architecture == "lr" else 1e-3
            for rho in range(self.steps + 1):
                # train on all labelled images
                fit(f, known.x, known.y, self.epochs, self.generator, rate)
                known = Labelled(f, known.x, known.y)
                # number of new images: as the schedule says, or as the queries allow
                room = min(int(self.query.left.sum()), len(known.x) if rho < self.doublings else self.reservoir)
                if rho == self.steps or room == 0:
                    break
                # make new images from them, and label these
                chosen = drawn(len(known.x), room, self.generator, x.device)
                s = self._augmented(f, known.x[chosen], known.y[chosen], rho, logits.shape[1])
                labels = self._query_oracle(s).argmax(1)
                known = Labelled(f, torch.cat((known.x, s)), torch.cat((known.y, labels)))
        return f

    def _query_oracle(self, x: Tensor) -> Tensor:
        """Return the model's logits; each image is charged to the first sample that has queries left."""
        last = self.query.left.cumsum(0)
        whose = torch.searchsorted(last, torch.arange(len(x), device=x.device), right=True)
        return self.query(x, whose)

    def _augmented(self, f: Classifier, x: Tensor, y: Tensor, rho: int, classes: int) -> Tensor:
        """Return new images: `x` moved along the sign of the gradient of the network's logit for `y`."""
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
    """Train `f` on images and labels by Adam from its present weights, in batches of 64."""
    batches = Shuffled((x, y), 64)
    learning.fit(
        f,
        torch.optim.Adam(f.parameters(), rate),
        batches,
        lambda batch, _: F.cross_entropy(f(batch[0]), batch[1]),
        steps=epochs * batches.per_epoch,
        generator=default_generator(generator, x.device),
    )


def built(architecture: Architecture, shape: torch.Size, classes: int, generator: Generator | None) -> nn.Module:
    """Return a network of this architecture for images of `shape` `[C, H, W]`, with weights drawn from `generator`."""
    if callable(architecture):
        return architecture()
    size = shape.numel()
    # The meta device creates the layers without drawing weights from the global generator.
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
    generator = default_generator(generator)
    net = net.to(torch.float32).to_empty(device=generator.device)
    for parameter in net.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return net
