"""Residual branches, found in the graph of a pass, and their scaled gradients, against networks that scale them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import build_network, rand
from underfire.errors import InputError, Unsupported
from underfire.gradients.backward import skip_gradient
from underfire.hooks.residual import residual_branches, scaled_branches
from underfire.models.architectures import EfficientNetLite0, MobileNetV2, SqueezeNet, WResnet
from underfire.models.architectures.residual import ResidualBlock, ResNet


class Block(nn.Module):
    """A block with a projection as shortcut, and a sum in place."""

    def __init__(self, width_in: int, width: int, factor: float | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width_in, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.relu, self.factor = nn.ReLU(), factor

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(self.relu(self.first(x)))
        if self.factor is not None:
            z = self.factor * z + (1 - self.factor) * z.detach()
        z += self.shortcut(x)
        return self.relu(z) / 3 * 1.0


def network(factor: float | None = None) -> nn.Module:
    blocks = [Block(3, 6, factor), Block(6, 6, factor), Block(6, 4, factor)]
    body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    return body


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits[:, 1].sum(), x)[0]


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_branches_pass_back_a_share_of_their_gradient(factor: float) -> None:
    model, x = network(), rand(2, 3, 8, 8, dtype=torch.float64)
    plain_logits, plain = gradient(model, x)
    with scaled_branches(model, x, factor):
        logits, scaled = gradient(model, x)
    assert torch.equal(logits, plain_logits)
    assert torch.allclose(scaled, gradient(network(factor), x)[1])
    assert torch.allclose(scaled, plain) == (factor == 1)
    assert torch.equal(gradient(model, x)[1], plain)
    assert not any(module._forward_hooks for module in model.modules())


def test_every_member_of_an_ensemble_is_scaled() -> None:
    x = rand(2, 3, 8, 8, dtype=torch.float64)
    both = uf.models.ensemble([uf.Classifier(network()), uf.Classifier(network())])
    scaled = uf.models.ensemble([uf.Classifier(network(0.3)), uf.Classifier(network(0.3))])
    with scaled_branches(both, x, 0.3):
        found = gradient(both, x)[1]
    assert torch.allclose(found, gradient(scaled, x)[1])


def test_the_branches_of_the_zoo_are_its_blocks() -> None:
    resnet = ResNet(3, (8, 1), ((8, 2, 1), (16, 2, 2)))
    ends = [block.bn2 for block in resnet.modules() if isinstance(block, ResidualBlock)]
    assert residual_branches(resnet.eval(), rand(1, 3, 16, 16)) == ends[::-1]
    assert len(residual_branches(WResnet().eval(), rand(1, 3, 32, 32))) == 15
    for built in (MobileNetV2, EfficientNetLite0):
        net = built().eval()
        adds = [block for block in net.modules() if getattr(block, "adds", False)]
        found = residual_branches(net, rand(1, 3, 32, 32))
        assert len(found) == len(adds)
        assert all(any(end is inner for inner in block.modules()) for end, block in zip(found[::-1], adds, strict=True))


def test_a_network_without_residual_branches_is_refused() -> None:
    for net, size in ((SqueezeNet().eval(), 64), (build_network(), 8)):
        with pytest.raises(Unsupported, match="no residual"):
            residual_branches(net, rand(1, 3, size, size))
    x = rand(2, 3, 8, 8)
    with pytest.raises(Unsupported, match="no residual"):
        uf.attacks.mi_sgm(build_network(), x, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="1.5"):
        skip_gradient(1.5)


def test_a_branch_that_ends_in_a_function_is_scaled_at_the_module_before_it() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + 0.1 * self.inner(x).permute(0, 1, 3, 2)).mean((2, 3)))

    class Bare(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + (x * 2 + x.sin())).mean((2, 3)))

    model = Scaled().eval()
    assert residual_branches(model, rand(1, 3, 6, 6)) == [model.inner]
    with pytest.raises(Unsupported, match="module"):
        residual_branches(Bare().eval(), rand(1, 3, 6, 6))


def test_the_attack_differs_from_its_plain_version_and_leaves_the_model_alone() -> None:
    model, x = uf.Classifier(network()), rand(2, 3, 8, 8, dtype=torch.float64)
    y = model(x).argmax(1)
    plain, skipping = uf.attacks.i_fgsm(model, x, y), uf.attacks.sgm(model, x, y)
    assert not torch.equal(plain, skipping)
    assert torch.equal(uf.attacks.sgm(model, x, y, gamma=1.0), plain)
    assert uf.find("attack", "mi_sgm").facts.models == "residual network"
    assert not any(module._forward_hooks for module in model.modules())
