"""The classifier under test: a module that maps inputs to logits, with its normalisation and class names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.domains import IMAGES, Domain, domain_of
from underfire.errors import ModelError, Unsupported
from underfire.model import sessions
from underfire.model.answers import logits_in, sums_to_one


@dataclass
class Count:
    """The number of images that passed forward and backward through a classifier."""

    forwards: int = 0
    backwards: int = 0


class Classifier(nn.Module):
    """Map images `[B, C, H, W]` in `[0, 1]`, or inputs of another domain, to logits.

    The classifier normalises the images itself, so that perturbations are measured on images in `[0, 1]`. The wrapped
    module is not changed and keeps its device and dtype; images are cast to its dtype. A module whose weights were made
    in inference mode is copied.

    The module may answer with logits `[B, K]`, with a tuple, a mapping or an object that holds them, with one number
    per image, or with probabilities; `output` says which, where it cannot be seen.

    Args:
        module: maps normalised images to logits `[B, K]`.
        mean: subtracted from every channel, a number or one per channel, in units of the image.
        std: divides every channel after that.
        labels: names of the `K` classes; None if they are not known.
        domain: the kind of input that the module takes; images `[B, C, H, W]` in `[0, 1]` if not given.
        output: how the logits are read. None: a tensor is the logits, and of several things the entry `logits` or the
            only one that can be. `"logits"`: the same, and rows that sum to 1 are logits too. `"binary"`: one number is
            the logit of class 1 of two. `"probabilities"`: the logits are their logarithm. Another word is the key of a
            mapping or the attribute of an object, a number the position in a tuple.
        size: height and width of the images that the module was made for; None if not known.

    Raises:
        ModelError: `std` is not positive; or, on a call, the module's output does not hold `[B, K]` with the expected
            `K`, or `mean` and `std` have another number of channels than the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        labels: Sequence[str] | None = None,
        domain: Domain = IMAGES,
        output: str | int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
            with torch.inference_mode(False):  # a tensor made in inference mode could never take part in a gradient
                module = deepcopy(module)
        self.module, self.domain, self.output, self.size = module, domain, output, size
        self.training = getattr(module, "training", False)  # a frozen network of TorchScript has no mode
        self.labels = tuple(labels) if labels is not None else None
        like = next(module.parameters(), None)
        device = like.device if like is not None else None
        channel = (-1, *[1] * (domain.ndim - 2))
        with torch.inference_mode(False):
            shift, scale = (torch.tensor(v, dtype=torch.float32, device=device).reshape(channel) for v in (mean, std))
        if not bool((scale > 0).all()):
            raise ModelError(f"std must be positive in every channel, got {std}")
        self.register_buffer("mean", shift, persistent=False)
        self.register_buffer("std", scale, persistent=False)
        self._plain = bool((shift == 0).all() and (scale == 1).all())
        self._counts: list[Count] = []
        self._probabilities_checked = output is not None

    @property
    def wrapped(self) -> nn.Module:
        """Return the module that was wrapped."""
        return self.module

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`, in the dtype of `x`; `x` is never changed."""
        session = sessions.current(self.module)
        if session is not None:
            session.check_gradient(self.answer)
        logits = self.answer(x, session)
        if self._counts:
            self._count(logits)
        return logits.to(x.dtype)

    def answer(self, x: Tensor, session: sessions.Session | None = None) -> Tensor:
        """Return logits `[B, K]`, in the dtype of the module, without counting the pass.

        Args:
            x: inputs `[B, ...]`.
            session: the session that watches this use of the model; None if there is none.
        """
        # normalise, cast and call the module on a copy, because the module may write into its input
        if max(len(self.mean), len(self.std)) not in (1, x.shape[1]):
            raise ModelError(
                f"mean and std have {max(len(self.mean), len(self.std))} channels but the inputs {x.shape[1]}"
            )
        parameter = self._example()
        try:
            own = x.clone() if self._plain else (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
            if parameter is not None and parameter.dtype != own.dtype:
                own = own.to(parameter.dtype)
            differentiated = own.requires_grad
            if session is not None and differentiated:
                session.watch(own)
            answer = self.module(own)
        except Exception as error:
            sessions.mark(error)
            raise
        logits = logits_in(answer, self.output, len(x))
        if logits.is_inference() and not torch.is_inference_mode_enabled():
            logits = logits.clone()
        # check the logits; the check for probabilities is made once
        if self.labels is not None and logits.shape[1] != len(self.labels):
            raise ModelError(f"the model has {logits.shape[1]} outputs but {len(self.labels)} class names were given")
        if session is not None and differentiated and not logits.requires_grad:
            raise Unsupported(sessions.NO_GRADIENT)
        unchecked = session is not None and not self._probabilities_checked
        if unchecked and (parameter is not None or logits.requires_grad):
            self._probabilities_checked = True
            if sums_to_one(logits):
                raise ModelError(
                    "the model answers with probabilities (every row sums to 1), whose gradients vanish where it is "
                    "confident; output='probabilities' takes their logarithm, output='logits' takes them as they are"
                )
        return logits

    def _example(self) -> Tensor | None:
        """Return a weight whose dtype the inputs of the module must have; None if it takes any dtype."""
        return next((p for p in self.module.parameters() if p.is_floating_point()), None)

    def _count(self, logits: Tensor) -> None:
        """Count a pass in every open `counting` block, and its backward pass when that happens."""
        size, counts = len(logits), tuple(self._counts)
        for count in counts:
            count.forwards += size
        if logits.requires_grad:

            def count_backwards(_: Tensor) -> None:
                for count in counts:
                    count.backwards += size

            logits.register_hook(count_backwards)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count the images that pass forward and backward through the classifier in a `with` block."""
        count = Count()
        self._counts.append(count)
        try:
            yield count
        finally:
            self._counts = [c for c in self._counts if c is not count]

    def count_again(self, count: Count) -> None:
        """Add passes that were made before to every open `counting` block, for a result that is used again."""
        for one in self._counts:
            one.forwards += count.forwards
            one.backwards += count.backwards

    @torch.no_grad()
    def predict(self, x: Tensor, *, chunk: int = 256, finite: bool = True) -> Tensor:
        """Return logits `[B, K]`, computed without a graph in evaluation mode, `chunk` images at a time.

        Raises:
            ModelError: the module does not take images of this shape, or with `finite` a logit is NaN or infinite.
        """
        with sessions.exclusive(self.module), sessions.model_errors(x), _evaluating(self):
            logits = torch.cat([self(part) for part in x.split(chunk)])
        if finite and not bool(torch.isfinite(logits).all()):
            bad = int((~torch.isfinite(logits).all(1)).sum())
            raise ModelError(f"the model returns NaN or infinite logits for {bad} of {len(x)} images")
        return logits

    def name_of(self, index: int) -> str:
        """Return the name of class `index`, or its number if the names are not known."""
        return self.labels[index] if self.labels is not None else str(index)


class _Function(nn.Module):
    """A module around a plain function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        """Return the output of the function."""
        return self.function(x)


def as_classifier(model: Any) -> Classifier:
    """Return a classifier as it is, and a module or a plain function with a classifier around it.

    Raises:
        ModelError: the model is none of these.
    """
    if isinstance(model, Classifier):
        return model
    if isinstance(model, nn.Module):
        return Classifier(model, domain=domain_of(model))
    if callable(model):
        return Classifier(_Function(model))
    raise ModelError(f"the model must be a module that maps images to logits, got {type(model).__name__}")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set the flag of evaluation mode inside the block; call neither `train()` nor `eval()`, which could do more."""
    modes = [(module, getattr(module, "training", False)) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
