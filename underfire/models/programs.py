"""Open networks that were compiled to a program: TorchScript and files of `torch.export`."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError
from underfire.models.checkpoints import check_size

SUFFIXES = (".pt2", ".torchscript")
"""The suffixes of the names of program files."""

_OPENS_FILES = re.compile(rb"\b(save|from_file|load_tensor)\b")  # operators of TorchScript that open a file by name


def kind_of(path: Path) -> str | None:
    """Return `"torchscript"` or `"pt2"` if the file is such a program, else None; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return None
    if "archive_format" in names or "serialized_exported_program.json" in [*names, *_names(path)]:
        return "pt2"
    return "torchscript" if "constants.pkl" in names and any(name.startswith("code/") for name in names) else None


def torchscript(path: Path) -> nn.Module:
    """Return a network of TorchScript, on the CPU.

    Raises:
        ModelError: the file is damaged, would unpack to too much, or its code opens files.
    """
    check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                found = entry.filename.endswith(".py") and _OPENS_FILES.search(archive.read(entry))
                if found:
                    raise ModelError(
                        f"{str(path)!r} was not opened: its code calls {found[1].decode()}, which opens files"
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises the author of the file to use torch.export
            module: nn.Module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        reason = str(error).strip().splitlines() or ["it is damaged"]
        raise ModelError(f"{str(path)!r} cannot be opened as a TorchScript network: {reason[0]}") from error
    return module


def exported(path: Path) -> nn.Module:
    """Return a network that `torch.export.save` wrote; opening the file can run code that is in it.

    Raises:
        ModelError: the file is damaged, or would unpack to too much.
    """
    check_size(path)
    try:
        program: Any = torch.export.load(path)
        module, size = Exported(program.module()), _batch_of(program)
    except Exception as error:  # the reader raises errors of many kinds
        raise ModelError(
            f"{str(path)!r} cannot be opened as a file of torch.export: {error}".splitlines()[0]
        ) from error
    return module if size is None else FixedBatch(module, size)


class Exported(nn.Module):
    """A network of `torch.export`. It has only one mode: `train` and `eval` of the exported module raise errors."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Any:
        """Return the output of the program for images `[B, C, H, W]`."""
        return self.program(x)

    def train(self, mode: bool = True) -> Exported:
        """Leave the program in the mode in which it was exported."""
        self.training = mode
        return self


class FixedBatch(nn.Module):
    """Pass any number of images to a network that takes batches of one size only.

    Args:
        network: the network.
        size: the number of images that it takes.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> Any:
        """Return the output of the network for images `[B, C, H, W]`."""
        return in_parts(self.network, x, self.size)


def in_parts(call: Callable[[Tensor], Any], x: Tensor, size: int) -> Any:
    """Return `call(x)` for a function that takes exactly `size` inputs and returns a tensor or a tuple of tensors.

    The last input is repeated to fill the last part.
    """
    found = []
    for part in x.split(size):
        filled = torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])]) if len(part) < size else part
        found.append(call(filled))
    if isinstance(found[0], (tuple, list)):
        return tuple(torch.cat(parts)[: len(x)] for parts in zip(*found, strict=True))
    return torch.cat(found)[: len(x)]


def compiled_parts(model: nn.Module) -> list[torch.jit.ScriptModule]:
    """Return the networks of TorchScript in a model, which may keep weights outside their state."""
    found = [part for part in model.modules() if isinstance(part, torch.jit.ScriptModule)]
    inside = {id(child) for part in found for child in part.modules() if child is not part}
    return [part for part in found if id(part) not in inside]


def as_module(module: nn.Module) -> nn.Module:
    """Return a module in evaluation mode; one that has no mode, such as a program of `torch.export`, is wrapped."""
    try:
        return module.eval()
    except NotImplementedError:
        return Exported(module).eval()


def _batch_of(program: Any) -> int | None:
    """Return the number of images that an exported program takes; None if it takes any number."""
    inputs = set(program.graph_signature.user_inputs)
    sizes = [node.meta["val"].shape[0] for node in program.graph.nodes if node.name in inputs]
    return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], int) else None


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
