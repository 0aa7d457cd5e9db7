"""Open models of timm, torchvision, the Hugging Face hub and ONNX files; each package is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from torch import Tensor, nn

from underfire.domains import IMAGES, Domain
from underfire.errors import MissingExtra, ModelError, nearest


@dataclass(frozen=True)
class LoadedModel:
    """A network with the normalisation and the class names that its source states.

    Attributes:
        module: the network.
        mean: subtracted from images, a number or one per channel.
        std: divides images after that.
        labels: class names; None where the source has none.
        domain: the kind of input.
    """

    module: nn.Module
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    labels: Sequence[str] | None = None
    domain: Domain = IMAGES


def timm(name: str) -> LoadedModel:
    """Return a pretrained model of timm, with the normalisation that its configuration states."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtra("timm") from error
    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}; {_nearest(name, timm.list_models())}")
    module = _build(f"timm:{name}", lambda: timm.create_model(name, pretrained=True))
    return LoadedModel(module, module.pretrained_cfg["mean"], module.pretrained_cfg["std"])


def torchvision(name: str) -> LoadedModel:
    """Return a model of torchvision with its best published weights, their normalisation and class names."""
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra("torchvision") from error
    if name not in models.list_models():
        raise ModelError(f"torchvision has no model {name!r}; {_nearest(name, models.list_models())}")
    weights = models.get_model_weights(name).DEFAULT
    module = _build(f"torchvision:{name}", lambda: models.get_model(name, weights=weights))
    preset = weights.transforms()
    return LoadedModel(module, preset.mean, preset.std, weights.meta.get("categories"))


def hugging_face(name: str) -> LoadedModel:
    """Return an image classifier of the Hugging Face hub, with its processor's normalisation and its class names.

    Args:
        name: its name on the hub, or a folder; `?revision=` may follow, a branch, a tag or a commit of the hub.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers") from error
    uri, (name, _, query) = f"hf:{name}", name.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for word in set(options) - {"revision"}:
        raise ModelError(f"hf: has no option {word!r}; {nearest(word, ['revision'])}")
    module = _build(uri, lambda: transformers.AutoModelForImageClassification.from_pretrained(name, **options))
    processor = _build(uri, lambda: transformers.AutoImageProcessor.from_pretrained(name, **options))
    names = module.config.id2label
    labels = [names[i] for i in range(len(names))]
    if not getattr(processor, "do_normalize", True):
        return LoadedModel(_Logits(module), labels=labels)
    return LoadedModel(_Logits(module), processor.image_mean, processor.image_std, labels)


def onnx(path: str) -> LoadedModel:
    """Return an ONNX file as a torch module without normalisation; `load` takes `mean` and `std` if it needs them."""
    if not Path(path).is_file():
        raise ModelError(f"there is no file {path!r}, given as onnx:FILE")
    try:
        import onnx2torch
    except ImportError as error:
        raise MissingExtra("onnx2torch", "onnx") from error
    return LoadedModel(_build(f"onnx:{path}", lambda: onnx2torch.convert(path)))


class _Logits(nn.Module):
    """A wrapper that returns the logits of a transformers model, whose own output is a record."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).logits
        return logits


def _build(uri: str, make: Any) -> Any:
    """Return `make()`; raise ModelError if it fails."""
    try:
        return make()
    except Exception as error:  # a client of a hub raises errors of many kinds
        raise ModelError(f"{uri} cannot be loaded: {error}".splitlines()[0]) from error


def _nearest(name: str, names: Sequence[str]) -> str:
    """Return the suggestion of the nearest name, without the list of hundreds of others."""
    return nearest(name, names).partition("Choices:")[0].strip() or f"it has {len(names)} others"
