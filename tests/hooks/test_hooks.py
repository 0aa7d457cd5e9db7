"""Whatever is put on a model is read correctly and comes off."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

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


def test_a_block_that_begins_no_sharing_uses_that_of_an_outer_block(model):
    x = rand(2, 3, 8, 8)
    with model.counting() as count, hooks.shared_forward(model, begin=False):
        model(x), model(x)
        assert count.forwards == 4
    with model.counting() as count, hooks.shared_forward(model), hooks.shared_forward(model, begin=False) as forget:
        model(x), model(x)
        assert count.forwards == 2
        forget()
        model(x)
        assert count.forwards == 4


@pytest.mark.parametrize("hard", [False, True])
def test_every_shared_pass_has_second_derivatives(hard):
    seen = []

    class Network(nn.Module):
        def forward(self, x):
            seen.append(len(_get_current_function_mode_stack()))
            return F.hardsigmoid(x).square() if hard else x.sigmoid().square()

    network = Network()
    with hooks.shared_forward(network):
        for _ in range(3):
            x = torch.tensor([[0.5, 1.0]], requires_grad=True)
            (first,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
            assert first.requires_grad and bool(torch.autograd.grad(first.sum(), x)[0].all())
    # every function is looked at only until a pass has shown that the network has no hard sigmoid
    assert seen == ([1, 1, 1] if hard else [1, 0, 0])


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
    with pytest.raises(Unsupported, match="spatial layer"):
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


class Functional(nn.Sequential):
    """Features, a function of them, dropout, a global average and a linear layer, as in torchvision's DenseNet."""

    def __init__(self, function, classes: int = 5) -> None:
        super().__init__(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.2), nn.Linear(6, classes))
        self.function = function

    def forward(self, x):
        out = F.dropout(self.function(self[1](self[0](x))), 0.1, self.training)
        return self[3](self[2](torch.flatten(F.adaptive_avg_pool2d(out, 1), 1)))


def ignored(z):
    z.relu_()
    return z


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "1+relu"),
        (lambda z: F.relu(z, inplace=True), "1+relu"),
        (ignored, "1+relu"),
        (lambda z: z.clamp(min=0), "1+clamp"),
        (lambda z: torch.where(z > 0, z, 0.0), "1+where"),
        (lambda z: z * (z > 0), "1+mul"),
        (F.silu, "1+silu"),
        (F.hardswish, "1+hardswish"),
    ],
)
def test_a_function_between_the_last_features_and_their_average(function, name):
    torch.manual_seed(1)
    model, x, y = Classifier(Functional(function).eval()), rand(3, 3, 8, 8), torch.tensor([0, 3, 4])
    before = state_of(model)
    assert hooks.last_spatial_layer(model, x) == hooks.pooled_head(model, x)[0] == name
    assert torch.allclose(completeness(model, x), torch.zeros(3), atol=1e-5)
    # the features, and their gradient, are those after the function
    seen = function(model.module[1](model.module[0](x))).detach()
    logits, outputs = hooks.activations(model, x, ["1", name])
    assert torch.equal(outputs[name], seen) and torch.equal(logits, model(x)) and not torch.equal(outputs["1"], seen)
    wanted = (model.module[3].weight[y][:, :, None, None] * seen).sum(1, keepdim=True).clamp_min(0) / 36
    from underfire.interpreters import grad_cam

    assert torch.allclose(grad_cam(model, x, y), wanted, atol=1e-6)
    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(grad_cam(model, point, y).sum(), point)
    assert bool(slope.any()) and state_of(model) == before
    with pytest.raises(ModelError, match=r"'1\+tanh' took no part"):
        hooks.activations(model, x, ["1+tanh"])
    with pytest.raises(ModelError, match=r"no layer '7\+relu'"):
        hooks.layer(model, "7+relu")


class Joined(nn.Module):
    """A network that joins two layers outside its layers, and averages what it gets."""

    def __init__(self, join, average, width):
        super().__init__()
        torch.manual_seed(1)
        self.join, self.average = join, average
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.average(self.join(self.one(x), self.two(x))))


AVERAGES = [
    lambda z: z.mean((2, 3)),
    lambda z: torch.mean(z, dim=[-1, -2], keepdim=True).flatten(1),
    lambda z: F.adaptive_avg_pool2d(z, 1).flatten(1),
    lambda z: F.avg_pool2d(z, z.shape[2:]).flatten(1),
    lambda z: z.permute(0, 2, 3, 1).mean((1, 2)),
]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    ("join", "width"),
    [
        (lambda a, b: a + b, 4),
        (lambda a, b: torch.cat([a, b], 1), 8),
        (lambda a, b: (a * b.sigmoid()).relu_() - b, 4),
    ],
)
def test_cam_reads_what_is_averaged_though_no_layer_returns_it(join, width, average):
    model, x, y = Classifier(Joined(join, average, width).eval()), rand(3, 3, 8, 8), torch.tensor([0, 3, 4])
    before = state_of(model)
    name, weight, _ = hooks.pooled_head(model, x)
    assert name == "+averaged" and torch.equal(weight, model.module.head.weight)
    assert torch.allclose(completeness(model, x), torch.zeros(3), atol=1e-5)
    seen = join(model.module.one(x), model.module.two(x))
    from underfire.interpreters import cam

    wanted = (weight[y][:, :, None, None] * seen).sum(1, keepdim=True)
    assert torch.allclose(cam(model, x, y), wanted, atol=1e-6)
    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cam(model, point, y).square().sum(), point)
    assert bool(slope.any()) and state_of(model) == before


def test_one_map_for_each_class_is_an_explanation_already():
    """As in SqueezeNet, whose last convolution makes the logits of every place."""
    torch.manual_seed(1)
    body = [nn.Conv2d(3, 6, 3), nn.ReLU(True), nn.Dropout(0.2), nn.Conv2d(6, 5, 1), nn.ReLU(True)]
    model = Classifier(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval())
    x, y = rand(3, 3, 8, 8), torch.tensor([0, 3, 4])
    name, weight, bias = hooks.pooled_head(model, x)
    assert name == "4" and torch.equal(weight, torch.eye(5)) and bias is None
    from underfire.interpreters import cam

    assert torch.equal(cam(model, x, y)[:, 0], model.module[:5](x)[[0, 1, 2], y])
    assert hooks.last_spatial_layer(model, x) == "1"


def test_adaptive_pooling_has_no_features_of_its_own():
    """As in AlexNet and VGG: the grid is that of the features."""
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(196, 5)]
    model = Classifier(nn.Sequential(*body).eval())
    assert hooks.last_spatial_layer(model, rand(1, 3, 10, 12)) == "2"
    inside = nn.Sequential(nn.Sequential(*body[:4]), *body[4:])  # a layer that ends in such pooling does not count
    assert hooks.last_spatial_layer(Classifier(inside.eval()), rand(1, 3, 10, 12)) == "0.2"
    assert hooks.layout_of(model, rand(1, 3, 10, 12), "3").grid == (7, 7)  # it can be named


def test_a_table_that_does_not_depend_on_the_image_is_no_feature_map():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.table, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(2, 6, 1), nn.Linear(6, 5)

        def forward(self, x):
            z, places = self.conv(x), self.table(torch.ones(1, 2, 3, 4))
            return self.head(z.tanh().mean((2, 3)) + places.mean((2, 3)))

    assert hooks.last_spatial_layer(Classifier(Biased().eval()), rand(1, 3, 8, 8)) == "conv+tanh"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_layers_of_a_compiled_network_are_refused(model):
    x = rand(1, 3, 8, 8)
    compiled = Classifier(torch.jit.trace(model.module.eval(), x))
    for read in (hooks.last_spatial_layer, hooks.pooled_head, hooks.feature_pyramid):
        with pytest.raises(Unsupported, match="compiled"):
            read(compiled, x)
    with pytest.raises(Unsupported, match="compiled"):
        hooks.activations(compiled, x, ["stem"])
    part = Classifier(nn.Sequential(torch.jit.trace(model.module.stem, x), nn.ReLU(), nn.Flatten(), nn.Linear(384, 2)))
    assert hooks.last_spatial_layer(part, x) == "1"


class Shared(nn.Module):
    """A block of a ResNet-50: one ReLU for three places, and a stride in its second convolution."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels_in, 4, 1), nn.Conv2d(4, 4, 3, stride, 1)
        self.conv3, self.relu = nn.Conv2d(4, channels, 1), nn.ReLU(inplace=True)
        self.down = nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x):
        out = self.conv3(self.relu(self.conv2(self.relu(self.conv1(x)))))
        return self.relu(out + self.down(x))


def test_a_pyramid_of_blocks_that_share_a_module():
    """A module that is called again at another size has the last size; inner layers of a block do not count."""
    body = [nn.Conv2d(3, 6, 3, padding=1), Shared(6, 8, 2), Shared(8, 8, 1), Shared(8, 12, 2)]
    model = Classifier(
        nn.Sequential(nn.Sequential(*body), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)).eval()
    )
    levels = hooks.feature_pyramid(model, rand(1, 3, 16, 16))
    assert levels == [("0.0", 6, (16, 16)), ("0.2.relu", 8, (8, 8)), ("0.3.relu", 12, (4, 4))]
    _, outputs = hooks.activations(model, rand(1, 3, 16, 16), [level.layer for level in levels])
    assert [tuple(outputs[level.layer].shape[1:]) for level in levels] == [(6, 16, 16), (8, 8, 8), (12, 4, 4)]


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
