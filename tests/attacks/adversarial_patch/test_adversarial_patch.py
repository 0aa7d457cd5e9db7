"""Adversarial patches of models whose best patch is known; halves that never see themselves."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand, seeded
from underfire.ascent.patches import apply_patch
from underfire.attacks.adversarial_patch import train_patch
from underfire.errors import DataError, InputError
from underfire.model import Classifier


class Redness(nn.Module):
    """Class 1 where the mean of the first channel exceeds that of the second by a tenth."""

    def forward(self, x):
        lead = x[:, 0].mean((1, 2)) - x[:, 1].mean((1, 2)) - 0.1
        return torch.stack([-lead, lead], dim=1) * 50


@pytest.fixture
def scenes():
    return 0.4 + 0.2 * rand(8, 3, 16, 20)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_best_patch_is_red(scenes, targeted):
    """As red and as little green as the box has it, wherever the shape is; the third channel plays no part."""
    y = torch.zeros(8, dtype=torch.int64)
    patch, mask = train_patch(
        Classifier(Redness()), scenes, y, goal=1 - y if targeted else None, eps=0.2, steps=30, generator=seeded()
    )
    inside = mask.bool()
    assert (patch[0][inside] > 0.99).all()
    assert (patch[1][inside] < 0.01).all()
    assert torch.allclose(patch[2], torch.tensor(0.5))


def test_success_needs_the_area(scenes):
    """A patch of share s moves the lead from about 0 by s: a tenth is the boundary."""
    model, y = Classifier(Redness()), torch.zeros(8, dtype=torch.int64)
    for eps, fools in ((0.06, False), (0.16, True)):
        x_adv = uf.attacks.adversarial_patch(model, scenes, y, eps=eps, steps=30, rotation=0, generator=seeded())
        assert ((model(x_adv).argmax(1) == 1) == fools).all()


def test_halves_are_judged_by_the_patch_of_the_other(scenes):
    """A half does not make its own patch: where its labels are turned, it is the other half that turns green."""
    model, y = Classifier(Redness()), torch.zeros(8, dtype=torch.int64)
    order = torch.randperm(8, generator=seeded(3))
    first = order[:4]
    green = y.clone()
    green[first] = 1  # there, success is to be less red
    x_adv = uf.attacks.adversarial_patch(model, scenes, green, eps=0.2, steps=30, generator=seeded(3))
    lead = (x_adv - scenes)[:, 0].mean((1, 2)) - (x_adv - scenes)[:, 1].mean((1, 2))
    second = torch.tensor([i for i in range(8) if i not in first.tolist()])
    assert (lead[first] > 0.05).all()
    assert (lead[second] < -0.05).all()
    both = uf.attacks.adversarial_patch(model, scenes, y, eps=0.2, steps=30, held_out=False, generator=seeded(3))
    colours = {tuple((both[i][:, (both[i] != scenes[i]).any(0)]).mean(1).round(decimals=1).tolist()) for i in range(8)}
    assert len(colours) == 1


def test_a_patch_travels(scenes):
    model, y = Classifier(Redness()), torch.zeros(8, dtype=torch.int64)
    patch, mask = train_patch(model, scenes, y, eps=0.2, shape="square", steps=30, generator=seeded())
    elsewhere = torch.full((3, 3, 40, 30), 0.5)
    pasted = apply_patch(elsewhere, patch, mask, eps=torch.tensor([0.0, 0.1, 0.2]), generator=seeded())
    share = (pasted != elsewhere).any(1).flatten(1).double().mean(1)
    assert torch.equal(pasted[0], elsewhere[0])
    assert (share <= torch.tensor([0.0, 0.1, 0.2])).all()
    assert (share >= torch.tensor([0.0, 0.08, 0.17])).all()
    with pytest.raises(InputError, match="go with these images"):
        apply_patch(elsewhere[:, :1], patch, mask)


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (InputError, "bigger than the image", {"eps": 0.9}),
        (InputError, "bigger than the image", {"eps": 1.5, "shape": "square"}),
        (InputError, "at least 1", {"chunk": 0}),
        (InputError, "scale in", {"scale": 0.0}),
        (DataError, "labels", {"goal": torch.tensor([1])}),
    ],
)
def test_bad_input(scenes, error, words, options):
    y = torch.zeros(8, dtype=torch.int64)
    with pytest.raises(error, match=words.replace("labels", "goal must be int64")):
        uf.attacks.adversarial_patch(Classifier(Redness()), scenes, y, **options)
