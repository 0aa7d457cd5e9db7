"""A study of what an audit run kept: its images, maps and attacks, and nothing that is made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from underfire.audit.ledger import Ledger
from underfire.audit.result import arrays_key
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.audit.store import Store
from underfire.cli import main
from underfire.study.design import CONDITIONS, read_study

pytestmark = pytest.mark.usefixtures("in_a_folder_with_victims")

SPEC: dict[str, Any] = {
    "model": "python:victims:right",
    "data": {"uri": "digits:", "n": 30, "seed": 1},
    "attacks": [
        {"name": "pgd", "eps": 0.4, "steps": 10},
        {"name": "adv2", "interpreter": "gradient", "eps": 0.4, "steps": 20, "warm_steps": 90},
    ],
    "interpreters": ["gradient"],
    "masking": False,
    "gallery": 0,
    "shard_size": 20,
}


@pytest.fixture
def ledger() -> Ledger:
    return run(parse_spec(SPEC), "run")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `underfire study prepare run`, which must fail with one line, and gives it."""

    def fail(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["study", "prepare", "run", "--out", "other", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        return said

    return fail


@pytest.mark.slow  # it runs an audit with the whole ADV²
def test_the_images_and_maps_are_those_of_the_run(
    ledger: Ledger, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was attacked or explained")

    monkeypatch.setattr("underfire.audit.methods.attack_of", never)
    monkeypatch.setattr("underfire.audit.kinds.craft.attack_of", never)
    monkeypatch.setattr("underfire.audit.kinds.explain.interpreter_of", never)
    # which class does the model predict?
    assert main(["study", "prepare", "run", "--n", "8", "--practice", "2", "--quiet", "--out", "classes"]) == 0
    known = {row["id"]: row for row in ledger.sql("SELECT id, y, pred, conf FROM clean")}
    found = read_study(Path("classes"))
    assert len(found.items) == 10 and found.about["interpreter"] == "gradient"
    for item in found.items:
        row = known[item.name]
        assert (item.label, item.prediction) == (row["y"], row["pred"])
        assert item.confidence == pytest.approx(row["conf"], rel=1e-5)
    # has this input been attacked?
    command = ["study", "prepare", "run", "--noticing", "0.4", "--n", "3", "--practice", "1", "--quiet"]
    assert main([*command, "--out", "noticing"]) == 0
    found = read_study(Path("noticing"))
    assert [item.condition for item in found.items] == [*CONDITIONS] * 4
    ious = {(row["attack"], row["id"]): row["map_iou"] for row in ledger.sql("SELECT attack, id, map_iou FROM maps")}
    for item in found.items:
        if item.condition != "clean":
            assert item.iou == pytest.approx(ious[item.condition, item.name], abs=1e-6)
            assert item.prediction != item.label
    found.check_pictures()
    # what cannot be taken
    assert "0.1" in refused("--noticing", "0.1") and "0.4" in refused("--noticing", "0.1")
    assert "--model" in refused("--model", "zoo:cluttered_digits")
    assert "'gradient'" in refused("--interpreter", "gradeint")
    store = Store("run")
    craft = next(cell["key"] for cell in ledger.cells if cell["about"].get("attack") == "adv2")
    store.delete(arrays_key(craft))
    assert "keep_gb" in refused("--noticing", "0.4", "--n", "3", "--practice", "1")
    store.delete(craft)
    assert "run the audit again" in refused("--noticing", "0.4", "--n", "3", "--practice", "1")


def test_a_run_without_the_attacks_is_one_line(refused: Callable[..., str]) -> None:
    run(parse_spec({**SPEC, "attacks": SPEC["attacks"][:1], "interpreters": ["gradient", "gradient_input"]}), "run")
    assert "--interpreter is missing" in refused("--noticing", "0.4")
    assert "adv2 on gradient" in refused("--noticing", "0.4", "--interpreter", "gradient")
