"""Arrays on disk come back equal in every bit, and adversarial images take little room."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underfire.audit.arrays import difference, pack, restore, unpack


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(3, 2, 5), (4,), (0, 3), ()])
def test_every_tensor_comes_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    found = unpack(pack({"x": x, "y": x.clone()}))
    assert set(found) == {"x", "y"}
    assert _same(found["x"], x)


def test_values_that_are_not_equal_to_themselves_come_back_too() -> None:
    x = torch.tensor([torch.nan, torch.inf, -0.0, 1e-45])
    assert _same(unpack(pack({"x": x}))["x"], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_difference_restores_the_adversarial_image(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    x = (torch.randint(0, 256, (50, 3, 16, 16), generator=random) / 255).to(dtype)
    x_adv = (x + (torch.rand(x.shape, generator=random) - 0.5) / 10).clamp(0, 1).to(dtype)
    bits = unpack(pack({"d": difference(x_adv, x)}))["d"]
    assert _same(restore(bits, x), x_adv)


def test_an_attack_by_signs_takes_less_than_half_of_the_bytes() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (50, 3, 16, 16), generator=random) / 255
    x_adv = (x + 8 / 255 * (torch.randint(0, 2, x.shape, generator=random) * 2 - 1)).clamp(0, 1)
    assert len(pack({"d": difference(x_adv, x)})) < 0.5 * x.numel() * 4
    assert len(pack({"d": difference(x, x)})) < 1000
