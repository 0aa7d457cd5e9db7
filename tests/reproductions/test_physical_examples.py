"""The destruction rate by hand, and a small run of the experiment."""

import json

import pytest
import torch

from underfire import reproductions
from underfire.measures.statistics import clopper_pearson
from underfire.reproductions.physical_examples import LEVELS, METHODS, PUBLISHED, _curves, destruction, right


def test_the_destruction_rate_by_hand():
    """Of six images, one was wrong from the start and one never fooled the model; two of the four left come back."""
    clean = torch.tensor([True, True, True, True, False, True])
    adversarial = torch.tensor([False, False, False, False, False, True])
    transformed = torch.tensor([True, False, True, False, True, True])
    found = destruction(clean, adversarial, transformed)
    assert (found.value, found.n) == (0.5, 4)
    assert (found.low, found.high) == pytest.approx((0.0676, 0.9324), abs=1e-4)
    assert destruction(clean, clean, transformed).n == 0


def test_right_among_the_top():
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.2], [0.9, 0.5, 0.3, 0.2]])
    y = torch.tensor([2, 3])
    assert right(logits, y).tolist() == [False, False]
    assert right(logits, y, 2).tolist() == [True, False]


def test_the_published_numbers_are_for_methods_and_sizes_that_are_run():
    assert {name for name, _ in PUBLISHED} < set(METHODS)
    assert {level for _, level in PUBLISHED} < set(LEVELS)


def test_every_attack_has_a_curve():
    rates = {
        f"{name} {level}": {"destruction top-1": clopper_pearson(level, 20)} for name in METHODS for level in LEVELS
    }
    svg = _curves(rates, LEVELS)
    assert all(f">{word}<" in svg for word in (*METHODS, "destruction, top-1", "4", "16"))


@pytest.mark.slow
def test_a_quick_run(data_root, tmp_path):
    seen = []
    table = reproductions.run(
        "physical-examples", data_root=data_root, out=tmp_path, quick=True, progress=lambda *step: seen.append(step)
    )
    text = table.read_text()
    assert "quick run" in text
    assert text.count("\n| fgsm |") == text.count("\n| eot |") == 1
    results = json.loads((tmp_path / "physical-examples.json").read_text())["results"]
    assert results["clean"]["top-1"]["n"] == 2
    assert results["illc 4"]["destruction top-1"]["n"] <= 2
    assert seen[-1][0] == seen[-1][1] == 4
