"""Names of classes: those of two sources that mean the same, and those that cannot be printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from underfire.classes import are_numbers, check_names, imagenet, listing, match, printable, read_classes
from underfire.errors import DataError


@pytest.mark.parametrize(
    ("data", "model", "order"),
    [
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["Polar_Bear", "tabby-cat"], ["tabby cat", "polar bear", "emu"], [1, 0]),
        (["tench"], ["goldfish, Carassius auratus", "tench, Tinca tinca"], [1]),
        (["0 - zero", "1 - one"], ["1", "0"], [1, 0]),
        (["cafe\u0301"], ["café"], [0]),
        (["10", "2"], [f"kind {i}" for i in "abcdefghijk"], [10, 2]),  # numbers are the model's, not their order
        (["01", "02"], ["2", "1"], [1, 0]),
        (["2"], ["a", "b"], [None]),
        (["cat", "yak"], ["dog", "cat"], [1, None]),
        (["cat", "Cat"], ["cat", "dog"], [0, None]),
        (["crane"], ["ant", "crane", "crane"], [None]),  # which of the two cannot be told
        (["ant", "crane", "crane"], ["ant", "crane", "crane"], [0, 1, 2]),  # unless both have the same order
        (["rat", "rat, brown"], ["brown rat", "rat"], [1, None]),
    ],
)
def test_classes_that_mean_the_same(data: list[str], model: list[str], order: list[int | None]) -> None:
    assert match(data, model) == order


def test_synsets_are_classes_of_imagenet() -> None:
    names = list(imagenet().values())
    assert len(imagenet()) == 1000 and names[0] == "tench" and names[517] == names[134] == "crane"
    assert match(["n01443537", "n03126707", "n02012849"], names) == [1, 517, 134]
    assert match(["n01443537"], ["tench", "goldfish"]) == [1]
    assert match(["goldfish"], list(imagenet())) == [1]
    assert match(["n00000001"], names) == [None]


def test_names_that_only_repeat_numbers() -> None:
    assert are_numbers(["LABEL_0", "LABEL_1"]) and are_numbers(["class 0"]) and are_numbers(None)
    assert not are_numbers(["LABEL_1", "LABEL_0"]) and not are_numbers(["0"]) and not are_numbers(["cat"])


def test_a_mismatch_shows_both_lists_cut_to_a_readable_length() -> None:
    data, model = ["lynx", "newt"], [f"kind {i}" for i in range(5000)]
    with pytest.raises(DataError, match=r"'lynx', 'newt'.*kind 0.*5000") as caught:
        check_names(data, model, match(data, model), "the model", "name them")
    assert len(str(caught.value)) < 500
    assert len(listing(["x" * 10**6])) < 50


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\udce9.png", "caf\\xe9.png"),
        ("\ud800", "\\ud800"),
        ("a\x1b[31m\n", "a\\x1b[31m\\x0a"),
        ("naïve 猫", "naïve 猫"),
    ],
)
def test_names_that_cannot_be_printed(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        (["cat", "dog"], [("cat", "cat"), ("dog", "dog")]),
        ([{"synset": "n1", "name": "cat"}, {"name": "dog"}], [("n1", "cat"), ("dog", "dog")]),
        ({"1": "dog", "0": "cat"}, [("cat", "cat"), ("dog", "dog")]),
        ({"0": ["n1", "cat"]}, [("n1", "cat")]),
    ],
)
def test_every_form_of_a_list_of_classes(tmp_path: Path, content: object, pairs: list[tuple[str, str]]) -> None:
    path = tmp_path / "classes.json"
    assert read_classes(path) == []
    path.write_text(json.dumps(content))
    assert read_classes(path) == pairs


WRONG = ["[", "[]", "{}", "7", '"cat"', "[1]", "[[1, 2]]", '[["a", "b", "c"]]', '{"1": "cat"}']


@pytest.mark.parametrize("text", [*WRONG, '[{"synset": ["a"], "name": "b"}]', '[{"synset": "a"}]'])
def test_lists_of_classes_that_cannot_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match="classes.json' must be") as caught:
        read_classes(tmp_path / "classes.json")
    assert "\n" not in str(caught.value)


def test_lists_of_classes_that_are_too_long_or_not_unique(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text('["cat", "cat"]')
    with pytest.raises(DataError, match="'cat' twice"):
        read_classes(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="must be"):
        read_classes(path)
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match="16 MB"):
        read_classes(path)
