"""DeepFool: exact on flat boundaries, the paper's loop word for word, no farther than foolbox."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from underfire import Classifier
from underfire.ascent.threats import ball
from underfire.attacks import deepfool
from underfire.errors import InputError


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("goal", [None, 1, 2])
def test_flat_boundaries_are_met_exactly(two_boundaries, norm, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = deepfool(model, x, y, norm=norm, overshoot=1e-4, goal=classes)
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all()) if goal is None else bool((reached == goal).all())
    ratio = ball(norm, 1).size(x, x_adv) / two_boundaries.distance(norm, goal)
    assert ratio.max() < 1.001


def test_a_step_counts_only_pixels_that_can_move(two_boundaries):
    """The last step is enough where the pixels in the way of the box already touch it."""
    model, x, y = two_boundaries.model, two_boundaries.x.clone(), two_boundaries.y
    w = (model.module[1].weight[1] - model.module[1].weight[0]).detach().view(1, 4, 5)
    with torch.no_grad():
        x[:, :, 0, 0] = (w[:, 0, 0] > 0).to(x)  # it would have to leave the box
        gap = (model(x)[:, 0] - model(x)[:, 1]).amin()
        model.module[1].bias[1] += gap - 0.5
    x_adv = deepfool(model, x, y, steps=1, overshoot=1e-3, goal=torch.ones_like(y))
    assert bool((model(x_adv).argmax(1) == 1).all())
    assert torch.equal(x_adv[:, :, 0, 0], x[:, :, 0, 0])


def slow(model: Classifier, x: Tensor, y: int, norm: str, overshoot: float) -> Tensor:
    """Algorithm 2 of the paper for one image, with the loop over all classes, and the dual norm for L-infinity."""
    r, x_i = torch.zeros_like(x), x
    while (logits := model(x_i[None]).detach()[0]).argmax() == y:
        rows = [torch.autograd.functional.jacobian(lambda v, k=k: model(v[None])[0, k], x_i) for k in range(4)]
        best = None
        for k in range(4):
            if k == y:
                continue
            w, f = rows[k] - rows[y], float(logits[k] - logits[y])
            length = abs(f) / float(w.norm(2) if norm == "l2" else w.abs().sum())
            if best is None or length < best[0]:
                best = length, (w / w.norm(2) if norm == "l2" else w.sign())
        r = r + (best[0] + 1e-6) * best[1]
        x_i = x + (1 + overshoot) * r
    return x_i


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_is_the_papers_loop(network, images, norm):
    model, x = network("smooth", torch.float64), images.double()
    y = model(x).argmax(1)
    x_adv = deepfool(model, x, y, norm=norm)
    inside = 0
    for i in range(len(x)):
        wanted = slow(model, x[i], int(y[i]), norm, 0.02)
        if bool(((wanted > 0) & (wanted < 1)).all()):  # the paper has no box
            inside += 1
            assert torch.allclose(x_adv[i], wanted, atol=1e-7)
    assert inside >= 2


def test_only_those_still_inside_pay(relu_model, images):
    y = relu_model(images).argmax(1)
    y[0] = (y[0] + 1) % 4  # wrong already
    with relu_model.counting() as none:
        deepfool(relu_model, images[:1], y[:1])
    assert (none.forwards, none.backwards) == (1, 0)
    with relu_model.counting() as batch:
        deepfool(relu_model, images, y, candidates=2)
    singles = []
    for i in range(6):
        with relu_model.counting() as one:
            deepfool(relu_model, images[i : i + 1], y[i : i + 1], candidates=2)
        singles.append((one.forwards, one.backwards))
    assert batch.forwards == sum(forwards for forwards, _ in singles)
    # The hook counts a whole batch for every backward pass, and two are made a step.
    assert batch.backwards == sum(backwards for _, backwards in singles)


@pytest.mark.slow
def test_agrees_with_foolbox(network, images):
    foolbox = pytest.importorskip("foolbox")
    model, x = network(), images
    y = model(x).argmax(1)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    theirs = foolbox.attacks.L2DeepFoolAttack()(wrapped, x, y, epsilons=None)[1]
    ours = deepfool(model, x, y)
    assert bool((model(ours).argmax(1) != y).all())
    sizes = [ball("l2", 1).size(x, x_adv) for x_adv in (ours, theirs)]
    # Where a pixel meets the box on the way the two differ, and foolbox, which does not look, goes farther.
    assert (sizes[0] <= 1.001 * sizes[1] + 1e-4).all()


def test_bad_numbers(relu_model, images):
    y = relu_model(images).argmax(1)
    for wrong in ({"candidates": 0}, {"overshoot": -0.1}):
        with pytest.raises(InputError, match="must be"):
            deepfool(relu_model, images, y, **wrong)
