"""A training that `test_processes.py` runs in one and in two processes: python two_processes.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.learning import (
    Average,
    Checkpoint,
    Computation,
    JsonLines,
    KeepBest,
    Shuffled,
    fit,
    start_processes,
    write_tensors,
)


def trained(computation: Computation, folder: Path, kill: int = -1) -> nn.Module:
    """Train a network in float64 on batches of seven rows, of which two processes have three and four."""
    draws = Generator().manual_seed(1)
    x = torch.rand(20, 5, generator=draws, dtype=torch.float64)
    y = (x.sum(1) > 2.5).long()
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2), nn.BatchNorm1d(2).eval()).double()
    for weight in net.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=draws, dtype=torch.float64))

    def loss(batch: tuple[Tensor, Tensor], _: Generator) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1], reduction="none")

    def validate() -> dict[str, float]:
        return {"loss": float(F.cross_entropy(net(x), y).detach())}

    def progress(done: int, _: int) -> None:
        if done == kill:
            raise InterruptedError

    options: dict[str, Any] = {
        "average": Average(0.9),
        "guards": [KeepBest("loss", smallest=True)],
        "checkpoint": Checkpoint(folder / "state", every=2),
        "watch": JsonLines(folder / "ledger.jsonl"),
    }
    sgd = torch.optim.SGD(net.parameters(), 0.5, momentum=0.9)
    batches = Shuffled((x, y), 7)
    fit(net, sgd, batches, loss, steps=7, computation=computation, validate=validate, progress=progress, **options)
    return net


if __name__ == "__main__":
    processes, folder = start_processes(2, accelerator="cpu"), Path(sys.argv[1])
    net = trained(Computation(processes=processes, accumulate=2), folder)
    write_tensors(folder / f"weights{processes.rank}", net.state_dict(), {"count": str(processes.count)})
