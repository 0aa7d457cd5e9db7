"""Load a classifier under test from its URI."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from underfire.classes import printable
from underfire.errors import ModelError, nearest
from underfire.model import Classifier
from underfire.models import hubs, zoo
from underfire.models.hubs import LoadedModel


def load(
    uri: str,
    *,
    device: str | torch.device = "cpu",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> Classifier:
    """Return the classifier that `uri` names, in evaluation mode on `device`.

    The URIs are `zoo:NAME`, `FILE.safetensors?arch=NAME` (also `.pt` and `.pth`, read with `weights_only=True`),
    `python:package.module:factory` (a function that returns a module or a `Classifier`), `timm:NAME`,
    `torchvision:NAME`, `hf:NAME` and `onnx:FILE`. The arguments `mean`, `std` and `labels` replace those of the source.

    Raises:
        ModelError: the scheme or the architecture is unknown, the file is missing or damaged, the weights do not fit,
            or a pickle contains code.
        MissingExtra: the scheme needs a package that is not installed.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme in SCHEMES:
        found = SCHEMES[scheme](rest)
    elif Path(uri.partition("?")[0]).suffix in (".safetensors", ".pt", ".pth"):
        path, _, query = uri.partition("?")
        found = _from_file(Path(path), _architecture(query))
    else:
        known = [f"{name}:" for name in SCHEMES]
        raise ModelError(f"unknown model {uri!r}; {nearest(scheme + ':', known)}, or a .safetensors file")
    classifier = Classifier(
        found.module.eval(),
        mean=found.mean if mean is None else mean,
        std=found.std if std is None else std,
        labels=_printable(found.labels if labels is None else labels),
        domain=found.domain,
    )
    try:
        return classifier.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"the model cannot be put on device {str(device)!r}: {error}".splitlines()[0]) from error


def _printable(labels: Sequence[str] | None) -> list[str] | None:
    """Return class names that every table and terminal takes."""
    return None if labels is None else [printable(str(label)) for label in labels]


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of the weights, buffers and normalisation of a classifier, each with its name."""
    digest = hashlib.sha256()
    state = {
        **model.state_dict(),
        **{f"({key})": getattr(model, key) for key in ("mean", "std") if hasattr(model, key)},
    }
    for key, value in sorted(state.items()):
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous()
            digest.update(f"{key} {flat.dtype} {tuple(flat.shape)}\n".encode())
            digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _architecture(query: str) -> str:
    """Return the value of `arch`, the only option of a file of weights."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    for word in options:
        if word != "arch":
            raise ModelError(f"a weights file has no option {word!r}; {nearest(word, ['arch'])}")
    if "arch" not in options:
        raise ModelError(
            f"a weights file needs its architecture, as in FILE.safetensors?arch=NAME; {nearest('', zoo.ZOO)}"
        )
    return options["arch"]


def _from_file(path: Path, name: str) -> LoadedModel:
    """Return the architecture `name` of the zoo with the weights in a file."""
    entry = zoo.entry(name)
    if not path.is_file():
        raise ModelError(f"there is no weights file {str(path)!r}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    module = entry.build()
    wanted = module.state_dict()
    _check_fit(state, wanted, f"{str(path)!r} does not fit {name}")
    module.load_state_dict(state, strict=False)
    return LoadedModel(module, entry.mean, entry.std, zoo.class_names(entry, name, path))


def _check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Raise ModelError if the names or shapes of the weights do not fit the network; `what` begins the message."""
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}  # only training reads this count
    for key in sorted(needed - set(state)):
        raise ModelError(f"{what}: {len(needed - set(state))} parameters are missing, the first is {key!r}")
    for key in sorted(set(state) - set(wanted)):
        raise ModelError(f"{what}: {len(set(state) - set(wanted))} parameters are too many, the first is {key!r}")
    for key, value in sorted(state.items()):
        if value.shape != wanted[key].shape:
            raise ModelError(f"{what}: {key!r} must be {list(wanted[key].shape)}, it is {list(value.shape)}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{str(path)!r} is not a whole safetensors file: {error}".splitlines()[0]) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file, or that under its key `state_dict`, without the prefix of `DataParallel`."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise ModelError(
                f"{str(path)!r} was not opened: its pickle would run {code[1]}; save the weights as safetensors"
            ) from error
        raise ModelError(f"{str(path)!r} is not a file of weights that is safe to open") from error
    except Exception as error:  # a damaged zip file, a truncated pickle, ...
        raise ModelError(f"{str(path)!r} is not a file of weights: {error}".splitlines()[0]) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{str(path)!r} must hold a state dict (names and tensors)")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _from_python(path: str) -> LoadedModel:
    """Return what `package.module:factory` makes; the module may be in the current folder, as with `python -m`."""
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise ModelError(f"python:{path} must be python:package.module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(f"python:{path} cannot be imported: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"module {module_name!r} has no function {attribute!r}; {nearest(attribute, names)}")
    made = factory()
    if isinstance(made, Classifier):
        return LoadedModel(
            made.module, made.mean.flatten().tolist(), made.std.flatten().tolist(), made.labels, made.domain
        )
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"python:{path} must return a torch module or a Classifier, it returned a {type(made).__name__}"
        )
    return LoadedModel(made)


SCHEMES: dict[str, Callable[[str], LoadedModel]] = {
    "zoo": lambda name: _from_file(zoo.weights(name), name),
    "python": _from_python,
    "timm": hubs.timm,
    "torchvision": hubs.torchvision,
    "hf": hubs.hugging_face,
    "onnx": hubs.onnx,
}
