"""ADV² on MASK, against a slow version written from the paper, finite differences and counts."""

from functools import partial

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand, randn, seeded
from underfire.ascent.flows import Flow
from underfire.ascent.parts import part, spelling
from underfire.ascent.regions import Patch
from underfire.ascent.threats import L2, Linf
from underfire.attacks.adv2.bilevel import TRAVEL, radius
from underfire.attacks.adv2.scheme import Bilevel
from underfire.catalog import find
from underfire.errors import InputError, Unsupported
from underfire.interpreters import mask, mask_game
from underfire.interpreters.mask import steps
from underfire.interpreters.mask.unrolled import UnrolledMask
from underfire.measures.maps import map_l1

GAME = {"variant": "adv2_v2", "cells": 5}


@pytest.fixture(scope="module")
def case():
    model = build_network("smooth", torch.float64)
    x = rand(3, 3, 16, 16, dtype=torch.float64)
    y = model(x).argmax(1)
    return model, x, y, (y + 1) % 4


class Adam:
    """Adam with a graph through its averages, as in the paper of Kingma and Ba."""

    def __init__(self, m):
        self.mean, self.square, self.t = torch.zeros_like(m), torch.zeros_like(m), 0

    def step(self, m, g):
        self.t += 1
        self.mean = 0.9 * self.mean + 0.1 * g
        self.square = 0.999 * self.square + 0.001 * g * g
        mean, square = self.mean / (1 - 0.9**self.t), self.square / (1 - 0.999**self.t)
        return (m - 0.1 * mean / (square.sqrt() + 1e-8)).clamp(0, 1)


def slope(model, image, classes, m, graph=False):
    m = m.detach().requires_grad_()
    objective = mask_game(model, image, classes, fill="variant", **GAME).objective(m)
    return torch.autograd.grad(objective.sum(), m, create_graph=graph)[0]


def fresh(model, image, goal, count):
    m = torch.full((1, 1, 5, 5), 0.5, dtype=torch.float64)
    adam = Adam(m)
    for _ in range(count):
        m = adam.step(m, slope(model, image, goal, m)).detach()
    return m


def slow(model, clean, goal, target, *, eps, count, reset, of_mask, lengths, confidence, fade):
    """Algorithm 1 for one image, `target` in masks (0 deletes): plain loops, one pass for every candidate."""

    def p(image):
        return model(image).softmax(1)[0, goal[0]]

    beta = TRAVEL / count * eps * clean.numel() ** 0.5
    x, m, best = clean, torch.full((1, 1, 5, 5), 0.5, dtype=torch.float64), (-10.0, None)
    adam = Adam(m)
    for i in range(count):
        # the leader: a step on the prediction
        point = x.detach().requires_grad_()
        z = model(point)[0]
        others = torch.cat([z[: goal[0]], z[goal[0] + 1 :]])
        (g,) = torch.autograd.grad(z[goal[0]] - others.max(), point)
        length = beta * min((1 - p(x)) / (1 - confidence), 1) if fade else beta
        x = (x + length * g / g.norm()).clamp(clean - eps, clean + eps).clamp(0, 1)
        # the follower
        for _ in range(4):
            m = adam.step(m, slope(model, x, goal, m)).detach()
        # the leader anticipates the follower
        point, total = x.detach().requires_grad_(), 0
        for _ in range(4):
            m = adam.step(m, slope(model, point, goal, m, graph=True))
            total = total + ((m - target) ** 2).sum() / 4
            m = m.detach()
        (g,) = torch.autograd.grad(total, point)
        adam.mean, adam.square = adam.mean.detach(), adam.square.detach()
        longest = (1.6 if i < 0.9 * count else 0.8) * beta
        kept = x
        for k in range(1, lengths + 1):
            tried = (x - k / lengths * longest * g / g.norm()).clamp(clean - eps, clean + eps).clamp(0, 1)
            if p(tried) >= confidence:
                kept = tried
        x = kept
        # the reset
        if (i + 1) % reset == 0 or i + 1 == count:
            near = ((255 * x).round() / 255).clamp(clean - eps, clean + eps)
            shown = near if p(near) >= confidence or p(x) < confidence else x
            m = fresh(model, shown, goal, of_mask)
            loss = ((m - target) ** 2).mean()
            success = model(shown)[0].argmax() == goal[0]
            rank = 10 * success + (-loss if p(shown) >= confidence else p(shown) - 3)
            if rank > best[0]:
                best = rank, shown
            adam.mean, adam.square, adam.t = adam.mean / 2, adam.square / 4, 100
    return best[1]


@pytest.mark.slow
@pytest.mark.parametrize("fade", [False, True])
def test_it_is_the_slow_version_of_the_paper(case, fade):
    model, x, y, goal = case
    shown = partial(mask, steps=6, fill="variant", double_backward="exact", **GAME)
    target = shown(model, x, y)
    options = {"eps": 0.2, "confidence": 0.3}
    scheme = Bilevel(reset=3, lengths=4, fade=fade)
    x_adv = uf.attacks.adv2(model, x, y, interpreter=shown, goal=goal, steps=7, warm_steps=0, scheme=scheme, **options)
    for i in range(2):
        one = slice(i, i + 1)
        expected = slow(
            model, x[one], goal[one], 1 - target[one], count=7, reset=3, of_mask=6, lengths=4, fade=fade, **options
        )
        assert torch.allclose(x_adv[one], expected, atol=1e-9)
    assert not torch.equal(x_adv, x)


@pytest.mark.parametrize("double_backward", ["exact", "finite_difference"])
@pytest.mark.parametrize("game", ["deletion", "preservation"])
def test_the_slope_of_the_steps_ahead_is_that_of_finite_differences(case, double_backward, game, monkeypatch):
    """With the masks from which each step begins held fixed; the averages of Adam depend on the image."""
    model, x, _, goal = case
    wide = steps.wide_shift  # the default shift is wide on purpose; a narrow one shows the derivative
    monkeypatch.setattr(steps, "wide_shift", lambda v: tuple(1e-3 * part for part in wide(v)))
    options = {**GAME, "game": game, "double_backward": double_backward}
    weights, direction = (randn(*shape, seed=3, dtype=torch.float64) for shape in ((3, 1, 5, 5), x.shape))
    unrolled = UnrolledMask(model, x, goal, generator=seeded(), **options)
    unrolled.unroll(x, 4, 1)
    begin, memory, played = unrolled.m, unrolled.memory, unrolled.game
    point = x.clone().requires_grad_()
    maps = unrolled.unroll(point, 0, 3)
    starts = [begin, *(played.shown(m).detach() for m in maps[:-1])]
    (g,) = torch.autograd.grad(sum((weights * m).sum() for m in maps), point)

    def total(image):
        adam = Adam(begin)
        adam.mean, adam.square, adam.t = memory[0], memory[1], int(memory[2][0])
        value = 0
        for m in starts:
            (of_m,) = torch.autograd.grad(played.at(image).objective(m.requires_grad_()).sum(), m)
            value = value + (weights * played.shown(adam.step(m.detach(), of_m))).sum()
        return value

    measured = (total(x + 1e-5 * direction) - total(x - 1e-5 * direction)) / 2e-5
    assert (g * direction).sum().item() == pytest.approx(measured.item(), rel=1e-3)


def test_a_restart_goes_on_from_the_maps_of_the_whole_optimisation(case):
    model, x, _, goal = case
    options = {**GAME, "steps": 4}
    unrolled = UnrolledMask(model, x, goal, generator=seeded(), **options)
    unrolled.unroll(x, 3, 0)
    mean, square, _ = unrolled.memory
    maps = unrolled.restart(1 - x)
    assert torch.allclose(maps, mask(model, 1 - x, goal, **options))
    assert torch.allclose(unrolled.m, 1 - maps)
    assert torch.equal(unrolled.memory[0], mean / 2)
    assert torch.equal(unrolled.memory[1], square / 4)
    assert (unrolled.memory[2] == 100).all()


@pytest.mark.slow
def test_an_image_is_attacked_alike_alone_and_in_chunks(case):
    model, x, y, goal = case
    options = {"goal": goal, "eps": 0.2, "steps": 4, "warm_steps": 2, "confidence": 0.3, "scheme": Bilevel(reset=2)}
    whole, parts = (
        uf.attacks.adv2(model, x, y, interpreter=partial(mask, steps=3, chunk=chunk, **GAME), **options)
        for chunk in (3, 1)
    )
    assert torch.allclose(whole, parts, atol=1e-9)


@pytest.mark.slow
def test_finished_images_cost_nothing_more(case):
    model, x, y, goal = case
    shown, forwards = partial(mask, steps=3, **GAME), []
    for enough in (1.0, 0.0):
        with model.counting() as count:
            uf.attacks.adv2(
                model, x, y, interpreter=shown, goal=goal, eps=0.3, steps=8, warm_steps=20, confidence=0.3,
                scheme=Bilevel(reset=2, enough=enough),
            )  # fmt: skip
        forwards.append(count.forwards)
    assert forwards[0] < 0.7 * forwards[1]


@pytest.mark.slow
def test_the_map_stays_nearer_than_under_pgd(case):
    model, x, y, goal = case
    shown, options = partial(mask, variant="adv2_v2", steps=20), {"goal": goal, "eps": 4.0, "norm": "l2"}
    benign = shown(model, x, y)
    plain = uf.attacks.pgd(model, x, y, steps=30, random_start=False, keep="last", **options)
    both = uf.attacks.adv2(model, x, y, interpreter=shown, steps=15, confidence=0.5, scheme=Bilevel(reset=5), **options)
    assert (model(both).argmax(1) == goal).all()
    gaps = [map_l1(benign, shown(model, x_adv, goal)).mean() for x_adv in (plain, both)]
    assert gaps[1] < 0.85 * gaps[0]


def test_a_step_is_that_of_the_authors_and_scales_with_what_may_change():
    x = torch.zeros(1, 3, 224, 224)
    assert TRAVEL / 1000 * radius(Linf(0.031), x, x).item() == pytest.approx(0.05)
    assert radius(Linf(0.031, torch.arange(224) % 2), x, x).item() == pytest.approx(0.05 * 1000 / TRAVEL / 2**0.5)
    assert radius(L2(torch.tensor([0.7])), x, x).item() == pytest.approx(0.7)
    assert radius(Patch(0.25), x, x).item() == pytest.approx((3 * 112 * 112) ** 0.5)
    assert radius(Flow(2.0), x, torch.zeros(1, 2, 224, 224)).item() == pytest.approx(2 * (2 * 224 * 224) ** 0.5)


def test_an_image_that_cannot_be_fooled_comes_back(case):
    model, x, y, goal = case
    options = {"interpreter": partial(mask, steps=2, **GAME), "goal": goal[:1], "steps": 2, "warm_steps": 1}
    assert torch.equal(uf.attacks.adv2(model, x[:1], y[:1], eps=0.0, **options), x[:1])

    def sure(image):  # the goal has no probability anywhere
        bright = image.mean((1, 2, 3))
        return torch.stack([10 * bright, 0 * bright, 0 * bright - 200], 1)

    options |= {"goal": torch.tensor([2]), "eps": 0.01}
    assert sure(uf.attacks.adv2(sure, x[:1], torch.tensor([0]), **options)).argmax() == 0


@pytest.mark.parametrize(("norm", "eps"), [("flow", 1.5), ("patch", 0.4)])
def test_it_attacks_by_every_threat(case, norm, eps):
    model, x, y, goal = case
    options = {"goal": goal, "norm": norm, "eps": eps, "steps": 6, "warm_steps": 10, "confidence": 0.3}
    x_adv = uf.attacks.adv2(model, x, y, interpreter=partial(mask, steps=3, **GAME), **options)
    p = model(torch.cat([x, x_adv])).softmax(1).gather(1, goal.repeat(2)[:, None]).view(2, -1)
    assert (p[1] > p[0]).all()
    if norm == "patch":
        assert (Patch(eps).size(x, x_adv) <= eps).all()


def test_what_cannot_be_is_said(case):
    model, x, y, goal = case
    with pytest.raises(InputError, match="ahead"):
        Bilevel(ahead=0)
    with pytest.raises(Unsupported, match="counterfactual .* adv2_black_box"):
        uf.attacks.adv2(model, x, y, interpreter=partial(uf.interpreters.counterfactual), goal=goal)
    with pytest.raises(Unsupported, match="double_backward 'twice' is unknown"):
        mask(model, x, y, double_backward="twice")


@pytest.mark.parametrize("written", ["bilevel(reset=2, fade=False)", {"name": "bilevel", "reset": 2, "fade": False}])
def test_a_spec_writes_the_scheme_as_a_part(case, written):
    attack = find("attack", "adv2")
    assert attack.check({"interpreter": mask, "scheme": written})["scheme"] == Bilevel(reset=2, fade=False)
    text = spelling("scheme", value=written)
    assert part("scheme", value=text) == Bilevel(reset=2, fade=False)
    model, x, y, goal = case
    options = {"interpreter": partial(mask, steps=3, **GAME), "goal": goal, "eps": 0.2, "steps": 2, "warm_steps": 1}
    by_name = uf.attacks.adv2(model, x, y, **attack.check({"scheme": written, **options}))
    assert torch.equal(by_name, uf.attacks.adv2(model, x, y, scheme=Bilevel(reset=2, fade=False), **options))


@pytest.mark.parametrize(
    ("wrong", "said"), [("bilevel(ahead=0)", "ahead"), ("bilevel(rest=2)", "reset"), ("x", "bilevel")]
)
def test_a_wrong_scheme_is_one_line(wrong, said):
    with pytest.raises(InputError, match=said) as error:
        find("attack", "adv2").check({"interpreter": mask, "scheme": wrong})
    assert "scheme" in str(error.value) and "\n" not in str(error.value)
