"""Read tensors that a network computes outside its layers: functions of a layer's output, and inputs of an average.

The result of a function, such as ReLU, has the name of the layer, `+` and the name of the function, such as
`features.norm5+relu` in a DenseNet. The input of the last average over space may be a sum or a concatenation of several
outputs; its name is `AVERAGED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.hooks.rectifiers import OTHERS, Recogniser, name_of

#: Stands between the name of a layer and that of a function.
APPLIED = "+"
#: The name of the tensor whose places the network averages last.
AVERAGED = f"{APPLIED}averaged"
# Functions of single activations, by name.
_FUNCTIONS = OTHERS | {"relu", "relu6", "leaky_relu", "hardtanh", "prelu", "threshold", "clamp"}


# Functions that may average over space.
_AVERAGES = {"mean", "adaptive_avg_pool2d", "avg_pool2d"}


class AppliedFunctions(TorchFunctionMode):
    """Watch the outputs of layers and the functions of torch.

    `applied` is called for every activation function that is applied to an output, `averaged` for every average over
    all places of a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[int, tuple[str, Tensor]] = {}
        self._recogniser = Recogniser()

    def watch(self, name: str, output: Tensor) -> None:
        """Watch the output of a layer."""
        self._watched[id(output)] = name, output

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Return the tensor that replaces `result`, the value of `function` for the output of layer `name`."""
        raise NotImplementedError

    def averaged(self, x: Tensor, dimensions: tuple[int, ...]) -> Tensor:
        """Return the tensor that replaces `x`, which the network averages over `dimensions`, all places of an image."""
        return x

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, function = kwargs or {}, name_of(func).rstrip("_")
        if function in _AVERAGES and (dimensions := _places(function, args, kwargs)):
            return func(self.averaged(args[0], dimensions), *args[1:], **kwargs)
        # the input: of an activation by its name, or of a rectifier in any form
        z = (args[0] if args else kwargs.get("input")) if function in _FUNCTIONS else None
        if z is None and (found := self._recogniser.find(func, args, kwargs)) is not None:
            z = found.z
        result = func(*args, **kwargs)
        self._recogniser.note(func, args, result)
        name, output = self._watched.get(id(z), ("", None))
        return result if output is None or not isinstance(result, Tensor) else self.applied(name, function, result)


def _places(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """Return the dimensions over which a call averages if these are all places of an image, or else `()`."""
    x = args[0] if args else None
    if not isinstance(x, Tensor) or x.dim() not in (3, 4):
        return ()
    given = args[1] if len(args) > 1 else next(iter(kwargs.values()), None)
    numbers = (given,) if isinstance(given, int) else tuple(given) if isinstance(given, (tuple, list)) else ()
    if function == "mean":
        dimensions = tuple(sorted(number % x.dim() for number in numbers))
        return dimensions if dimensions in (((1,),) if x.dim() == 3 else ((1, 2), (2, 3))) else ()
    sides = numbers * 2 if len(numbers) == 1 else numbers
    whole = (1, 1) if function == "adaptive_avg_pool2d" else tuple(x.shape[2:])
    return (2, 3) if x.dim() == 4 and sides == whole else ()
