"""The number that is explained: the logit of a class, or the activation of an inner neuron."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from underfire.errors import DataError, InputError, ModelError
from underfire.hooks import activations, as_maps
from underfire.hooks.networks import version
from underfire.validate import deferred

# The classes that were compared with the number of a model's classes, so that the steps of an attack, which explain the
# same classes, wait for the device only once: their version, and that number.
_CHECKED = WeakTensorKeyDictionary()


def check_y(x: Tensor, y: Tensor) -> None:
    """Raise DataError unless `y` holds one class, int64, for each row of `x` `[B, ...]`, on the same device."""
    if y.shape != (len(x),) or y.dtype != torch.int64:
        raise DataError(f"classes to explain must be int64 [{len(x)}], got {y.dtype} {tuple(y.shape)}")
    if y.device != x.device:
        raise DataError(f"classes to explain are on {y.device}, but the images on {x.device}; move them there")


def class_score(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of class `y` of every row of `logits`, `[B]`.

    Raises:
        DataError: `y` does not fit the logits.
    """
    check_y(logits, y)
    checked = version(y), logits.shape[1]
    if not deferred() and _CHECKED.get(y) != checked:  # an attack checked its classes before its steps
        least, most = (int(y.min()), int(y.max())) if len(y) else (0, 0)
        if least < 0 or most >= logits.shape[1]:
            raise DataError(f"class {least if least < 0 else most} is outside the model's {logits.shape[1]} classes")
        _CHECKED[y] = checked
    return logits.gather(1, y[:, None]).squeeze(1)


def score(model: nn.Module, x: Tensor, y: Tensor, neuron: str | None = None, output: str = "logit") -> Tensor:
    """Return the number that is explained, `[B]`: the output for class `y`, or the activation of an inner neuron.

    Args:
        neuron: None explains the class. `"LAYER:UNIT"` is the mean of channel UNIT over space if the layer has feature
            maps (see `hooks.layout_of`), or the unit itself if its output is `[B, D]`. `"LAYER:UNIT,ROW,COLUMN"` is one
            place of a feature map. With a neuron, `y` is checked but has no effect, nor has `output`.
        output: `"logit"` or `"probability"`.

    Raises:
        InputError: the neuron is malformed or outside the layer. ModelError: there is no such layer, or a row and a
            column are given but its output is `[B, D]`. Unsupported: its output is neither feature maps nor `[B, D]`.
    """
    if neuron is None:
        logits = model(x)
        return class_score(logits.softmax(1) if output == "probability" else logits, y)
    # parse LAYER:UNIT or LAYER:UNIT,ROW,COLUMN
    name, colon, numbers = neuron.rpartition(":")
    place = tuple(int(part) for part in numbers.split(",") if part.strip().isdecimal())
    if not colon or len(place) not in (1, 3) or len(place) != len(numbers.split(",")):
        raise InputError(f"neuron must be LAYER:UNIT or LAYER:UNIT,ROW,COLUMN, such as 'layer2.0:5', got {neuron!r}")
    # read the layer
    logits, outputs = activations(model, x, [name])
    class_score(logits, y)
    activation = as_maps(model, x, name, outputs[name])
    if len(place) == 3 and activation.dim() == 2:
        raise ModelError(f"neuron {neuron!r}: layer {name!r} gives {tuple(activation.shape)}, without rows and columns")
    if any(i >= n for i, n in zip(place, activation.shape[1:], strict=False)):
        raise InputError(
            f"neuron {neuron!r} is outside layer {name!r}, which gives {tuple(activation.shape[1:])} an image"
        )
    chosen = activation[:, place[0]]
    if len(place) == 3:
        return chosen[:, place[1], place[2]]
    return chosen.mean((1, 2)) if chosen.dim() == 3 else chosen
