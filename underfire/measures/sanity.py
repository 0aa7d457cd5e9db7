"""Sanity checks: whether an explanation changes when the network's weights, or the labels it learned, are random.

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018. If the maps
of a method stay the same when the weights are random, they explain the image and not the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import image_chunk
from underfire.attribution.variants import Interpreter
from underfire.catalog import card
from underfire.errors import InputError, nearest
from underfire.measures.agreement import map_rank_correlation, map_top_overlap
from underfire.measures.arrays import as_map, check_images
from underfire.measures.redrawing import copy_for_randomisation, redraw, restore_weights
from underfire.measures.sensitivity import maps_in_chunks
from underfire.measures.ssim import map_ssim
from underfire.validate import default_generator

_PAPER = "Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018"


def absolute_rank_correlation(m: Tensor, n: Tensor) -> Tensor:
    """Return `map_rank_correlation` of the absolute values, `[B]`, which does not depend on the sign of a map."""
    return map_rank_correlation(as_map(m).abs(), as_map(n).abs())


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rank": map_rank_correlation,
    "rank_absolute": absolute_rank_correlation,
    "ssim": map_ssim,
    "top": map_top_overlap,
}


@dataclass(frozen=True)
class Randomised:
    """The similarity of the maps before and after layers were re-initialised.

    Attributes:
        layers: the re-initialised layers, in this order; the maps were compared after each of them.
        similarity: values `[layers, B]` by the name of the similarity; nan where either map is constant or not finite.
        kept: layers that have weights but cannot be re-initialised; they kept what they had learned.
    """

    layers: tuple[str, ...]
    similarity: Mapping[str, Tensor]
    kept: tuple[str, ...]


def randomisation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    interpreter: Interpreter,
    *,
    cascade: bool = True,
    layers: Sequence[str] | None = None,
    similarities: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = SIMILARITIES,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Randomised:
    """Compare the maps of the network with those of a copy whose layers get random weights, the last layer first.

    Args:
        model: a module; it is copied and not changed.
        cascade: whether layers stay random, so that more and more are; if False, only one layer at a time is random.
        layers: names of the layers, in the order in which they are re-initialised; None is all layers with weights,
            from the last to the first.
        similarities: functions that compare two batches of maps, by name.

    Raises:
        InputError: a layer cannot be re-initialised, or `layers` is empty.
        Unsupported: the model is not a module, or none of its layers can be re-initialised.
    """
    check_images(x, y)
    other, known, kept = copy_for_randomisation(model, x)
    generator, room = default_generator(generator, torch.device("cpu")), image_chunk(x, chunk)
    chosen = known if layers is None else list(layers)
    if not chosen:
        raise InputError(f"layers must name at least one layer, such as {known[0]!r}, got none")
    for name in chosen:
        if name not in known:
            raise InputError(f"layer {name!r} cannot be re-drawn; {nearest(name, known)}")
    before = maps_in_chunks(interpreter, model, x, y, room)
    found: dict[str, list[Tensor]] = {name: [] for name in similarities}
    for name in chosen:
        layer = other.get_submodule(name)
        with restore_weights(layer, enabled=not cascade):
            redraw(layer, generator)
            after = maps_in_chunks(interpreter, other, x, y, room)
            for how, similarity in similarities.items():
                found[how].append(similarity(before, after))
    return Randomised(tuple(chosen), {how: torch.stack(rows) for how, rows in found.items()}, tuple(kept))


@card("measure", paper=_PAPER, table="maps", higher_is_better=False, limits=(-1.0, 1.0))
def random_weights(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    interpreter: Interpreter,
    *,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return the rank correlation of the map with that of the same network with random weights in every layer, `[B]`.

    This is the last step of the cascade of `randomisation`, with the same arguments and errors. Near 1, the map does
    not depend on what the network has learned. The result is nan where either map is constant or not finite.
    """
    check_images(x, y)
    other, known, _ = copy_for_randomisation(model, x)
    generator, room = default_generator(generator, torch.device("cpu")), image_chunk(x, chunk)
    for name in known:
        redraw(other.get_submodule(name), generator)
    return map_rank_correlation(
        maps_in_chunks(interpreter, model, x, y, room), maps_in_chunks(interpreter, other, x, y, room)
    )


@card("measure", paper=_PAPER, higher_is_better=False, limits=(-1.0, 1.0))
def random_labels(
    model: nn.Module, x: Tensor, y: Tensor, interpreter: Interpreter, other: nn.Module, *, chunk: int | None = None
) -> Tensor:
    """Return the rank correlation of the map with that of a network trained on random labels, `[B]`.

    Args:
        model: the network trained on the true labels.
        other: the same architecture, trained on the same images with shuffled labels.

    Returns:
        The correlation; near 1, the map does not depend on what the labels teach. It is nan where a map is constant or
        not finite.
    """
    check_images(x, y)
    room = image_chunk(x, chunk)
    return map_rank_correlation(
        maps_in_chunks(interpreter, model, x, y, room), maps_in_chunks(interpreter, other, x, y, room)
    )
