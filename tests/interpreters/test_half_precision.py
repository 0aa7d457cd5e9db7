"""Networks that compute in float16 or bfloat16: their maps are those of float32, up to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from underfire.catalog import find
from underfire.interpreters.lrp.rules import COMPOSITES

#: The largest relative difference. The logits of bfloat16 have eight bits, and a difference of two has fewer.
TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.15}
METHODS: list[tuple[str, dict[str, Any]]] = [
    *(("lrp", {"composite": name}) for name in COMPOSITES),
    *((name, {}) for name in ("deep_lift", "full_grad", "gradient", "gradient_input", "guided_backprop", "deconvnet")),
    *((name, {}) for name in ("cam", "grad_cam", "grad_cam_pp", "smooth_grad_cam_pp", "layer_cam", "hires_cam")),
    ("integrated_gradients", {"steps": 8}),
    ("smooth_grad", {"samples": 4}),
    ("score_cam", {}),
    ("rise", {"samples": 50}),
]


def network(dtype: torch.dtype) -> nn.Module:
    """Return a small network; biases below 0 leave positions without a positive contribution in black regions."""
    draw = torch.Generator().manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, layer.weight[0].numel() ** -0.5, generator=draw)
            nn.init.constant_(layer.bias, -0.03)
    return net.to(dtype)


@pytest.fixture(scope="module")
def images() -> Tensor:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    x[:, :, :8] = 0
    return x


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("name", "options"), METHODS, ids=lambda value: str(value))
def test_a_map_is_that_of_float32(name: str, options: dict[str, Any], dtype: torch.dtype, images: Tensor) -> None:
    explain, y = find("interpreter", name), network(torch.float32)(images).argmax(1)
    wanted = explain(network(torch.float32), images, y, **options).double().flatten(1)
    found = explain(network(dtype), images.to(dtype), y, **options)
    assert found.isfinite().all() and (wanted.norm(dim=1) > 0).all()
    error = (found.double().flatten(1) - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert error.max() < TOLERANCE[dtype]
