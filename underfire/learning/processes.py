"""Train in several processes, each on its part of every batch: several GPUs, or several machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Generator, Tensor, distributed

from underfire.errors import InputError
from underfire.extras import import_extra

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them; without arguments, it is alone.

    Every process has the same network and draws the same batches, computes the gradient of its own rows, and gets the
    sum of all gradients, so that all take the same steps.

    Attributes:
        rank: the number of this process, from 0. Process 0 measures, reports and stores.
        count: number of processes.
        device: the device of this process, to which network and batches belong; None leaves the choice to the caller.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    def rows(self, count: int) -> tuple[int, int]:
        """Return the first of the `count` rows of a batch that belongs to this process, and the first of the next."""
        return count * self.rank // self.count, count * (self.rank + 1) // self.count

    def seed(self, seed: int) -> int:
        """Return the seed of this process for what all processes draw with the seed `seed`."""
        return (seed + 0x9E3779B1 * self.rank) % 2**63  # a generator of the CPU reads the lower 32 bits

    def generator(self, shared: Generator, seed: int) -> Generator:
        """Return the source of random numbers of a loss; alone, it is the shared one, from which batches are drawn."""
        return shared if self.count == 1 else Generator(shared.device).manual_seed(self.seed(seed))

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes."""
        if self.count > 1 and tensors:
            joined = torch.cat([tensor.detach().flatten() for tensor in tensors])
            distributed.all_reduce(joined)
            for tensor, part in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        self.add_up([flags])
        return bool(flags)

    def from_first(self, make: Callable[[], _Value]) -> _Value:
        """Return what process 0 makes; it is sent to all others as Python's pickle."""
        if self.count == 1:
            return make()
        made: list[Any] = [make() if self.rank == 0 else None]
        distributed.broadcast_object_list(made, src=0, device=self.device)
        return made[0]


ALONE = Processes()
"""The only process of a training."""


def start_processes(devices: int | Literal["auto"] = "auto", *, accelerator: str = "auto", nodes: int = 1) -> Processes:
    """Start the processes of a training by Lightning Fabric, and return them as this one sees them.

    The program is started again for each further device of this machine, and this call returns in each process; so call
    it before data and models are opened. Under `torchrun`, or on a cluster that Fabric knows, they have been started.

    Args:
        devices: number of devices of each machine; `"auto"` is all GPUs.
        accelerator: `"cpu"`, `"cuda"` or another one of Fabric; `"auto"` is the best that is there.
        nodes: number of machines.

    Raises:
        MissingExtra: lightning-fabric is not installed. InputError: there are fewer devices.
    """
    made = import_extra("lightning_fabric").Fabric
    refusal = import_extra("lightning_fabric.utilities.exceptions").MisconfigurationException
    try:
        fabric = made(accelerator=accelerator, devices=devices, strategy="ddp", num_nodes=nodes)
    except (TypeError, ValueError, RuntimeError, refusal) as error:
        why = " ".join(str(error).split())
        raise InputError(f"devices={devices!r} and accelerator={accelerator!r} are not possible here: {why}") from None
    fabric.launch()
    return Processes(fabric.global_rank, fabric.world_size, fabric.device)
