"""The schemes of model URIs: the function that opens each, and the forms that the documentation lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from underfire import own_code
from underfire.errors import ModelError, nearest
from underfire.model import Classifier
from underfire.models import checkpoints, hubs, onnx_files, programs, zoo
from underfire.models.heads import with_classes
from underfire.models.hubs import LoadedModel, Options


@dataclass(frozen=True)
class Scheme:
    """A scheme of URIs.

    Attributes:
        open: returns the model for what follows the scheme and for the options after the question mark.
        form: how a URI is written.
        meaning: what it names; a sentence for the documentation.
        options: the options that may follow, beside `mean` and `std`; None if they are passed on.
    """

    open: Callable[[str, Options], LoadedModel]
    form: str
    meaning: str
    options: tuple[str, ...] | None = ()


# --- files ---


def _from_file(name: str, options: Options) -> LoadedModel:
    """Return the network of a file: of weights, with its architecture, or of a program."""
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"there is no file {name!r}")
    kind = programs.kind_of(path) or ("pt2" if path.suffix == ".pt2" else None)
    if kind is None:
        return _from_weights(path, options)
    allowed = ("trust",) if kind == "pt2" else ()
    for word in options:
        if word not in allowed:
            what = "a file of torch.export" if kind == "pt2" else "a TorchScript network"
            raise ModelError(f"{name!r} is {what}, which holds its architecture and its weights; leave out {word}=")
    if kind == "torchscript":
        return LoadedModel(programs.torchscript(path))
    if options.get("trust") != "true":
        raise ModelError(
            f"opening {name!r} can run code that is in it; if you know who made it, say {name}?trust=true; "
            "safetensors, TorchScript and ONNX need no trust"
        )
    return LoadedModel(programs.exported(path))


def _from_weights(path: Path, options: Options) -> LoadedModel:
    """Return an architecture with the weights in a file."""
    rest = dict(options)
    name, key, prefix = (rest.pop(word, None) for word in ("arch", "key", "prefix"))
    if name is None:
        for word in rest:
            raise ModelError(f"a weights file has no option {word!r}; {nearest(word, ('arch', 'key', 'prefix'))}")
        raise ModelError(
            f"a weights file needs its architecture, as in FILE.safetensors?arch=NAME, arch=timm:NAME or "
            f"arch=torchvision:NAME; {nearest('', zoo.ZOO)}"
        )
    found = _architecture(name, rest, path)
    checkpoints.put(checkpoints.read(path, key), found.module, f"{str(path)!r} does not fit {name}", prefix)
    return found


def _architecture(name: str, options: Options, path: Path) -> LoadedModel:
    """Return the network that `arch` names, with weights that will be replaced by those in `path`."""
    scheme, colon, rest = name.partition(":")
    if colon and scheme in ("timm", "torchvision"):
        found = SCHEMES[scheme].open(rest, {**options, "pretrained": "false"})
        return LoadedModel(found.module, found.mean, found.std, size=found.size)
    if colon and scheme == "python":
        return SCHEMES[scheme].open(rest, options)
    own = dict(options)
    classes = own.pop("num_classes", None)
    for word in own:
        known = "arch, key, prefix and num_classes"
        raise ModelError(f"arch={name} has no option {word!r}; a weights file has the options {known}")
    entry = zoo.entry(name)
    network = entry.build()
    if entry.side and entry.side >= 32:
        # convolutions are faster in this layout
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = None if entry.side is None else (entry.side, entry.side)
    if classes is None:
        return LoadedModel(network, entry.mean, entry.std, zoo.class_names(entry, name, path), size=size)
    if not classes.isdecimal() or len(classes) > 9:
        raise ModelError(f"num_classes must be a number, got {classes[:20]!r}")
    # a network with another number of classes has its own names, in a file beside its weights, or none
    headed = with_classes(network, int(classes))
    return LoadedModel(headed, entry.mean, entry.std, zoo.listed_names(path), size=size)


# --- code of the user ---


def _from_python(path: str, options: Options) -> LoadedModel:
    """Return the module or Classifier `package.module:name`, or the one that the function of this name makes."""
    uri = f"python:{path}"
    made = own_code.find(uri, ModelError)
    if isinstance(made, nn.Module):
        for word in options:
            raise ModelError(f"{uri} is a module and takes no arguments; leave out {word}=")
    elif callable(made):
        made = own_code.call(uri, made, options, ModelError)
    else:
        raise ModelError(f"{uri} must be a torch module or a function that returns one, it is {type(made).__name__}")
    if isinstance(made, Classifier):
        mean, std = made.mean.flatten().tolist(), made.std.flatten().tolist()
        return LoadedModel(made.module, mean, std, made.labels, made.domain, made.output, made.size)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{uri} must return a torch module or a Classifier, it returned {type(made).__name__}")
    return LoadedModel(made)


_ARCH = (
    "weights in a file, in an architecture of underfire, `timm:NAME`, `torchvision:NAME` or "
    "`python:package.module:factory`; further options go to the function that builds it (`&num_classes=10`)"
)

SCHEMES: dict[str, Scheme] = {
    "zoo": Scheme(
        lambda name, _: _from_weights(zoo.weights(name), {"arch": name}),
        "zoo:NAME",
        "a network of an architecture in underfire, with published weights",
    ),
    "python": Scheme(
        _from_python,
        "python:package.module:name?argument=value",
        "a torch module, a `Classifier`, or what the function of this name returns for these arguments",
        None,
    ),
    "timm": Scheme(hubs.timm, "timm:NAME", "a model of timm; `?pretrained=false` leaves the weights random", None),
    "torchvision": Scheme(
        hubs.torchvision, "torchvision:NAME", "a model of torchvision; `?pretrained=false` as for timm", None
    ),
    "hf": Scheme(
        hubs.hugging_face,
        "hf:NAME?revision=COMMIT",
        "an image classifier of the Hugging Face hub, or the folder of one; without a processor it needs `mean`, `std`",
        ("revision",),
    ),
    "onnx": Scheme(
        onnx_files.onnx, "onnx:FILE", "an ONNX file, with gradients if it can be converted to torch, else a black box"
    ),
}

FILES = Scheme(_from_file, "FILE", "a file, known by the end of its name", None)

FORMS: tuple[tuple[str, str], ...] = (
    *((SCHEMES[name].form, SCHEMES[name].meaning) for name in ("zoo",)),
    ("FILE?arch=NAME", _ARCH),
    ("FILE.pt", "a network of TorchScript"),
    ("FILE.pt2?trust=true", "a network of `torch.export`; opening it can run code that is in the file"),
    *((scheme.form, scheme.meaning) for name, scheme in SCHEMES.items() if name != "zoo"),
)
"""Every form of a model URI with its meaning, in the order of the documentation."""
