"""Run every interpreter that gives a map on the same images, for figures that show them side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from underfire.catalog import Card, cards
from underfire.errors import UnderfireError, Unsupported

FAMILIES = ("back-propagation", "representation", "perturbation", "model-guided")
MOST_PIXELS = 10_000  # largest image for a method that sends one variant through the model for each pixel


def map_cards() -> list[Card]:
    """Return the cards of the interpreters that give maps, sorted by family and name."""
    maps = [card for card in cards("interpreter") if card.facts.gives == "map"]
    place: dict[Any, int] = {family: number for number, family in enumerate(FAMILIES)}
    return sorted(maps, key=lambda card: (place.get(card.facts.family, len(place)), card.name))


def refuse_large(card: Card, x: Tensor) -> None:
    """Raise Unsupported if the method needs one pass for each pixel and an image has more than `MOST_PIXELS`."""
    pixels = x.shape[2] * x.shape[3]
    if card.facts.per_pixel and pixels > MOST_PIXELS:
        reason = (
            f"needs a forward pass for each of the {pixels} pixels of an image, and at most {MOST_PIXELS} are allowed"
        )
        raise Unsupported(f"{card.name} {reason}; use occlusion, which removes patches, or smaller images")


def run_all_interpreters(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    only: Collection[str] = (),
) -> Iterator[tuple[Card, Tensor | UnderfireError]]:
    """Yield each interpreter's card with its map `[B, 1, h, w]`, or with the error that it raises for this model.

    Args:
        options: options that differ from the defaults, by the name of the interpreter.
        only: the names of the interpreters to run; empty runs all.
    """
    for card in map_cards():
        if only and card.name not in only:
            continue
        try:
            refuse_large(card, x)
            yield card, card.with_options(**(options or {}).get(card.name, {}))(model, x, y).detach()
        except UnderfireError as error:
            yield card, error
