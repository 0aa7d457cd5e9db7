"""A defended classifier: its two gradients, its draws, defences in a row, and the attacks of the catalogue."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import underfire as uf
from underfire import defenses
from underfire.defenses import defend, through
from underfire.errors import InputError, ModelError, Unsupported
from underfire.model import Classifier
from underfire.transforms import jpeg, squeezing

Y = torch.tensor([0, 1, 2, 3, 0, 1])


def test_defences_in_a_row_see_the_images_in_their_order(relu_model: Classifier, images: Tensor) -> None:
    made = defend(relu_model, ["jpeg", {"name": "bit_depth", "bits": 2}])
    assert isinstance(made, defenses.Defended)
    assert made.defenses == ("jpeg", "bit_depth")
    wanted = relu_model(squeezing.bit_depth(jpeg.jpeg(images, 75), 2))
    assert torch.equal(made(images), wanted)
    assert defend(relu_model, []) is relu_model


@pytest.mark.parametrize(
    ("entries", "fact"),
    [
        ("jpg", "jpeg"),
        ({"name": "jpeg", "qualty": 5}, "quality"),
        ({"name": "jpeg", "quality": "good"}, "good"),
        ({"name": "jpeg", "quality": 0}, "1 to 100"),
        ([3], "3"),
        (5, "5"),
        ([lambda model: model], "defended"),
        ([{"quality": 5}], "name"),
    ],
)
def test_what_is_no_defence_gets_one_line(relu_model: Classifier, entries: Any, fact: str) -> None:
    with pytest.raises(InputError, match=fact) as found:
        defend(relu_model, entries)
    assert "\n" not in str(found.value)


def test_an_attack_needs_the_form_with_a_gradient(relu_model: Classifier, images: Tensor) -> None:
    made = defenses.bit_depth(relu_model, bits=4)
    y = made(images).argmax(1)
    with pytest.raises(Unsupported, match=r"bit_depth.*through"):
        uf.attacks.pgd(made, images, y, eps=0.1, steps=2)
    with pytest.raises(Unsupported, match="bit_depth"):
        uf.attacks.pgd(through(made, bpda=False), images, y, eps=0.1, steps=2)
    with pytest.raises(InputError, match="jpeg"):
        through(relu_model)
    x_adv = uf.attacks.pgd(through(made), images, y, eps=0.3, steps=10)
    assert (made(x_adv).argmax(1) != y).any()
    # black-box attacks need no other form
    uf.attacks.square(made, images, y, eps=0.1, queries=5)


def test_the_attacker_does_not_know_the_draws(relu_model: Classifier, images: Tensor) -> None:
    made = defenses.resize_and_pad(relu_model)
    assert not torch.equal(through(made, samples=1)(images), made(images))
    assert not torch.equal(through(made, samples=1)(images), through(made, samples=1, seed=2)(images))
    assert torch.equal(through(made, samples=1)(images), through(made, samples=1)(images))


def test_a_pass_averages_over_the_draws(relu_model: Classifier, images: Tensor) -> None:
    made = defenses.resize_and_pad(relu_model, low=1.1, high=1.5)
    one, many = through(made, samples=1), through(made, samples=64)
    slow = torch.stack([one(images).softmax(1) for _ in range(64)]).detach()
    assert torch.allclose(many(images).exp(), slow.mean(0), atol=5 * float(slow.std(0).max()) / 8)
    jpeg_first = defend(relu_model, ["jpeg", "resize_and_pad"])
    assert jpeg_first.random and not torch.equal(jpeg_first(images), jpeg_first(images))


def test_defences_inside_one_another_draw_other_numbers(relu_model: Classifier, images: Tensor) -> None:
    inner = defenses.resize_and_pad(relu_model)
    outer = defenses.resize_and_pad(inner)
    assert outer.module.seed != inner.module.seed
    outer.redraw(7)
    assert outer.module.seed != inner.module.seed


def test_layers_are_those_of_the_classifier_behind(relu_model: Classifier, images: Tensor) -> None:
    made = through(defenses.jpeg(relu_model, quality=100))
    layer = uf.hooks.last_spatial_layer(relu_model, images)
    assert uf.hooks.last_spatial_layer(made, images) == layer
    seen = uf.interpreters.grad_cam(defenses.jpeg(relu_model), images, Y)
    wanted = uf.interpreters.grad_cam(relu_model, jpeg.jpeg(images, 75), Y)
    assert torch.allclose(seen, wanted, atol=1e-6)


def test_a_model_of_one_size_is_named_with_the_size_that_it_got(images: Tensor) -> None:
    torch.manual_seed(0)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 12, 4))
    with pytest.raises(ModelError, match=r"6, 3, 13, 13.*keep_size"):
        defenses.resize_and_pad(flat)(images)
    kept = defenses.resize_and_pad(flat, keep_size=True)
    assert kept(images).shape == (6, 4)


def test_probabilities_are_noticed_behind_a_defence(images: Tensor) -> None:
    torch.manual_seed(0)
    sure = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 12, 4), torch.nn.Softmax(1))
    with pytest.raises(ModelError, match="probabilities"):
        uf.attacks.fgsm(through(defenses.jpeg(sure)), images, Y)
    read = defenses.jpeg(Classifier(sure, output="probabilities"))
    assert torch.allclose(read(images).exp().sum(1), torch.ones(6))
