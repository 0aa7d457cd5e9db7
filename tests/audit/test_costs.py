"""The cost that is stated before an audit: passes against those of the run itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from underfire.audit.costs import Cost, costs, shard_size
from underfire.audit.plan import plan
from underfire.audit.spec import AuditSpec
from underfire.audit.target import open_target

ATTACKS = [
    {"name": "fgsm", "eps": 0.1},
    {"name": "pgd", "eps": 0.1, "steps": 7, "restarts": 2, "label": "restarted"},
    {"name": "square", "eps": 0.1, "queries": 30},
    {"name": "adv2", "interpreter": "gradient", "eps": 0.1, "steps": 6, "warm_steps": 4},
]


def test_passes_are_those_of_the_run(small: Callable[..., AuditSpec]) -> None:
    spec = small(
        attacks=ATTACKS,
        interpreters=["gradient", {"name": "smooth_grad", "samples": 5}],
        measures=[{"name": "insertion", "steps": 9}],
        data={"uri": "digits:", "n": 20, "seed": 1},
        shard_size=20,
    )
    target = open_target(spec)
    cells = plan(spec, target)
    found = {cost.title: cost for cost in costs(target, cells)}
    assert found["clean images"].passes == 1 and found["clean images"].images == 20
    for cell in cells:
        if cell.kind != "craft":
            continue
        from underfire.audit.costs import _of_attack
        from underfire.audit.methods import attack_of
        from underfire.audit.schema import AttackSpec

        entry = AttackSpec.model_validate({**cell.options["attack"], "interpreter": cell.options["interpreter"]})
        batch = target.data[:8]
        with target.model.counting() as count:
            attack_of(entry, 0.1)(target.model, batch.x, batch.y)
        stated = _of_attack(target, entry, cell)
        if entry.name == "square":  # stops at the first success
            assert stated == (30, 0) and count.forwards <= 30 * 8
        else:
            assert stated == pytest.approx((count.forwards / 8, count.backwards / 8), rel=0.1), entry.name
    assert found["smooth_grad of clean images"].passes == pytest.approx(10, rel=0.2)
    insertion = found["insertion of restarted at eps 0.1"]
    assert insertion.passes == pytest.approx(2 * 10, rel=0.2) and insertion.cells == 2
    assert all(cost.seconds > 0 for cost in found.values() if cost.images)


def test_masking_checks_are_counted(small: Callable[..., AuditSpec]) -> None:
    spec = small(masking=True, interpreters=[])
    target = open_target(spec)
    cells = plan(spec, target)
    (stated,) = [cost for cost in costs(target, cells) if cost.kind == "masking"]
    from underfire.audit.kinds import KINDS
    from underfire.audit.result import Inputs
    from underfire.audit.store import Store

    with target.model.counting() as count:
        KINDS["masking"].compute(cells[-1], Inputs(target, Store("memory://unused"), None))
    assert 0.3 * stated.passes < (count.forwards + count.backwards) / stated.images <= 1.1 * stated.passes


def test_a_smaller_shard_is_advised_for_a_long_cell() -> None:
    cost = Cost("craft", "pgd", 1, 64, 100.0, 300.0, 300.0)
    assert shard_size(64, [cost]) == 12
    assert shard_size(64, []) == 64
