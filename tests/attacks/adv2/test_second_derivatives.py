"""The derivative of a gradient map in a compiled network, whose rectifiers cannot be replaced."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import underfire as uf
from tests.networks import build_network, rand


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["gradient", "gradient_input"])
def test_a_compiled_network_is_differentiated_by_finite_differences(name: str) -> None:
    interpreter = uf.find("interpreter", name).function
    module, y = build_network("relu").module, torch.tensor([0, 1])
    compiled = torch.jit.trace(module, rand(2, 3, 8, 8), check_trace=False)

    def slope(model: torch.nn.Module, **options: str) -> Tensor:
        point = rand(2, 3, 8, 8).requires_grad_()
        (found,) = torch.autograd.grad(interpreter(model, point, y, **options).square().sum(), point)
        return found

    smooth = slope(compiled, double_backward="smooth")
    assert torch.allclose(smooth, slope(module, double_backward="finite_difference"), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(smooth, slope(module, double_backward="smooth"), rtol=1e-2)
