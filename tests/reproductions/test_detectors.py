"""The experiments on detectors that learn from attacks, that are attacked knowingly, and that see another clinic."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from underfire import reproductions
from underfire.detectors import MLLOO
from underfire.detectors.kernel_density.bayesian_uncertainty import uncertainty
from underfire.measures.detection import threshold
from underfire.model import Classifier
from underfire.records import Batch, Interval
from underfire.reproductions.detection import (
    adaptive,
    detectors_adaptive_cifar10,
    detectors_adaptive_mnist,
    detectors_skin_lesions,
    learned_detectors,
    ml_loo_cifar10,
)
from underfire.reproductions.detection.adaptive_page import figures, ranking
from underfire.reproductions.detection.attacks import Attack
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Setting


def test_what_was_computed_is_read_and_other_facts_have_another_folder(tmp_path: Path) -> None:
    setting, calls = Setting(None, tmp_path, tmp_path), list[int]()

    def compute(part: Batch) -> torch.Tensor:
        calls.append(len(part))
        return 2 * part.x

    batch = Batch(torch.arange(5.0)[:, None], torch.zeros(5).long(), tuple("abcde"))
    store, quiet = Store.of(setting, "some", {"n": 5}), Setting.progress
    for _ in range(2):
        assert torch.equal(store.in_parts("doubled, once", batch, 2, compute, quiet), 2 * batch.x)
    assert calls == [2, 2, 1]
    # a run that was interrupted computes only the part that is missing
    next(iter(sorted(store.folder.glob("doubled--once-1*")))).unlink()
    store.in_parts("doubled, once", batch, 2, compute, quiet)
    assert calls == [2, 2, 1, 2]
    assert Store.of(setting, "some", {"n": 5}) == store != Store.of(setting, "some", {"n": 6})
    assert store.record("facts", lambda: ({}, {"a": [1.5]})) == store.record("facts", lambda: ({}, None))


def test_an_attacker_who_knows_the_detector_has_the_other_attacks_too() -> None:
    at, inf = threshold(np.arange(99.0), 0.05), np.inf  # 94
    attacked = {"unaware": [99.0, inf, 1.0, inf], "guard": [inf, 3.0, 98.0, inf], "hinge": [2.0, 97.0, inf, inf]}
    found = figures(adaptive.Result(at, np.arange(20.0), {name: np.array(of) for name, of in attacked.items()}))
    values = {name: interval.value for name, interval in found.items()}
    assert (values["fooled"], values["evades, unaware"], values["evades, aware"]) == (0.5, 0.25, 0.75)
    assert values["accuracy, aware"] == 0.25 and values["flagged attacks, unaware"] == 0.5
    assert values["ROC-AUC, aware"] == pytest.approx((1.5 + 2.5 + 3.5) / 60)


def test_all_detectors_of_a_tie_are_named() -> None:
    shares = {"a": (0.0, 1.0), "b": (0.0, 1.0), "c": (0.5, 1.0)}
    found = {
        label: {
            f"evades, {who}": Interval(share, share, share, 9)
            for who, share in zip(("unaware", "aware"), of, strict=True)
        }
        for label, of in shares.items()
    }
    said = ranking(found)
    assert "a, b, on 0.000" in said and "evades every detector on 1.000" in said and "For 3 of 3" in said


def test_the_claims_on_ml_loo_are_reached_or_missed() -> None:
    def areas(value: float) -> dict[str, dict[str, Interval]]:
        return {attack: {attack: Interval(value, value - 0.01, value + 0.01, 9)} for attack in ml_loo_cifar10.ATTACKS}

    rows = ml_loo_cifar10.claims(
        {"ML-LOO": areas(0.98), "LID": areas(0.9), "Mahalanobis": areas(0.985), "KD+BU": areas(0.5)}
    )
    reached = ["missed", "missed", "missed, by less than the interval", "missed", "missed", "missed"]
    assert [verdict.replace("*", "") for _, verdict, _ in rows] == reached and "(Mahalanobis)" in rows[1][2]


@pytest.mark.slow
def test_a_small_run_of_ml_loo_leaves_a_page(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # two attacks of one step, and logits instead of 3,073 passes
    monkeypatch.setattr(ml_loo_cifar10, "ATTACKS", {name: Attack("fgsm", {"eps": 0.1}) for name in ("FGSM", "C&W")})
    monkeypatch.setattr(MLLOO, "dispersions", lambda self, model, x, layers: model(x))
    others = {"LID": lambda: learned_detectors.LID(k=5, samples=20)}
    for module in (learned_detectors, ml_loo_cifar10):
        monkeypatch.setattr(module, "OTHERS", others)
    monkeypatch.setitem(ml_loo_cifar10.SIZES, "quick", ml_loo_cifar10.Sizes(3, 2, 30))
    text = reproductions.run(
        "ml-loo-cifar10", data_root=data_root, out=tmp_path, work=tmp_path / "work", quick=True
    ).read_text()
    assert "| ML-LOO, paper | 0.997 | 0.995 |" in text and "| LID, paper | 0.972 | 0.990 |" in text
    assert "has not learned from" in text and "C&W: ML-LOO at 0.995 | **" in text and str(data_root) not in text


@pytest.mark.slow
def test_a_small_run_of_adaptive_attacks_leaves_a_page(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest: Any = detectors_adaptive_cifar10.CONTEST
    chosen = {name: contest.detectors[name] for name in ("energy", "Mahalanobis")}
    few = {"quick": adaptive.Sizes(fit=60, learned=2, choose=20, clean=4, attacked=2, steps=2)}
    monkeypatch.setattr(detectors_adaptive_cifar10, "CONTEST", replace(contest, detectors=chosen, sizes=few))
    text = reproductions.run(
        "detectors-adaptive-cifar10", data_root=data_root, out=tmp_path, work=tmp_path / "work", quick=True
    ).read_text()
    assert "| Mahalanobis | " in text and "Without a detector, the unaware attacker fools" in text
    assert "ML-LOO is left out" in text and "5 % on CIFAR-10" in text and str(data_root) not in text


def test_a_detector_without_a_gradient_gets_images_that_were_made_before() -> None:
    for contest in (detectors_adaptive_mnist.CONTEST, detectors_adaptive_cifar10.CONTEST):
        names = list(contest.detectors)
        assert all(names.index(one) < names.index("ML-LOO") for one in contest.transferred)
        for sizes in contest.sizes.values():
            assert sizes.choose + sizes.clean + 1.2 * sizes.attacked + 10 <= 10_000 and sizes.learned <= sizes.fit


def test_dropout_before_the_last_layer_changes_no_prediction() -> None:
    module = nn.Sequential(OrderedDict(body=nn.Flatten(), linear=nn.Linear(12, 3)))
    model, x = Classifier(module).eval(), torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = learned_detectors.with_dropout(model)
    assert torch.equal(found(x), model(x)) and isinstance(module.linear, nn.Linear)
    assert bool((uncertainty(found, x, 8, seed=0) > 0).all())


def test_the_page_of_the_skin_lesions_names_each_group_with_its_number() -> None:
    clean, more = torch.arange(20.0), torch.arange(30.0)
    groups = {"other clinic": {"energy": more + 40}, "SCC": {"energy": more[:0]}}
    found = detectors_skin_lesions.outcome({}, "how", {"energy": clean}, groups, {"blur: of 5": {"energy": more}})
    assert found.columns == ("detector", "other clinic (n=30)", "SCC (n=0)")
    assert found.rows[0][0] == "energy" and found.rows[0][1].startswith("1.000 [") and found.rows[0][2] == "–"
    assert "blur: of 5" in found.notes[-1]


def test_the_photographs_of_a_clinic_are_halved_by_diagnosis() -> None:
    y = torch.tensor([0] * 10 + [1] * 5)
    fit, clean = detectors_skin_lesions._halves(Batch(y[:, None].float(), y, tuple(map(str, range(15)))), 0)
    assert torch.bincount(fit.y).tolist() == [5, 3] and torch.bincount(clean.y).tolist() == [5, 2]
    assert not set(fit.ids) & set(clean.ids)
