"""The published networks of interpretability-aware training, compared cell by cell with their table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from underfire import reproductions
from underfire.measures.statistics import clopper_pearson
from underfire.reproductions import interpretability_aware_cifar10, interpretability_aware_mnist
from underfire.reproductions.curves import curves
from underfire.reproductions.interpretability_aware_networks import (
    Part,
    authors_images,
    cell,
    compare,
    correct,
    network,
    outcome,
)
from underfire.reproductions.registry import Setting

MNIST, CIFAR10 = interpretability_aware_mnist.TABLE, interpretability_aware_cifar10.TABLE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "radius"), [("normal", "0.05"), ("int2", "0"), ("igsum", "0")])
def test_published_cells_to_the_digit(data_root: Path, name: str, radius: str) -> None:
    images = authors_images(MNIST.data.format(root=data_root))
    published = MNIST.rows[name].accuracies
    assert published is not None
    # 40 steps of the 200: at this radius the rest of them change no prediction.
    hits = correct(network(MNIST, name, data_root, "cpu"), images, MNIST.radii[radius], steps=40)
    assert float(hits.float().mean()) == pytest.approx(published[list(MNIST.radii).index(radius)], abs=1e-6)


def of(accuracies: Mapping[str, tuple[float, ...]]) -> dict[str, list[Tensor]]:
    """Which of 200 images are right, for accuracies by network."""
    return {name: [torch.arange(200) < round(200 * one) for one in row] for name, row in accuracies.items()}


def test_exchanged_cells_are_told_and_cells_one_image_away_are_counted() -> None:
    rows = {name: row.accuracies for name, row in CIFAR10.rows.items() if row.accuracies}
    whole = Part(tuple(rows), 200, 200)
    as_published = outcome(CIFAR10, whole, of(rows))
    assert as_published.notes[0].startswith("56 of the 56 published") and len(as_published.notes) == 1
    # the clean cells of two networks are exchanged, and one cell of a third is one image away
    ours = rows | {
        "int2": (rows["int2adv"][0], *rows["int2"][1:]),
        "int2adv": (rows["int2"][0], *rows["int2adv"][1:]),
        "adv": (0.715, *rows["adv"][1:]),
    }
    found = outcome(CIFAR10, whole, of(ours))
    counted, told = found.notes
    assert "53 of the 56" in counted and "1 more are one image (0.005) away" in counted and "95 % interval" in counted
    assert "Int2 and Int2-Adv at eps 0:" in told and "both agree with the table" in told
    assert found.rows[1][1] == "0.715 (0.720)" and found.results["adv"]["rates"][0].n == 200


def test_a_cell_shows_the_published_value_where_it_differs() -> None:
    assert (cell(0.53, 0.53), cell(0.5, 0.53), cell(0.5, None)) == ("0.530", "0.500 (0.530)", "0.500\\*")
    starred = outcome(MNIST, Part(("intig",), 4, 1), {"intig": [torch.ones(4).bool()] * 7})
    assert starred.rows == [["Int-IG", *["1.000\\*"] * 7]] and "have a star" in starred.notes[0]


@pytest.mark.slow
def test_an_interrupted_run_continues(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(data_root, tmp_path, tmp_path, "quick")
    table = replace(CIFAR10, radii={"0": 0.0, "8/255": 8 / 255}, quick=Part(("normal",), 2, 2))
    table = replace(table, rows={"normal": replace(table.rows["normal"], accuracies=(0.765, 0.06))})
    first = compare(table, setting, ["normal"])
    monkeypatch.setattr(interpretability_aware_cifar10, "TABLE", table)
    monkeypatch.setattr("underfire.reproductions.interpretability_aware_networks.network", None)
    page = reproductions.run(
        "interpretability-aware-cifar10", data_root=data_root, out=tmp_path, work=tmp_path, quick=True
    )
    assert all(value in page.read_text() for value in first.rows[0]) and len(list(tmp_path.glob("*/*"))) == 2


def test_every_network_is_a_part_of_the_table() -> None:
    parts = [f"interpretability-aware-cifar10-{name}" for name in CIFAR10.rows]
    assert set(parts) <= set(reproductions.names())
    assert reproductions.summary(parts[-1]).startswith("Int2-Adv on CIFAR-10")


def test_the_curves_show_every_network_and_are_the_same_again():
    ours = {
        name: [clopper_pearson(k, 200) for k in right]
        for name, right in (("Normal", (200, 100)), ("Int-IG", (180, 40)))
    }
    published = {"Normal": [1.0, math.nan]}
    svg = curves({"0": 0.0, "0.4": 0.4}, ours, published)
    assert svg == curves({"0": 0.0, "0.4": 0.4}, ours, published)
    assert all(f">{word}<" in svg for word in ("Normal", "Int-IG", "accuracy", "eps"))
