"""Open models of timm, torchvision and the Hugging Face hub; each package is an extra."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from underfire.domains import IMAGES, Domain
from underfire.errors import ModelError, ModelNotice, nearest
from underfire.extras import declare_missing_operators, import_extra
from underfire.own_code import literal

Options = Mapping[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A network with the normalisation and the class names that its source states.

    Attributes:
        module: the network.
        mean: subtracted from images, a number or one per channel; None if the source should state it and does not.
        std: the divisor of images after that, a number or one per channel; None as for `mean`.
        labels: class names; None if the source states no names.
        domain: the kind of input.
        output: how the logits are read from the output of the network, see `Classifier`.
        size: height and width of the images that it was made for; None if the source does not state it.
    """

    module: nn.Module
    mean: float | Sequence[float] | None = 0.0
    std: float | Sequence[float] | None = 1.0
    labels: Sequence[str] | None = None
    domain: Domain = IMAGES
    output: str | int | None = None
    size: tuple[int, int] | None = None


def timm(name: str, options: Options) -> LoadedModel:
    """Return a model of timm with the normalisation of its configuration; the options are those of `create_model`."""
    package = import_extra("timm")
    if "/" not in name and not package.is_model(name):
        raise ModelError(f"timm has no model {name!r}; {_nearest(name, package.list_models())}")
    given = {"pretrained": True, **_values(options)}
    module = quietly(f"timm:{name}", lambda: package.create_model(name, **given))
    published, wanted = module.pretrained_cfg.get("num_classes"), given.get("num_classes")
    if given["pretrained"] and None not in (published, wanted) and published != wanted:
        warnings.warn(
            f"timm:{name} was trained for {published} classes: its layer for {wanted} is random; for your weights: "
            f"FILE?arch=timm:{name}&num_classes={wanted}",
            ModelNotice,
            stacklevel=2,
        )
    published = module.pretrained_cfg
    _, *size = published.get("input_size") or (None,)
    return LoadedModel(module, published["mean"], published["std"], size=(size[0], size[1]) if size else None)


def torchvision(name: str, options: Options) -> LoadedModel:
    """Return a model of torchvision with its best published weights, their normalisation and class names.

    The option `pretrained=false` leaves the weights random; others are those of torchvision's `get_model`.
    """
    models = import_extra("torchvision.models")
    if name not in models.list_models():
        raise ModelError(f"torchvision has no model {name!r}; {_nearest(name, models.list_models())}")
    published = models.get_model_weights(name).DEFAULT
    given = _values(options)
    weights = published if given.pop("pretrained", True) else None
    module = quietly(f"torchvision:{name}", lambda: models.get_model(name, weights=weights, **given))
    preset = published.transforms()
    if not hasattr(preset, "mean"):
        raise ModelError(f"torchvision:{name} is not an image classifier")
    labels = weights.meta.get("categories") if weights else None
    side = getattr(preset, "crop_size", [None])[0]
    return LoadedModel(module, preset.mean, preset.std, labels, size=None if side is None else (side, side))


def hugging_face(name: str, options: Options) -> LoadedModel:
    """Return an image classifier of the Hugging Face hub or of a folder, with its normalisation and class names.

    The option `revision` names a commit, a branch or a tag. Code that comes with a model is not run. `mean` and `std`
    are None where no processor comes with the model.
    """
    declare_missing_operators()
    transformers = import_extra("transformers")
    given = {"trust_remote_code": False, **options}
    kind = transformers.AutoModelForImageClassification
    module, found = quietly(f"hf:{name}", lambda: kind.from_pretrained(name, output_loading_info=True, **given))
    if found["missing_keys"]:  # transformers makes them random, and only warns
        first, count = sorted(found["missing_keys"])[0], len(found["missing_keys"])
        raise ModelError(
            f"hf:{name} is not a trained image classifier: {count} parameters are missing ({first!r}, ...)"
        )
    names = module.config.id2label
    labels = [names[i] for i in range(len(names))]
    try:
        processor = quietly(f"hf:{name}", lambda: transformers.AutoImageProcessor.from_pretrained(name, **given))
    except ModelError:
        return LoadedModel(_Logits(module), None, None, labels)
    return LoadedModel(_Logits(module), *_normalisation(processor), labels)


def _normalisation(processor: Any) -> tuple[list[float], list[float]]:
    """Return mean and std for images in `[0, 1]`, where a processor scales pixels from 0 to 255 and normalises them."""
    scaled = getattr(processor, "do_rescale", True)
    scale = 255 * (getattr(processor, "rescale_factor", 1 / 255) if scaled else 1)
    shift = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    plain = not getattr(processor, "do_normalize", True)
    mean, std = ([0.0], [1.0]) if plain else (list(processor.image_mean), list(processor.image_std))
    return [(value + shift) / scale for value in mean], [value / scale for value in std]


class _Logits(nn.Module):
    """A wrapper that returns the logits of a transformers model, whose own output is a record."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).logits
        return logits


def quietly(uri: str, make: Callable[[], Any]) -> Any:
    """Return `make()` without the warnings of its package; raise ModelError if it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except Exception as error:  # a client of a hub raises errors of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{uri} cannot be loaded: {lines[0][:300]}") from error


def _values(options: Options) -> dict[str, Any]:
    return {name: literal(text) for name, text in options.items()}


def _nearest(name: str, names: Sequence[str]) -> str:
    """Return the suggestion of the nearest name, without the list of hundreds of others."""
    return nearest(name, names).partition("Choices:")[0].strip() or f"it has {len(names)} others"
