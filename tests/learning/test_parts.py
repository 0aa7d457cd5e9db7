"""Schedules against torch's, augmentation against a slow version, files of tensors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from tests.networks import rand
from underfire.data import Dataset
from underfire.errors import DataError, InputError
from underfire.learning import (
    Schedule,
    Shuffled,
    cosine,
    crop_and_flip,
    fit,
    one_cycle,
    read_facts,
    read_tensors,
    steps_down,
    warm_up,
    write_tensors,
)
from underfire.records import Batch

STEPS = 20


def rates(schedule: Schedule) -> list[float]:
    """The learning rate of every step of a training that begins with 0.1."""
    net, found = nn.Linear(1, 1), list[float]()
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    fit(
        net,
        sgd,
        lambda step, _: torch.ones(1, 1),
        lambda x, _: net(x).sum(),
        steps=STEPS,
        schedule=schedule,
        watch=lambda report: found.append(report.rate),
    )
    return found


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (steps_down((0.5, 0.75), 0.1), lambda o: lr_scheduler.MultiStepLR(o, [10, 15], 0.1)),
        (cosine(0.01), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.01)),
        (one_cycle(0.4), lambda o: lr_scheduler.OneCycleLR(o, 0.1, STEPS, pct_start=0.4)),
        (lambda o, _: lr_scheduler.ExponentialLR(o, 0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    ],
)
def test_a_schedule_is_that_of_torch(schedule: Schedule, wanted: Any) -> None:
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    scheduler, expected = wanted(sgd), []
    for _ in range(STEPS):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    assert rates(schedule) == expected


def test_the_rate_rises_before_another_schedule() -> None:
    found = rates(warm_up(4, cosine()))
    assert found[:5] == pytest.approx([0.025, 0.04375, 0.0625, 0.08125, 0.1])
    assert found[4:] == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 16)) for i in range(16)])


def test_an_epoch_has_every_row_once_and_the_next_another_order() -> None:
    class Numbers:
        labels = None

        def __len__(self) -> int:
            return 7

        def read(self, index: list[int]) -> Batch:
            x = torch.tensor(index)[:, None, None, None].float()
            return Batch(x, torch.tensor(index), tuple(map(str, index)))

    batches, generator = Shuffled(Dataset("numbers", Numbers()), 3), Generator().manual_seed(0)
    assert batches.per_epoch == 3
    epochs = [torch.cat([batches(3 * epoch + i, generator)[1] for i in range(3)]).tolist() for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7)) and epochs[0] != epochs[1]
    x, y = batches(6, generator)
    assert torch.equal(x.flatten().long(), y)


def test_crops_and_mirrors_are_those_of_single_images() -> None:
    x, generator = rand(12, 3, 5, 7, seed=1), Generator().manual_seed(2)
    found = crop_and_flip(2)(x, generator)
    assert found.shape == x.shape
    generator.manual_seed(2)
    top, left = torch.randint(5, (2, 12, 1), generator=generator)
    mirrored = torch.rand(12, 1, generator=generator) < 0.5
    for i, image in enumerate(F.pad(x, (2, 2, 2, 2))):
        crop = image[:, top[i] : top[i] + 5, left[i] : left[i] + 7]
        assert torch.equal(found[i], crop.flip(2) if mirrored[i] else crop)
    assert 0 < mirrored.sum() < 12
    assert torch.equal(crop_and_flip(0, flip=False)(x, generator), x)


def test_a_file_holds_tensors_and_facts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.safetensors"
    tied = rand(3, 2)
    write_tensors(path, {"a": tied, "b": tied, "c": tied.T}, {"method": "hgd"})
    tensors, facts = read_tensors(path)
    assert facts == read_facts(path) == {"method": "hgd"}
    assert torch.equal(tensors["a"], tied) and torch.equal(tensors["b"], tied) and torch.equal(tensors["c"], tied.T)
    with pytest.raises(InputError, match="no weights file"):
        read_tensors(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_facts(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Shuffled(torch.zeros(3, 1), 0),
        lambda: Shuffled(torch.zeros(0, 1), 2),
        lambda: steps_down((1.5,)),
        lambda: one_cycle(-1),
        lambda: warm_up(0, cosine()),
        lambda: crop_and_flip(-1),
    ],
)
def test_settings_out_of_range(make: Any) -> None:
    with pytest.raises((InputError, DataError)):
        make()
