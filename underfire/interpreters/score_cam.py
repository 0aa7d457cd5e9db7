"""Score-CAM (Wang et al., Score-Weighted Visual Explanations, CVPR Workshops 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.chunks import MEMORY, in_chunks, resolve_chunk
from underfire.attribution.feature_maps import average_layers, feature_maps, layouts_of, positive_sum
from underfire.attribution.gradients import differentiable_input
from underfire.attribution.scores import class_score
from underfire.attribution.variants import fast_layout
from underfire.catalog import card
from underfire.errors import ModelError
from underfire.hooks import frozen, uncached
from underfire.validate import require_finite

_LEAST = 1e-3  # logits; a smaller change moves no weight of a softmax by more than a thousandth of itself


@card(
    "interpreter",
    paper="Wang, Wang, Du, Yang, Zhang, Ding, Mardziel and Hu, Score-CAM, CVPR Workshops 2020",
    family="representation",
    differentiable=True,
    second_order=False,
)
def score_cam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
    softmax: bool = True,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Sum feature maps, each weighted by the logit of class `y` when it masks the image; set negative values to zero.

    Every channel `A^k` of the layer is resized to the image (bilinearly, corners aligned) and scaled to [0, 1], which
    gives the mask `H^k` and the score `S_k = f_y(x · H^k)`. The map is `ReLU(Σ_k α_k A^k)`. `α` is the softmax of `S`
    over the channels (algorithm 1 of the paper, which first subtracts the score of a black image from all; this does
    not change the softmax), or the increase over the black image. The mask of a constant channel is black. The method
    costs one pass of the image and one for each channel.

    Args:
        layer: one layer or several (see `grad_cam`).
        softmax: if False, the weight of a channel is its increase over the black image, `S_k - f_y(0)`.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative.

    Raises:
        InputError: the chunk is below 1, or the memory too small for one image. ModelError: there is no such layer, or
            a score is NaN, or no logit changes by more than a thousandth under the masks. Unsupported: the layer has no
            space, or tokens of no grid that can be found.
    """
    with differentiable_input(model, x) as (point, attached), torch.set_grad_enabled(attached):
        layers = layouts_of(model, point, layer, grid)
        _, outputs = feature_maps(model, point, y, layers, attached=attached)
        chunk_size = resolve_chunk(model, point, chunk, memory, gradients=attached)
        maps = []
        for name, layout in layers.items():
            features = layout.maps(outputs[name]).to(x.dtype)
            scores = _scores(model, point, y, features, chunk_size, attached)
            _require_change(scores, softmax)
            if softmax:
                weights = scores.softmax(1)
            else:
                black = class_score(uncached(model)(torch.zeros_like(point[:1])).expand(len(y), -1), y)
                weights = scores - black[:, None]
            maps.append(positive_sum(weights[:, :, None, None], features))
        return average_layers(maps)


def _scores(model: nn.Module, x: Tensor, y: Tensor, features: Tensor, chunk: int, attached: bool) -> Tensor:
    """Return `S`, `[B, C]`: the logit of class `y` of every image masked by every channel of its features."""
    fast = fast_layout(lambda images: uncached(model)(images))

    def of_images(images: Tensor) -> Tensor:
        seen, through, classes = x[images], features[images], y[images]

        # `in_chunks` joins along dimension 0, so channels come first here
        def of_channels(channels: Tensor) -> Tensor:
            with frozen(model):  # also when this pass is repeated in the backward pass
                logits = fast(masked(seen, through[:, channels]))
            return class_score(logits, classes.repeat_interleave(len(channels))).view(len(images), len(channels)).T

        return in_chunks(of_channels, features.shape[1], max(1, chunk // max(1, len(images))), attached=attached).T

    return require_finite(in_chunks(of_images, len(x), chunk), "the logit of an image masked by a channel")


def _require_change(scores: Tensor, softmax: bool) -> None:
    """Raise ModelError if the scores `[B, C]` of every image are so equal that they weigh no channel above another."""
    if not scores.numel():
        return
    scores = scores.detach()
    change = float((scores.amax(1) - scores.amin(1)).max())
    least = _LEAST if softmax else 1e-5 * float(scores.abs().max())
    if scores.shape[1] > 1 and change <= least:
        raise ModelError(
            f"the model's output hardly changes when a channel masks the image, by at most {change:.1g} logits, so "
            "that score_cam has nothing to weigh the channels by; grad_cam reads gradients instead"
        )


def masked(x: Tensor, features: Tensor) -> Tensor:
    """Return images `[b, C, H, W]`, each masked by every channel of its features `[b, c, h, w]`: `[b · c, C, H, W]`."""
    spread = F.interpolate(features, x.shape[2:], mode="bilinear", align_corners=True)
    least, most = spread.amin((2, 3), keepdim=True), spread.amax((2, 3), keepdim=True)
    width = most - least
    rounding = 8 * torch.finfo(spread.dtype).eps * torch.maximum(most.abs(), least.abs())  # of a constant channel
    varies = width > rounding
    h = (spread - least) * (varies / torch.where(varies, width, torch.ones_like(width)))
    channels_last = x.permute(0, 2, 3, 1).unsqueeze(1) * h.unsqueeze(4)  # the layout in which the model gets them
    return channels_last.flatten(0, 1).permute(0, 3, 1, 2)
