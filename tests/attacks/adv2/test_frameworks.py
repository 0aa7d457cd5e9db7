"""ADV² on a flow field, on a patch, in L2 and on any other threat; the paper's StAdv loss."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

import underfire as uf
from tests.attacks.adv2.conftest import Case
from tests.networks import seeded
from underfire.ascent.flows import Flow, roughness
from underfire.ascent.moves import adam
from underfire.ascent.objectives import objective
from underfire.ascent.parametric import Photometric
from underfire.ascent.target_maps import Clean, TargetMap, other_class, picture, random_patch
from underfire.ascent.threats import L2
from underfire.attacks.adv2.framework import framework
from underfire.errors import InputError, Unsupported
from underfire.measures.maps import map_l2

cam = uf.interpreters.cam
adv2 = partial(uf.attacks.adv2, interpreter=cam, steps=30, warm_steps=20, confidence=0.3)
SIZES = {"linf": 0.15, "l2": 2.0, "flow": 2.0, "patch": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("norm", SIZES)
def test_it_fools_the_class_and_the_map_follows(small: Case, norm: str) -> None:
    """With the map loss, the map of the fooled images is nearer to the clean one than without it."""
    model, x, y = small.model, small.x, small.y
    benign = cam(model, x, y)
    gaps = []
    for weight in (0.0, 100.0):
        x_adv = adv2(model, x, y, norm=norm, eps=SIZES[norm], weight=weight)
        predicted = model(x_adv).argmax(1)
        assert (predicted != y).float().mean() >= 0.5
        assert uf.measures.perturbation.within(x, x_adv, norm, SIZES[norm]).all()
        gaps.append(map_l2(benign, cam(model, x_adv, predicted))[predicted != y].mean())
    assert gaps[1] < 0.8 * gaps[0]


@pytest.mark.slow
def test_a_flow_moves_pixels_and_the_flow_loss_makes_it_smooth(small: Case) -> None:
    seen: dict[float, torch.Tensor] = {}
    for weight in (0.0, 0.5):
        flows: list[torch.Tensor] = []
        watch = objective(lambda step, flows=flows: flows.append(step.z.detach()) or 0 * step.logits[:, 0])
        x_adv = adv2(small.model, small.x, small.y, norm="flow", eps=1.5, flow_weight=weight, also=watch)
        assert all(flow.shape == (6, 2, 12, 12) and flow.abs().max() <= 1.5 for flow in flows)
        assert any(torch.equal(x_adv[0], Flow(1.5).apply(small.x, flow)[0]) for flow in flows)
        seen[weight] = roughness(flows[-1])
    assert (seen[0.5] < 0.7 * seen[0.0]).all()


def test_the_random_start_of_a_flow_is_uniform_and_reproducible(small: Case) -> None:
    """The start of the authors' code; without it nothing is drawn."""
    base, x = framework("flow", 2.0, None, None, 5e-4, 0.1), small.x
    z = base.start(x, seeded())
    assert torch.equal(z, base.start(x, seeded())) and z.shape == (6, 2, 12, 12)
    assert 0.09 < z.abs().max() <= 0.1 and z.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert framework("flow", 0.03, None, None, 5e-4, 0.1).start(x, seeded()).abs().max() <= 0.03
    assert not framework("flow", 2.0, None, None, 5e-4).start(x, seeded()).any()
    # the attack begins there
    seen: list[torch.Tensor] = []
    watch = objective(lambda step: seen.append(step.z.detach()) or 0 * step.logits[:, 0])
    options = {"norm": "flow", "eps": 2.0, "steps": 1, "move": adam(amsgrad=True), "flow_start": 0.1, "also": watch}
    once = adv2(small.model, x, small.y, warm_steps=0, generator=seeded(), **options)
    assert torch.equal(seen[0], z)
    assert torch.equal(once, adv2(small.model, x, small.y, warm_steps=0, generator=seeded(), **options))


@pytest.mark.slow
def test_only_the_region_of_a_patch_changes(small: Case) -> None:
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 4:10] = 1
    x_adv = adv2(small.model, small.x, small.y, norm="patch", eps=0.25, mask=mask)
    changed = (x_adv != small.x).any(1)
    assert changed.any() and not (changed & (mask[:, 0] == 0)).any()
    corner = (adv2(small.model, small.x, small.y, norm="patch", eps=0.25) != small.x).any(1)
    assert corner.any() and not corner[:, 6:].any() and not corner[:, :, 6:].any()


def test_any_threat_may_replace_the_norm(small: Case) -> None:
    model, x, y = small.model, small.x, small.y
    options = {"steps": 4, "warm_steps": 2}
    assert torch.equal(adv2(model, x, y, threat=L2(1.0), **options), adv2(model, x, y, norm="l2", eps=1.0, **options))
    lit = adv2(model, x, y, threat=Photometric(0.5, complement=False), **options)
    assert ((lit - x).flatten(2).std(2).amax(1) > 0).any()


def test_the_usual_steps() -> None:
    found = {norm: framework(norm, 0.5, None, None, 5e-4).step_size for norm in SIZES}
    assert found == {"linf": 1 / 255, "patch": 10 / 255, "l2": 0.05, "flow": 0.05}
    with pytest.raises(Unsupported, match="'l1'"):
        framework("l1", 0.5, None, None, 0.0)
    with pytest.raises(InputError, match="flow_weight"):
        framework("flow", 0.5, None, None, -1.0)
    with pytest.raises(InputError, match="flow_start"):
        framework("flow", 0.5, None, None, 0.0, -1.0)


TARGETS = {"random_patch": random_patch(), "other_class": other_class(), "picture": picture(torch.eye(6))}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "flow"])
@pytest.mark.parametrize("name", TARGETS)
def test_the_map_becomes_any_target_with_any_goal(small: Case, name: str, norm: str) -> None:
    """The map loss lowers the distance to the target, whatever the target and the class that the image gets."""
    model, x = small.model, small.x
    y, goal = small.y, torch.tensor([0, 1, 2, 3, 0, 1])
    seen: list[torch.Tensor] = []

    def remembered(clean: Clean, generator: torch.Generator) -> torch.Tensor:
        seen[:] = [TARGETS[name].make(varied(clean), generator)]
        return seen[0]

    def varied(clean: Clean) -> Clean:  # the small network predicts two classes only
        return replace(clean, predicted=torch.arange(6) % 3, goal=torch.full((6,), 3))

    gaps = []
    for weight in (0.0, 100.0):
        x_adv = adv2(
            model,
            x,
            y,
            goal=goal,
            keep_class=True,
            norm=norm,
            eps=SIZES[norm],
            weight=weight,
            target=TargetMap(remembered),
        )
        gaps.append(float(map_l2(seen[0], cam(model, x_adv, goal)).mean()))
    assert gaps[1] < 0.95 * gaps[0]
