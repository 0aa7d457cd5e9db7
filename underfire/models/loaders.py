"""Load a classifier under test from its URI."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from underfire.classes import printable
from underfire.errors import ModelError, nearest, shown
from underfire.model import Classifier, Ensemble
from underfire.models import programs
from underfire.models.checkpoints import SUFFIXES
from underfire.models.programs import compiled_parts
from underfire.models.schemes import FILES, SCHEMES, Scheme


def load(
    uri: str | Path,
    *,
    device: str | torch.device = "cpu",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    output: str | int | None = None,
) -> Classifier:
    """Return the classifier that `uri` names, in evaluation mode on `device`.

    The URIs are `zoo:NAME`, `FILE?arch=NAME` (weights in `.safetensors`, `.pt`, `.pth` or `.ckpt` of an architecture of
    the zoo, `timm:NAME`, `torchvision:NAME` or `python:package.module:factory`), `FILE` (TorchScript),
    `FILE.pt2?trust=true`, `python:package.module:name` (a module, a `Classifier`, or a function that returns one),
    `timm:NAME`, `torchvision:NAME`, `hf:NAME` and `onnx:FILE`. The options `mean` and `std` may follow each, as in
    `?mean=0.5,0.5,0.5&std=0.25`. The arguments `mean`, `std`, `labels` and `output` (see
    `Classifier`) replace those of the source.

    Raises:
        ModelError: the scheme or the architecture is unknown, the file is missing or damaged, the weights do not fit,
            a pickle contains code, or the user's own code fails.
        MissingExtra: the scheme needs a package that is not installed.
    """
    scheme, rest = _scheme_of(uri)
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    given = {name: _numbers(name, options.pop(name)) for name in ("mean", "std") if name in options}
    known = options if scheme.options is None else scheme.options
    for word in options:
        if word not in known:
            raise ModelError(f"{uri!r} has no option {word!r}; {nearest(word, (*known, 'mean', 'std'))}")
    found = scheme.open(path, options)
    mean = given.get("mean", found.mean) if mean is None else mean
    std = given.get("std", found.std) if std is None else std
    if mean is None or std is None:
        raise ModelError(f"{uri!r} does not say how its images are normalised; give mean and std")
    classifier = Classifier(
        programs.as_module(found.module),
        mean=mean,
        std=std,
        labels=_printable(found.labels if labels is None else labels),
        domain=found.domain,
        output=found.output if output is None else output,
        size=found.size,
    )
    try:
        return classifier.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"the model cannot be put on device {str(device)!r}: {error}".splitlines()[0]) from error


def _printable(labels: Sequence[str] | None) -> list[str] | None:
    """Return class names that every table and terminal takes."""
    return None if labels is None else [printable(str(label)) for label in labels]


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of the weights, buffers and normalisation of a classifier, each with its name.

    Of an ensemble, the way in which its members are fused counts too.
    """
    digest = hashlib.sha256()
    state = {
        **model.state_dict(),
        **{f"({key})": getattr(model, key) for key in ("mean", "std") if hasattr(model, key)},
    }
    if isinstance(model, Ensemble):
        state |= {f"({key})": getattr(model.module, key) for key in ("fuse", "weights", "scales")}
        state |= {f"({n}.{key})": getattr(m, key) for n, m in enumerate(model.members) for key in ("mean", "std")}
    for key, value in sorted(state.items()):
        digest.update(f"{key} ".encode() + content_of(value))
    for part in compiled_parts(model):
        digest.update(part.save_to_buffer())
    return digest.hexdigest()


def content_of(value: Any) -> bytes:
    """Return bytes that stand for a value of a state: a tensor, or a tuple of tensors, as quantised layers keep."""
    if isinstance(value, (tuple, list)):
        return b"".join(content_of(item) for item in value)
    if not isinstance(value, Tensor):
        return f"{value}\n".encode() if isinstance(value, (bool, int, float, str, torch.dtype)) else b""
    plain = (value.dequantize() if value.is_quantized else value).detach().cpu().contiguous()
    numbers: bytes = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{value.dtype} {tuple(value.shape)}\n".encode() + numbers


def _scheme_of(uri: str | Path) -> tuple[Scheme, str]:
    """Return the scheme of a URI and what follows it; a file without a scheme is known by the end of its name."""
    if isinstance(uri, Path):
        uri = str(uri)
    if not isinstance(uri, str):
        raise ModelError(f"a model is named by a text such as 'zoo:cluttered_digits' or a path, got {shown(uri)}")
    name, colon, rest = uri.partition(":")
    if colon and name in SCHEMES:
        return SCHEMES[name], rest
    suffix = Path(uri.partition("?")[0]).suffix
    if suffix == ".onnx":
        return SCHEMES["onnx"], uri
    if suffix in (*SUFFIXES, *programs.SUFFIXES):
        return FILES, uri
    schemes, files = [f"{scheme}:" for scheme in SCHEMES], (*SUFFIXES, *programs.SUFFIXES, ".onnx")
    raise ModelError(f"unknown model {uri!r}; {nearest(f'{name}:', schemes)}, or a file ({', '.join(files)})")


def _numbers(name: str, text: str) -> list[float]:
    """Return the numbers of `mean` or `std` in a URI."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ModelError(f"{name} must be a number, or one per channel ({name}=0.5,0.5,0.5), got {text!r}") from None
