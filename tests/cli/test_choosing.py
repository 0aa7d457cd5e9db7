"""`init`, `audit --model --data` without a spec, and `audit --dry-run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from underfire.audit.ledger import Ledger
from underfire.audit.schema import PARTS
from underfire.audit.spec import load_spec
from underfire.audit.templates import template
from underfire.cli import main
from underfire.cli.shared import output_of

Shown = Callable[..., str]
Parsed = Callable[..., Any]
OWN = ("--model", "python:victims:right", "--data", "digits:test")


def test_init_writes_a_spec_that_loads_and_has_every_key(shown: Shown) -> None:
    assert "underfire audit audit.yaml" in shown("init")
    spec = load_spec("audit.yaml")
    assert spec.model.uri == "zoo:cluttered_digits" and len(spec.attacks) == 4
    text = Path("audit.yaml").read_text()
    named = {key for part in ("", "model", "data", "gates") for key in PARTS[part].model_fields if f"{key}:" in text}
    assert {
        "gates",
        "mean",
        "std",
        "labels",
        "device",
        "executor",
        "keep_gb",
        "measures",
        "at_least",
        "at_most",
    } <= named
    # the keys that are comments are right, too
    whole = text.replace("\n  # ", "\n  ").replace("\n# gates", "\ngates").replace("\n#  ", "\n ")
    Path("whole.yaml").write_text(whole)
    assert len(load_spec("whole.yaml").gates) == 4 and load_spec("whole.yaml").model.labels == ["cat", "dog"]


@pytest.mark.parametrize("uri", ["timm:resnet18", "a b.safetensors?arch=x", "python:m:f", "C: # x", "folder:ü?size=8"])
def test_init_writes_the_uris_that_are_given(shown: Shown, uri: str) -> None:
    shown("init", "mine.yaml", "--model", uri, "--data", uri)
    spec = load_spec("mine.yaml")
    assert spec.model.uri == spec.data.uri == uri
    assert len(Path("mine.yaml").read_text().splitlines()) == len(template().splitlines())


@pytest.mark.parametrize("output", ["binary", "no", "1"])
def test_init_writes_how_the_logits_are_read(shown: Shown, output: str) -> None:
    shown("init", "mine.yaml", "--output", output)
    assert load_spec("mine.yaml").model.output == output_of(output)
    assert len(Path("mine.yaml").read_text().splitlines()) == len(template().splitlines())


def test_init_overwrites_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("audit.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert "--force" in capsys.readouterr().err and Path("audit.yaml").read_text() == "mine"
    assert main(["init", "--force"]) == 0


@pytest.mark.slow
def test_a_model_and_data_are_audited_without_a_spec(shown: Shown) -> None:
    shown("audit", *OWN, "--n", 40, "--attack", "fgsm", "--quiet")
    ledger = Ledger("runs/python-victims-right")
    assert ledger.missing == 0 and ledger.spec.data.n == 40
    assert [entry.name for entry in ledger.spec.attacks] == ["fgsm"]
    assert [entry.name for entry in ledger.spec.interpreters] == ["gradient"]  # Grad-CAM needs a convolution


def test_options_replace_parts_of_a_spec(parsed: Parsed) -> None:
    Path("mine.yaml").write_text("""{model: zoo:cluttered_digits, data: "digits:", attacks: [pgd]}""")
    options = ("--model", "python:victims:right", "--n", 9, "--interpreter", "gradient", "--dry-run")
    found = parsed("audit", "mine.yaml", *options)
    assert {cost["title"]: cost["images"] for cost in found["costs"]}["gradient of clean images"] == 9
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (OWN[:2], "--data"),
        (OWN[2:], "--model"),
        ((*OWN, "--attack", "pdg"), "pgd"),
        (("--model", "python:victims:probabilities", *OWN[2:]), "output='probabilities'"),
    ],
)
def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], fact: str) -> None:
    assert main(["audit", *arguments]) == 2
    captured = capsys.readouterr()
    assert fact in captured.err and len(captured.err.strip().splitlines()) == 1 and captured.out == ""


@pytest.mark.slow
def test_a_dry_run_lists_what_is_left(shown: Shown, parsed: Parsed) -> None:
    call = ("audit", *OWN, "--n", 40, "--attack", "fgsm", "--interpreter", "gradient", "--out", "run")
    before = parsed(*call, "--dry-run")
    assert before["cells"] > 0 and before["finished"] == 0 and before["seconds"] > 0
    assert "fgsm linf at eps" in shown(*call, "--dry-run") and not Path("run").exists()
    shown(*call, "--quiet")
    after = parsed(*call, "--dry-run")
    assert after["cells"] == 0 and after["finished"] == before["cells"]
