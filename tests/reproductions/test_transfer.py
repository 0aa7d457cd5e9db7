"""The experiments on transfer: their audits, what they decide, and their tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from underfire import reproductions
from underfire.audit.spec import parse_spec
from underfire.models import zoo
from underfire.reproductions.registry import Setting
from underfire.reproductions.transfer import around_or_through, attention, cifar10, defended, field, imagenet
from underfire.reproductions.transfer import grid as grids
from underfire.reproductions.transfer.claims import above, as_table, in_order
from underfire.reproductions.transfer.grid import Grid, mean_fooled
from underfire.reproductions.transfer.parts import part

GRIDS = [imagenet.GRID, imagenet.TOGETHER, cifar10.GRID, attention.GRID, defended.GRID, around_or_through.GRID]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
def test_a_grid_is_a_spec_with_the_sizes_of_its_scale(grid: Grid, tmp_path: Path) -> None:
    setting = Setting(tmp_path, tmp_path, tmp_path, "quick")
    spec = parse_spec(grid.spec(setting))
    assert spec.sample is not None and spec.sample.n == grid.images[0]
    assert str(tmp_path) in spec.data.uri and "{root}" not in spec.model_dump_json()
    assert all(entry.options.get(name, 0) <= 2 for entry in spec.attacks for name in ("steps", "samples", "queries"))
    assert parse_spec(grid.spec(replace(setting, scale="full"))).sample.n == grid.images[2]  # type: ignore[union-attr]
    assert grid.images[1] >= {"transfer-cifar10": 500, "transfer-imagenet": 200}.get(grid.name, 0)


@pytest.mark.parametrize("network", ["cifar10_wresnet_normal", "resnet20_cifar10"])
def test_the_networks_for_cifar10_take_padded_images(network: str) -> None:
    rates = {given["rate"] for given in grids.SMALL.values() if "rate" in given}
    side = int(32 * rates.pop())
    assert not rates and side > 32
    assert zoo.entry(network).build().eval()(torch.zeros(1, 3, side, side)).shape == (1, 10)


def test_a_claim_is_decided_by_paired_differences() -> None:
    rows = {"weak": np.arange(100) < 40, "strong": np.arange(100) < 60, "as strong": np.arange(100) < 61}
    floats = {name: row.astype(float) for name, row in rows.items()}
    first, second = in_order(("weak", "strong", "as strong", "missing"), floats)
    assert (first.holds, first.sure) == (True, True) and "+20.0" in first.figures
    assert (second.holds, second.sure) == (True, False) and second.verdict.endswith("not significant")
    wrong = above("x", floats["weak"], floats["strong"])
    assert (wrong.holds, wrong.sure) == (False, True)
    assert "**does not hold**" in as_table([wrong])


def test_means_leave_out_white_box_pairs() -> None:
    found = {
        ("A", "A", "white-box"): np.ones(3),
        ("A", "B", "transfer"): np.array([1.0, 0.0, 0.0]),
        ("B", "C", "around"): np.array([1.0, 1.0, 0.0]),
        ("C", "C", "through"): np.ones(3),
    }
    assert mean_fooled(found).tolist() == [1.0, 0.5, 0.0]
    assert mean_fooled(found, "A").tolist() == [1.0, 0.0, 0.0]
    assert mean_fooled(found, victims=["C"]).tolist() == [1.0, 1.0, 0.0]


def test_the_fields_table_has_the_order_that_must_hold() -> None:
    means = [np.mean(field.PUBLISHED[label][1:]) for label in imagenet.ORDER[0]]
    assert means == sorted(means)
    assert "| MI-FGSM | 50.0 | 49.6 | 57.9 | 53.4 | 37.4 |" in field.beside({"MI-FGSM": np.array([0.0, 1.0])})


NETWORKS = {name: f"python:tests.audit.audit_networks:{name}" for name in ("convolutional", "tokens", "linear")}


def small(grid: Grid, attacks: tuple[str, ...], victims: dict[str, Any]) -> Grid:
    """A grid with networks and images that cost nothing."""
    sources: dict[str, Any] = {name: NETWORKS[name] for name in ("convolutional", "tokens")}
    chosen = {label: grid.attacks[label] for label in attacks}
    more = {"executor": "in-process"}  # where the machine is busy, workers would be started
    own = replace(grid, data="digits:", sources=sources, victims=victims, attacks=chosen, more=more)
    return replace(own, sizes=["8/255", "16/255"])


@pytest.mark.slow
def test_a_quick_run_leaves_a_page_with_the_claims_and_its_parts_have_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = small(cifar10.GRID, ("I-FGSM (BIM)", "MI-FGSM", "TAP", "ATA", "TAP+ATA"), NETWORKS)
    monkeypatch.setattr(cifar10, "GRID", grid)
    text = reproductions.run(
        "transfer-cifar10", data_root=tmp_path, out=tmp_path, work=tmp_path, quick=True
    ).read_text()
    assert "TAP+ATA > TAP, eps 16/255" in text and "hold" in text and "| *" in text
    # a part has nothing to compute after the whole, and a page without claims
    left: list[int] = []
    setting = Setting(tmp_path, tmp_path, tmp_path, "quick", progress=lambda done, total, what: left.append(total))
    made = part(grid, "One source", source="a paper", sources=["tokens"], attacks=["TAP", "ATA"]).run(setting)
    assert left[0] == 0 and {row[0] for row in made.rows} == {"tokens"} and len(made.rows) == 4
    assert made.rows[0] in [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert not any("must hold**" in note for note in made.notes) and "A part of `transfer-cifar10`" in made.notes[-1]


@pytest.mark.slow
def test_a_larger_weight_of_attention_is_compared_with_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacks = ("I-FGSM (BIM)", "TAP", "ATA", "TAP+ATA", "ATA, weight 10", "TAP+ATA, weight 10")
    monkeypatch.setattr(attention, "GRID", small(attention.GRID, attacks, NETWORKS))
    text = reproductions.run(
        "transfer-attention", data_root=tmp_path, out=tmp_path, work=tmp_path, quick=True
    ).read_text()
    for claim in ("ATA > I-FGSM (BIM)", "ATA, weight 10 > I-FGSM (BIM)", "TAP+ATA > TAP", "TAP+ATA, weight 10 > TAP"):
        assert f"| {claim} |" in text


@pytest.mark.slow
def test_defences_are_attacked_around_and_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victims = {
        label: {"model": NETWORKS["convolutional"], "defenses": around_or_through.MORE.get(label, [])}
        for label in ("undefended", "bit depth", "JPEG")
    }
    grid = small(around_or_through.GRID, ("MI-FGSM", "Square"), victims)
    monkeypatch.setattr(around_or_through, "GRID", grid)
    text = reproductions.run(
        "around-or-through", data_root=tmp_path, out=tmp_path, work=tmp_path, quick=True
    ).read_text()
    assert "JPEG keeps 0 % under an adaptive attack" in text and "| bit depth |" in text
    setting = Setting(tmp_path, tmp_path, tmp_path, "quick")
    made = part(grid, "x", source="y", attacks=["Square"], page=around_or_through.page).run(setting)
    assert made.title.endswith("attacked by Square") and {row[0] for row in made.rows} == {"bit depth", "JPEG"}


def test_the_parts_of_an_experiment_are_the_whole() -> None:
    names = set(reproductions.names())
    assert {"transfer-imagenet-squeezenet-modern", "transfer-cifar10-wresnet", "around-or-through-square"} <= names
    for whole, module in (
        ("transfer-imagenet", imagenet),
        ("transfer-cifar10", cifar10),
        ("transfer-defended", defended),
    ):
        assert {f"{whole}-{name}" for name in module.PARTS} == {name for name in names if name.startswith(f"{whole}-")}
    only = imagenet.GRID.only(sources=["SqueezeNet 1.1"], attacks=grids.MODERN)
    setting = Setting(Path(__file__).parent, Path(), Path())
    assert only.spec(setting)["model"] == imagenet.GRID.spec(setting)["model"]
    assert only.spec(setting)["victims"] == imagenet.GRID.spec(setting)["victims"]
    assert [entry["label"] for entry in only.spec(setting)["attacks"]] == list(grids.MODERN)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
def test_the_files_of_a_grid_exist(grid: Grid, data_root: Path, tmp_path: Path) -> None:
    text = json.dumps(grid.spec(Setting(data_root, tmp_path, tmp_path)))
    files = set(re.findall(rf"{re.escape(str(data_root))}[^\"?]*", text))
    assert files and all(Path(file).exists() for file in files)


def test_an_attack_must_beat_bim_in_three_rows_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {
        "I-FGSM (BIM)": (40, 40, 40, 40),
        "MI-FGSM": (60, 60, 60, 30),
        "TAP": (60, 60, 30, 30),
        "TAP+ATA": (70,) * 4,
        "TIM": (60, 60, 60),  # refused on the fourth source
    }

    def rows(ledger: object, label: str, eps: float | None = None) -> dict[tuple[str, str, str], np.ndarray]:
        known = enumerate(shares.get(label, ()))
        return {(f"S{i}", "V", "transfer"): (np.arange(100) < share).astype(float) for i, share in known}

    monkeypatch.setattr(cifar10, "fooled", rows)
    monkeypatch.setattr(grids, "fooled", rows)
    found = {one.claim: one for one in cifar10.decided(cifar10.GRID, None, 8 / 255)}  # type: ignore[arg-type]
    assert found["MI-FGSM > BIM in three rows of four, eps 8/255"].verdict == "holds"
    assert found["TAP > BIM in three rows of four, eps 8/255"].verdict == "does not hold"
    assert found["TIM > BIM in three rows of four, eps 8/255"].verdict == "holds"
    assert found["TAP+ATA > TAP, eps 8/255"].verdict == "holds"
    assert not any("ATA > BIM" in claim for claim in found)  # it could not be run
