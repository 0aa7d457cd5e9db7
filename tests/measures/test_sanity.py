"""Sanity checks: which layers, in which order, whose chance, and what is left as it was."""

import pytest
import torch
from torch import nn

from underfire.errors import InputError, Unsupported
from underfire.measures import sanity
from underfire.measures.agreement import map_rank_correlation


def gradient(model, x, y):
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
    return g.sum(1, keepdim=True)


def edges(_, x, __):
    """A map of the image alone."""
    return (x - x.roll(1, 3)).abs().sum(1, keepdim=True)


@pytest.fixture
def case(network, generator):
    x = torch.rand(4, 3, 10, 10, generator=generator)
    return network("relu"), x, torch.tensor([0, 1, 2, 3])


def test_a_map_of_the_image_alone_fails_every_check(case):
    model, x, y = case
    found = sanity.randomisation(model, x, y, edges)
    assert found.layers == ("module.6", "module.2", "module.0")
    assert found.kept == ()
    assert all(torch.allclose(alike, torch.ones(3, 4)) for alike in found.similarity.values())
    assert set(found.similarity) == {"rank", "rank_absolute", "ssim", "top"}
    assert torch.allclose(sanity.random_weights(model, x, y, edges), torch.ones(4))
    assert torch.allclose(sanity.random_labels(model, x, y, edges, model), torch.ones(4))


def test_a_gradient_forgets_with_the_weights(network, generator):
    model = network("relu")
    x = torch.rand(40, 3, 10, 10, generator=generator)
    y = torch.arange(40) % 4
    assert sanity.random_weights(model, x, y, gradient).abs().mean() < 0.5
    other = network("relu", seed=9)
    wanted = map_rank_correlation(gradient(model, x, y), gradient(other, x, y))
    assert torch.equal(sanity.random_labels(model, x, y, gradient, other), wanted)


def test_the_cascade_redraws_from_the_top_and_stays(case):
    """What the interpreter is shown: weights of a layer change when its turn comes, and not again."""
    model, x, y = case
    learned = {name: p.clone() for name, p in model.named_parameters()}
    shown = []

    def interpreter(net, x, y):
        shown.append({name: not torch.equal(p, learned[name]) for name, p in net.named_parameters()})
        return gradient(net, x, y)

    sanity.randomisation(model, x, y, interpreter, chunk=4)
    changed = [sorted(name for name, new in state.items() if new) for state in shown]
    top, middle = ["module.6.bias", "module.6.weight"], ["module.2.bias", "module.2.weight"]
    assert changed[0] == []
    assert changed[1] == top
    assert changed[2] == middle + top
    assert changed[3] == sorted(learned)
    shown.clear()
    sanity.randomisation(model, x, y, interpreter, cascade=False, chunk=4)
    changed = [sorted(name for name, new in state.items() if new) for state in shown]
    assert changed == [[], top, middle, ["module.0.bias", "module.0.weight"]]


def test_new_weights_are_those_of_the_layers_own_rule(case):
    model, x, y = case
    weights = []

    def interpreter(net, x, y):
        weights.append(net.module[0].weight.clone())
        return gradient(net, x, y)

    draw = torch.Generator().manual_seed(5)
    sanity.randomisation(model, x, y, interpreter, layers=["module.0"], generator=draw, chunk=4)
    seed = int(torch.randint(2**31, (1,), generator=torch.Generator().manual_seed(5)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = nn.Conv2d(3, 8, 3, padding=1)
    assert torch.equal(weights[1], fresh.weight)


def test_the_model_and_the_global_chance_are_left_as_found(case):
    model, x, y = case
    model.train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    first = sanity.randomisation(model, x, y, gradient)
    again = sanity.randomisation(model, x, y, gradient)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert all(torch.equal(first.similarity[k], again.similarity[k]) for k in first.similarity)
    other = sanity.randomisation(model, x, y, gradient, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(first.similarity["rank"], other.similarity["rank"])


class Odd(nn.Module):
    """Weights in three unusual places: used in another order, of its own, and in an attention."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.stem = nn.Linear(3, 8)
        self.shift = nn.Parameter(torch.full((8,), 0.5))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        z = self.stem(x.flatten(2).transpose(1, 2)) + self.shift
        return self.head(self.attend(z, z, z, need_weights=False)[0].mean(1))


def test_the_order_is_that_of_the_pass_and_what_stays_is_said(generator):
    torch.nn.init.normal_(Odd().shift, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Odd()
    x, y = torch.rand(2, 3, 4, 4, generator=generator), torch.tensor([0, 1])
    found = sanity.randomisation(model, x, y, gradient)
    assert found.layers == ("head", "attend", "attend.out_proj", "stem")
    assert found.kept == ("",)


def test_half_precision_weights_and_batch_norm(generator):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
        model = model.to(torch.bfloat16)
        with torch.no_grad():
            model[1].running_mean += 1
            model[1].num_batches_tracked += 7
    x, y = torch.rand(2, 3, 6, 6, generator=generator).bfloat16(), torch.tensor([0, 1])
    found = sanity.randomisation(model, x, y, gradient)
    assert found.layers == ("4", "1", "0")
    assert model[1].num_batches_tracked == 7
    assert found.similarity["rank"].dtype == torch.float32


def test_bad_input(case):
    model, x, y = case
    with pytest.raises(InputError, match="'module.7' .* did you mean"):
        sanity.randomisation(model, x, y, gradient, layers=["module.7"])
    with pytest.raises(InputError, match="layers .* got none"):
        sanity.randomisation(model, x, y, gradient, layers=[])
    with pytest.raises(Unsupported, match="torch module, not function"):
        sanity.random_weights(lambda x: x.flatten(1), x, y, edges)
    with pytest.raises(Unsupported, match="no layer .* reset_parameters"):
        sanity.random_weights(nn.Flatten(), x, y, edges)
