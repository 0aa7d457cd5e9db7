"""Sanity checks: does an explanation change when the network, or what it learned, is replaced by chance?

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018. A method
whose map stays the same when the weights are random explains the image, not the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from underfire.catalog import card
from underfire.errors import InputError, nearest
from underfire.measures.agreement import map_rank_correlation, map_top_overlap
from underfire.measures.arrays import is_map
from underfire.measures.passes import Interpreter, check_images, chunk_of, default_generator
from underfire.measures.redrawing import copy_for_randomisation, redraw, restore_weights
from underfire.measures.sensitivity import maps_in_chunks
from underfire.measures.ssim import map_ssim

_PAPER = "Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018"


def absolute_rank_correlation(m: Tensor, n: Tensor) -> Tensor:
    """`map_rank_correlation` of the absolute values, `[B]`: a map that only changes its sign stays the same."""
    return map_rank_correlation(is_map(m).abs(), is_map(n).abs())


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rank": map_rank_correlation,
    "rank_absolute": absolute_rank_correlation,
    "ssim": map_ssim,
    "top": map_top_overlap,
}


@dataclass(frozen=True)
class Randomised:
    """How alike maps stay as layers become random.

    Attributes:
        layers: from the top of the network down; after each of them the maps were compared.
        similarity: by the name of the similarity, `[layers, B]`; nan where either map is constant or not finite.
        kept: layers with weights of their own that no rule re-draws, and which stayed as they were learned.
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
    """How alike maps stay as the layers of a copy of the network get new weights, from the top down.

    Args:
        model: a module, `[B, C, H, W]` in `[0, 1]` to logits; it is copied and left as it is.
        x: images.
        y: the class that is explained, int64 `[B]`.
        interpreter: `(model, x, y) -> [B, 1, h, w]`.
        cascade: layers stay random once they are; if False, one layer at a time is random.
        layers: which ones, in this order; None is all with weights, from the last to the first that an image passes.
        similarities: how maps are compared, by name.
        generator: the source of the new weights; None draws the same ones every time.
        chunk: how many images are explained at once; None is what suits the device.

    Raises:
        InputError: a layer has no rule to re-draw it, or none is named. Unsupported: the model is no module, or has no
            layer with such a rule.
    """
    check_images(x, y)
    other, known, kept = copy_for_randomisation(model, x)
    generator, room = default_generator(generator, torch.device("cpu")), chunk_of(x, chunk)
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
        with restore_weights(layer, after=not cascade):
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
    """The rank correlation of the map with that of the same network with random weights in every layer, `[B]`.

    The end of the cascade of `randomisation`, with its arguments and errors. Near 1 the map does not depend on what was
    learned. nan where either map is constant or not finite.
    """
    check_images(x, y)
    other, known, _ = copy_for_randomisation(model, x)
    generator, room = default_generator(generator, torch.device("cpu")), chunk_of(x, chunk)
    for name in known:
        redraw(other.get_submodule(name), generator)
    return map_rank_correlation(
        maps_in_chunks(interpreter, model, x, y, room), maps_in_chunks(interpreter, other, x, y, room)
    )


@card("measure", paper=_PAPER, higher_is_better=False, limits=(-1.0, 1.0))
def random_labels(
    model: nn.Module, x: Tensor, y: Tensor, interpreter: Interpreter, other: nn.Module, *, chunk: int | None = None
) -> Tensor:
    """The rank correlation of the map with that of a network trained on random labels, `[B]`.

    Args:
        model: trained on the true labels.
        x: images.
        y: the class that is explained, int64 `[B]`.
        interpreter: `(model, x, y) -> [B, 1, h, w]`.
        other: the same network, trained on the same images with shuffled labels.
        chunk: how many images are explained at once; None is what suits the device.

    Returns:
        The correlation; near 1 the map does not depend on what the labels teach. nan where a map is constant or not
        finite.
    """
    check_images(x, y)
    room = chunk_of(x, chunk)
    return map_rank_correlation(
        maps_in_chunks(interpreter, model, x, y, room), maps_in_chunks(interpreter, other, x, y, room)
    )
