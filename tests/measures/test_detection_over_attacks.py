"""The worst attack beside the mean, detection over budgets, and detectors that have not seen an attack."""

import numpy as np
import pytest
import torch

from underfire.errors import DataError, InputError
from underfire.measures.detection import auroc
from underfire.measures.detection_over_attacks import leave_one_attack_out, over_attacks, over_budgets, over_knowledge
from underfire.measures.roc import tpr_at
from underfire.records import Batch


def test_the_worst_attack_and_the_mean_over_attacks():
    generator = np.random.default_rng(0)
    clean = generator.normal(size=200)
    attacked = {name: generator.normal(shift, size=100) for name, shift in [("far", 3), ("near", 0.5)]}
    found = over_attacks(clean, attacked | {"none": []})
    assert found.worst == "near" and found.each["far"] == auroc(clean, attacked["far"])
    assert found.least.value == found.each["near"].value and found.least.n == 300
    assert found.least.low < found.each["near"].low  # it holds for the lowest of two
    assert found.mean.value == pytest.approx((found.each["near"].value + found.each["far"].value) / 2)
    assert found.mean.low < found.mean.value < found.mean.high
    at = over_attacks(clean, attacked, tpr_at, false_positive_rate=0.1)
    assert at.each["far"] == tpr_at(clean, attacked["far"], 0.1)


def test_a_larger_budget_that_evades_less_is_no_stronger_attack():
    evaded = {0.1: [1] * 30 + [0] * 70, 0.2: [0] * 30 + [1] * 5 + [0] * 65}
    found = over_budgets(evaded)
    assert not found.check.passed and found.check.value == pytest.approx(0.25) and "eps 0.2" in found.check.detail
    assert found.measured[0.2].value == 0.05 and found.attainable[0.2].value == pytest.approx(0.35)
    rising = over_budgets({0.2: [1, 1, 0], 0.1: [1, 0, 0]})
    assert rising.check.passed and list(rising.measured) == [0.1, 0.2]
    assert over_budgets({0.1: [1, 0], 0.2: [0, 0]}).check.passed  # one image is no evidence
    assert over_budgets({0.1: [1, 0]}).check.passed


def test_an_attack_that_knows_a_detector_and_evades_it_less_is_no_stronger():
    found = over_knowledge([1] * 30 + [0] * 70, [0] * 30 + [1] * 5 + [0] * 65, eps=0.2)
    assert not found.passed and found.value == pytest.approx(0.25) and "eps 0.2" in found.detail
    assert over_knowledge([1, 0], [0, 0]).passed and over_knowledge([0] * 9, [1] * 9).value == -1


class Seen:
    """Scores 1 for an input whose value it has seen among attacked ones."""

    def fit(self, model, clean, attacked=None):
        self.values = attacked.x.unique()

    def score(self, model, x):
        return torch.isin(x.flatten(), self.values).float()


def batches(value, names):
    return tuple(Batch(torch.full((4, 1), value), torch.zeros(4).long(), tuple(f"{n}{i}" for i in range(4)))
                 for n in names)  # fmt: skip


def test_a_detector_that_memorises_attacks_does_not_see_the_one_left_out():
    attacked = {name: batches(value, "ab") for name, value in [("fgsm", 1.0), ("pgd", 2.0), ("cw", 3.0)]}
    table = leave_one_attack_out(Seen, None, batches(0.0, "ab"), attacked)
    assert {name: [row[other].value for other in attacked] for name, row in table.items()} == {
        "fgsm": [0.5, 1, 1], "pgd": [1, 0.5, 1], "cw": [1, 1, 0.5],
    }  # fmt: skip
    with pytest.raises(DataError, match="'a0'"):
        leave_one_attack_out(Seen, None, batches(0.0, "aa"), attacked)


def test_bad_input():
    with pytest.raises(InputError, match="name of the attack"):
        over_attacks([0.0], {})
    with pytest.raises(DataError, match="no attack of pgd"):
        over_attacks([0.0], {"pgd": []})
    with pytest.raises(InputError, match="same images"):
        over_budgets({0.1: [1], 0.2: [1, 0]})
    with pytest.raises(InputError, match="same images"):
        over_knowledge([1], [1, 0])
    with pytest.raises(InputError, match="two or more"):
        leave_one_attack_out(Seen, None, batches(0.0, "ab"), {"pgd": batches(1.0, "ab")})
