"""Layers by name and by pattern, and their pooled features, streamed."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.networks import build_network, rand
from underfire.errors import InputError, ModelError
from underfire.hooks import Probe, activations, all_features, choose_layers, choose_probes, features
from underfire.hooks.features import pooled


class Functional(nn.Module):
    """A residual network whose rectifiers are functions, one of them of a sum, and one module of two calls."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()
        self.layer1 = nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 4, 3, padding=1), norm=nn.BatchNorm2d(4)))
        self.layer2 = nn.Conv2d(4, 4, 3, padding=1)
        self.hidden, self.fc = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        z = self.relu(self.stem(x))
        z = self.relu(self.layer2(F.relu(self.layer1(z))) + z)
        return self.fc(self.hidden(z.mean((2, 3))).relu())


def test_auto_is_every_activation_of_a_small_network_in_order_of_execution():
    network, x = Functional().eval(), rand(1, 1, 6, 5)
    assert choose_layers(network, x) == ("stem+relu", "layer1+relu", "relu", "hidden+relu")
    assert choose_layers(network, x, ("layer*", "logits")) == ("layer1", "layer2", "logits")
    assert choose_layers(network, x, "layer?.*") == ("layer1.conv", "layer1.norm")
    assert choose_layers(network, x, ("fc", "auto", "fc"))[0] == "fc"


def test_auto_is_the_last_layer_of_each_size_of_a_deep_network():
    deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()) for _ in range(9)], nn.Flatten())
    assert choose_layers(deep, rand(1, 1, 4, 4)) == ("8.1",)


@pytest.mark.parametrize("wrong", ["hiden", "layr*"])
def test_a_layer_that_there_is_not_is_refused_with_the_nearest_name(wrong):
    with pytest.raises(ModelError, match=r"'hidden'|'layer1'|'layer2'"):
        choose_layers(Functional(), rand(1, 1, 6, 5), wrong)


@pytest.mark.parametrize("wrong", [(), "", 5, ("fc", 5)])
def test_layers_are_names(wrong):
    with pytest.raises(InputError, match="layers"):
        choose_layers(Functional(), rand(1, 1, 6, 5), wrong)


def test_features_are_pooled_outputs_and_the_logits():
    model, x = build_network(classes=3), rand(5, 3, 8, 6)
    with torch.no_grad():
        maps = activations(model, x, ["1"])[1]["1"]
        wanted = {
            "mean": maps.mean((2, 3)),
            "max": maps.amax((2, 3)),
            "mean_2": F.adaptive_avg_pool2d(maps, 2).flatten(1),
            "none": maps.flatten(1),
        }
        logits, found = features(model, x, [*(Probe("1", pooling) for pooling in wanted), Probe("logits")])
    assert all(torch.allclose(found[Probe("1", pooling)], value) for pooling, value in wanted.items())
    assert torch.equal(found[Probe("logits")], logits) and torch.equal(logits, model(x))
    with pytest.raises(InputError, match="mean_0"):
        choose_probes(model, x, "1", "mean_0")


def test_streamed_features_are_those_of_one_pass_and_need_one_pass():
    model, x = build_network(), rand(7, 3, 8, 6)
    probes = choose_probes(model, x, ("auto", "logits"))
    with torch.no_grad():
        logits, found = features(model, x, probes)
    with model.counting() as count:
        streamed_logits, streamed = all_features(model, x, probes, chunk=3)
    assert count.forwards == 7 and torch.allclose(streamed_logits, logits, atol=1e-6)
    assert all(torch.allclose(streamed[probe], found[probe], atol=1e-6) for probe in probes)
    assert not any(value.requires_grad for value in streamed.values())


def test_features_that_are_not_finite_are_refused():
    model, x = build_network(), rand(4, 3, 8, 6)
    with torch.no_grad():
        model.module[0].weight[0] = float("nan")
    with pytest.raises(ModelError, match="NaN for 4 of 4"):
        features(model, x, [Probe("1")])


@pytest.mark.parametrize("needs_grad", [False, True])
def test_an_operation_in_place_after_a_layer_leaves_its_features_as_they_were(needs_grad):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 4 * 3, 5), nn.ReLU(inplace=True)
    model, x = nn.Sequential(*layers).double().eval(), rand(5, 3, 6, 5, dtype=torch.float64).requires_grad_(needs_grad)
    probes = [Probe("0", pooling) for pooling in ("mean", "max", "mean_2", "none")] + [Probe("3"), Probe("logits")]
    first = features(model, x, probes)  # finds the layouts
    again = features(model, x, probes)
    wanted = layers[0](x)
    for logits, found in (first, again):
        assert torch.equal(found[Probe("0", "none")], wanted.flatten(1)) and (found[Probe("3")] < 0).any()
        assert torch.allclose(found[Probe("0", "mean_2")], F.adaptive_avg_pool2d(wanted, 2).flatten(1))
        assert torch.equal(logits, found[Probe("logits")]) and torch.equal(logits, model(x))
    if needs_grad:
        slopes = [
            torch.autograd.grad(sum(f.square().sum() for f in found.values()), x)[0] for _, found in (first, again)
        ]
        assert torch.allclose(slopes[0], slopes[1]) and bool(slopes[0].any())


@pytest.mark.parametrize("size", [(3, 6), (2, 9), (16, 16), (20, 17)])
@pytest.mark.parametrize("side", [2, 4])
def test_parts_of_a_map_are_those_of_adaptive_pooling(size, side):
    maps = rand(2, 3, *size)
    wanted = F.adaptive_avg_pool2d(maps, side).flatten(1)
    assert torch.allclose(pooled(maps, f"mean_{side}"), wanted, atol=1e-6)
