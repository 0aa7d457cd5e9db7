"""Read pooled features of several layers, in one pass, or streamed over many inputs in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.errors import InputError, shown
from underfire.hooks.choosing import AUTO, LOGITS, choose_layers
from underfire.hooks.finding import as_maps, is_traced
from underfire.hooks.networks import frozen, readable_layers
from underfire.hooks.reading import activations, read, shares_passes, uncached
from underfire.validate import require_finite

CHUNK = 256
"""The number of inputs that pass through the model at once while features are streamed."""


_SMALL = 256  # the places of a map up to which a product with a matrix pools it faster than torch


class Probe(NamedTuple):
    """A layer that is read, and how its output is pooled; see `features`."""

    layer: str
    pooling: str = "mean"


def choose_probes(
    model: nn.Module, x: Tensor, layers: str | Sequence[str] = AUTO, pooling: str = "mean"
) -> tuple[Probe, ...]:
    """Return a probe of every layer that names and patterns stand for (see `choose_layers`), all pooled alike."""
    check_pooling(pooling)
    return tuple(Probe(layer, pooling) for layer in choose_layers(model, x, layers))


def features(model: nn.Module, x: Tensor, probes: Iterable[Probe]) -> tuple[Tensor, dict[Probe, Tensor]]:
    """Return the logits `[B, K]` and the features of each probe, `[B, D]`, in the graph of one forward pass.

    The pooling of a probe is one of: `"mean"` and `"max"`, over all places of a feature map; `"mean_4"`, the averages
    of 4 x 4 parts of each map (or of another number); `"none"`, all values of all maps. An output without space is read
    as it is. The layer `"logits"` is the output of the model, unless the model has a layer of this name.

    Raises:
        ModelError: a layer does not exist, takes no part in the pass, or returns NaN or infinity. Unsupported: the
            output of a layer is not a tensor, or has no known layout. InputError: a pooling is unknown.
    """
    probes = tuple(dict.fromkeys(probes))
    own = {probe.layer for probe in probes}
    if LOGITS in own and LOGITS not in dict(readable_layers(model)):
        own.discard(LOGITS)
    alone = is_traced(model, x) and not shares_passes(model)  # else the whole outputs are kept, or their layout unknown
    pools = _Pooled(model, x, probes, copies=alone)
    if alone:
        logits, _ = read(model, uncached(model), x, sorted(own), into=pools) if own else (model(x), None)
    else:
        logits, outputs = activations(model, x, sorted(own)) if own else (model(x), {})
        for layer, output in outputs.items():
            pools[layer] = output
    if LOGITS not in own:
        pools[LOGITS] = logits
    for probe in probes:
        require_finite(pools.found[probe], f"the output of layer {probe.layer!r}")
    return logits, {probe: pools.found[probe].to(logits.dtype) for probe in probes}


class _Pooled(dict[str, Tensor]):
    """Features of probes, pooled when the output of their layer is set; the output itself is not kept.

    Args:
        copies: whether the network may overwrite an output in place after it was set.

    Attributes:
        found: the features `[B, D]` by probe.
    """

    def __init__(self, model: nn.Module, x: Tensor, probes: Sequence[Probe], *, copies: bool) -> None:
        super().__init__()
        self._model, self._x, self._probes, self._copies = model, x[:1].detach(), probes, copies
        self.found: dict[Probe, Tensor] = {}

    def __setitem__(self, layer: str, output: Tensor) -> None:
        super().__setitem__(layer, output.new_empty(0))
        for probe in self._probes:
            if probe.layer == layer:
                maps = as_maps(self._model, self._x, layer, output)
                kept = output.requires_grad or maps.dim() != 4 or probe.pooling == "none"
                self.found[probe] = pooled(maps.clone() if kept and self._copies else maps, probe.pooling)


def stream_features(
    model: nn.Module, x: Tensor, probes: Iterable[Probe], *, chunk: int = CHUNK
) -> Iterator[tuple[Tensor, dict[Probe, Tensor]]]:
    """Yield logits and features of `chunk` inputs at a time, without a graph, in evaluation mode (see `features`).

    Only one chunk of the unpooled outputs is in memory at a time.
    """
    probes = tuple(probes)
    for part in x.split(chunk):
        with torch.no_grad(), frozen(model):
            found = features(model, part, probes)
        yield found


def all_features(
    model: nn.Module, x: Tensor, probes: Iterable[Probe], *, chunk: int = CHUNK
) -> tuple[Tensor, dict[Probe, Tensor]]:
    """Return logits `[n, K]` and features `[n, D]` of all inputs, streamed (see `stream_features`)."""
    probes = tuple(dict.fromkeys(probes))
    parts = list(stream_features(model, x, probes, chunk=chunk))
    return torch.cat([logits for logits, _ in parts]), {p: torch.cat([found[p] for _, found in parts]) for p in probes}


def pooled(output: Tensor, pooling: str) -> Tensor:
    """Return the features `[B, D]` of feature maps `[B, C, h, w]`, pooled as `pooling` says; see `features`."""
    side = check_pooling(pooling)
    if output.dim() != 4 or pooling == "none":
        return output.flatten(1)
    if pooling == "max":
        return output.amax((2, 3))
    if side == 1:
        return output.mean((2, 3))
    rows, columns = output.shape[2:]
    if rows * columns > _SMALL:
        return F.adaptive_avg_pool2d(output, side).flatten(1)
    return (output.flatten(2) @ _averages(rows, columns, side, output.dtype, output.device)).flatten(1)


@lru_cache(maxsize=64)
def _averages(rows: int, columns: int, side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix that averages the parts of a small map as `adaptive_avg_pool2d`, `[rows * columns, side²]`."""
    with torch.inference_mode(False):  # a later pass may need gradients
        parts = []
        for length in (rows, columns):
            places, part = torch.arange(length), torch.arange(side)[:, None]
            inside = (places >= part * length // side) & (places < -(-(part + 1) * length // side))
            parts.append(inside / inside.sum(1, keepdim=True))
        return torch.kron(*parts).T.to(device, dtype).contiguous()


def check_pooling(pooling: str) -> int:
    """Return how many averages of a feature map `pooling` takes along each side, 1 for a pooling without a number.

    Raises:
        InputError: there is no such pooling.
    """
    if pooling in ("mean", "max", "none"):
        return 1
    head, _, number = str(pooling).rpartition("_")
    if head == "mean" and number.isascii() and number.isdigit() and 1 <= int(number) <= 1024:
        return int(number)
    raise InputError(f"pooling must be 'mean', 'max', 'none', or 'mean_4' for 4 x 4 averages, got {shown(pooling)}")
