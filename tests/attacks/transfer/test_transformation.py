"""ATTA: algorithms 1 and 2 of Wu et al. 2021 with plain modules, one image at a time; and trained on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import build_network, rand, seeded
from underfire import attacks
from underfire.ascent.objective import Start
from underfire.ascent.objectives import cross_entropy
from underfire.ascent.threats import ball
from underfire.attacks.transfer.transformation import (
    AdversarialTransformation,
    hard_transformation,
    train_transformation,
)
from underfire.attacks.transfer.transformation.sharing import _KEPT
from underfire.attacks.transfer.transformation.training import Game
from underfire.data import Dataset
from underfire.errors import InputError, NotFitted
from underfire.hooks import frozen
from underfire.learning import write_tensors
from underfire.model import Classifier
from underfire.records import Batch

EPS, STEPS, OUTER, INNER, RATE = 0.06, 3, 3, 2, 0.01
Y = torch.tensor([0, 1, 2])
OPTIONS = {"eps": EPS, "steps": STEPS, "outer_steps": OUTER, "inner_steps": INNER, "transformation_rate": RATE}


@pytest.fixture(scope="module")
def model() -> Classifier:
    return build_network("smooth", torch.float64)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 0.2 + 0.6 * rand(3, 3, 8, 8, dtype=torch.float64)


def clip(z: Tensor, x: Tensor) -> Tensor:
    return z.clamp(x - EPS, x + EPS).clamp(0, 1)


def slow_network(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> nn.Module:
    """Algorithm 1 for one image."""
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.LeakyReLU(0.01), nn.Conv2d(3, 3, 15, padding=7)).double()
    with torch.no_grad():
        for layer in (network[0], network[2]):
            nn.init.dirac_(layer.weight)
            layer.weight += 0.01 * torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            layer.bias.zero_()
    x_adv = x.clone().requires_grad_()
    image_adam = torch.optim.Adam([x_adv], lr=EPS / INNER)
    network_adam = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(OUTER):
        for _ in range(INNER):
            fool = -F.cross_entropy(model(network(x_adv)), y) - F.cross_entropy(model(x_adv), y)
            (x_adv.grad,) = torch.autograd.grad(fool, x_adv)
            image_adam.step()
            with torch.no_grad():
                x_adv.copy_(clip(x_adv, x))
        z = x_adv.detach()
        loss = F.cross_entropy(model(network(z)), y) + F.cross_entropy(model(network(x)), y)
        network_adam.zero_grad()
        (loss + 10 * (z - network(z)).square().sum()).backward()
        network_adam.step()
    return network


def slow_atta(model: nn.Module, x: Tensor, y: Tensor, generator: Generator, gamma: float = 1.0) -> Tensor:
    """Algorithm 2 for one image, with the network of algorithm 1."""
    network, x_t = slow_network(model, x, y, generator), x
    for _ in range(STEPS):
        z = x_t.detach().requires_grad_()
        loss = F.cross_entropy(model(z), y) + gamma * F.cross_entropy(model(network(z)), y)
        x_t = clip(x_t + EPS / STEPS * torch.autograd.grad(loss, z)[0].sign(), x).detach()
    return x_t


@pytest.mark.parametrize("gamma", [1.0, 4.0])
def test_it_is_the_paper_image_by_image(model: Classifier, x: Tensor, gamma: float) -> None:
    options = {**OPTIONS, "gamma": gamma, "objective": cross_entropy()}
    ours = attacks.atta(model, x, Y, **options, generator=seeded(5))
    for i in range(3):
        slow = slow_atta(model, x[i : i + 1], Y[i : i + 1], seeded(5), gamma)
        assert (ours[i : i + 1] - slow).abs().max() < 1e-9
    assert not torch.equal(ours, attacks.bim(model, x, Y, eps=EPS, steps=STEPS, objective=cross_entropy()))


def test_it_costs_what_it_says(x: Tensor) -> None:
    small = build_network()
    with small.counting() as count:
        attacks.atta(small, x.float(), Y, **OPTIONS)
    once = 1  # the check of the classes
    assert count.forwards == 3 * (once + OUTER * (INNER + 1) * 2 + 2 * STEPS)


def test_two_attacks_on_the_same_images_train_the_networks_once(x: Tensor) -> None:
    small, x = build_network(), x.float()

    def run(name: str, **changes: Any) -> tuple[Tensor, int, int]:
        passes: list[int] = []
        hook = small.module.register_forward_hook(lambda *_: passes.append(1))
        with small.counting() as count:
            found = uf.find("attack", name)(small, x, Y, **{**OPTIONS, "generator": seeded(5), **changes})
        hook.remove()
        return found, count.forwards, len(passes)

    first, again, other = run("atta"), run("atta"), run("atta", generator=seeded(6))
    assert torch.equal(first[0], again[0]) and first[1] == again[1] == other[1]
    assert again[2] < first[2] == other[2]  # the passes count, and are not made
    random = run("at_di", probability=0.5)  # with the networks of atta
    _KEPT.clear()
    anew = run("at_di", probability=0.5)
    assert torch.equal(random[0], anew[0])  # the generator goes on as after the training
    assert random[1] == anew[1] and random[2] < anew[2]
    for changes in ({"eps": 0.05}, {"strength_weight": 5.0}, {"goal": (Y + 1) % 4}, {"norm": "l2"}):
        assert run("atta", **changes)[2] == first[2], changes


def test_trained_once_it_is_the_same_network_for_every_image(model: Classifier, x: Tensor) -> None:
    network = AdversarialTransformation(3, generator=seeded(1), like=x)
    network.trained = True
    ours = attacks.atta(model, x, Y, eps=EPS, steps=STEPS, weights=network, objective=cross_entropy())
    x_t = x
    for _ in range(STEPS):
        z = x_t.detach().requires_grad_()
        loss = sum(F.cross_entropy(model(v), Y, reduction="sum") for v in (z, network(z)))
        x_t = clip(x_t + EPS / STEPS * torch.autograd.grad(loss, z)[0].sign(), x).detach()
    assert (ours - x_t).abs().max() < 1e-9


class Images:
    """Images with labels in memory, as a source of data."""

    labels = None

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: list[int]) -> Batch:
        return Batch(x=self.x[index], y=self.y[index], ids=[str(i) for i in index])


@pytest.fixture(scope="module")
def data() -> Dataset:
    small, images = build_network(), 0.1 + 0.8 * rand(24, 3, 8, 8)
    return Dataset("random:", Images(images, small(images).argmax(1)))


def test_training_on_a_set_lowers_the_loss_against_fresh_adversarial_images(tmp_path: Path, data: Dataset) -> None:
    small, batch, threat = build_network(), data[:], ball("linf", EPS)

    def loss(network: nn.Module) -> Tensor:
        """L_T after the inner loop."""
        start, game = Start(small, batch.x, batch.y, None, threat.projection(batch.x), None), Game(inner_steps=3)
        with frozen(small):
            x_adv, _ = game.fool(start, network, batch.x, torch.full((len(batch.x),), EPS / 3), None)
        return game.resist(start, network, x_adv).mean()

    options = {"eps": EPS, "batch_size": 8, "inner_steps": 3, "kernels": (3, 5)}
    first = AdversarialTransformation(3, kernels=(3, 5), generator=seeded(1))
    network = train_transformation(small, data, epochs=4, **options, generator=seeded(1))
    assert loss(network) < 0.8 * loss(first)
    network.save(tmp_path / "t.safetensors")
    kept = AdversarialTransformation.load(tmp_path / "t.safetensors")
    assert torch.equal(kept(batch.x), network(batch.x))
    one, other = (
        attacks.atta(small, batch.x, batch.y, weights=w, eps=EPS) for w in (network, str(tmp_path / "t.safetensors"))
    )
    assert torch.equal(one, other)


def test_training_resumes_to_the_same_weights(tmp_path: Path, data: Dataset) -> None:
    small, options = build_network(), {"eps": EPS, "batch_size": 8, "inner_steps": 2, "kernels": (3, 5)}

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Stopped

    whole = train_transformation(small, data, epochs=2, **options, generator=seeded(1))
    path = tmp_path / "c"
    with pytest.raises(Stopped):
        train_transformation(small, data, epochs=2, **options, generator=seeded(1), progress=stop, checkpoint=path)
    again = train_transformation(small, data, epochs=2, **options, generator=seeded(1), checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, again.weights, strict=True))


@pytest.mark.parametrize("name", ["at_si_ni_ti_dim", "tap_at_mi", "at_ata_vmi_di"])
def test_it_composes_with_every_token(name: str) -> None:
    small, images = build_network(), rand(3, 3, 12, 12)
    card = uf.find("attack", name)
    options = {"outer_steps": 2, "inner_steps": 2, "steps": 2, "copies": 2, "samples": 2}
    options = {key: value for key, value in options.items() if key in card.options}
    x_adv = card(small, images, Y, eps=EPS, **options, generator=seeded(1))
    assert 0 < (x_adv - images).abs().max() <= EPS + 1e-6


def test_the_objective_is_the_same_on_both_sides(model: Classifier, x: Tensor) -> None:
    """With the logit as the loss, the classifier behind the network is attacked by its logit too."""
    network = AdversarialTransformation(3, generator=seeded(1), like=x)
    network.trained = True
    ours = uf.find("attack", "at_logit")(model, x, Y, eps=EPS, steps=1, weights=network)
    z = x.clone().requires_grad_()
    total = sum(model(v).gather(1, Y[:, None]).sum() for v in (z, network(z)))
    assert torch.allclose(ours, clip(x - EPS * torch.autograd.grad(total, z)[0].sign(), x))


def test_what_it_refuses(tmp_path: Path, model: Classifier, x: Tensor) -> None:
    network = AdversarialTransformation(3)
    with pytest.raises(NotFitted, match="underfire train atta"):
        attacks.atta(model, x, Y, weights=network)
    with pytest.raises(NotFitted, match="underfire train atta"):
        network.save(tmp_path / "t")
    with pytest.raises(InputError, match="nothing"):
        hard_transformation(str(tmp_path / "nothing.safetensors"))
    write_tensors(tmp_path / "other", {"a": torch.zeros(1)}, {"defense": "hgd"})
    with pytest.raises(InputError, match="underfire train atta"):
        AdversarialTransformation.load(tmp_path / "other")
    with pytest.raises(InputError, match="odd"):
        attacks.atta(model, x, Y, kernels=(2, 3))
    grey = AdversarialTransformation(1)
    grey.trained = True
    with pytest.raises(InputError, match="1 channels"):
        attacks.atta(model, x, Y, weights=grey)
    with pytest.raises(InputError, match="transformation_rate"):
        hard_transformation(transformation_rate=0)
