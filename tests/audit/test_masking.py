"""The masking checks: a model that hides its gradient fails those that it should, an honest one passes all."""

from __future__ import annotations

import re
from collections.abc import Callable

import audit_networks
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from underfire import data
from underfire.attacks.pgd import pgd
from underfire.audit import masking, probes
from underfire.audit.masking import chance, checks, judge
from underfire.audit.probes import Budget, diameter, probe
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec
from underfire.errors import Unsupported
from underfire.gradients.estimators import autograd
from underfire.model import Classifier
from underfire.records import Check

Small = Callable[..., AuditSpec]
NAMES = {
    "gradients",
    "saturation",
    "more_steps",
    "larger_eps",
    "unbounded_eps",
    "beats_noise",
    "beats_black_box",
    "restarts",
}


def _ask(module: nn.Module, norm: str = "linf", eps: float = 0.1) -> dict[str, Check]:
    batch = data.load("digits:", n=50, seed=1)[:]
    budget = Budget(norm, eps, 10)

    def attack(*args: object, **options: object) -> torch.Tensor:
        return pgd(*args, **{"norm": norm, **options})  # type: ignore[arg-type]

    return {
        check.name: check for check in checks(Classifier(module.eval()), batch.x, batch.y, attack=attack, budget=budget)
    }


def _right() -> int:
    """How many of the images the model with rounded pixels gets right."""
    batch = data.load("digits:", n=50, seed=1)[:]
    return int((audit_networks.rounded()(batch.x).argmax(1) == batch.y).sum())


def _failed(found: dict[str, Check]) -> set[str]:
    assert set(found) == NAMES
    return {name for name, check in found.items() if not check.passed}


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5), ("l1", 2.0)])
def test_an_honest_model_passes_all(norm: str, eps: float) -> None:
    assert _failed(_ask(audit_networks.linear(), norm, eps)) == set()


@pytest.mark.parametrize(
    ("module", "failed"),
    [
        (audit_networks.rounded, {"gradients", "saturation", "unbounded_eps", "beats_black_box"}),
        (audit_networks.quantised, {"gradients", "saturation", "unbounded_eps"}),
        (audit_networks.noisy_gradient, {"unbounded_eps", "beats_black_box"}),
    ],
)
def test_a_masked_model_fails_the_right_ones(module: Callable[[], nn.Module], failed: set[str]) -> None:
    assert _failed(_ask(module(), eps=0.2)) >= failed


def test_saturation_alone_is_told_apart() -> None:
    assert _failed(_ask(audit_networks.saturated())) == {"saturation"}  # the margin still leads the attack


def test_values_are_known_for_a_model_without_any_gradient() -> None:
    found = _ask(audit_networks.rounded())
    assert (found["gradients"].value, found["gradients"].limit) == (1.0, 0.05)
    assert found["unbounded_eps"].limit == 1.0
    assert found["more_steps"].value == 0.0  # without a gradient, steps lead nowhere
    said = f"The gradient of the margin is zero or not a number for 100\u00a0% of {_right()} images."
    assert found["gradients"].detail == said


def test_an_attack_that_gets_worse_with_its_budget_is_found() -> None:
    batch = data.load("digits:", n=50, seed=1)[:]

    def weakened(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options: float) -> torch.Tensor:
        small = options["eps"] <= 0.05 or options["steps"] < 10 or options["restarts"] > 1
        return (x + (1 - 2 * x) * small).clamp(0, 1)  # the negative of the image, or nothing

    model = Classifier(audit_networks.linear().eval())
    found = {c.name: c for c in checks(model, batch.x, batch.y, attack=weakened, budget=Budget("linf", 0.1, 10))}  # type: ignore[arg-type]
    assert {name for name, check in found.items() if not check.passed} >= {"more_steps", "larger_eps", "restarts"}
    assert "L∞ eps 0.05: 100\u00a0%, L∞ eps 0.1: 0\u00a0%" in found["larger_eps"].detail


def test_an_attack_that_random_noise_beats_is_found() -> None:
    batch = data.load("digits:", n=50, seed=1)[:]

    def idle(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options: object) -> torch.Tensor:
        return x

    model = Classifier(audit_networks.linear().eval())
    found = {c.name: c for c in checks(model, batch.x, batch.y, attack=idle, budget=Budget("linf", 0.6, 10))}
    assert _failed(found) == {"beats_noise", "unbounded_eps"}  # no step, size or restart of it differs
    right = int((model(batch.x).argmax(1) == batch.y).sum())
    assert f"The attack fools 0\u00a0% of {right} images" in found["beats_noise"].detail  # of those right before
    assert found["beats_noise"].value > 0.5


def test_a_model_that_is_never_right_is_asked_nothing() -> None:
    batch = data.load("digits:", n=50, seed=1)[:]
    model = Classifier(audit_networks.linear().eval())
    assert checks(model, batch.x, model(batch.x).argmin(1), attack=pgd, budget=Budget("linf", 0.1, 2)) == []


def test_luck_is_what_a_fair_coin_allows() -> None:
    # Of five images that fall to one attack only, all five to the weaker one: 1/32 < 5 %, no luck; of four, 1/16 is.
    assert [chance(n, 0) for n in (0, 1, 4, 5, 6)] == [0, 1, 4, 3, 4]
    for n in (8, 10, 20, 33):
        for lost in range(n + 1):
            p_value = binomtest(lost, n, alternative="greater").pvalue
            assert (2 * lost - n > chance(lost, n - lost)) == (p_value <= 0.05)


@pytest.mark.slow
def test_an_audit_runs_them_on_its_own_attack(small: Small, tmp_path: object) -> None:
    attacks = [{"name": "fgsm", "eps": 0.3}, {"name": "pgd", "norm": "l2", "eps": [0.1, 0.5, 1.0], "steps": 8}]
    spec = small(attacks=attacks, masking=True)
    assert masking.subject(spec).title == "pgd l2"
    ledger = run(spec, f"{tmp_path}/run")
    found = ledger.sql("SELECT name, passed, detail FROM checks")
    assert {row["name"] for row in found} == NAMES
    assert all(row["passed"] for row in found)
    (steps,) = [row["detail"] for row in found if row["name"] == "more_steps"]
    assert re.match(r"Of \d+ images fooled: 1 step: ", steps)
    assert ", 2 steps: " in steps
    assert ", 8 steps: " in steps
    assert masking.subject(small(attacks=["fgsm"])).title == "pgd linf"


def test_a_recipe_is_checked_itself(small: Small) -> None:
    assert masking.subject(small(attacks=["recipe"])).name == "recipe"
    given: dict[str, object] = {}
    probes.with_step_size(lambda **options: given.update(options), {"step_rule"})(step_size=0.1, steps=2)  # type: ignore[arg-type, return-value]
    assert given == {"step_rule": 0.1, "steps": 2}


def test_of_other_attacks_pgd_is_checked_at_their_norm_and_sizes_above_0(small: Small) -> None:
    estimated = {"name": "pgd", "eps": 0.2, "estimate": "nes"}
    for attacks in ([{"name": "ddn", "eps": 0.7}, estimated], [{"name": "pgd", "eps": 0}, {"name": "ddn", "eps": 0.7}]):
        found = masking.subject(small(attacks=attacks))
        assert (found.name, found.norm, found.eps) == ("pgd", "l2", [0.7])
    assert masking.subject(small(attacks=[{"name": "pgd", "eps": 0}])).eps == [8 / 255]


def test_an_attack_that_refuses_a_model_without_gradient_fools_none() -> None:
    batch = data.load("digits:", n=50, seed=1)[:]

    def attack(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options: object) -> torch.Tensor:
        if "estimate" not in options:
            raise Unsupported("the model has no gradient")
        return pgd(model, x, y, **options)  # type: ignore[arg-type]

    model = Classifier(audit_networks.rounded().eval())
    found = {c.name: c for c in checks(model, batch.x, batch.y, attack=attack, budget=Budget("linf", 0.2, 10))}
    assert _failed(found) >= {"gradients", "unbounded_eps", "beats_black_box"}
    rival = found["beats_black_box"]
    assert (rival.rival, rival.images) == ("NES", _right())
    assert rival.hits is not None and rival.value == pytest.approx(rival.hits / _right())


def test_runs_on_parts_of_the_images_give_the_checks_of_all() -> None:
    """A plain attack without random numbers does not depend on the parts; every run is a cell of its own."""
    batch, model = data.load("digits:", n=24, seed=1)[:], Classifier(audit_networks.linear().eval())
    budget = Budget("linf", 0.1, 8)

    def attack(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **options: object) -> torch.Tensor:
        return pgd(model, x, y, random_start=False, **{**options, "estimate": autograd})  # type: ignore[arg-type]

    names = probes.names(budget)
    assert len(names) == len(set(names)) == 11

    def answers(name: str) -> torch.Tensor:
        parts = (slice(0, None, 2), slice(1, None, 2))
        return torch.cat([probe(name, model, batch.x[p], batch.y[p], attack=attack, budget=budget) for p in parts])

    quiet = [name for name in names if name not in (probes.NOISE, "restarts")]
    whole = {name: probe(name, model, batch.x, batch.y, attack=attack, budget=budget) for name in names}
    parts = whole | {name: answers(name) for name in quiet}
    assert [int(parts[name].sum()) for name in names] == [int(whole[name].sum()) for name in names]
    assert judge(whole, budget, diameter(model, batch.x, "linf", 0.1)) == checks(
        model, batch.x, batch.y, attack=attack, budget=budget
    )
