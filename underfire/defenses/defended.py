"""A classifier behind a defence: the two forms of its gradient, and the generator of its random draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from underfire.catalog import DefenseFacts, card_of, facts_of
from underfire.errors import ModelError, Unsupported
from underfire.model import Classifier, measured, model_errors

Transform = Callable[[Tensor, Generator], Tensor]
"""A function `(x, generator) -> x'` of images `[B, C, H, W]` whose gradient is its own or that of its BPDA rule."""


class Defense(nn.Module):
    """The network of a defended classifier: a defence with the classifiers behind it. A subclass defines `answer`.

    Args:
        undefended: the classifier behind the defence; of several, the one that was given to the defence.
        method: the function of the catalogue that makes the defence; its card gives the name and the facts.
        generator: source of the random draws; None is a generator of the defence's own, with a fixed seed.
        samples: number of draws over which the defence itself averages.

    Attributes:
        bpda: whether the gradient of the BPDA rule is passed, where a step of the defence has no gradient.
        samples: number of draws over whose probabilities a pass averages, if a step is random.
    """

    bpda = False

    def __init__(
        self,
        undefended: Classifier,
        method: Callable[..., Any],
        generator: Generator | None = None,
        *,
        samples: int = 1,
    ) -> None:
        super().__init__()
        card = card_of(method)
        self.name = card.name if card else method.__name__
        self.facts = facts_of(method, DefenseFacts())
        # defences inside one another must not draw the same numbers
        self.generator, self.seed = generator, len(defenses_in(undefended))
        self.undefended, self.samples = undefended, samples

    def answer(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the logits `[B, K]` for one random draw for each image of `x` `[B, C, H, W]`."""
        raise NotImplementedError

    def passed(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return `function(x)`, a step of the defence whose gradient is true only if the card says so.

        The gradient is that of `function` if it is true, or if BPDA is allowed. Otherwise a backward pass raises.
        """
        if self.bpda or self.facts.differentiable or not (x.requires_grad and torch.is_grad_enabled()):
            return function(x)
        with torch.no_grad():
            value = function(x)
        refused: Tensor = _Refused.apply(x, value, self.name)
        return refused

    def draws(self, device: torch.device) -> Generator:
        """Return the generator of the next draws; without one of the user it is on `device`."""
        if measured():  # a pass that is made once, and not again in a later call
            return Generator(device).manual_seed(self.seed)
        if self.generator is None:
            self.generator = Generator(device).manual_seed(self.seed)
        return self.generator

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`; after several draws, they are the logarithm of the mean probabilities."""
        if self.samples == 1 or not any(part.facts.random for part in defenses_in(self)):
            return self.answer(x, self.draws(x.device))
        generator = self.draws(x.device)
        # one pass for each draw, so that layers that are read inside hold one value for each image
        return mean_probability(torch.stack([self.answer(x, generator) for _ in range(self.samples)]))

    def variant(self, **changes: Any) -> Self:
        """Return a copy with other attributes, which shares the weights and has a generator of its own."""
        new = copy(self)
        new._modules = dict(self._modules)
        for name, value in {"generator": None, **changes}.items():
            setattr(new, name, value)
        return new


class _Refused(torch.autograd.Function):
    """A value whose backward pass raises Unsupported."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, name: str) -> Tensor:
        ctx.name = name
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None, None]:
        raise Unsupported(
            f"the defence {ctx.name!r} has no useful gradient; attack through it with "
            "underfire.defenses.through(model), which replaces the gradient (BPDA), or use a black-box attack"
        )


class Preprocessing(Defense):
    """A defence that changes the images before one classifier sees them.

    Args:
        undefended: the classifier behind the defence.
        transform: changes the images; it may change their size.
        method: as for `Defense`.
        generator: as for `Defense`.
        samples: as for `Defense`.

    Attributes:
        changes_images: that the classifier behind the defence gets other images, perhaps of another size.
    """

    changes_images = True

    def __init__(
        self,
        undefended: Classifier,
        transform: Transform,
        method: Callable[..., Any],
        generator: Generator | None = None,
        *,
        samples: int = 1,
    ) -> None:
        super().__init__(undefended, method, generator, samples=samples)
        self.transform = transform

    @property
    def wrapped(self) -> nn.Module:
        """The classifier behind the defence, whose layers are the layers of the defended one."""
        return self.undefended

    def answer(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the logits of the transformed images."""
        z = self.passed(lambda x: self.transform(x, generator), x)
        try:
            with model_errors(z):  # the message names the size that the model got
                logits: Tensor = self.undefended(z)
        except ModelError as error:
            if z.shape[2:] == x.shape[2:]:
                raise
            raise ModelError(f"{error}; the defence {self.name!r} changes the size, keep_size=True keeps it") from error
        return logits


class Defended(Classifier):
    """A classifier behind a defence.

    Two passes of a random defence differ. The sequence of passes is the same for every object that the defence makes,
    and `redraw` starts another one. The gradient is that of the defence itself: where a step has none, a backward pass
    raises Unsupported. `through` gives the form that gradient attacks need.

    Args:
        module: the defence with the classifier behind it, which gives domain and class names.
    """

    module: Defense

    def __init__(self, module: Defense) -> None:
        behind = module.undefended
        # probabilities are noticed here too, unless the classifier behind the defence knows how to read them
        output = None if behind.output is None else "logits"
        super().__init__(module, labels=behind.labels, domain=behind.domain, output=output, size=behind.size)

    @property
    def undefended(self) -> Classifier:
        """The classifier behind the defence, which may be defended itself."""
        return self.module.undefended

    @property
    def random(self) -> bool:
        """Return whether two passes differ."""
        return any(part.facts.random for part in defenses_in(self))

    @property
    def differentiable(self) -> bool:
        """Return whether a backward pass gives a gradient."""
        return all(part.facts.differentiable or part.bpda for part in defenses_in(self))

    @property
    def defenses(self) -> tuple[str, ...]:
        """The names of the defences, beginning with the one that sees the images first."""
        return tuple(part.name for part in defenses_in(self))

    def _example(self) -> Tensor | None:
        """Return None: the images keep their dtype, and the classifiers behind the defence cast them."""
        return None

    def redraw(self, seed: int = 0) -> Self:
        """Start the random draws again, from a seed, and return the classifier.

        Equal seeds give equal passes, on one device. A generator that was passed to the defence is no longer used.
        """
        parts = defenses_in(self)
        seeds = torch.randint(2**62, (len(parts),), generator=Generator().manual_seed(seed)).tolist()
        for part, own in zip(parts, seeds, strict=True):
            part.generator, part.seed = None, own
        return self


def defenses_in(model: nn.Module) -> list[Defense]:
    """Return the defences of a model, from the one that sees the images first."""
    return [module for module in model.modules() if isinstance(module, Defense)]


def defended(
    undefended: Classifier,
    transform: Transform,
    method: Callable[..., Any],
    generator: Generator | None = None,
    *,
    samples: int = 1,
) -> Defended:
    """Return the classifier behind a transformation of its images; the arguments are those of `Preprocessing`."""
    return Defended(Preprocessing(undefended, transform, method, generator, samples=samples))


def mean_probability(logits: Tensor) -> Tensor:
    """Return the logarithm of the mean probabilities `[B, K]` of several answers `[n, B, K]`."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


def uniform(generator: Generator, like: Tensor, *shape: int) -> Tensor:
    """Return random numbers in `[0, 1)` of the given shape, with the dtype and device of `like`."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def normal(generator: Generator, like: Tensor) -> Tensor:
    """Return standard normal numbers shaped like a tensor, with its dtype and device."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
