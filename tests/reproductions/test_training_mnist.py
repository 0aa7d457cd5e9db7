"""The MNIST table with networks that are trained anew: schedules, decisions, and a quick run that resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.networks import rand
from underfire import reproductions
from underfire.catalog import find
from underfire.interpreters import cam
from underfire.model import Classifier
from underfire.models.architectures import MnistSmall
from underfire.reproductions.hardening.training_mnist import table
from underfire.reproductions.hardening.training_mnist.folded import FoldedSmall, class_maps
from underfire.reproductions.hardening.training_mnist.networks import Trained
from underfire.reproductions.hardening.training_mnist.recipes import RECIPES, SCHEDULES
from underfire.reproductions.interpretability_aware_mnist import TABLE
from underfire.reproductions.registry import Setting


@pytest.mark.parametrize("scale", SCHEDULES)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_options_of_its_method(scale: str, name: str) -> None:
    find("training", RECIPES[name].method).check(SCHEDULES[scale].options(name))
    assert TABLE.rows[name].accuracies is not None
    assert all(value > 0 for value in SCHEDULES[scale].of(RECIPES[name].method).values())


def test_the_folded_network_is_the_published_architecture() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        usual, folded = MnistSmall().double(), FoldedSmall().double()
    folded.load_state_dict(usual.state_dict())
    x, y = rand(3, 1, 28, 28, dtype=torch.float64), torch.tensor([0, 4, 9])
    assert torch.allclose(usual(x), folded(x))
    maps = [method(Classifier(net).eval(), x, y) for method, net in ((cam, usual), (class_maps, folded))]
    assert torch.allclose(*maps)
    slopes = [torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters())) for net in (usual, folded)]
    assert all(torch.allclose(*pair) for pair in zip(*slopes, strict=True))


def hits(*shares: float) -> list[Tensor]:
    """Which of 200 images are right at each radius, for the accuracies at the last of them."""
    return [torch.arange(200) < round(200 * share) for share in (1.0,) * (7 - len(shares)) + shares]


def test_the_highest_accuracy_is_decided_against_the_next_one() -> None:
    ours = {"int2adv": hits(0.6, 0.5), "int2": hits(0.5, 0.51), "adv": hits(0.1, 0.1)}
    first, second = (table.decided(ours, radius) for radius in table.FAR)
    assert (first.holds, first.sure) == (True, True) and "Int2-Adv" in first.claim and "Int2" in first.claim
    assert not second.holds


@pytest.mark.slow
def test_a_quick_run_trains_and_a_part_finds_its_networks(data_root: Path, tmp_path: Path) -> None:
    places = {"data_root": data_root, "out": tmp_path, "work": tmp_path / "work", "quick": True}
    text = reproductions.run("training-mnist-table", **places).read_text()
    assert "| Int2-Adv | trained here |" in text and "| Int2-Adv | published |" in text
    assert "is the highest at eps 0.35" in text and "These numbers do not" not in text
    trained = Trained(Setting(data_root, tmp_path, tmp_path / "work", "quick"))
    files = sorted(path.name for path in trained.store("int2adv").folder.iterdir())
    assert "weights.safetensors" in files and "losses.jsonl" in files and not any("checkpoint" in one for one in files)
    assert len(trained.losses("int2adv")) == 2  # two steps
    before = (trained.store("int2adv").folder / "weights.safetensors").stat().st_mtime_ns
    text = reproductions.run("training-mnist-table-int2adv", **places).read_text()
    assert "A part of `training-mnist-table`" in text and "is the highest" not in text
    assert (trained.store("int2adv").folder / "weights.safetensors").stat().st_mtime_ns == before
