"""Compositions that nobody has named, against slow versions in plain loops; and how many gradients each one costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import underfire as uf
from tests.attacks.transfer.slow import (
    EPS,
    STEPS,
    admixed,
    climb,
    diverse,
    entropy_gradient,
    flattened,
    shuffled,
    simulated,
    smoothed,
    through,
    variance_tuned,
)
from tests.networks import build_network, rand, seeded
from underfire.ascent.objectives import cross_entropy
from underfire.gradients.neighbourhoods import random_operators

Slow = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]
#: By name: options, the slow version, and the number of gradients of a step.
CASES: dict[str, tuple[dict[str, Any], Slow, int]] = {}


def case(name: str, gradients: int, **options: Any) -> Callable[[Slow], Slow]:
    """Make a slow version a case."""

    def enter(slow: Slow) -> Slow:
        CASES[name] = options, slow, gradients
        return slow

    return enter


@case("ni_ti_di", 1, decay=0.8, size=5, rate=1.25)
def ni_ti_di(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return climb(
        x, lambda z: smoothed(through(model, z, y, lambda v: [diverse(v, generator)]), 5), decay=0.8, ahead=True
    )


@case("di_si", 3, copies=3, rate=1.25)
def di_si(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    """Every image is resized once, and then scaled: the views apply in the order of the name."""

    def versions(z: Tensor) -> list[Tensor]:
        seen = diverse(z, generator)
        return [seen / 2**i for i in range(3)]

    return climb(x, lambda z: through(model, z, y, versions), decay=0)


@case("si_di", 3, copies=3, rate=1.25)
def si_di(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    """Every scaled copy is resized in its own way."""
    return climb(x, lambda z: through(model, z, y, lambda v: [diverse(v / 2**i, generator) for i in range(3)]), decay=0)


@case("vmi_sim", 4 * 2, samples=3, neighbourhood=1.2, copies=2)
def vmi_sim(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    plain = lambda z: through(model, z, y, lambda v: [v, v / 2])  # noqa: E731
    return climb(x, variance_tuned(plain, 1.2 * EPS, 3, generator))


@case("ti_vni", 3, samples=2, size=3)
def ti_vni(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    tuned = variance_tuned(lambda z: entropy_gradient(model, z, y), 1.5 * EPS, 2, generator)
    return climb(x, lambda z: smoothed(tuned(z), 3), ahead=True)


@case("vt_i_di", 3, samples=2, rate=1.25)
def vt_i_di(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    plain = lambda z: through(model, z, y, lambda v: [diverse(v, generator)])  # noqa: E731
    return climb(x, variance_tuned(plain, 1.5 * EPS, 2, generator), decay=0)


@case("ni_admix_ti", 2 * 2, copies=2, samples=2, size=5)
def ni_admix_ti(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    mixed = lambda z: through(model, z, y, lambda v: admixed(v, x, y, 2, 2, generator))  # noqa: E731
    return climb(x, lambda z: smoothed(mixed(z), 5), ahead=True)


@case("ssm_dim", 3, samples=3, spread=0.4, sigma=0.05, rate=1.25)
def ssm_dim(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    """One spectrum after the other is drawn, and resized before the next."""

    def versions(z: Tensor) -> list[Tensor]:
        found = []
        for _ in range(3):
            (spectrum,) = simulated(z, 1, 0.4, 0.05, generator)
            found.append(diverse(spectrum, generator))
        return found

    return climb(x, lambda z: through(model, z, y, versions))


@case("pgn_si", 2 * 3 * 2, samples=3, neighbourhood=2.5, copies=2)
def pgn_si(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    plain = lambda z: through(model, z, y, lambda v: [v, v / 2])  # noqa: E731
    return climb(x, flattened(plain, 2.5 * EPS, 3, generator))


@case("bsr_vni", 3 * 2, bsr_samples=2, rotation=0.0, vni_samples=2)
def bsr_vni(model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    plain = lambda z: through(model, z, y, lambda v: shuffled(v, 2, generator))  # noqa: E731
    return climb(x, variance_tuned(plain, 1.5 * EPS, 2, generator), ahead=True)


@pytest.mark.parametrize("name", CASES)
def test_a_composition_is_what_its_parts_say(name: str) -> None:
    options, slow, gradients = CASES[name]
    model, x = build_network("smooth", torch.float64), rand(3, 3, 12, 12, dtype=torch.float64)
    y = torch.tensor([0, 1, 2])
    attack = uf.find("attack", name)
    with model.counting() as cost:
        fast = attack(
            model, x, y, eps=EPS, steps=STEPS, objective=cross_entropy(), generator=seeded(3), **attack.check(options)
        )
    assert (fast - slow(model, x, y, seeded(3))).abs().max() < 1e-9
    assert (fast - x).abs().max() > 0.9 * EPS
    assert cost.backwards == gradients * STEPS * 3
    assert cost.forwards == cost.backwards


def test_ops_averages_the_image_and_operators_on_its_neighbours() -> None:
    model, x = build_network("smooth", torch.float64), rand(2, 3, 12, 12, dtype=torch.float64)
    y, eps = torch.tensor([0, 1]), torch.tensor([0.05, 0.1])
    with model.counting() as cost:
        fast = uf.attacks.ops(
            model, x, y, eps=eps, steps=1, perturbations=3, samples=4, objective=cross_entropy(), generator=seeded(3)
        )
    assert cost.backwards == 2 * (1 + 3 * 4)
    draws, versions = seeded(3), []
    z = x.clone().requires_grad_()
    for _ in range(3):
        share = (int(torch.randint(0, 6, (), generator=draws)) + 1) / 4
        radius = 2 * share * eps.double().reshape(2, 1, 1, 1)
        near = z + radius * (2 * torch.rand(x.shape, generator=draws, dtype=x.dtype) - 1)
        versions += list(random_operators(4)(near, draws))
    losses = [torch.nn.functional.cross_entropy(model(v), y, reduction="sum") for v in (z, *versions)]
    gradient = torch.autograd.grad(sum(losses), z)[0]
    slow = (x + eps.double().reshape(2, 1, 1, 1) * gradient.sign()).clamp(0, 1)
    assert torch.allclose(fast, slow)


def test_a_usual_move_gives_way_to_one_of_the_name() -> None:
    model, x = build_network(), rand(2, 3, 12, 12)
    y = model(x).argmax(1)
    for name, same in (("dim", "mi_di"), ("ni_dim", "ni_di"), ("i_dim", "di_fgsm")):
        one, other = (uf.find("attack", n)(model, x, y, steps=3, generator=seeded(1)) for n in (name, same))
        assert torch.equal(one, other), name


@pytest.mark.parametrize("name", ["admix_pgn", "ops_vmi", "sia_vni"])
def test_rows_that_succeed_leave_and_the_others_keep_their_samples(name: str) -> None:
    """Views and estimators that depend on the samples of the rows go with retirement, restarts and an eps for each."""
    model, x = build_network(), rand(6, 3, 8, 8)
    y, eps = model(x).argmax(1), torch.linspace(0.02, 0.3, 6)
    attack = uf.find("attack", name)
    counts = {key: 2 for key in attack.options if key.endswith("samples") or key == "perturbations"}
    with model.counting() as whole:
        attack(model, x, y, eps=eps, steps=3, keep="best", **counts)
    with model.counting() as less:
        x_adv = attack(model, x, y, eps=eps, steps=3, keep="success", restarts=2, **counts)
    assert ((x_adv - x).abs().flatten(1).amax(1) <= eps + 1e-6).all()
    assert (model(x_adv).argmax(1) != y).any()
    assert less.backwards < 2 * whole.backwards


def test_the_result_is_another_with_each_part() -> None:
    model, x = build_network(), rand(2, 3, 12, 12)
    y = model(x).argmax(1)
    names = ("mi", "ni", "si_mi", "ti_mi", "ti_si_mi", "ti_si_ni")
    found = [uf.find("attack", name)(model, x, y, eps=0.1) for name in names]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])
