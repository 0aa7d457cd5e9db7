"""Adversarial training against slow repetitions of the papers' algorithms, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import half_space, rand, seeded
from tests.training.toys import Counted, X, Y, batches, close, descend, network, plan, seed_of, slope_at
from underfire.errors import InputError, Unsupported
from underfire.training import Plan, TrainingStep, inner_attack

EPS = 0.1


def test_pgd_training_is_the_loop_of_madry() -> None:
    attack = {"name": "pgd", "steps": 3, "step_size": 0.04}
    made = uf.training.adversarial(network(), (X, Y), attack=attack, eps=EPS, plan=plan(), generator=seeded(1))
    slow, generator = network(), seed_of(1)
    for x, y in batches(generator):
        z = x + EPS * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)
        z = z.clamp(0, 1)
        for _ in range(3):
            g = slope_at(z, lambda z, y=y: F.cross_entropy(slow(z), y))
            z = (x + (z + 0.04 * g.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        descend(slow, F.cross_entropy(slow(z), y))
    assert close(made, slow)


def test_the_mixed_loss_of_goodfellow_in_closed_form() -> None:
    """A half-space: the worst image is `x - eps sign(w)` for class 1, and the mixed gradient is known."""
    w = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    x = 0.3 + 0.4 * rand(6, 1, 2, 2, dtype=torch.float64)
    y = torch.tensor([1, 0, 1, 1, 0, 0])
    options: dict[str, Any] = {"attack": "fgsm", "clean_weight": 0.3, "eps": EPS, "plan": plan(batch_size=6)}
    made = uf.training.adversarial(half_space(w.reshape(1, 2, 2)), (x, y), **options)
    v = x.flatten(1)
    v_adv = v - EPS * w.sign() * (2 * y[:, None] - 1)
    wanted = sum(a * ((u @ w).sigmoid() - y) @ u / 6 for a, u in ((0.3, v), (0.7, v_adv)))
    moved = made.module[1].weight.detach() - half_space(w.reshape(1, 2, 2))[1].weight.detach()
    assert torch.allclose(moved[1], -0.1 * wanted) and torch.allclose(moved[0], 0.1 * wanted)


def test_free_training_is_algorithm_1_of_the_paper() -> None:
    made = uf.training.free(network(), (X, Y), eps=EPS, replays=3, plan=plan(epochs=3), generator=seeded(2))
    slow, shift = network(), torch.zeros(4, 1, 4, 4, dtype=torch.float64)
    for x, y in batches(seed_of(2)):
        for _ in range(3):
            z = (x + shift).clamp(0, 1)
            g = slope_at(shift, lambda d, x=x, y=y: F.cross_entropy(slow((x + d).clamp(0, 1)), y))
            descend(slow, F.cross_entropy(slow(z), y))
            shift = (shift + EPS * g.sign()).clamp(-EPS, EPS)
    assert close(made, slow)


def test_fast_training_takes_one_step_from_a_random_point() -> None:
    made = uf.training.fast(network(), (X, Y), eps=EPS, plan=plan(), generator=seeded(4))
    slow, generator = network(), seed_of(4)
    for x, y in batches(generator):
        z = (x + EPS * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1)).clamp(0, 1)
        g = slope_at(z, lambda z, y=y: F.cross_entropy(slow(z), y))
        z = (x + (z + 1.25 * EPS * g.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        descend(slow, F.cross_entropy(slow(z), y))
    assert close(made, slow)


@pytest.mark.parametrize(
    ("method", "options", "forwards", "backwards"),
    [
        ("standard", {}, 1, 1),
        ("adversarial", {}, 8, 8),  # PGD of 7 steps: the floor
        ("adversarial", {"attack": "fgsm", "clean_weight": 0.5}, 3, 3),
        ("adversarial", {"attack": "rand_fgsm"}, 2, 2),
        ("fast", {}, 2, 2),
        ("free", {}, 1, 1),
        ("trades", {"steps": 10}, 13, 12),  # the clean outputs once, ten steps, and two passes for the weights
    ],
)
def test_no_pass_is_wasted(method: str, options: dict[str, Any], forwards: int, backwards: int) -> None:
    counted = Counted()
    uf.find("training", method)(counted, (X, Y), **options, plan=plan())
    checked = 1  # the pass that finds the number of classes
    assert counted.count() == (12 * forwards + checked, 12 * backwards)


class WithNorm(nn.Module):
    """A network with batch norm, whose passes are noted: whether weights get gradients, and the statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.body = nn.BatchNorm2d(1), network().float()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.body(self.norm(x))
        return logits


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_an_inner_attack_leaves_weights_and_statistics_alone(batch_norm: Any) -> None:
    x, y = X.float(), Y
    model = uf.Classifier(WithNorm().train())
    statistics = model.module.norm.running_mean.clone()
    seen = list[Tensor]()

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert not any(p.requires_grad for p in model.parameters())
        z = x.clone().requires_grad_(True)
        seen.append(model(z).detach())
        torch.autograd.grad(F.cross_entropy(model(z), y), z)
        return z

    craft = inner_attack(attack, batch_norm)
    x_adv = craft(TrainingStep(model, x, y, 0, 1, seeded()))
    assert not x_adv.requires_grad and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(layer.training for layer in model.modules()) and model.module.norm.track_running_stats
    assert torch.equal(model.module.norm.running_mean, statistics)
    z = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() if batch_norm == "train" else x / (1 + 1e-5) ** 0.5
    assert torch.allclose(seen[0], model.module.body(z), atol=1e-5)


def test_any_attack_of_the_catalogue_may_be_the_inner_attack() -> None:
    x, y = X.float(), Y
    model = uf.Classifier(network().float())
    for name, more in (("mi_fgsm", {"steps": 2}), ("deepfool", {"steps": 2}), ("random_noise", {})):
        x_adv = inner_attack(name, eps=EPS, norm="linf", **more)(TrainingStep(model, x, y, 0, 1, seeded()))
        assert float((x_adv - x).abs().max()) <= EPS + 1e-6 and not torch.equal(x_adv, x)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"eps": 0.0}, InputError, "eps must be above 0"),
        ({"attack": "pdg"}, InputError, "'pgd'"),
        ({"attack": "fgsm", "steps": 3}, InputError, "'steps'"),
        ({"attack": {"steps": 3}}, InputError, "{name: pgd, steps: 7}"),
        ({"attack": {"name": "pgd", "stepz": 3}}, InputError, "'stepz'"),
        ({"clean_weight": 1.0}, InputError, r"\[0, 1\)"),
        ({"batch_norm": "batch"}, InputError, "'batch_norm'"),
        ({"plan": 3}, InputError, "Plan"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named) as found:
        uf.training.adversarial(network(), (X, Y), **options)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("epochs", 0.0, InputError),
        ("rate", -1.0, InputError),
        ("batch_size", 0, InputError),
        ("schedule", "x", Unsupported),
    ],
)
def test_a_wrong_plan_is_refused(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=field):
        Plan(**{field: value})


def test_fresh_weights_do_not_depend_on_those_of_the_model() -> None:
    one, other = (uf.training.standard(network(seed), (X, Y), plan=plan(fresh=True)) for seed in (0, 1))
    assert close(one, other) and not close(one, uf.training.standard(network(), (X, Y), plan=plan()))
