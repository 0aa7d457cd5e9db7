"""The cost that is stated before an audit: passes against those of the run itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from underfire.audit.costs import Estimates
from underfire.audit.kinds import KINDS
from underfire.audit.methods import attack_of
from underfire.audit.plan import plan
from underfire.audit.preflight import preflight, try_attack
from underfire.audit.result import Inputs
from underfire.audit.spec import AuditSpec
from underfire.audit.store import Store
from underfire.audit.target import open_target

ATTACKS: list[dict[str, Any]] = [
    {"name": "fgsm", "eps": 0.1},
    {"name": "pgd", "eps": 0.1, "steps": 7, "restarts": 2, "label": "restarted"},
    {"name": "square", "eps": 0.1, "queries": 30},
    {"name": "adv2", "interpreter": "gradient", "eps": 0.1, "steps": 6, "warm_steps": 4},
    {"name": "eot", "eps": 0.1, "steps": 5, "samples": 12},
]


@pytest.mark.slow
def test_passes_are_those_of_the_run(small: Callable[..., AuditSpec]) -> None:
    spec = small(
        attacks=ATTACKS,
        interpreters=["gradient", {"name": "smooth_grad", "samples": 5}],
        measures=[{"name": "insertion", "steps": 9}],
        data={"uri": "digits:", "n": 20, "seed": 1},
        shard_size=20,
    )
    target = open_target(spec)
    trials = preflight(target)
    found = {cost.title: cost for cost in Estimates(target, trials).costs(plan(spec, target))}
    assert found["clean images"].passes == 1 and found["clean images"].images == 20
    batch = target.data[:8]
    for entry in spec.attacks:
        with target.model.counting() as count:
            attack_of(entry, 0.1)(target.model, batch.x, batch.y)
        stated = trials.attacks[entry.title]
        if entry.name == "square":  # stops at the first success
            assert stated == (30, 0) and count.forwards <= 30 * 8
        else:
            assert stated == pytest.approx((count.forwards / 8, count.backwards / 8), rel=0.1), entry.name
    assert found["smooth_grad of clean images"].passes == pytest.approx(10, rel=0.2)
    insertion = found["insertion of restarted at eps 0.1"]
    assert insertion.passes == pytest.approx(2 * 10, rel=0.2) and insertion.cells == 2
    assert all(cost.seconds > 0 for cost in found.values() if cost.images)


@pytest.mark.slow
def test_masking_checks_are_counted(small: Callable[..., AuditSpec]) -> None:
    spec = small(masking=True, interpreters=[])
    target = open_target(spec)
    cells = plan(spec, target)
    (stated,) = [cost for cost in Estimates(target, preflight(target)).costs(cells) if cost.kind == "probe"]
    inputs = Inputs(target, Store("memory://unused"), None)  # type: ignore[arg-type]
    with target.model.counting() as count:
        for cell in cells:
            if cell.kind == "probe":
                KINDS["probe"].compute(cell, inputs)
    assert 0.3 * stated.passes < (count.forwards + count.backwards) / stated.images <= 1.1 * stated.passes


def test_a_thousand_million_restarts_are_tried_with_two_and_counted(small: Callable[..., AuditSpec]) -> None:
    attacks = [{"name": "pgd", "eps": 0.1, "steps": 10, "label": "short"}]
    attacks += [{"name": "pgd", "eps": 0.1, "steps": 10, "restarts": 10**9, "label": "long"}]
    interpreters = [{"name": "smooth_grad", "samples": 10**9}, "gradient"]
    trials = preflight(open_target(small(attacks=attacks, interpreters=interpreters)))
    assert trials.attacks["long"][0] > 1e8 * trials.attacks["short"][0] > 0
    assert trials.interpreters["smooth_grad"] == pytest.approx((1e9, 1e9), rel=0.1)


AIMED: list[dict[str, Any]] = [
    # two whole optimisations of 30 steps after the first 6 and 4 steps on the image; no image is finished early
    {"name": "adv2", "interpreter": {"name": "mask", "steps": 30}, "steps": 10, "warm_steps": 5}
    | {"scheme": "bilevel(reset=6, follow=2, ahead=3, lengths=5, enough=0)"},
    {"name": "adv2", "interpreter": {"name": "lime", "samples": 60, "superpixels": "grid", "segments": 9}, "steps": 12},
    {"name": "adv2", "interpreter": {"name": "rise", "samples": 70}, "steps": 9, "warm_steps": 3},
    {"name": "adv2", "interpreter": {"name": "integrated_gradients", "steps": 21}, "steps": 9, "warm_steps": 3},
]


@pytest.mark.slow
@pytest.mark.parametrize("attack", AIMED, ids=lambda attack: str(attack["interpreter"]["name"]))
def test_passes_of_the_maps_of_an_attack_are_counted_in_a_short_trial(
    small: Callable[..., AuditSpec], attack: dict[str, Any]
) -> None:
    target = open_target(small(attacks=[{**attack, "eps": 0.3, "confidence": 0.0}], interpreters=[]))
    (entry,), batch = target.spec.attacks, target.preview.first
    forwards, backwards = try_attack(target, entry, 0.3)
    with target.model.counting() as count:
        attack_of(entry, 0.3)(target.model, batch.x, batch.y)
    assert forwards == pytest.approx(count.forwards / 2, rel=0.1)
    assert backwards == pytest.approx(count.backwards / 2, rel=0.1)


@pytest.mark.slow
def test_a_map_is_a_part_of_every_query(small: Callable[..., AuditSpec]) -> None:
    attack = {"name": "adv2_black_box", "interpreter": {"name": "mask", "steps": 9}, "queries": 60, "eps": 0.1}
    target = open_target(small(attacks=[attack], interpreters=[]))
    (entry,), batch = target.spec.attacks, target.preview.first
    forwards, backwards = try_attack(target, entry, 0.1)
    with target.model.counting() as count:
        attack_of(entry, 0.1)(target.model, batch.x, batch.y)
    assert (forwards, backwards) == pytest.approx((count.forwards / 2, count.backwards / 2), rel=0.1)


def test_the_cost_of_an_attack_on_a_slow_map_is_known_without_making_it(small: Callable[..., AuditSpec]) -> None:
    lime = {"name": "lime", "superpixels": "grid", "segments": 9}
    target = open_target(small(attacks=[{"name": "adv2", "interpreter": lime, "eps": 0.1}], interpreters=[]))
    with target.model.counting() as trial:
        forwards, backwards = try_attack(target, target.spec.attacks[0], 0.1)
    assert forwards > 200 * 500 and backwards > 200 * 500 > 100 * trial.forwards
