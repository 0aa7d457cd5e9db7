"""Seeds of trainings, and networks whose first weights a seed determines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Generator, nn

from underfire.validate import default_generator

_Network = TypeVar("_Network", bound=nn.Module)


def drawn_seed(generator: Generator | None) -> int:
    """Return the seed of a training, drawn from `generator`; if it is None, from a new one with seed 0."""
    source = default_generator(generator, torch.device("cpu"))
    return int(torch.randint(2**40, (1,), generator=source, device=source.device))


def initialised(make: Callable[[], _Network], seed: int) -> _Network:
    """Return a network in float32 with the first weights of a seed; the global generator is left as it was found."""
    usual = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        torch.set_default_dtype(torch.float32)  # the weights that a seed gives depend on it
        try:
            return make()
        finally:
            torch.set_default_dtype(usual)
