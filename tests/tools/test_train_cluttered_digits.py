"""The command that trains the embedded network: repeatable, and its file is what the zoo loads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tools import train_cluttered_digits as command
from underfire import models
from underfire.data.cluttered import ClutteredDigits


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClutteredDigits, "__len__", lambda self: 24)
    monkeypatch.setattr(command, "BATCH_SIZE", 8)


@pytest.mark.slow
def test_a_seed_is_a_network() -> None:
    before = torch.get_rng_state()
    first, again, other = (models.fingerprint(command.train(seed=seed, epochs=1)) for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_the_command_writes_what_the_zoo_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(path), "--epochs", "1", "--seed", "5"])
    command.main()
    loaded = models.load(f"{path}?arch=cluttered_digits")
    x = ClutteredDigits("test").read([0, 1]).x
    assert torch.allclose(loaded.predict(x), command.train(seed=5, epochs=1).predict(x), atol=1e-6)
    assert "of the test images are classified correctly" in capsys.readouterr().out
