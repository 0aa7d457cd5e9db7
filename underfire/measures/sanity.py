"""Sanity checks: does an explanation change when the network, or what it learned, is replaced by chance?

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018. A method
whose map stays the same when the weights are random explains the image, not the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from underfire.catalog import card
from underfire.errors import InputError, Unsupported, nearest
from underfire.measures.agreement import rank_correlation, top_overlap
from underfire.measures.arrays import is_map
from underfire.measures.passes import Interpreter, check_images, chunk_of, seeded, undisturbed
from underfire.measures.sensitivity import explained
from underfire.measures.ssim import ssim

_PAPER = "Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018"


def rank_absolute(m: Tensor, n: Tensor) -> Tensor:
    """`rank_correlation` of the absolute values, `[B]`: a map that only changes its sign stays the same."""
    return rank_correlation(is_map(m).abs(), is_map(n).abs())


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rank": rank_correlation,
    "rank_absolute": rank_absolute,
    "ssim": ssim,
    "top": top_overlap,
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


def _rule(layer: nn.Module) -> Callable[[], None] | None:
    """How the layer draws its own first weights; attention of torch has a name of its own for it."""
    rule = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    return rule if callable(rule) else None


def weight_layers(model: nn.Module, x: Tensor) -> tuple[list[str], list[str]]:
    """Layers that can be re-drawn, from the top down as one image passes them, and those with weights that cannot.

    Layers that are never called, whose weights another one reads, come last.
    """
    owners = {name: layer for name, layer in model.named_modules() if next(layer.parameters(False), None) is not None}
    seen: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, __, name=name: seen.append(name)) for name, layer in owners.items()
    ]
    try:
        with undisturbed(model):
            model(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    downward = list(dict.fromkeys([*reversed(seen), *reversed(owners)]))
    able = [name for name in downward if _rule(owners[name])]
    return able, [name for name in owners if name not in able]


def _copied(model: nn.Module, x: Tensor) -> tuple[nn.Module, list[str], list[str]]:
    """A copy of the network to be spoilt, and its `weight_layers`."""
    if not isinstance(model, nn.Module):
        raise Unsupported(
            f"sanity checks re-draw weights: the model must be a torch module, not {type(model).__name__}"
        )
    other = copy.deepcopy(model)
    able, kept = weight_layers(other, x)
    if not able:
        raise Unsupported("no layer of the model has a reset_parameters that would re-draw its weights")
    return other, able, kept


def redraw(layer: nn.Module, generator: torch.Generator) -> None:
    """Give a layer new weights by its own `reset_parameters`; the global generators are left as they were.

    The rule draws from the global generator of the CPU, on a copy there; its state is put back.
    """
    fresh = copy.deepcopy(layer).cpu()
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        rule = _rule(fresh)
        assert rule is not None
        rule()
        for old, new in zip(layer.state_dict().values(), fresh.state_dict().values(), strict=True):
            old.copy_(new)


@contextmanager
def _learned_again(layer: nn.Module, after: bool) -> Iterator[None]:
    """At the end, where `after`, the layer's weights as they are now."""
    learned = copy.deepcopy(layer.state_dict()) if after else None
    yield
    if learned is not None:
        layer.load_state_dict(learned)


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
        InputError: a layer has no rule to re-draw it. Unsupported: the model is no module, or has no layer with one.
    """
    check_images(x, y)
    other, known, kept = _copied(model, x)
    generator, room = seeded(generator, torch.device("cpu")), chunk_of(x, chunk)
    before = explained(interpreter, model, x, y, room)
    chosen = known if layers is None else list(layers)
    for name in chosen:
        if name not in known:
            raise InputError(f"layer {name!r} cannot be re-drawn; {nearest(name, known)}")
    found: dict[str, list[Tensor]] = {name: [] for name in similarities}
    for name in chosen:
        layer = other.get_submodule(name)
        with _learned_again(layer, after=not cascade):
            redraw(layer, generator)
            after = explained(interpreter, other, x, y, room)
            for how, similarity in similarities.items():
                found[how].append(similarity(before, after))
    return Randomised(tuple(chosen), {how: torch.stack(rows) for how, rows in found.items()}, tuple(kept))


@card("measure", paper=_PAPER, higher_is_better=False, limits=(-1.0, 1.0))
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
    other, known, _ = _copied(model, x)
    generator, room = seeded(generator, torch.device("cpu")), chunk_of(x, chunk)
    for name in known:
        redraw(other.get_submodule(name), generator)
    return rank_correlation(explained(interpreter, model, x, y, room), explained(interpreter, other, x, y, room))


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
    return rank_correlation(explained(interpreter, model, x, y, room), explained(interpreter, other, x, y, room))
