"""Folded batch norms: the same outputs and gradients, the same model afterwards, and only where a fold is right."""

from threading import Thread

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import underfire as uf
from tests.networks import rand
from underfire.hooks import folded, frozen


def settled(module):
    """Give the batch norms statistics and weights as after a training."""
    chance = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for t, low, high in (
                (part.running_mean, -1, 1),
                (part.running_var, 0.1, 2),
                (part.weight, -1, 2),
                (part.bias, -1, 1),
            ):
                if t is not None:
                    t.data.copy_(low + (high - low) * torch.rand(t.shape, generator=chance))
    return module.eval()


def same(width):
    return nn.Conv2d(width, width, 3, padding=1, bias=False)


class Net(nn.Module):
    """Two convolutions, a norm after each; `kind` says what is unusual."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, stride=2, groups=3), nn.BatchNorm2d(6, affine=kind != "no affine")
        self.conv2, self.norm2 = same(6), nn.BatchNorm2d(6)
        self.tail = nn.Linear(6, 4)
        if kind == "shared":
            self.conv1, self.norm1 = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        if kind == "aliased":
            self.conv3 = same(6)
            self.conv3.weight = self.conv2.weight
        if kind == "statistics of the batch":
            self.norm2 = nn.BatchNorm2d(6, track_running_stats=False)
        if kind == "parametrised":
            parametrize.register_parametrization(self.conv2, "weight", nn.Tanh())
        if kind == "subclass":
            self.conv2.__class__ = Standardised
        settled(self)

    def forward(self, x):
        z = self.norm1(self.conv1(x)).relu()
        middle = self.conv2(z)
        if self.kind == "in place":
            middle.mul_(2)
        after = self.norm2(middle).relu()
        if self.kind == "read twice":
            after = after + middle
        if self.kind == "shared":
            after = self.norm2(self.conv2(after))
        if self.kind == "aliased":
            after = self.conv3(after)
        return self.tail(after.mean((2, 3)))


class Standardised(nn.Conv2d):
    """A convolution that standardises its weights."""

    def forward(self, x):
        return self._conv_forward(x, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


FOLDS = {
    "plain": 2,
    "no affine": 2,
    "aliased": 2,
    "shared": 1,
    "read twice": 1,
    "in place": 1,
    "statistics of the batch": 1,
    "parametrised": 1,
    "subclass": 1,
}


@pytest.mark.parametrize(("kind", "folds"), FOLDS.items())
def test_outputs_and_gradients_are_equal_and_the_model_is_as_before(kind, folds):
    module = Net(kind)
    model = uf.Classifier(module, mean=0.4, std=0.2)
    x = rand(3, 3, 9, 9).requires_grad_()
    names = [(id(p), p._version) for p in (*module.parameters(), *module.buffers())]
    before = model(x)
    (slope,) = torch.autograd.grad(before.square().sum(), x)
    with folded(model, x):
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        assert sum("forward" in vars(part) for part in norms) == folds
        inside = model(x)
        (slope_inside,) = torch.autograd.grad(inside.square().sum(), x)
        with folded(model, x):  # a block inside a block folds nothing twice
            assert torch.equal(model(x), inside)
        assert torch.equal(model(x), inside)
    assert torch.allclose(inside, before, rtol=1e-4, atol=1e-5)
    assert torch.allclose(slope_inside, slope, rtol=1e-3, atol=1e-5)
    assert torch.equal(model(x), before)
    assert [(id(p), p._version) for p in (*module.parameters(), *module.buffers())] == names
    assert not any("forward" in vars(part) for part in module.modules())


def test_double_precision_is_exact_and_half_precision_stays():
    x = rand(2, 3, 9, 9, dtype=torch.float64)
    model = uf.Classifier(Net("plain").double())
    before = model(x)
    with folded(model, x):
        assert torch.allclose(model(x), before, rtol=1e-12, atol=1e-12)
    half = Net("plain").bfloat16()
    with folded(half, x.bfloat16()):
        assert not any("forward" in vars(part) for part in half.modules())


def test_hooks_of_others_see_what_they_would_see():
    module, x = Net("plain"), rand(2, 3, 9, 9)
    seen = []
    module.conv1.register_forward_hook(lambda *_: seen.append(_[2]))
    module(x)
    with folded(module, x):
        assert "forward" not in vars(module.norm1) and "forward" in vars(module.norm2)
        module(x)
    assert torch.equal(seen[0], seen[-1])


def test_an_error_restores_the_model_and_a_changed_weight_counts():
    module, x = Net("plain"), rand(2, 3, 9, 9)
    before = module(x)
    with pytest.raises(ZeroDivisionError), folded(module, x):
        raise ZeroDivisionError
    assert torch.equal(module(x), before)
    with torch.no_grad():
        module.conv1.weight.mul_(2)
    other = module(x)
    with folded(module, x):
        assert torch.allclose(module(x), other, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_folded_stays():
    x = rand(2, 3, 9, 9)
    with folded(lambda z: z, x), folded(nn.Flatten(), x):
        pass
    refusing = Net("plain")
    with folded(refusing, rand(1, 5, 9, 9)):  # a wrong number of channels
        assert "forward" not in vars(refusing.norm1)


def test_threads_share_a_fold():
    module, x = Net("plain"), rand(2, 3, 9, 9)
    before, found = module(x), []

    def work():
        for _ in range(10):
            with frozen(module), folded(module, x), torch.no_grad():
                found.append(bool(torch.allclose(module(x), before, rtol=1e-4, atol=1e-5)))

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30 and all(found)
    assert torch.equal(module(x), before)
