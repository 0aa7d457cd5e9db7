"""The gap of robustly trained networks: the audits, the verdicts, and a quick run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from underfire import reproductions
from underfire.audit.gaps import Curves, gap_difference
from underfire.audit.spec import parse_spec
from underfire.records import Interval
from underfire.reproductions.hardening.robust_gap import page
from underfire.reproductions.hardening.robust_gap.families import FAMILIES, TRAININGS, present, spec
from underfire.reproductions.registry import Setting


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_a_spec_that_attacks_each_of_its_maps(name: str, tmp_path: Path) -> None:
    family, setting = FAMILIES[name], Setting(tmp_path, tmp_path, tmp_path)
    found = parse_spec(spec(family, family.names[-1], setting))
    assert {entry.name for entry in found.attacks} == {"pgd", "adv2", "explanation_only"}
    assert len(found.attacks) == 1 + 2 * len(family.maps) and len(found.interpreters) == len(family.maps)
    assert set(family.names) <= set(TRAININGS) and family.usual in (*family.names, None)
    quick = parse_spec(spec(family, family.names[-1], replace(setting, scale="quick")))
    assert quick.data.n == 4 and all(entry.options.get("steps", 0) <= 4 for entry in quick.attacks)


def test_networks_that_are_not_trained_yet_are_left_out(tmp_path: Path) -> None:
    setting = Setting(tmp_path, tmp_path, tmp_path)
    assert present(FAMILIES["mnist-trained"], setting) == []
    assert len(present(FAMILIES["cifar10"], setting)) == 8


def curve(kept: float, n: int = 40) -> Curves:
    """A network that is fooled on every image, and whose maps keep an IoU."""
    won, iou = torch.ones(1, n), torch.full((1, n), kept) + 0.01 * torch.linspace(-1, 1, n)
    return Curves("CAM", "linf", (0.3,), ("ADV² on CAM",), tuple(map(str, range(n))), won, iou, iou)


def test_a_smaller_gap_is_told_by_its_paired_interval() -> None:
    difference = gap_difference(curve(0.4), curve(0.7))
    # IoU .4 and .7 are overlaps of 4/7 and 14/17, and likenesses of (o - .2) / .8
    assert difference.value == pytest.approx((4 / 7 - 14 / 17) / 0.8, abs=1e-3)
    assert page._verdict(difference).startswith("**smaller**")
    assert page._verdict(Interval(0.1, -0.1, 0.2, 9)) == "+0.100 [-0.100, +0.200]"
    assert page._verdict(Interval(0.1, 0.05, 0.2, 9)).startswith("**larger**")


@pytest.mark.slow
def test_a_quick_run_compares_with_the_network_without_a_defence(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = replace(FAMILIES["mnist"], maps={"CAM": "cam"})
    monkeypatch.setattr(page, "FAMILIES", {"mnist": family, "mnist-trained": FAMILIES["mnist-trained"]})
    text = reproductions.run(
        "gap-of-robust-models", data_root=data_root, out=tmp_path, work=tmp_path / "work", quick=True
    ).read_text()
    assert "| MNIST Small, published | Int2-Adv |" in text and "gap of CAM" in text
    assert "`training-mnist-table` trains them" in text and "Kendall" in text
