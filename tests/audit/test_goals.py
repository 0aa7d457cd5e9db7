"""The goal of an attack may be one class for all images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from underfire.audit.ledger import Ledger
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec
from underfire.errors import SpecError

Small = Callable[..., AuditSpec]
PGD = {"name": "pgd", "norm": "linf", "eps": [0.2], "steps": 4}


def test_one_class_for_all_images_leaves_out_the_images_of_that_class(small: Small, tmp_path: Path) -> None:
    run(
        small(
            attacks=[{**PGD, "goal": 3}],
            detectors=[{"name": "combination", "detectors": ["softmax", "energy"]}],
            interpreters=["gradient"],
        ),
        tmp_path / "run",
    )
    ledger = Ledger(tmp_path / "run")
    rows = ledger.sql("SELECT * FROM rows")
    labels = {row["id"]: row["y"] for row in ledger.sql("SELECT id, y FROM clean_written")}
    assert {row["goal"] for row in rows} == {3}
    assert {row["id"] for row in rows} == {name for name, y in labels.items() if y != 3} != set(labels)
    assert any(row["success"] for row in rows)
    assert all(row["success"] == (row["pred_adv"] == 3) for row in rows)
    for table in ("measures", "maps", "scores"):
        assert {row["id"] for row in ledger.sql(f"SELECT DISTINCT id FROM {table}")} <= {row["id"] for row in rows}


@pytest.mark.parametrize(
    ("goal", "facts"),
    [("random", ("'random'", "0 to 9", "random-target")), (10, ("'10'", "0 to 9")), (-1, ("'-1'", "0 to 9"))],
)
def test_a_goal_that_is_no_class(small: Small, tmp_path: Path, goal: object, facts: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        run(small(attacks=[{**PGD, "goal": goal}]), tmp_path / "run")
    assert all(fact in str(caught.value) for fact in ("attacks[0]", *facts))
    assert not (tmp_path / "run").exists()
