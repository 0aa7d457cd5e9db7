"""`--output`: how the logits are read, in every verb that takes a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
import typer

from underfire import models
from underfire.audit.ledger import Ledger
from underfire.cli import main
from underfire.cli.app import app
from underfire.errors import ModelError

MODEL = ("--model", "python:victims:two_answers")
VERBS = {
    "audit": (*MODEL, "--data", "digits:test"),
    "attack": ("fgsm", "digits:test", *MODEL),
    "explain": ("gradient", "digits:test", *MODEL),
    "train": ("rts", *MODEL, "--data", "digits:test", "--out", "x.safetensors"),
    "layers": ("python:victims:two_answers",),
    "detect fit": ("softmax", *MODEL, "--data", "digits:test", "--out", "x.safetensors"),
    "detect score": ("x.safetensors", "digits:test", *MODEL),
    "detect evaluate": ("x.safetensors", *MODEL, "--data", "digits:test", "--attack", "fgsm"),
    "study prepare": ("digits:test", *MODEL, "--interpreter", "gradient"),
}


def _verbs(command: click.Command, name: str = "") -> Iterator[tuple[str, set[str]]]:
    for part, inner in getattr(command, "commands", {}).items():
        yield from _verbs(inner, f"{name} {part}".strip())
    if not hasattr(command, "commands"):
        yield name, {parameter.name or "" for parameter in command.params}


def test_every_verb_with_a_model_says_how_its_logits_are_read() -> None:
    found = {name: parameters for name, parameters in _verbs(typer.main.get_command(app)) if "model" in parameters}
    assert set(found) == {*VERBS, "init"}
    assert all("output" in parameters for parameters in found.values())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("text", "value"), [("1", 1), ("binary", "binary")])
def test_the_model_is_opened_with_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, text: str, value: object
) -> None:
    def opened(uri: str, *, output: object = None, **_: Any) -> None:
        raise ModelError(f"{uri} was opened with {output!r}")

    monkeypatch.setattr(models, "load", opened)
    assert main([*verb.split(), *VERBS[verb], "--output", text]) == 2
    assert f"python:victims:two_answers was opened with {value!r}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_answer_of_a_tuple_is_read(parsed: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    command = ("attack", "fgsm", "digits:test", *MODEL, "--eps", "0.01", "--n", 2)
    assert main([*map(str, command)]) == 2
    assert "output=NUMBER" in capsys.readouterr().err
    right = ("attack", "fgsm", "digits:test", "--model", "python:victims:right", *command[5:])
    wanted, found = parsed(*right, "--out", "right"), parsed(*command, "--output", 1, "--out", "read")
    assert found == wanted


@pytest.mark.slow
def test_the_output_replaces_that_of_a_spec(shown: Callable[..., str]) -> None:
    shown("audit", *VERBS["audit"], "--output", 1, "--n", 40, "--attack", "fgsm", "--out", "run", "--quiet")
    assert Ledger("run").spec.model.output == 1
