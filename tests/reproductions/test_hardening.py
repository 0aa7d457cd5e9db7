"""The experiments on trained robustness: small runs leave their pages, and what they decide is decided rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from underfire import reproductions
from underfire.errors import InputError
from underfire.records import Batch
from underfire.reproductions.hardening import (
    distillation_broken,
    ensemble_adversarial,
    fast_cifar10,
    parseval,
    single_step_masking,
    trades_mnist,
)


def test_more_budget_is_compared_on_the_same_images() -> None:
    sizes = trades_mnist.Sizes(whole=200, images=100)
    place = np.arange(200)
    found = {"clean": place < 199, "PGD-40": place < 95, "PGD-1000": place[:100] < 80, "AutoAttack": place[:100] >= 10}
    page = trades_mnist.outcome(sizes, {name: hits.astype(float) for name, hits in found.items()}, {})
    cells = {row[0]: row[1:] for row in page.rows}
    assert cells["PGD-40"][0].startswith("95.0 [") and cells["PGD-40"][1].startswith("47.5 [")
    assert cells["PGD-40"][2] == "96.07" and cells["AutoAttack"][1:] == ["–", "–"]
    assert cells["all three"][0].startswith("70.0 [")
    verdicts = {claim["claim"].split(" changes")[0]: claim for claim in page.results["claims"]}
    assert verdicts["PGD-1000"]["verdict"] == "holds" and "+15.0" in verdicts["PGD-1000"]["figures"]


@pytest.mark.slow
def test_a_small_run_of_trades_leaves_a_page(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trades_mnist.SIZES, "quick", trades_mnist.Sizes(8, 2, 3, 1, 2))
    for _ in range(2):
        page = reproductions.run("trades-mnist", data_root=data_root, out=tmp_path, work=tmp_path / "work", quick=True)
    text = page.read_text()
    assert "| PGD-3 | " in text and "| AutoAttack | " in text and "| 96.07 |" in text and str(data_root) not in text
    # a second run reads what the first has finished: a part for each attack
    assert len(list((tmp_path / "work").glob("trades-mnist-*/*"))) == 4


def test_what_breaks_a_distilled_network_is_decided_image_by_image() -> None:
    right, wrong = np.ones(50), np.zeros(50)
    masked, plain = {"undefended": wrong, "distilled": right}, {"undefended": wrong, "distilled": wrong}
    found = {
        f"{attack}, {kind}": masked if kind in ("cross-entropy", "probabilities") else plain
        for attack, kinds in {"FGSM": ("cross-entropy", "log-odds"), "JSMA": ("probabilities", "logits")}.items()
        for kind in kinds
    }
    found |= {name.replace("FGSM", "PGD"): hits for name, hits in found.items() if "FGSM" in name}
    found[distillation_broken.CW] = plain
    assert [claim.verdict for claim in distillation_broken.decided(found)] == ["holds"] * 7
    # one image of fifty is left
    found[distillation_broken.CW] = {"undefended": wrong, "distilled": np.arange(50) < 1}
    last = distillation_broken.decided(found)[-1]
    assert last.verdict == "does not hold" and last.figures.startswith("98.0 % [")


@pytest.mark.slow
def test_a_small_run_of_distillation_trains_once(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = distillation_broken.Sizes(16, 1, 1, 4, 2, 2, 2, 0.003)
    monkeypatch.setitem(distillation_broken.SIZES, "quick", few)
    options: dict[str, Any] = {"data_root": data_root, "out": tmp_path, "work": tmp_path / "work", "quick": True}
    first = reproductions.run("distillation-broken", **options).read_text()
    assert "| C&W, L2 | 2 | " in first and "| FGSM, cross-entropy | 4 | " in first and str(data_root) not in first
    # a second run trains nothing
    monkeypatch.setattr("underfire.training.trainer.fit", None)
    assert reproductions.run("distillation-broken", **options).read_text() == first


FEW = single_step_masking.Sizes(train=16, epochs=1, images=4, held_out=1, steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("module", [single_step_masking, ensemble_adversarial])
def test_small_runs_on_digits_leave_their_pages(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.setitem(module.SIZES, "quick", FEW)
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    options: dict[str, Any] = {"data_root": data_root, "out": tmp_path, "work": tmp_path / "work", "quick": True}
    first = reproductions.run(name, **options).read_text()
    assert "| clean | " in first and "first 4 test images" in " ".join(first.split()) and str(data_root) not in first
    # a second run trains nothing
    monkeypatch.setattr("underfire.training.trainer.fit", None)
    assert reproductions.run(name, **options).read_text() == first


def test_masking_is_decided_on_the_network_that_was_trained_on_the_single_step() -> None:
    right, half, wrong = np.ones(40), np.arange(40) % 2.0, np.zeros(40)
    names = single_step_masking.FGSM, single_step_masking.RAND, single_step_masking.PGD
    strengths = {names[0]: right, names[1]: half, names[2]: wrong} | dict.fromkeys(single_step_masking.OTHERS, half)
    found = {
        name: {"FGSM-trained": hits, "undefended": wrong if name == "FGSM" else right, "PGD-trained": right}
        for name, hits in strengths.items()
    }
    claims = single_step_masking.decided(found, {"undefended": half, "FGSM-trained": right})
    assert [claim.verdict for claim in claims[:4]] == ["holds"] * 4 and claims[-1].verdict == "holds"
    # nothing is found on the PGD-trained network
    assert claims[4].verdict == "holds" and claims[5].verdict == "does not hold, not significant"


def test_the_worst_black_box_attack_decides_for_the_ensemble() -> None:
    right, wrong = np.ones(30), np.zeros(30)
    hits = {"undefended": wrong, "FGSM-trained": wrong, "ensemble-trained": right}
    found = dict.fromkeys(("black-box FGSM", ensemble_adversarial.WORST), hits)
    found["white-box PGD"] = dict.fromkeys(hits, wrong)
    assert [claim.verdict for claim in ensemble_adversarial.decided(found)] == ["holds"] * 4


def test_noise_is_measured_in_decibels() -> None:
    x = torch.full((2, 1, 4, 4), 0.5)
    before, after = (Batch(images, torch.zeros(2).long(), ("a", "b")) for images in (x, x + 0.05))
    assert parseval.noise(before, after) == pytest.approx(20)


@pytest.mark.slow
def test_a_small_run_of_parseval_leaves_a_page_and_pictures(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parseval.SIZES, "quick", parseval.Sizes(16, 1, 4, 4, 2))
    short = {name: replace(images, radii=images.radii[:2]) for name, images in parseval.DATA.items()}
    monkeypatch.setattr(parseval, "DATA", short)
    options: dict[str, Any] = {"data_root": data_root, "out": tmp_path, "work": tmp_path / "work", "quick": True}
    text = reproductions.run("parseval", **options).read_text()
    assert "| MNIST | PGD | 0.02 | " in text and "| CIFAR-10 | FGSM | 1/255 | " in text and str(data_root) not in text
    assert "| CIFAR-10 | Parseval | 5 | " in text and (tmp_path / "parseval-singular-values.svg").is_file()
    assert "<svg" in (tmp_path / "parseval-accuracy.svg").read_text()


def test_fast_training_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a GPU"):
        reproductions.run("fast-cifar10", data_root=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_small_run_of_fast_training_leaves_a_page(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fast_cifar10.SIZES, "quick", fast_cifar10.Sizes(24, 4, 1, 2, 2, 1, 2))
    options: dict[str, Any] = {"data_root": data_root, "out": tmp_path, "work": tmp_path / "work", "quick": True}
    first = reproductions.run("fast-cifar10", **options).read_text()
    assert "| PGD-50-10 | 2 | " in first and "| 46.06 |" in first and "minutes on a processor" in first
    # a second run trains nothing, and knows how long the training took
    monkeypatch.setattr("underfire.training.trainer.fit", None)
    assert reproductions.run("fast-cifar10", **options).read_text() == first
