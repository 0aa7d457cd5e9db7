"""Methods with a second network: sources, a teacher, a generator; each against a slow repetition of its algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import seeded
from tests.training.toys import X, Y, batches, close, descend, network, plan, seed_of, slope_at
from underfire.errors import InputError, ModelError
from underfire.learning import initialised
from underfire.training.adversarial_generator import PerturbationNetwork

EPS = 0.1


def test_ensemble_adversarial_training_draws_one_source_for_each_batch() -> None:
    sources = [network(seed) for seed in (5, 6)]
    options: dict[str, Any] = {"sources": sources, "eps": EPS, "plan": plan(epochs=2)}
    made = uf.training.ensemble_adversarial(network(), (X, Y), **options, generator=seeded(1))
    slow, generator, drawn = network(), seed_of(1), set[int]()
    for _ in range(2):
        for x, y in batches(generator):
            number = int(torch.randint(3, (1,), generator=generator))
            drawn.add(number)
            source = [*sources, slow][number]
            predicted = source(x).argmax(1)
            g = slope_at(x, lambda z, source=source, c=predicted: F.cross_entropy(source(z), c))
            z = (x + EPS * g.sign()).clamp(0, 1)
            descend(slow, 0.5 * F.cross_entropy(slow(x), y) + 0.5 * F.cross_entropy(slow(z), y))
    assert close(made, slow) and len(drawn) > 1
    assert all(p.requires_grad and p.grad is None for source in sources for p in source.parameters())


@pytest.mark.parametrize(
    ("sources", "error", "named"),
    [
        ([], InputError, "at least one"),
        ("zoo:x", InputError, "list"),
        ([nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).double()], ModelError, "5 classes"),
    ],
)
def test_sources_that_do_not_fit_are_refused(sources: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        uf.training.ensemble_adversarial(network(), (X, Y), sources=sources)


def test_distillation_trains_the_student_on_the_softened_outputs_of_the_teacher(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    made = uf.training.distillation(network(), (X, Y), temperature=5.0, plan=plan(checkpoint=file), generator=seeded(1))
    teacher, student = network(), network()
    for x, y in batches(seed_of(1)):
        descend(teacher, 5 * F.cross_entropy(teacher(x) / 5, y))
    for x, _ in batches(seed_of(1, 1)):
        wanted = (teacher(x).detach() / 5).softmax(1)
        descend(student, -5 * (wanted * (student(x) / 5).log_softmax(1)).sum(1).mean())
    assert close(made, student) and not close(made, teacher)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_generator_and_classifier_take_turns() -> None:
    options: dict[str, Any] = {"eps": EPS, "width": 3, "attacker_rate": 0.5}
    made = uf.training.adversarial_generator(network(), (X, Y), **options, plan=plan(), generator=seeded(1))
    slow = network()
    attacker = initialised(lambda: PerturbationNetwork(1, 3), seed_of(1).initial_seed()).double()
    for x, y in batches(seed_of(1, 1)):
        z = (x + EPS * attacker(x)).clamp(0, 1)
        descend(attacker, -F.cross_entropy(slow(z), y), 0.05)
        z = (x + EPS * attacker(x)).clamp(0, 1).detach()
        descend(slow, 0.5 * F.cross_entropy(slow(x), y) + 0.5 * F.cross_entropy(slow(z), y))
    assert close(made, slow)
