"""`show` and `layers`: what a method does with its options, and the layers of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import underfire as uf
from underfire.catalog import cards
from underfire.catalog.docstrings import arguments, meanings, vocabulary
from underfire.cli import main
from underfire.cli.showing import example

Shown = Callable[..., str]
Parsed = Callable[..., Any]


def test_a_method_is_shown_with_options_meanings_paper_and_an_example(shown: Shown) -> None:
    text = " ".join(shown("show", "pgd").split())
    for fact in ("attack pgd", "Madry", "step_size", "2.5 * eps / steps", "8/255", "independent runs", "--eps 8/255"):
        assert fact in text


def test_a_composed_attack_is_shown_with_the_options_of_its_parts(shown: Shown) -> None:
    text = " ".join(shown("show", "mi_di_ssm").split())
    assert all(fact in text for fact in ("attack mi_di_ssm", "Xie", "Long", "probability", "spread", "decay"))


def test_methods_of_one_name_are_all_shown(parsed: Parsed) -> None:
    found = parsed("show", "nes")
    assert [card["kind"] for card in found] == ["attack", "part"]
    sigma = {option["name"]: option for option in found[0]["options"]}["sigma"]
    assert sigma["default"] == "0.001" and "standard deviation" in sigma["meaning"]


def test_an_unknown_method_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "pdg"]) == 2
    assert "did you mean 'pgd'" in capsys.readouterr().err


@pytest.mark.parametrize("card", list(cards("attack")) + list(cards("interpreter")), ids=lambda card: card.name)
def test_every_option_has_a_meaning_and_every_method_an_example(card: uf.Card) -> None:
    assert [name for name, meaning in meanings(card).items() if not meaning] == []
    assert card.name in example(card)


def test_the_arguments_of_a_docstring() -> None:
    def method(x: int, y: int) -> None:
        """Do something.

        Args:
            x: one thing,
                in two lines: so.
            y: another.

        Returns:
            z: nothing.
        """

    assert arguments(method) == {"x": "one thing, in two lines: so.", "y": "another."}
    assert arguments(test_the_arguments_of_a_docstring) == {}
    assert "L" not in vocabulary() and vocabulary()["restarts"].startswith("independent runs")


def test_layers_are_those_of_the_module_with_their_outputs(parsed: Parsed, shown: Shown) -> None:
    found = {row["name"]: row for row in parsed("layers", "python:victims:colour", "--size", "9")}
    assert list(found) == ["0", "1", "2"] and found["0"]["output"] == [2, 9, 9] and found["2"]["output"] == [2]
    assert found["0"]["parameters"] == 6 and found["0"]["default"] and not found["1"]["default"]
    text = shown("layers", "python:victims:right")  # takes 8 x 8 only, which is found out
    assert "linear" in text and "650" in text and "1 x 8 x 8" in text
    assert "2 x 9 x 9" in shown("layers", "python:victims:colour", "--size", 9)


def test_the_image_of_the_layers_is_grey_for_a_model_of_grey_images(shown: Shown) -> None:
    Path("photos/one").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save("photos/one/photo.png")
    assert "1 x 8 x 8" in shown("layers", "python:victims:right", "--data", "folder:photos")


def test_layers_of_a_model_that_does_not_take_the_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "python:victims:right", "--size", "9"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_layers_of_a_compiled_model_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).save("scripted.pt")
    assert main(["layers", "scripted.pt", "--data", "digits:"]) == 2
    said = capsys.readouterr()
    assert "torch.jit" in said.err and said.err.count("\n") == 1 and said.out == ""
