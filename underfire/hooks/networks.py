"""Look at a network: unwrap it, freeze it, find its layers by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError, Unsupported, nearest
from underfire.hooks.applied import APPLIED, AVERAGED


def unwrap(model: nn.Module, *, into_defenses: bool = True) -> nn.Module:
    """Return the user's module inside any number of classifiers and parallel wrappers.

    Args:
        into_defenses: if false, the first defence is returned, since the module behind it gets other images.
    """
    while into_defenses or not getattr(model, "changes_images", False):
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(type(model), "wrapped", None), property):
            # a Classifier, which this module may not import
            model = model.wrapped  # type: ignore[assignment]
        else:
            break
    return model


def channels_of(model: nn.Module) -> int | None:
    """Return the number of channels of the images that a model takes, or None if its layers do not tell.

    The first convolution tells it; or, where a linear layer reads the pixels of square images, its number of inputs.
    """
    layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    convolution = next((module for module in layers if isinstance(module, nn.Conv2d)), None)
    if convolution is not None:
        return convolution.in_channels
    inputs = layers[0].in_features if layers and isinstance(layers[0], nn.Linear) else 0
    return next((c for c in (1, 3) if inputs and inputs == c * isqrt(inputs // c) ** 2), None)


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """Set evaluation mode and switch off gradients of the weights inside the block, and restore both at its end.

    A model that is not an `nn.Module` stays as it is.
    """
    root = model if isinstance(model, nn.Module) else nn.Identity()
    modes = [(module, module.training) for module in root.modules()]
    wanted = [parameter for parameter in root.parameters() if parameter.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in wanted:
            parameter.requires_grad_(True)


def readable_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of a model with their names; those inside a compiled part have no hooks and are left out.

    Raises:
        Unsupported: the whole model is compiled, or is a function and no `nn.Module`.
    """
    core: object = unwrap(model)
    if not isinstance(core, nn.Module):
        raise Unsupported(
            f"a model that is a {type(core).__name__} has no layers to read; give an nn.Module, or choose an "
            "interpreter that reads no layer, such as occlusion, rise or lime"
        )
    if isinstance(core, torch.jit.ScriptModule):
        raise Unsupported(
            "the layers of a model that torch.jit compiled cannot be read; give the model that it was compiled from, "
            "or choose an interpreter that reads no layer, such as gradient"
        )
    return [(key, m) for key, m in core.named_modules() if key and not isinstance(m, torch.jit.ScriptModule)]


def layer(model: nn.Module, name: str) -> nn.Module:
    """Return the layer called `name`; of `NAME+FUNCTION`, a function of a layer's output, it is the layer `NAME`.

    Raises:
        ModelError: there is none; the message suggests the nearest name and lists all. Unsupported: the model is
            compiled.
    """
    return find_layer(model, name)[1]


def find_layer(model: nn.Module, name: str) -> tuple[str, nn.Module, str | None]:
    """Return the name of a layer, the layer, and the function of its output that is read, or None.

    What the network averages has the network itself as its layer, with an empty name.
    """
    layers = dict(readable_layers(model))
    if name == AVERAGED:
        return "", unwrap(model), AVERAGED
    before, plus, function = name.rpartition(APPLIED)
    if name not in layers and plus and before in layers:
        return before, layers[before], function
    if name not in layers:
        raise ModelError(f"the model has no layer {name!r}; {nearest(name, layers)}")
    return name, layers[name], None


def version(t: Tensor) -> int:
    """Return how often a tensor was written to; 0 for one that was made in inference mode, which is not counted."""
    return 0 if t.is_inference() else t._version


def is_compiled(model: object) -> bool:
    """Return whether `torch.jit` compiled a part of the model, whose layers take no hooks."""
    return isinstance(model, nn.Module) and any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())


def hides_functions(model: object) -> bool:
    """Return whether `torch.jit` or `torch.compile` compiled a part of the model, whose functions cannot be changed."""
    return is_compiled(model) or (
        isinstance(model, nn.Module) and any(hasattr(module, "_orig_mod") for module in model.modules())
    )


def refuse_compiled(model: object, method: str) -> None:
    """Raise Unsupported if `torch.compile` or `torch.jit` compiled a part of the model, whose calls cannot be seen."""
    if hides_functions(model):
        raise Unsupported(
            f"{method} follows every operation of a network, which torch.compile and torch.jit hide; give the model "
            "that it was compiled from, or use integrated_gradients"
        )


def varies(value: object) -> bool:
    """Return whether a value in a pass may depend on the image: a tensor that has a gradient and is not a weight."""
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


@contextmanager
def remove_at_exit(handle: Any) -> Iterator[None]:
    """Remove a hook at the end of the block."""
    try:
        yield
    finally:
        handle.remove()
