"""Small networks and slow repetitions that the tests of training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tests.networks import rand, seeded
from underfire.training import Plan

PLAIN = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "rate": 0.1}
X, Y = rand(12, 1, 4, 4, seed=3, dtype=torch.float64), torch.arange(12) % 3


def plan(**changes: object) -> Plan:
    """Plain gradient descent, in batches of 4."""
    return Plan(**{**PLAIN, "epochs": 1, "batch_size": 4, **changes})  # type: ignore[arg-type]


def network(seed: int = 0) -> nn.Sequential:
    """A smooth network, float64, for grey images of 4 x 4 pixels and three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    return body.double().eval()


def seed_of(number: int, draw: int = 0) -> torch.Generator:
    """The generator that a training uses if it is given `seeded(number)`, after `draw` other draws of a seed."""
    source = seeded(number)
    return seeded([int(torch.randint(2**40, (1,), generator=source)) for _ in range(draw + 1)][-1])


def batches(generator: torch.Generator, size: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch, as `Shuffled` draws them."""
    for rows in torch.randperm(len(X), generator=generator).split(size):
        yield X[rows], Y[rows]


def descend(body: nn.Module, loss: Tensor, rate: float = 0.1) -> None:
    """Take one step of plain gradient descent."""
    slopes = torch.autograd.grad(loss, list(body.parameters()))
    with torch.no_grad():
        for weight, slope in zip(body.parameters(), slopes, strict=True):
            weight -= rate * slope


def slope_at(z: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a loss at images."""
    z = z.detach().requires_grad_(True)
    return torch.autograd.grad(loss(z), z)[0]


def close(one: nn.Module, other: nn.Module) -> bool:
    """Whether all weights agree."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(*pair, atol=1e-10) for pair in pairs)


class Counted(nn.Module):
    """A small network that counts the images of its passes, also those of its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        forwards, backwards = list[int](), list[int]()
        self.add = lambda n: forwards.append(n)
        self.add_back = lambda n: backwards.append(n)
        self.count = lambda: (sum(forwards), sum(backwards))

    def forward(self, x: Tensor) -> Tensor:
        """Count a pass, and its backward pass."""
        self.add(len(x))
        logits: Tensor = self.body(x)
        if logits.requires_grad:
            logits.register_hook(lambda _: self.add_back(len(x)))
        return logits
