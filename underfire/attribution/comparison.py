"""Every interpreter that gives a map on the same images, for figures that set them side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from underfire.catalog import Card, cards
from underfire.errors import UnderfireError, Unsupported

FAMILIES = ("back-propagation", "representation", "perturbation", "model-guided")
MOST_PIXELS = 10_000  # of an image, for a method that asks once for each of them


def map_cards() -> list[Card]:
    """The interpreters of the catalogue that give maps, sorted by family and name."""
    maps = [card for card in cards("interpreter") if card.facts.gives == "map"]
    place: dict[Any, int] = {family: number for number, family in enumerate(FAMILIES)}
    return sorted(maps, key=lambda card: (place.get(card.facts.family, len(place)), card.name))


def refuse_large(card: Card, x: Tensor) -> None:
    """Raise Unsupported where a comparison of all would wait for one method that asks once for every pixel."""
    pixels = x.shape[2] * x.shape[3]
    if card.facts.per_pixel and pixels > MOST_PIXELS:
        raise Unsupported(f"it asks once for each of the {pixels} pixels of an image; occlusion asks for patches")


def run_all_interpreters(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    only: Collection[str] = (),
) -> Iterator[tuple[Card, Tensor | UnderfireError]]:
    """The maps `[B, 1, h, w]` of one interpreter after the other, or why it gives none for this model.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        options: by the name of an interpreter, what differs from its defaults.
        only: the names of those that are wanted; none are all.
    """
    for card in map_cards():
        if only and card.name not in only:
            continue
        try:
            refuse_large(card, x)
            yield card, card.with_options(**(options or {}).get(card.name, {}))(model, x, y).detach()
        except UnderfireError as error:
            yield card, error
