"""Gates and exit codes: 0 held, 1 failed, 2 wrong input, 3 not finished or not to be believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from underfire.audit.ledger import Ledger
from underfire.audit.store import Store
from underfire.cli import main

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

SPEC: dict[str, Any] = {
    "model": "python:victims:right",
    "data": {"uri": "digits:", "n": 30},
    "attacks": [{"name": "pgd", "eps": 0.05, "steps": 3}],
    "masking": False,
    "gallery": 0,
}
GATE = ("--fail-under", "clean_accuracy=0.5")


def audit(*arguments: str, **changes: Any) -> int:
    Path("mine.yaml").write_text(yaml.safe_dump({**SPEC, **changes}))
    return main(["audit", "mine.yaml", "--out", "run", "--quiet", *arguments])


def test_an_unfinished_run_holds_no_gate_and_says_how_much_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    gate = {"measure": "clean_accuracy", "at_least": 0.5}
    assert audit(*GATE, gates=[gate]) == 0
    (craft,) = [cell["key"] for cell in Ledger("run").cells if cell["kind"] == "craft"]
    Store("run").delete(craft)
    assert main(["report", "run", "--quiet"]) == 3  # the gate of the spec
    assert main(["report", "run", "--quiet", *GATE]) == 3
    said = capsys.readouterr().err
    assert f"1 of {Ledger('run').planned} cells" in said and "no gate holds" in said
    assert main(["report", "run", "--quiet", "--json", "out.json"]) == 3
    content = json.loads(Path("out.json").read_text())
    assert content["gates"][0]["state"] == "unsure"
    assert content["standing"]["level"] in ("nothing", "partial")


def test_the_lower_end_of_the_interval_is_compared_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--fail-under", "clean_accuracy=0.8") == 0
    (clean,) = Ledger("run").sql("SELECT avg((pred = y)::INT) AS share FROM clean")
    limit = f"clean_accuracy={clean['share']:.3f}"
    assert main(["report", "run", "--quiet", "--fail-under", limit, "--confident"]) == 1
    assert "lower end of the 95 % interval" in capsys.readouterr().err
    assert audit(gates=[{"measure": "clean_accuracy", "at_least": 0.8, "confident": True}]) == 1


def test_a_model_that_is_right_by_chance_holds_no_gate(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        audit("--fail-under", "robust_accuracy=0", model="python:victims:wrong_order", data={"uri": "digits:", "n": 8})
        == 3
    )
    page = Path("run/report.html").read_text()
    assert "Nothing can be said" in page and "withstands" not in page and "Withstood" not in page
    assert 'class="tile good"' not in page and 'class="status good"' not in page
    assert "Nothing can be said" in capsys.readouterr().err


@pytest.mark.parametrize("factory", ["quits", "quits_later"])
@pytest.mark.parametrize("code", ["0", "None", "'bye'"])
def test_a_model_that_ends_the_program_is_no_success(
    factory: str, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VICTIM_QUITS", code)
    assert audit(*GATE, model=f"python:victims:{factory}") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not Path("run/report.html").exists()


def test_a_bug_of_the_model_in_the_middle_of_an_audit_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(model="python:victims:fails_later") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "dictionary is empty" in said


def test_a_bug_keeps_its_traceback_but_is_no_failed_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("underfire.audit.preparing.preflight", broken)
    assert audit() == 3
    assert "ZeroDivisionError: a bug" in capsys.readouterr().err


def test_an_eps_in_grey_levels_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(attacks=[{"name": "pgd", "eps": [0.1, 8]}]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "attacks[0]" in said and "8/255?" in said
    assert main(["attack", "pgd", "digits:", "--n", "2", "--model", "python:victims:right", "--eps", "8"]) == 2
    assert "8/255?" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["70", "-0.1", "1.5"])
def test_a_limit_that_is_no_share_is_wrong_input(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--fail-under", f"robust_accuracy={limit}") == 2
    assert audit(gates=[{"measure": "clean_accuracy", "at_least": float(limit)}]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "robust_accuracy" in said and "gates[0].at_least" in said
    assert ("0.7?" in said) == (limit == "70")


def test_a_run_that_cannot_be_believed_is_no_success_without_a_gate(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(model="python:victims:wrong_order", data={"uri": "digits:", "n": 8}) == 3
    assert main(["report", "run", "--quiet", "--json", "out.json"]) == 3
    said = capsys.readouterr().err
    assert said.count("not to be believed: Nothing can be said") == 2 and "no gate" not in said
    assert main(["report", "run"]) == 3
    shown = capsys.readouterr()
    assert "Nothing can be said" in shown.out and "Nothing can be said" not in shown.err


def test_a_comparison_says_which_run_cannot_be_believed(capsys: pytest.CaptureFixture[str]) -> None:
    audit(model="python:victims:wrong_order", data={"uri": "digits:", "n": 8})
    capsys.readouterr()
    assert main(["compare", "run", "run"]) == 3
    assert capsys.readouterr().out.count("run: Nothing can be said") == 2
    assert main(["compare", "run", "run", "--json"]) == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out) is not None and "Nothing can be said" in printed.err


def test_the_reason_of_an_unfinished_run_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    audit()
    for cell in sorted(Path("run/cells").iterdir())[:1]:
        shutil.rmtree(cell)
    capsys.readouterr()
    assert main(["report", "run", *GATE]) == 3
    assert capsys.readouterr().err.count("has no result") == 1


def test_the_summary_writes_sizes_as_the_page_does(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({**SPEC, "attacks": [{"name": "pgd", "eps": "8/255", "steps": 2}]}))
    assert main(["audit", "mine.yaml", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "8/255" in out and "0.0314" not in out
