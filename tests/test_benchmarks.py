"""The benchmarks can be drawn from their committed results, and every result names its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import setting
from benchmarks.verdicts import MISSED, REACHED, verdicts

NOT_YET = {"memory", "training", "training-loop"}
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


@pytest.mark.parametrize(
    ("value", "target", "said"),
    [
        ("1.006 (0.999 to 1.014)", "≤ 1.02", REACHED),
        ("1.031 (1.011 to 1.061)", "≤ 1.02", MISSED),
        ("10,461; success 1.000", "≤ 200", MISSED),
        ("2.2e-06", "≤ 1e-5", REACHED),
        ("bare 767 MB, ours 375 MB, Captum 442 MB", "≤ 512 MB", REACHED),
        ("20.12 (20.10 to 20.14); 1.010 (1.002 to 1.018) × torchattacks", "≤ 1.0 × the fastest peer", MISSED),
        ("40 of 41 attacks at most 3; largest: adv2 1.65", "≤ 3", MISSED),
        ("underfire 0.90 (median 5); adv_lib 0.98 (median 5)", "≥ adv_lib's − 0.01", MISSED),
        ("1.23", "for comparison", ""),
    ],
)
def test_a_row_says_whether_it_reaches_its_target(value: str, target: str, said: str) -> None:
    assert verdicts([("time", value, target)]) == [said]


def test_one_thread_cannot_miss_a_target_for_two() -> None:
    rows = [("time", "1.15 (1.11 to 1.28)", "≥ 1.3 on 2 cores"), ("fit", "8.1, 1 thread", "≤ 180 on 2 cores")]
    assert (verdicts(rows, 1), verdicts(rows, 2)) == (["", REACHED], [MISSED, REACHED])


def test_a_target_may_be_the_row_of_a_peer() -> None:
    rows = [
        ("C&W, underfire: units", "300; success 1.000, median L2 0.0892", "≤ foolbox's units, median no larger"),
        ("C&W, foolbox: units", "370; success 1.000, median L2 0.0904", "the peer"),
        ("l0, best attack of underfire: optimality", "sigma_zero 0.9004 (median 5)", "≥ the best of adv_lib − 0.005"),
        ("l0, best attack of adv_lib: optimality", "sigma_zero 0.9779 (median 5)", "the peer"),
        ("PGD, underfire: reads", "13.0; 23 operations", "≤ the peers'; FMN also projects onto the box"),
        ("PGD, torchattacks: reads", "19.0; 23 operations", "the peer"),
    ]
    assert verdicts(rows) == [REACHED, "", MISSED, "", REACHED, ""]
