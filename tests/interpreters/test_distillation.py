"""Adversarial interpretation distillation of RTS, on a small network."""

import copy
from functools import cached_property

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand
from underfire.data import Dataset
from underfire.errors import InputError, NotFitted
from underfire.interpreters.rts import distillation
from underfire.interpreters.rts.rts import RTS

ATTACK = {"eps": 0.1, "attack_steps": 8, "warm_steps": 8}


class Noise:
    """Random images, whose classes are those that the network predicts."""

    labels = None

    def __init__(self, model):
        self.x = rand(64, 3, 12, 12, seed=4)
        with torch.no_grad():
            self.y = model(self.x).argmax(1)

    def __len__(self):
        return 64

    def read(self, index):
        return uf.Batch(self.x[index], self.y[index], tuple(map(str, index)))


class Setting:
    """A network, RTS trained for it, and RTS distilled from that."""

    def __init__(self):
        self.model = build_network()
        self.data = Dataset("noise", Noise(self.model))
        self.plain = RTS().fit(self.model, self.data, selector_steps=20, steps=15, batch_size=8, width=8)
        batch = self.data[torch.arange(24)]
        self.x, self.y = batch.x, batch.y
        with torch.no_grad():
            self.goal = self.model(self.x).topk(2, dim=1).indices[:, 1]

    @cached_property
    def hard(self):
        """The distilled interpreter."""
        options = {"steps": 15, "batch_size": 8, "distance": 30.0, "rate": 1e-3, **ATTACK}
        return copy.deepcopy(self.plain).distil(self.model, self.data, **options)

    def gap(self, rts):
        """The L1 distance of the maps of images and of ADV² images that fool the network."""
        options = {"goal": self.goal, "interpreter": rts, "eps": 0.1, "steps": 15, "warm_steps": 10}
        x_adv = uf.attacks.adv2(self.model, self.x, self.y, **options)
        fooled = self.model(x_adv).argmax(1) == self.goal
        assert fooled.float().mean() > 0.5
        m, n = rts(self.model, self.x, self.y), rts(self.model, x_adv, self.goal)
        return (m - n).abs().mean((1, 2, 3))[fooled].mean().item()


@pytest.fixture(scope="module")
def s():
    return Setting()


@pytest.mark.slow
def test_maps_of_adversarial_images_move_away_and_benign_ones_stay_as_good(s):
    before, after = s.gap(s.plain), s.gap(s.hard)
    assert after > 1.2 * before
    chance = [torch.Generator().manual_seed(0) for _ in range(2)]
    losses = [rts.loss(s.model, s.x, s.y, generator=g).mean() for rts, g in zip((s.plain, s.hard), chance, strict=True)]
    assert losses[1] < losses[0] + 0.3


def test_the_objective_is_the_distance_of_the_two_maps(s):
    trained, x_adv = s.plain._trained, (s.x + 0.1).clamp(0, 1)
    gap, fooled = distillation._gap(s.model, trained, s.x, x_adv, s.goal)
    shown = s.model(s.x).argmax(1)
    wanted = (s.plain(s.model, s.x, shown) - s.plain(s.model, x_adv, s.goal)).abs().mean((1, 2, 3))
    assert torch.allclose(gap, wanted, atol=1e-6)
    assert torch.equal(fooled, s.model(x_adv).argmax(1) == s.goal)


@pytest.mark.slow
def test_it_goes_on_from_a_checkpoint_to_the_same_weights(s, tmp_path):
    options = {"batch_size": 4, **ATTACK, "attack_steps": 2, "warm_steps": 2}
    whole = copy.deepcopy(s.plain).distil(s.model, s.data, steps=3, **options)
    parts = [copy.deepcopy(s.plain) for _ in range(2)]
    for rts, steps in zip(parts, (2, 3), strict=True):
        rts.distil(s.model, s.data, steps=steps, checkpoint=tmp_path / "c", **options)
    assert torch.equal(whole(s.model, s.x, s.y), parts[1](s.model, s.x, s.y))
    whole.save(tmp_path / "hard.safetensors")
    again = RTS(weights=str(tmp_path / "hard.safetensors"))
    assert torch.equal(again(s.model, s.x, s.y), whole(s.model, s.x, s.y))


def test_bad_settings(s):
    with pytest.raises(NotFitted, match="fit"):
        RTS().distil(s.model, s.data, steps=1)
    for wrong in ({"batch_size": 1}, {"steps": -1}, {"attack_steps": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            copy.deepcopy(s.plain).distil(s.model, s.data, **wrong)
