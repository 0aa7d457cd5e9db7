"""Ctrl-C in a training: the step is finished, the state is stored, and the message says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from tests.networks import rand
from underfire.learning import Checkpoint, fit, read_facts


@pytest.fixture(autouse=True)
def _usual_handler() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, as in a program; a worker of pytest may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def train(path: Path | None, presses: int = 0) -> Tensor:
    """Train for eight steps with Ctrl-C pressed in the fourth, and return the weights."""
    net = nn.Linear(3, 1)
    with torch.no_grad():
        net.weight.fill_(1.0), net.bias.zero_()

    def loss(step: int, _: Generator) -> Tensor:
        for _i in range(presses if step == 3 else 0):
            signal.raise_signal(signal.SIGINT)
        return net(rand(4, 3, seed=step)).square()

    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    checkpoint = None if path is None else Checkpoint(path, every=3)
    fit(net, sgd, lambda step, _: step, loss, steps=8, checkpoint=checkpoint)
    return net.weight.detach()


def test_the_step_is_finished_and_stored(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt, match=f"step 4 of 8.*{path}"):
        train(path, presses=1)
    assert read_facts(path)["step"] == "4"
    assert torch.equal(train(path), train(None))


def test_a_second_one_interrupts_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path / "state", presses=2)
    assert not str(caught.value)
    assert read_facts(tmp_path / "state")["step"] == "3"


def test_without_a_checkpoint_the_first_one_does() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        train(None, presses=1)
    assert not str(caught.value)
