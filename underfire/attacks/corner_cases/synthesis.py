"""Synthesis of corner cases: the strength at which a model errs often enough, and the images at that strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from underfire.attacks.corner_cases.transformations import Draws, Transformation, draws_for, transformations
from underfire.domains import check_inputs, domain_of
from underfire.errors import DataError, InputError
from underfire.hooks import frozen
from underfire.measures.statistics import rate
from underfire.records import Batch, Interval
from underfire.validate import at_least_one, check_number

_named = transformations


@dataclass(frozen=True)
class Strength:
    """The result of the search for the strength of a transformation.

    Attributes:
        transformation: the transformation.
        value: the smallest strength tried at which the model errs on the wanted share; None if there is none.
        setting: that strength in the units of the transformation, in words; empty if there is none.
        errors: the share of images that the model gets wrong, by strength, for every strength tried.
    """

    transformation: Transformation
    value: float | None
    setting: str
    errors: dict[float, Interval]


@dataclass(frozen=True)
class CornerCases:
    """The corner cases of one transformation; all of them are images that the model classifies correctly unchanged.

    Attributes:
        strength: the strength that they have.
        successful: the transformed images that the model gets wrong (SCC); a detector should flag them.
        failed: the transformed images that it still gets right (FCC).
    """

    strength: Strength
    successful: Batch
    failed: Batch


def search_strength(
    model: nn.Module,
    batch: Batch,
    transformation: str,
    *,
    error_rate: float = 0.6,
    strengths: int = 20,
    eps: float = 1.0,
    chunk: int = 256,
    generator: Generator | None = None,
) -> Strength:
    """Search the smallest strength of a transformation at which the model errs on a chosen share of the images.

    Only images count that the model classifies correctly without a change. The strengths are tried from mild to strong,
    evenly spaced up to `eps`, several in one pass. The paper searches the parameters of its transformations until most
    images are misclassified (over 65.8 % in all); which share it requires of each is not stated, and 60 % is our
    choice. A transformation that does not reach it within its range is left out, as the paper leaves out brightness and
    contrast on MNIST.

    Args:
        model: maps images `[B, C, H, W]` to logits `[B, K]`.
        batch: images with their labels.
        transformation: a name as `corner_cases` takes it; its range must keep the label.
        error_rate: the share of the images, in (0, 1].
        strengths: number of strengths.
        eps: the largest strength, as a share of the range of the transformation.
        chunk: number of images that go through the model at once.
        generator: source of the noise and the fog; None uses a fixed seed.

    Raises:
        InputError: the transformation is unknown, or a number is out of its range. DataError: the model classifies no
            image correctly.
    """
    (chosen,) = _named((transformation,))
    right = _right(model, batch, chunk)
    return _search(model, right, chosen, draws_for([chosen], right.x, generator), error_rate, strengths, eps, chunk)


def synthesise(
    model: nn.Module,
    batch: Batch,
    transformations: str | Sequence[str] = "deep_validation",
    *,
    searched: Batch | None = None,
    error_rate: float = 0.6,
    strengths: int = 20,
    eps: float = 1.0,
    chunk: int = 256,
    generator: Generator | None = None,
) -> tuple[CornerCases, ...]:
    """Return the corner cases of several transformations, those that fool the model apart from those that do not.

    Each transformation has the strength that `search_strength` finds; its arguments are explained there. One that does
    not reach the error rate has no images. The name of an image is that of the unchanged one and the transformation,
    such as `seven/rotation`.

    Args:
        model: as for `search_strength`.
        batch: the images that are transformed, with their labels.
        transformations: names or a set, as `corner_cases` takes them; their ranges must keep the label.
        searched: other images, on which the strengths are searched; None searches them on `batch` itself.
        error_rate: as for `search_strength`, and so are the arguments after it.

    Raises:
        InputError: a transformation is unknown, or a number is out of its range. DataError: the model classifies no
            image correctly.
    """
    chosen = _named(transformations)
    right, found = _right(model, batch, chunk), []
    draws = draws_for(chosen, right.x, generator)
    others, theirs = right, draws
    if searched is not None:
        others = _right(model, searched, chunk)
        theirs = draws_for(chosen, others.x, generator)
    for one in chosen:
        strength = _search(model, others, one, theirs, error_rate, strengths, eps, chunk)
        if strength.value is None:
            nothing = right.take(torch.arange(0))
            found.append(CornerCases(strength, nothing, nothing))
            continue
        at = torch.full((len(right),), strength.value, dtype=right.x.dtype, device=right.x.device)
        changed = Batch(one.apply(right.x, at, draws), right.y, tuple(f"{name}/{one.name}" for name in right.ids))
        wrong = _predicted(model, changed.x, chunk) != right.y
        found.append(CornerCases(strength, *(changed.take(w.nonzero().squeeze(1)) for w in (wrong, ~wrong))))
    return tuple(found)


def _search(
    model: nn.Module,
    right: Batch,
    chosen: Transformation,
    draws: Draws,
    error_rate: float,
    strengths: int,
    eps: float,
    chunk: int,
) -> Strength:
    at_least_one(strengths=strengths, chunk=chunk)
    check_number(error_rate=error_rate, eps=eps)
    if not (0 < error_rate <= 1 and 0 < eps <= 1):
        raise InputError(f"error_rate and eps must be in (0, 1], got {error_rate} and {eps}")
    values = [eps * (k + 1) / strengths for k in range(strengths)]
    width, errors = max(1, chunk // len(right)), dict[float, Interval]()
    for first in range(0, strengths, width):
        # evaluate the next strengths on all images
        tried = values[first : first + width]
        owner = torch.arange(len(right), device=right.x.device).repeat(len(tried))
        at = right.x.new_tensor(tried).repeat_interleave(len(right))
        wrong = [
            _predicted(model, chosen.apply(right.x[rows], at[part], draws.take(rows)), chunk) != right.y[rows]
            for part, rows in zip(torch.arange(len(at)).split(chunk), owner.split(chunk), strict=True)
        ]
        for strength, share in zip(tried, torch.cat(wrong).view(len(tried), -1), strict=True):
            errors[strength] = rate(share)
            # stop at the first one that is strong enough
            if errors[strength].value >= error_rate:
                return Strength(chosen, strength, chosen.at(strength), errors)
    return Strength(chosen, None, "", errors)


def _right(model: nn.Module, batch: Batch, chunk: int) -> Batch:
    """Return the images that the model classifies correctly."""
    domain_of(model).require_images("corner cases")
    check_inputs(model, batch.x, batch.y)
    at_least_one(chunk=chunk)
    if not len(batch):
        raise DataError("corner cases need images, got an empty batch")
    right = (_predicted(model, batch.x, chunk) == batch.y).nonzero().squeeze(1)
    if not len(right):
        raise DataError(f"the model classifies none of the {len(batch)} images correctly, so that none can be changed")
    return batch.take(right)


def _predicted(model: nn.Module, x: Tensor, chunk: int) -> Tensor:
    with frozen(model), torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(chunk)])
