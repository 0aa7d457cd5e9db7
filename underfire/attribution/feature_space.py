"""Read the features of known images and find the nearest: the parts that methods which explain by example share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.chunks import MEMORY, chunk_within
from underfire.errors import DataError, InputError, ModelError, NotFitted, Unsupported
from underfire.hooks import activations, as_maps, frozen, last_spatial_layer, unwrap
from underfire.records import Examples

if TYPE_CHECKING:
    from underfire.data import Dataset

_DECODED = 256  # most images that are decoded at once


def pooled_features(model: nn.Module, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Return the logits `[B, K]` and the features `[B, D]` of images: a layer's output, averaged over space or tokens.

    Features are float32 or wider, so that distances stay accurate if the model computes in half precision.

    Raises:
        ModelError: there is no such layer. Unsupported: its output is not `[B, ...]` with 2 to 4 dimensions.
    """
    logits, outputs = activations(model, x, [layer])
    output = outputs[layer]
    if output.dim() not in (2, 3, 4) or len(output) != len(x):
        raise Unsupported(f"layer {layer!r} gives {tuple(output.shape)} for {len(x)} images, which are not features")
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if output.dim() == 3:
        return logits, output.mean(1)
    output = as_maps(model, x, layer, output)
    return logits, output.mean((2, 3)) if output.dim() == 4 else output


@dataclass(frozen=True)
class Known:
    """Known images with their features, labels and predicted classes.

    Attributes:
        data: the images; they are decoded when they are needed.
        layer: the layer from which the features are read.
        features: `[N, D]`, averaged over space (see `pooled_features`).
        y: their labels, int64 `[N]`.
        answers: the classes that the model predicts, int64 `[N]`.
    """

    data: Dataset
    layer: str
    features: Tensor
    y: Tensor
    answers: Tensor

    def seen(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features of images that are to be explained, without a graph.

        Raises:
            InputError: the layer has another number of features than it had for the known images. ModelError: features
                are not finite.
        """
        with torch.no_grad(), frozen(model):
            logits, features = pooled_features(model, x, self.layer)
        if features.shape[1] != self.features.shape[1]:
            count = f"{features.shape[1]} features, but the known images have {self.features.shape[1]}"
            raise InputError(f"layer {self.layer!r} gives {count}; call fit with this model and this size of images")
        bad = int((~torch.isfinite(features).all(1)).sum())
        if bad:
            raise ModelError(f"layer {self.layer!r} gives NaN or infinite features for {bad} of {len(x)} images")
        return logits, features

    def examples(self, index: Tensor, distance: Tensor, notes: tuple[str, ...]) -> Examples:
        """Return the known images at `index` as examples.

        Args:
            index: int64 `[B, k]`; -1 where there is no example.
            distance: `[B, k]`.
            notes: `k` words that say what the examples in each column are.
        """
        wanted, place = index.clamp_min(0).unique(return_inverse=True)
        batch = self.data[wanted.cpu()]
        none = index < 0
        x = batch.x.to(index.device)[place]
        x[none] = 0
        y = batch.y.to(index.device)[place].masked_fill(none, -1)
        names = [[batch.ids[i] if j >= 0 else "" for i, j in zip(*row, strict=True)] for row in _rows(place, index)]
        words = tuple(tuple(n if j >= 0 else "" for n, j in zip(notes, row, strict=True)) for row in index.tolist())
        return Examples(index, distance, x, y, tuple(map(tuple, names)), words)


def _rows(place: Tensor, index: Tensor) -> Iterator[tuple[list[int], list[int]]]:
    return zip(place.tolist(), index.tolist(), strict=True)


def read_known_images(model: nn.Module, data: Dataset, layer: str | None, memory: float = MEMORY) -> Known:
    """Read the features of all images of `data` from `layer`; None is the last spatial layer.

    Raises:
        DataError: there are no images. ModelError: there is no such layer, or features are not finite.
    """
    if not len(data):
        raise DataError(f"{data.name}: there are no images to fit to")
    device = next((t.device for t in (*unwrap(model).parameters(), *model.buffers())), torch.device("cpu"))
    x = data[:1].x.to(device)
    name = layer if layer is not None else last_spatial_layer(model, x)
    chunk_size = chunk_within(model, x, memory, gradients=False)
    features, labels, answers = [], [], []
    with torch.no_grad(), frozen(model):
        for batch in data.batches(min(chunk_size, _DECODED)):
            logits, found = pooled_features(model, batch.x.to(device), name)
            features.append(found)
            labels.append(batch.y.to(device))
            answers.append(logits.argmax(1))
    known = Known(data, name, torch.cat(features), torch.cat(labels), torch.cat(answers))
    bad = int((~torch.isfinite(known.features).all(1)).sum())
    if bad:
        raise ModelError(f"layer {name!r} gives NaN or infinite features for {bad} of {len(data)} known images")
    return known


def nearest_known(
    features: Tensor,
    known: Tensor,
    k: int,
    *,
    allowed: tuple[Tensor, Tensor] | None = None,
    cosine: bool = False,
    memory: float = MEMORY,
) -> tuple[Tensor, Tensor]:
    """Return distance and index `[B, k]` of the `k` nearest known features, nearest first, by exhaustive search.

    If there are fewer than `k`, the distances that are missing are infinite and their indices -1.

    Args:
        features: `[B, D]`.
        known: `[N, D]`.
        k: number of neighbours.
        allowed: classes `[B]` and `[N]`; only features of the same class are compared. None compares all.
        cosine: use one minus the cosine of the angle instead of the Euclidean distance.
        memory: MiB for the distances that are computed at once.
    """
    known = known.to(features)
    if cosine:
        features, known = F.normalize(features), F.normalize(known)
    found = []
    rows = max(1, int(memory * 2**20 // max(1, 3 * known.shape[0] * known.element_size())))
    for part in torch.arange(len(features), device=features.device).split(rows):
        if cosine:
            distances = 1 - features[part] @ known.T
        else:  # a product of matrices would round small distances to zero
            distances = torch.cdist(features[part], known, compute_mode="donot_use_mm_for_euclid_dist")
        if allowed is not None:
            distances = distances.masked_fill(allowed[0][part, None] != allowed[1], float("inf"))
        found.append(distances.topk(min(k, len(known)), dim=1, largest=False))
    distance = torch.cat([top.values for top in found]) if found else features.new_zeros(0, min(k, len(known)))
    index = torch.cat([top.indices for top in found]) if found else distance.long()
    distance = F.pad(distance, (0, k - distance.shape[1]), value=float("inf"))
    index = F.pad(index, (0, k - index.shape[1]), value=-1)
    return distance, index.masked_fill(distance.isinf(), -1)


def require_fitted(known: Known | None, name: str) -> Known:
    """Return `known`, or raise NotFitted if it is None because `fit` was not called."""
    if known is None:
        raise NotFitted(f"{name} explains by known images and has none: call fit(model, data) first")
    return known
