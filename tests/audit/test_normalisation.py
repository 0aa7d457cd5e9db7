"""A normalisation that was left out is found by trying common ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from underfire.audit.normalisation import check_normalisation
from underfire.errors import ModelError


class Bright(nn.Module):
    """Say 1 for images whose mean is above 0, as if they had been normalised to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([-mean, mean], 1)


def target(mean: Any, std: Any = None) -> Any:
    y = torch.arange(40) % 2
    x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.5 * y[:, None, None, None]
    batch = uf.Batch(x, y, tuple(map(str, range(40))))
    model = uf.Classifier(Bright(), mean=0.0 if mean is None else mean, std=1.0 if std is None else std)
    spec = SimpleNamespace(model=SimpleNamespace(mean=mean, std=std), device="cpu", batch_size=16)
    return SimpleNamespace(model=model, spec=spec, data={0: batch}, spread=lambda n: 0)


def test_a_normalisation_that_was_left_out_is_named() -> None:
    with pytest.raises(ModelError, match=r"20 of 40 .* 40 .*\[0\.5\]"):
        check_normalisation(target(None))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.0, None)])
def test_a_normalisation_that_was_set_is_not_questioned(mean: float, std: float | None) -> None:
    check_normalisation(target(mean, std))
