"""`underfire train METHOD` of a classifier: the weights, the model card, the audit, and wrong input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from underfire import models
from underfire.catalog import find
from underfire.cli import main
from underfire.cli.model_card import Judgement, model_card
from underfire.learning import Processes, read_json_lines
from underfire.learning.checkpoints import State

Parsed = Callable[..., Any]
WHERE = ("--model", "zoo:cluttered_digits", "--data", "cluttered-digits:train", "--n", "8")
QUICK = ("--set", "steps=1", "--set", "epochs=2", "--set", "batch_size=4", "--set", "rate=0.001")
COMMAND = ("train", "trades", *WHERE, "--eps", "2/255", *QUICK)


@pytest.mark.slow
def test_it_writes_weights_that_load_and_a_card(parsed: Parsed, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parsed(*COMMAND, "--out", "mine/w.safetensors", "--test", "cluttered-digits:test", "--ledger", "l.jsonl")
    lines = read_json_lines("l.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and all(line["losses"][0] > 0 for line in lines)
    assert sorted(p.name for p in Path("mine").iterdir()) == ["classes.json", "w.md", "w.safetensors"]
    assert found["batch norm while crafting"] == "eval" and 0 <= found["accuracy"] <= 1
    model = models.load(found["model"])
    state = model.module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in load_file("mine/w.safetensors").items())
    text = Path("mine/w.md").read_text()
    assert all(
        word in text for word in ("trades", "eps=0.00784", "batch_norm=eval", "Zhang", found["model"], "accuracy")
    )
    # interrupted and resumed
    save = State.save

    def killed(state: State, path: Path, step: int, facts: Any) -> None:
        save(state, path, step, facts)
        raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", killed)
    assert main([*COMMAND, "--quiet", "--out", "parts/w.safetensors"]) == 130
    monkeypatch.setattr(State, "save", save)
    parsed(*COMMAND, "--resume", "--out", "parts/w.safetensors")
    whole, parts = (load_file(f"{folder}/w.safetensors") for folder in ("mine", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_of_several_processes_the_first_one_alone_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes are not started here; see `tests/learning/test_processes.py`."""
    asked: list[tuple[int, str]] = []

    def started(devices: int, accelerator: str) -> Processes:
        asked.append((devices, accelerator))
        return Processes(rank=len(asked) % 2, device=torch.device("cpu"))

    monkeypatch.setattr("underfire.learning.start_processes", started)
    command = ["train", "standard", *WHERE, *QUICK[2:], "--devices", "2", "--device", "cpu", "--out", "w.safetensors"]
    assert main(command) == 0 and not Path("w.safetensors").exists() and not Path("w.md").exists()
    Path("w.safetensors.checkpoint").unlink(missing_ok=True)
    assert main(command) == 0 and Path("w.safetensors").exists()
    assert asked == [(2, "cpu")] * 2


@pytest.mark.slow
def test_one_command_trains_and_judges(parsed: Parsed, monkeypatch: pytest.MonkeyPatch) -> None:
    # fewer images, and quicker attacks
    short = {"AUDITED": 2, "STRONG": "apgd", "ADV2": {"steps": 2, "warm_steps": 1}}
    for name, value in short.items():
        monkeypatch.setattr(f"underfire.cli.model_card.{name}", value)
    command = ("train", "fast", *WHERE[:5], "60", "--set", "epochs=1", "--set", "rate=0.001", "--audit")
    found = parsed(*command, "--out", "w.safetensors")
    assert found["test images"] == 6 and found["audited images"] == 2  # a tenth, which is not trained on
    assert {"accuracy under PGD, L∞ eps 8/255", "masking checks passed"} <= set(found)
    assert any("apgd" in name for name in found) and Path("w.audit/report.html").is_file()
    assert "Prediction-interpretation gap" in Path("w.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trades",), "trades trains a model; pass --model"),
        (("trades", *WHERE[:2], "--eps", "0"), "--eps must be a number above 0"),
        (("trades", *WHERE[:2], "--eps", "2", "--set", "eps=1"), "given twice"),
        (("trades", *WHERE[:2], "--set", "epoch=2"), "did you mean 'epochs'"),
        (("trades", *WHERE[:2], "--set", "schedule=fast"), "'schedule'"),
        (("standard", *WHERE[:2], "--eps", "8/255"), "has no inner attack"),
        (("hgd", *WHERE[:2], "--audit"), "--audit is for methods of training"),
        (("hgd", *WHERE[:2], "--devices", "2"), "--devices is for methods of training"),
        (("linear_head", *WHERE[:2], "--ledger", "l.jsonl"), "--ledger is for methods of training"),
        (("trades", *WHERE[:2], "--devices", "2", "--device", "cuda:1"), "pass --device cuda"),
        (("tradess", *WHERE[:2]), "nothing that is trained has the name 'tradess'; did you mean 'trades'"),
        (("ensemble_adversarial", *WHERE[:2]), "'sources' is missing"),
        (("interpretability_aware", *WHERE[:2], "--set", "interpreter=nearest_neighbours"), "not differentiable"),
        (("trades", *WHERE[:2], "--audit"), "too few"),
    ],
)
def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    assert main(["train", *arguments, *WHERE[2:], "--out", "w.safetensors"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


def test_a_file_that_exists_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("w.safetensors", "v.md", "u.safetensors.checkpoint"):
        Path(name).write_text("mine")
    for out, said in (("w.safetensors", "exists already"), ("v.safetensors", "v.md"), ("u.safetensors", "--resume")):
        assert main([*COMMAND, "--out", out]) == 2
        assert said in capsys.readouterr().err
    assert main([*COMMAND, "--out", "w.pt"]) == 2
    assert ".safetensors" in capsys.readouterr().err


def test_a_ledger_of_another_training_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    for text, said in (("mine\n", "not the report"), ('{"step": 1, "losses": [1.0]}\n', "another training")):
        Path("l.jsonl").write_text(text)
        assert main([*COMMAND, "--ledger", "l.jsonl", "--out", "w.safetensors"]) == 2
        assert said in capsys.readouterr().err and Path("l.jsonl").read_text() == text


def test_a_card_without_test_images_says_so() -> None:
    text = model_card(find("training", "trades"), {"method": "trades", "model": "a|b"}, "", Judgement())
    assert "Not evaluated" in text and "| model | a\\|b |" in text
