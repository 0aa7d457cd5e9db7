"""`underfire train`: what it writes, what it says, how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.networks import rand
from underfire import find, models
from underfire.cli import main
from underfire.interpreters.rts import files as rts_files
from underfire.interpreters.rts import training as rts_training
from underfire.learning.checkpoints import State

COMMAND = (
    *("train", "rts", "--model", "zoo:cluttered_digits", "--data", "cluttered-digits:train", "--n", "24"),
    *("--set", "selector_steps=20", "--set", "steps=3", "--set", "batch_size=4"),
)
Parsed = Callable[..., Any]
Shown = Callable[..., str]


@pytest.mark.slow
def test_it_writes_weights_that_explain_uses(parsed: Parsed) -> None:
    found = parsed(*COMMAND, "--test", "cluttered-digits:test", "--out", "mine/w.safetensors")
    assert [p.name for p in Path("mine").iterdir()] == ["w.safetensors"]  # no checkpoint is left
    assert found["file"] == "mine/w.safetensors" and found["bytes"] == Path("mine/w.safetensors").stat().st_size
    assert found["images"] == found["test images"] == 24
    assert {"held-out loss", "pointing game", "mass in evidence", "chance"} <= set(found)
    assert 0.05 < found["chance"] < 0.15
    rows = parsed(
        *("explain", "rts", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--n", 2, "--out", "maps"),
        *("--set", "weights=mine/w.safetensors"),
    )
    assert [0 <= row["map_min"] <= row["map_max"] <= 1 for row in rows] == [True, True]


@pytest.mark.slow
def test_aid_trains_rts_on_with_the_attack_in_the_loop(parsed: Parsed) -> None:
    short = [f"--set={name}=1" for name in ("steps", "attack_steps", "warm_steps")]
    found = parsed("train", "aid", *COMMAND[2:7], "4", "--set=batch_size=2", *short, "--out", "aid.safetensors")
    assert found["images"] == 4
    embedded = load_file(str(next(rts_files.EMBEDDED.glob("rts_cluttered*.safetensors"))))
    trained = load_file("aid.safetensors")
    assert trained.keys() == embedded.keys()
    changed = {name for name, value in trained.items() if not torch.equal(value, embedded[name])}
    assert "head.weight" in changed and "selector.embedding.weight" not in changed


@pytest.mark.slow
def test_interrupted_and_resumed_it_is_the_same(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rts_training, "EVERY", 1)
    shown(*COMMAND, "--quiet", "--out", "whole.safetensors")
    save = State.save

    def killed(state: State, path: Path, step: int, facts: Any) -> None:
        save(state, path, step, facts)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", killed)
    assert main([*COMMAND, "--quiet", "--out", "parts.safetensors"]) == 130
    assert not Path("parts.safetensors").exists()
    monkeypatch.setattr(State, "save", save)
    shown(*COMMAND, "--quiet", "--resume", "--out", "parts.safetensors")
    whole, parts = (load_file(f"{name}.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    model = models.load("zoo:cluttered_digits")
    x, y = rand(2, 1, 64, 64), torch.tensor([1, 2])
    first, second = (find("interpreter", "rts").with_options(weights=f"{n}.safetensors") for n in ("whole", "parts"))
    assert torch.equal(first(model, x, y), second(model, x, y))


@pytest.mark.slow
def test_the_transformation_of_an_attack_is_trained_and_used(parsed: Parsed) -> None:
    where = ("--model", "zoo:cluttered_digits", "--data", "cluttered-digits:train", "--n", "4")
    short = ("--set", "batch_size=4", "--set", "inner_steps=2", "--set", "kernels=[3, 5]")
    found = parsed("train", "atta", *where, *short, "--test", "cluttered-digits:test", "--out", "t.safetensors")
    assert found["images"] == found["test images"] == 4
    assert found["accuracy under atta 8/255"] < found["accuracy"]
    use = ("attack", "atta", "cluttered-digits:test", *where[:2], "--n", 2, "--set", "weights=t.safetensors")
    assert len(parsed(*use, "--set", "steps=2")) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hgd", "comdefend"])
def test_the_network_of_a_defence_is_trained_resumed_and_measured(
    name: str, parsed: Parsed, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("--model", "zoo:cluttered_digits") if name == "hgd" else ()
    command = ("train", name, *model, "--data", "cluttered-digits:train", "--n", "6", "--test", "cluttered-digits:test")
    options = ("--set", "width=1", "--set", "epochs=1", "--set", "batch_size=3")
    found = parsed(*command, *options, "--out", "whole.safetensors")
    assert found["images"] == found["test images"] == 6 and found["bytes"] < 50_000
    rows = {"accuracy, defended", "accuracy under transferred PGD 8/255, defended", "accuracy"}
    assert (rows <= set(found)) == (name == "hgd") and found["PSNR of the changed images"] > 0
    save = State.save

    def killed(state: State, path: Path, step: int, facts: Any) -> None:
        save(state, path, step, facts)
        raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", killed)
    assert main([*command, *options, "--quiet", "--out", "parts.safetensors"]) == 130
    monkeypatch.setattr(State, "save", save)
    shown(*command, *options, "--quiet", "--resume", "--out", "parts.safetensors")
    whole, parts = (load_file(f"{file}.safetensors") for file in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    zoo = models.load("zoo:cluttered_digits")
    made = find("defense", name)(zoo, weights="parts.safetensors")
    assert made(rand(2, 1, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hgd",), "hgd is trained for a model; pass --model"),
        (("linear_head",), "linear_head is trained for a model; pass --model"),
        (("jpeg",), "jpeg is not trained; choices: rts, comdefend, hgd"),
        (("comdefend", "--set", "weights=w"), "unknown key 'weights'"),
        (("comdefend", "--set", "width=0"), "width must be at least 1"),
        (("hgd", "--model", "zoo:cluttered_digits", "--set", "guide=logit"), "'guide' should be 'logits'"),
        (("hgd", "--model", "zoo:cluttered_digits", "--set", "eps=0"), "eps from 1/255"),
        (("hdg", "--model", "zoo:cluttered_digits"), "'hdg'"),
    ],
)
def test_a_wrong_training_of_a_defence_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main(["train", *arguments, "--data", "cluttered-digits:train", "--n", "4", "--out", "w.safetensors"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rts": "cam"}, "cam is not trained; choices: rts"),
        ({"steps=3": "stepps=3"}, "unknown key 'stepps'; did you mean 'steps'?"),
        ({"steps=3": "steps=many"}, "'steps' should be a whole number, got 'many'"),
        ({"steps=3": "steps=-1"}, "got -1"),
        ({"cluttered-digits:train": "clutter:"}, "unknown data 'clutter:'"),
        ({"w.safetensors": "there.safetensors"}, "there.safetensors exists already; pass --force"),
        ({"w.safetensors": "folder"}, "folder is a folder"),
        ({"w.safetensors": "begun.safetensors"}, "begun.safetensors.checkpoint"),
    ],
)
def test_what_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str) -> None:
    Path("there.safetensors").write_text("")
    Path("folder").mkdir()
    Path("begun.safetensors.checkpoint").write_text("hours of work")
    assert main([change.get(word, word) for word in (*COMMAND, "--out", "w.safetensors")]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
    assert Path("begun.safetensors.checkpoint").read_text() == "hours of work"
