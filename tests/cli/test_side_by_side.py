"""`underfire explain --all`: one figure of every interpreter and every class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import underfire as uf
from underfire.attribution import comparison as together
from underfire.catalog import Card, InterpreterFacts
from underfire.cli import side_by_side
from underfire.cli.app import main

ALL = ("explain", "--all", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--n", 1)
Parsed = Callable[..., list[dict[str, object]]]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three interpreters instead of all, one of which cannot explain this model."""

    def stubborn(model, x, y):
        raise uf.errors.Unsupported("it wants a transformer")

    wanted = [uf.find("interpreter", "gradient"), uf.find("interpreter", "cam")]
    wanted.append(Card("interpreter", "stubborn", stubborn, "", InterpreterFacts()))
    monkeypatch.setattr(together, "map_cards", lambda: wanted)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_row_for_each_interpreter_and_a_column_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(part) for part in (*ALL, "--json")]) == 0
    shown = capsys.readouterr()
    row = json.loads(shown.out)[0]
    assert row["explained"] == list(range(10))
    assert row["interpreters"] == ["gradient", "cam"]
    assert row["left_out"] == {"stubborn": "it wants a transformer"}
    assert "left out: stubborn: it wants a transformer" in shown.err
    with Image.open(f"underfire-all/{row['file']}") as picture:
        assert 2 < picture.width / picture.height < 3  # the image, two rows of maps, and the reason for one without


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "classes"), [(("--classes", "2"), 2), (("--goal", "7"), 1)])
def test_fewer_classes(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], classes: int) -> None:
    assert main([str(part) for part in (*ALL, *flags, "--json", "--quiet")]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert len(row["explained"]) == classes
    assert row["explained"][0] == (7 if classes == 1 else row["pred"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "--all", "--model", "zoo:cluttered_digits"),
        ("explain", "gradient", "--model", "zoo:cluttered_digits"),
        ("explain", "--all", "counterfactual", "digits:test", "--model", "zoo:cluttered_digits"),
        (*ALL, "--set", "steps=3"),
        ("explain", "gradient", "digits:test", "--classes", "3", "--model", "zoo:cluttered_digits"),
    ],
)
def test_what_does_not_fit_together_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...]
) -> None:
    assert main([str(part) for part in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "underfire explain" in error


@pytest.mark.slow
def test_a_subset_by_names_written_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[int] = []
    save = side_by_side.Sheet.save
    monkeypatch.setattr(side_by_side.Sheet, "save", lambda self, path: (saved.append(len(self.rows)), save(self, path)))
    monkeypatch.setattr(side_by_side, "EVERY", 0.0)
    assert main(["explain", "cam,gradient", *map(str, ALL[2:]), "--all", "--classes", "2", "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["interpreters"] == ["gradient", "cam"] and row["left_out"] == {}
    assert saved == [2, 3, 3]  # after each interpreter, and at the end; the first row is the image


def test_a_cell_without_a_map_says_why() -> None:
    maps = torch.stack([torch.zeros(1, 4, 4), torch.eye(4)[None]])
    sheet = side_by_side.Sheet(torch.zeros(1, 8, 8), ["cat", "dog"])
    sheet.add("mask", maps)
    sheet.add("stubborn", uf.errors.Unsupported("it wants a transformer"))
    image, mask, stubborn = sheet.rows
    assert image[1] is None and isinstance(mask[1], Tensor)
    assert mask[0] == side_by_side.CONSTANT and stubborn == ["it wants a transformer", None]
    assert sheet.with_maps == ["mask"] and sheet.titles == ["image", "mask", "stubborn"]


@pytest.mark.slow
def test_what_is_finished_stays_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = together.run_all_interpreters
    calls: list[int] = []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return shown(*arguments, **options)

    monkeypatch.setattr(together, "run_all_interpreters", interrupted)
    assert main([*ALL[:-1], "2", "--goal", "7", "--quiet"]) == 130
    (row,) = json.loads(Path("underfire-all/results.json").read_text())
    assert {path.name for path in Path("underfire-all").iterdir()} == {"results.json", row["file"]}
