"""Smooth Grad-CAM++ (Omeiza et al., An Enhanced Inference Level Visualization Technique, IntelliSys 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, resolve_chunk, sum_in_chunks
from underfire.attribution.feature_maps import (
    average_layers,
    feature_maps,
    features_and_gradients,
    layouts_of,
    positive_part,
    positive_sum,
)
from underfire.attribution.gradients import differentiable_input
from underfire.catalog import card
from underfire.errors import InputError
from underfire.hooks import bypass_cache
from underfire.validate import default_generator


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
    """Compute Grad-CAM++ from derivatives that are averaged over noisy copies of the image.

    `D1`, `D2` and `D3` are the averages of `g`, `g²` and `g³`, where `g` is the gradient of the logit with respect to
    the feature maps of a noisy copy. With the feature maps `A` of the image itself, the map is `ReLU(Σ_k w_k A^k)`,

        w_k = Σ_ij α_ij ReLU(D1_ij)        α_ij = D2_ij / (2 D2_ij + Σ A · D3_ij)

    As in `grad_cam_pp`, `Σ A · D3` counts as zero where it is negative. The two methods are equal without noise, and
    also for the last feature maps before global average pooling, whose gradient does not depend on the image.

    Args:
        layer: one layer or several (see `grad_cam`).
        samples: noisy copies of each image; all images share the noise.
        noise: standard deviation of the noise as a share of the image's range; noisy images are not clipped to the box.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative.

    Raises:
        InputError: there are no samples, the noise is negative, the chunk below 1, or the memory too small. ModelError:
            there is no such layer, or the gradient is NaN. Unsupported: the layer has no space, or tokens of no grid
            that can be found.
    """
    if samples < 1 or noise < 0:
        raise InputError(f"samples must be at least 1 and noise not negative, got {samples} and {noise:g}")
    with differentiable_input(model, x) as (point, attached):
        layers = layouts_of(model, point, layer, grid)
        with torch.set_grad_enabled(attached):
            _, outputs = feature_maps(model, point, y, layers, attached=attached)
        # draw the noise, in one dtype for all images
        source = default_generator(generator, x.device)
        half = x.dtype in (torch.float16, torch.bfloat16)  # in which third powers underflow
        z = torch.randn(samples, *x.shape[1:], generator=source, device=source.device, dtype=torch.float32).to(x)

        def powers(image: Tensor, sample: Tensor, wide: Tensor) -> Tensor:
            """Return `g`, `g²` and `g³` of noisy copies, `[n, 3, D]`, with the entries of all layers in one row."""
            x = wide.to(point.dtype)
            sigma = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
            noisy = x[image] + sigma[image] * z[sample]
            with bypass_cache(model), differentiable_input(model, noisy) as (copies, wanted):
                pairs = features_and_gradients(model, copies, y[image], layers, attached=wanted)
            g = torch.cat([gradient.flatten(1) for _, gradient in pairs], 1).to(wide.dtype)
            return torch.stack([g, g**2, g**3], 1)

        chunk_size = resolve_chunk(model, point, chunk, memory, gradients=True)
        # average over the noisy copies
        images = point if attached else point.detach()
        means = sum_in_chunks(powers, samples, chunk_size, images.float() if half else images) / samples
        # weight the feature maps of the image itself
        features = [layout.maps(outputs[name]).to(means.dtype) for name, layout in layers.items()]
        each = means.split([f.shape[1:].numel() for f in features], 2)
        maps = [positive_sum(_weights(f, d.unflatten(2, f.shape[1:])), f) for f, d in zip(features, each, strict=True)]
        heat = average_layers(maps).to(x.dtype)
    return heat if attached else heat.detach()


def _weights(features: Tensor, means: Tensor) -> Tensor:
    """Return `w`, `[B, C, 1, 1]`, for feature maps `[B, C, h, w]` and `D1`, `D2`, `D3`, `[B, 3, C, h, w]`."""
    d1, d2, d3 = means.unbind(1)
    curvature = positive_part(features.sum((2, 3), keepdim=True) * d3)
    alpha = d2 / torch.where(d2 > 0, 2 * d2 + curvature, torch.ones_like(d2))
    return (alpha * positive_part(d1)).sum((2, 3), keepdim=True)
