"""Read files of weights, as training scripts write them, and put the weights into a network."""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PosixPath, WindowsPath
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")
"""The ends of the names of files of weights; all but the first are pickles, which are read with `weights_only=True`."""

STATES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights")
"""The names under which training scripts keep the weights beside other things, in the order of preference."""

WRAPPERS = ("module", "_orig_mod")
"""The prefixes that `DataParallel` and `torch.compile` add to the names of a network or of a part of it."""

EXPANSION, SMALL = 20, 2**26  # an archive may unpack to 20 times its size, or to 64 MiB if that is more
LIMIT = "UNDERFIRE_MAX_UNPACKED"

State = dict[str, Tensor]


def read(path: Path, key: str | None = None) -> State:
    """Return the weights in a file by name.

    Args:
        path: a file of one of the `SUFFIXES`.
        key: the entry that holds the weights, such as `state_dict_ema`; dots lead to entries of entries.

    Raises:
        ModelError: the file is missing, damaged, would unpack to too much, contains code, or holds no weights.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {str(path)!r}")
    if path.suffix != ".safetensors":
        return _state_in(_read_pickle(path), str(path), key)
    if key is not None:
        raise ModelError(f"{str(path)!r} holds weights alone, and no entry {key!r}: leave out key={key}")
    return _read_safetensors(path)


def put(state: State, module: nn.Module, what: str, prefix: str | None = None) -> None:
    """Load weights into a network.

    A prefix before the names of all parameters, such as `model.` of a Lightning module, is removed, and so are
    `module.` and `_orig_mod.` anywhere. Weights with another prefix belong to another part (a loss, a teacher) and are
    left out.

    Args:
        state: the weights by name.
        module: the network, which is changed.
        what: the subject of an error message, such as `'a.pt' does not fit resnet18`.
        prefix: the prefix, if several fit.

    Raises:
        ModelError: a parameter is missing, not known, or of another shape, or several prefixes fit.
    """
    wanted = module.state_dict()
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}  # only training reads this count
    if not needed <= set(state):
        state = _without_wrappers(state, what)
    prefixes = [prefix] if prefix is not None else _prefixes(needed, state)
    if len(prefixes) > 1:
        choices = ", ".join(f"prefix={choice or '(none)'}" for choice in prefixes)
        raise ModelError(f"{what} in one way only: choose by one of {choices}")
    if prefixes:
        start = prefixes[0]
        state = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
    _check_fit(state, wanted, needed, what)
    try:
        module.load_state_dict(state, strict=False)
    except (RuntimeError, NotImplementedError) as error:  # meta tensors, quantised tensors, ...
        raise ModelError(f"{what}: {' '.join(str(error).split())[:300]}") from error


def check_size(path: Path) -> None:
    """Raise ModelError if a zip archive would unpack to more than the limit; other files pass.

    The limit is 20 times the size of the file, and at least 64 MiB: weights hardly compress. The environment variable
    `UNDERFIRE_MAX_UNPACKED`, in bytes, replaces it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return
    own = os.environ.get(LIMIT, "")
    if own and not own.isdecimal():
        raise ModelError(f"{LIMIT} must be a number of bytes, it is {own!r}")
    limit = int(own) if own else max(EXPANSION * path.stat().st_size, SMALL)
    if unpacked > limit:
        raise ModelError(
            f"{str(path)!r} was not opened: its {path.stat().st_size:,} bytes unpack to {unpacked:,}, more than "
            f"{limit:,}; if this is right, set {LIMIT}={unpacked}"
        )


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{str(path)!r} is not a whole safetensors file: {error}".splitlines()[0]) from error


def _read_pickle(path: Path) -> Any:
    """Return the content of a pickle that has only tensors, numbers, texts and the arguments of a training script."""
    check_size(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace, PosixPath, WindowsPath]):  # they only hold values
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise ModelError(
                f"{str(path)!r} was not opened: its pickle would run {code[1]}; save the weights alone, as safetensors "
                "or by torch.save(model.state_dict(), FILE)"
            ) from error
        raise ModelError(f"{str(path)!r} is not a file of weights that is safe to open") from error
    except Exception as error:  # a damaged zip file, a truncated pickle, ...
        raise ModelError(f"{str(path)!r} is not a file of weights: {error}".splitlines()[0]) from error


def _state_in(content: Any, where: str, key: str | None) -> State:
    """Return the weights in the content of a pickle."""
    for part in key.split(".") if key else ():
        if not isinstance(content, Mapping) or part not in content:
            raise ModelError(f"{where!r} has no entry {part!r} of key={key}; it has {_first(_names(content))}")
        content = content[part]
    while key is None and isinstance(content, Mapping):
        inner = next((content[name] for name in STATES if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ModelError(f"{where!r} must hold a state dict (names and tensors), it holds a {type(content).__name__}")
    other = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        raise ModelError(
            f"{where!r} must hold a state dict (names and tensors), alone or as one of {', '.join(STATES)}; it holds "
            f"{_first(other) if other else 'nothing'}; another entry can be named, as in key=ema"
        )
    return {str(name): value for name, value in content.items()}


def _without_wrappers(state: State, what: str) -> State:
    """Return the weights without the names of `WRAPPERS`."""
    plain: State = {}
    for name, value in state.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in plain:
            raise ModelError(f"{what}: two parameters are called {short!r} without {' and '.join(WRAPPERS)}")
        plain[short] = value
    return plain


def _prefixes(needed: set[str], state: State) -> list[str]:
    """Return every prefix that makes the names of the weights those of the network."""
    one = min(needed, default="")
    found = {name.removesuffix(one) for name in state if name == one or name.endswith(f".{one}")}
    return sorted(prefix for prefix in found if all(prefix + name in state for name in needed))


def _check_fit(state: State, wanted: Mapping[str, Tensor], needed: set[str], what: str) -> None:
    """Raise ModelError if the names or shapes of the weights do not fit the network; `what` begins the message."""
    missing, extra = sorted(needed - set(state)), sorted(set(state) - set(wanted))
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(needed)} parameters are missing ({_first(missing)})")
    if extra:
        faults.append(f"{len(extra)} parameters are too many ({_first(extra)})")
    if faults:
        raise ModelError(f"{what}: {' and '.join(faults)}")
    for name, value in sorted(state.items()):
        if value.shape != wanted[name].shape:
            here, there = list(value.shape), list(wanted[name].shape)
            heads = here[1:] == there[1:] and here and there
            hint = f"; for a network of {here[0]} classes, say num_classes={here[0]}" if heads else ""
            raise ModelError(f"{what}: {name!r} must be {there}, it is {here}{hint}")


def _names(content: Any) -> list[str]:
    return [str(name) for name in content] if isinstance(content, Mapping) else []


def _first(names: Iterable[str], count: int = 3) -> str:
    """Return the first few names, and how many follow."""
    every = list(names)
    shown = ", ".join(repr(name[:80]) for name in every[:count])
    return f"{shown} and {len(every) - count} others" if len(every) > count else shown or "no entries"
