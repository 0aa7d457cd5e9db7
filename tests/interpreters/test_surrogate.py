"""A tree in place of a network: where the network is a tree, the two are one."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand
from underfire.data import Dataset
from underfire.errors import DataError, InputError, Unsupported
from underfire.interpreters import Surrogate


class Images:
    """Known images without meaning."""

    labels = ("low", "high")

    def __init__(self, n=200):
        bright = rand(n, 1, 2, 2)
        self.x = nn.functional.interpolate(bright, size=(8, 8))

    def __len__(self):
        return len(self.x)

    def read(self, index):
        return uf.Batch(self.x[index], torch.zeros(len(index), dtype=torch.int64), tuple(map(str, index)))


class Threshold(nn.Module):
    """Class 1 where the top right quarter is brighter than 0.6."""

    def __init__(self):
        super().__init__()
        self.quarters = nn.AdaptiveAvgPool2d(2)

    def forward(self, x):
        over = self.quarters(x)[:, 0, 0, 1] - 0.6
        return torch.stack([-over, over], 1)


@pytest.fixture
def model():
    return uf.Classifier(Threshold(), labels=("low", "high"))


def test_a_network_that_is_a_threshold_is_found_out(model):
    data = Dataset("images", Images())
    method = Surrogate(features="parts", parts=2, depth=3).fit(model, data)
    assert method.fidelity.value >= 0.98 and method.fidelity.n == 50
    assert method.fidelity.low > method.constant.high
    assert method.tree.tree_.feature[0] == 1 and method.tree.tree_.threshold[0] == pytest.approx(0.6, abs=0.02)
    assert "brightness in row 1, column 2" in method.text and "class: high" in method.text
    x = torch.full((2, 1, 8, 8), 0.5)
    x[1, :, :4, 4:] = 0.9
    (question, low), (above, high) = method(model, x, torch.tensor([0, 0]))
    assert question.startswith("brightness in row 1, column 2 is 0.5, at most 0.")
    assert above.startswith("brightness in row 1, column 2 is 0.9, above 0.")
    count = int((model(data[:].x).argmax(1) == 1).sum())
    assert low.startswith("so the tree says low (") and low.endswith("known images), as the network does")
    assert "so the tree says high (" in high and high.endswith("; low is 0 of " + high.split(" of ")[-1])
    assert method(model, x[:0], torch.zeros(0, dtype=torch.int64)) == []
    assert 0 < int(high.split("(")[1].split(" of ")[0]) <= count


def test_the_tree_asks_about_the_channels_of_a_layer(network):
    model = network("relu", channels=1)
    data = Dataset("images", Images())
    method = Surrogate(layer="1", depth=2).fit(model, data)
    x = data[:5].x
    features = model.module[:2]((x - 0.5) / 0.25).mean((2, 3)).detach()
    for rules, seen in zip(method(model, x, torch.zeros(5, dtype=torch.int64)), features, strict=True):
        for line in rules[:-1]:
            words = line.split()
            assert words[2:4] == ["of", "1"] and float(words[5].rstrip(",")) == pytest.approx(
                float(seen[int(words[1])]), 1e-2
            )
        assert len(rules) <= 3
    held = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:50]
    again = torch.tensor(method.tree.predict(model.module[:2]((data[held].x - 0.5) / 0.25).mean((2, 3)).detach()))
    agree = again == model(data[held].x).argmax(1)
    assert method.fidelity.value == pytest.approx(agree.double().mean().item())


def test_bad_input_is_named(model):
    data = Dataset("images", Images())
    with pytest.raises(Unsupported, match="features 'pixels' is unknown"):
        Surrogate(features="pixels").fit(model, data)
    with pytest.raises(InputError, match="held_out .* got 1"):
        Surrogate(held_out=1.0).fit(model, data)
    with pytest.raises(InputError, match="depth .* got 0"):
        Surrogate(depth=0).fit(model, data)
    with pytest.raises(DataError, match="1 images, 0"):
        Surrogate().fit(model, Dataset("one", Images(1)))
