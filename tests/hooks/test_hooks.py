"""Whatever is put on a model is read correctly and comes off."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.networks import rand
from underfire import hooks
from underfire.errors import ModelError, Unsupported
from underfire.model import Classifier


class Residual(nn.Module):
    """In-place ReLU, one module used twice, a functional ReLU after the sum: what hooks break on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.tail = nn.Identity()
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = F.relu(x + self.act(self.conv(x)), inplace=True)
        return self.head(self.tail(x).mean((2, 3)))


def state_of(model: nn.Module) -> list:
    return [
        (m.training, len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks), "forward" in m.__dict__)
        for m in model.modules()
    ] + [(p.requires_grad, p.grad is None) for p in model.parameters()]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier(Residual())


def test_frozen_restores_every_mode_and_flag(model):
    model.module.conv.eval()
    model.module.head.bias.requires_grad_(False)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="stop"), hooks.frozen(model):
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        raise RuntimeError("stop")
    assert state_of(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_those_before_in_place_operations(model, dtype):
    model = model.to(dtype).eval()
    before = state_of(model)
    x = rand(2, 3, 8, 8)
    logits, outputs = hooks.activations(model, x, ["stem", "act", "tail"])
    assert torch.equal(outputs["stem"], model.module.stem(x.to(dtype)))
    assert (outputs["stem"] < 0).any()
    assert torch.equal(outputs["act"], F.relu(model.module.conv(F.relu(outputs["stem"]))))  # the last of its two uses
    assert torch.equal(logits, model(x))
    assert state_of(model) == before


def test_gradients_flow_through_a_read_layer(model):
    x = rand(2, 3, 8, 8).requires_grad_()
    logits, outputs = hooks.activations(model.eval(), x, ["stem"])
    (through,) = torch.autograd.grad(logits.sum(), outputs["stem"], retain_graph=True)
    (direct,) = torch.autograd.grad(logits.sum(), x)
    back = F.conv_transpose2d(through, model.module.stem.weight, padding=1)
    assert torch.allclose(back, direct, atol=1e-5)


def test_shared_forward_runs_once_for_logits_and_layers(model):
    before = state_of(model)
    x = rand(2, 3, 8, 8)
    with model.counting() as count, hooks.shared_forward(model) as forget:
        hooks.activations(model, x, ["stem"])
        assert torch.equal(model(x), model(x))
        assert count.forwards == 2  # images, in one pass
        other = rand(2, 3, 8, 8)
        model(other)
        _, outputs = hooks.activations(model, other, ["stem"])
        assert torch.equal(outputs["stem"], model.module.stem(other))
        assert count.forwards == 4
        with torch.no_grad():
            assert not model(other).requires_grad  # a pass without a graph is another pass
        assert count.forwards == 6
        other.add_(0.1)
        model(other)
        assert count.forwards == 8  # the same tensor with new values is not the same image
        forget()
    assert state_of(model) == before


def test_unknown_layer_lists_the_others(model):
    with pytest.raises(ModelError, match="'sten'; .* 'stem'") as error:
        hooks.activations(model, rand(1, 3, 8, 8), ["sten"])
    assert "conv" in str(error.value)


def test_heads_are_found_through_functional_pooling(model):
    x = rand(2, 3, 8, 8)
    name, weight, bias = hooks.pooled_head(model, x)
    assert name == "tail"
    assert torch.equal(weight, model.module.head.weight)
    assert torch.equal(bias, model.module.head.bias)
    assert hooks.last_spatial_layer(model, x) == "tail"


def test_models_without_space_or_pooling_say_so():
    flat = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    with pytest.raises(Unsupported, match="output has space"):
        hooks.last_spatial_layer(flat, rand(1, 3, 2, 2))
    maxed = Classifier(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    with pytest.raises(Unsupported, match="global average pooling"):
        hooks.pooled_head(maxed, rand(1, 3, 2, 2))


# --- what other people's networks do ---------------------------------------------------------------------------------


class Block(nn.Module):
    """The end of a residual network as it is usually written: normalise, add in place, rectify in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        out = self.bn(self.conv(x))
        out += x
        return self.head(self.relu(out).mean((2, 3)))


def completeness(model: Classifier, x: torch.Tensor) -> torch.Tensor:
    from underfire.interpreters import cam

    y = torch.zeros(len(x), dtype=torch.int64)
    _, _, bias = hooks.pooled_head(model, x)
    return cam(model, x, y).mean((1, 2, 3)) + bias[0] - model(x)[:, 0]


def test_cam_reads_the_features_after_in_place_operations():
    torch.manual_seed(1)
    x = rand(3, 3, 8, 8)
    model = Classifier(Block().eval())
    assert hooks.last_spatial_layer(model, x) == "relu"
    assert torch.allclose(completeness(model, x), torch.zeros(3), atol=1e-5)
    body = (
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    assert torch.allclose(completeness(Classifier(nn.Sequential(*body).eval()), x), torch.zeros(3), atol=1e-5)


def test_a_functional_in_place_relu_before_pooling_is_not_mistaken():
    class Dense(nn.Sequential):
        def forward(self, x):
            return self[1](F.relu(self[0](x), inplace=True).mean((2, 3)))

    with pytest.raises(Unsupported, match="global average pooling"):
        hooks.pooled_head(Classifier(Dense(nn.Conv2d(3, 6, 3), nn.Linear(6, 5))), rand(1, 3, 8, 8))


def test_the_head_is_the_one_that_makes_the_logits_whatever_image_comes_first():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.main, self.side = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, x):
            pooled = self.conv(x).mean((2, 3))
            logits = self.main(pooled)
            self.side(pooled)
            return logits

    two = Classifier(Two())
    assert torch.equal(hooks.pooled_head(two, torch.zeros(1, 3, 8, 8))[1], two.module.main.weight)
    maxed = Classifier(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    with pytest.raises(Unsupported):
        hooks.pooled_head(maxed, torch.zeros(1, 3, 4, 4))  # on black, mean and maximum are one
    small = Classifier(nn.Sequential(nn.Conv2d(3, 4, 8), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(Unsupported):
        hooks.last_spatial_layer(small, rand(1, 3, 8, 8))
    assert hooks.last_spatial_layer(small, rand(1, 3, 16, 16)) == "1"  # found anew for another size


def test_a_network_with_a_part_called_module_keeps_its_own_names():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.module(x).mean((2, 3)))

    named = Named()
    assert hooks.layer(Classifier(named), "head") is named.head
    assert hooks.unwrap(Classifier(Classifier(nn.DataParallel(named)))) is named


def test_a_forward_that_was_already_replaced_stays(model):
    original = model.module.forward
    model.module.forward = replaced = lambda x: original(x) + 1
    x = rand(1, 3, 8, 8)
    with hooks.shared_forward(model.module):
        assert torch.equal(model.module(x), replaced(x))
    assert model.module.forward is replaced


def test_a_layer_that_cannot_be_read_does_not_spoil_later_passes(model):
    model.module.spare = nn.Conv2d(1, 1, 1)
    x = rand(1, 3, 8, 8)
    with hooks.shared_forward(model):
        with pytest.raises(ModelError, match="'spare' took no part"):
            hooks.activations(model, x, ["spare"])
        model(x)
        hooks.activations(model, x, ["stem"])
