"""The benchmarks can be drawn from their committed results, and every result names its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import setting

NOT_YET = {"training", "training-loop"}
"""Benchmarks that are not measured yet."""


@pytest.mark.parametrize("name", sorted({*benchmarks.MEASURED} - NOT_YET))
def test_a_result_names_its_images_and_has_rows(name: str) -> None:
    document = json.loads((benchmarks.RESULTS / f"{name}.json").read_text())
    assert set(document["images"]) == set(benchmarks.MEASURED[name].images) <= set(setting.IMAGES)
    assert all(len(row) == 3 for row in benchmarks.MEASURED[name].rows(document["results"]))


def test_the_page_is_drawn_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "benchmarks.md"
    monkeypatch.setattr(benchmarks, "TABLE", page)
    benchmarks.write_table()
    assert page.read_text() == (benchmarks.ROOT / "docs" / "benchmarks.md").read_text()


def test_images_are_described_by_their_files(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERFIRE_DATA", str(data_root))
    assert setting.describe(("CIFAR-10",)) == {"CIFAR-10": "lossless, sha256 4fa12bda0002"}
