"""Smooth Grad-CAM++ (Omeiza et al., An Enhanced Inference Level Visualization Technique, IntelliSys 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, chunk_within, sum_in_chunks
from underfire.attribution.feature_maps import (
    average_layers,
    feature_maps,
    features_and_gradients,
    layouts_of,
    positive,
)
from underfire.attribution.scores import default_generator, differentiable_input
from underfire.catalog import card
from underfire.errors import InputError
from underfire.hooks import bypass_cache


@card(
    "interpreter",
    paper="Omeiza, Speakman, Cintas and Weldermariam, Smooth Grad-CAM++, IntelliSys 2019",
    family="representation",
    differentiable=True,
    second_order=False,
)
def smooth_grad_cam_pp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
    samples: int = 20,
    noise: float = 0.15,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Grad-CAM++ with derivatives that are averages over noisy copies of the image.

    With `D1 D2 D3` the averages of `g`, `g²` and `g³`, where `g` is the gradient of the logit to the feature maps of a
    noisy copy, and the feature maps `A` of the image itself, the map is `ReLU(Σ_k w_k A^k)`,

        w_k = Σ_ij α_ij ReLU(D1_ij)        α_ij = D2_ij / (2 D2_ij + Σ A · D3_ij)

    As in `grad_cam_pp`, `Σ A · D3` counts as zero where it is negative. Without noise the two are the same, and they
    also are for the last feature maps before global average pooling, whose gradient does not depend on the image.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        layer: whose output is weighted, one layer or several, see `grad_cam`; None is the last layer with space.
        grid: rows and columns of a transformer's tokens; None finds them.
        samples: how many noisy copies of each image.
        noise: standard deviation of the noise, as a share of the range of values in the image; it may leave the box.
        generator: what the noise is drawn from, the same for all images; without one it is always the same.
        chunk: how many copies go through the model at once; None is as many as the memory allows.
        memory: what the layers' outputs may take then, in MiB.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative.

    Raises:
        InputError: there are no samples, the noise is negative, the chunk below 1, or the memory too small. ModelError:
            there is no such layer, or the gradient is NaN. Unsupported: its output has no space, or its tokens have no
            grid that can be found.
    """
    if samples < 1 or noise < 0:
        raise InputError(f"samples must be at least 1 and noise not negative, got {samples} and {noise:g}")
    with differentiable_input(model, x) as (point, attached):
        layers = layouts_of(model, point, layer, grid)
        with torch.set_grad_enabled(attached):
            _, outputs = feature_maps(model, point, y, layers, attached=attached)
        source = default_generator(generator, x.device)
        half = x.dtype in (torch.float16, torch.bfloat16)  # where third powers vanish
        z = torch.randn(samples, *x.shape[1:], generator=source, device=source.device, dtype=x.dtype).to(x.device)

        def powers(image: Tensor, sample: Tensor, wide: Tensor) -> Tensor:
            """`g g² g³` of noisy copies, `[n, 3, places and channels of all layers]`."""
            x = wide.to(point.dtype)
            sigma = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
            noisy = x[image] + sigma[image] * z[sample]
            with bypass_cache(model), differentiable_input(model, noisy) as (copies, wanted):
                pairs = features_and_gradients(model, copies, y[image], layers, attached=wanted)
            g = torch.cat([gradient.flatten(1) for _, gradient in pairs], 1).to(wide.dtype)
            return torch.stack([g, g**2, g**3], 1)

        room = chunk if chunk is not None else chunk_within(model, point, memory, gradients=True)
        images = point if attached else point.detach()
        means = sum_in_chunks(powers, samples, room, images.float() if half else images) / samples
        features = [space.maps(outputs[name]).to(means.dtype) for name, space in layers.items()]
        each = means.split([f.shape[1:].numel() for f in features], 2)
        maps = [positive(_weights(f, d.unflatten(2, f.shape[1:])), f) for f, d in zip(features, each, strict=True)]
        shown = average_layers(maps).to(x.dtype)
    return shown if attached else shown.detach()


def _weights(features: Tensor, means: Tensor) -> Tensor:
    """`w`, `[B, C, 1, 1]`, of feature maps `[B, C, h, w]` and of `D1 D2 D3`, `[B, 3, C, h, w]`."""
    d1, d2, d3 = means.unbind(1)
    bend = (features.sum((2, 3), keepdim=True) * d3).clamp_min(0)
    alpha = d2 / torch.where(d2 > 0, 2 * d2 + bend, torch.ones_like(d2))
    return (alpha * d1.clamp_min(0)).sum((2, 3), keepdim=True)
